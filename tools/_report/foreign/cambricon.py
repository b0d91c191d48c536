"""Cambricon's PyTorch classification, on stdout, with tabs and without time stamps.

Train: [36][  10/2503]	Loss 2.1374e+00 (2.2046e+00)	Acc@1  51.56 ( 50.31)	…
Test: [36][ 10/782]	Acc@1  51.56 ( 50.31)	Acc@5  82.81 ( 80.02)
 * Acc@1 72.320 Acc@5 90.900
and JSON objects of its metric collector, each over several lines or on one:
{ "date": …, "net": …, "batch_size": 64, "cards": 4, "precision": "amp", "DPF_mode": "ddp",
  "batch_time_avg": 0.2, "throughput": 1280.0, "device": …, "dataset": … }
"""

from __future__ import annotations

import json
import math
import re

from .formats import Feed, Format
from .lines import Line
from .record import Sink
from .starts import BadRecord
from .torch_imagenet import TOTAL
from .values import NUMBER, decimal

_TRAIN = re.compile(r"\bTrain:\s*\[(\d+)\]\[\s*(\d+)/(\d+)\]")
_TEST = re.compile(r"\bTest:\s*\[(\d+)\]\[\s*\d+/\d+\]")
_METER = rf"\s+{NUMBER}\s*\(\s*{NUMBER}\)"
_LOSS, _TIME = re.compile(r"\bLoss" + _METER), re.compile(r"\bTime" + _METER)
_LR = re.compile(r"\b[Ll][Rr][:\s]+" + NUMBER)
_FACTS = {
    "net": "model",
    "cards": "cards",
    "precision": "precision",
    "device": "device",
    "dataset": "data",
    "batch_size": "batch_size",
}
_LONGEST = 100  # lines of one object


def reader(sink: Sink) -> Feed:
    """Epochs from 0. `throughput` is all cards' and of the training above it."""
    held: list[str] = []
    trained: int | None = None
    tested: int | None = None

    def metrics(text: str) -> None:
        try:
            said = json.loads(text)
        except ValueError:
            raise BadRecord("not a JSON object") from None
        if not isinstance(said, dict) or "throughput" not in said:
            return
        for key, name in _FACTS.items():
            value = said.get(key)
            if isinstance(value, str | int | float) and not isinstance(value, bool):
                sink.fact(name, value.strip() if isinstance(value, str) else value)
        rate = said["throughput"]
        if isinstance(rate, bool) or not isinstance(rate, int | float):
            raise BadRecord("throughput is not a number")
        if trained is not None and math.isfinite(rate) and rate > 0:
            sink.train(trained, whole=True, rate=float(rate), scope="all cards")

    def feed(line: Line) -> None:
        nonlocal trained, tested
        text = line.text
        if text.startswith("{") or held:
            if text.startswith("{"):
                held.clear()
            held.append(text)
            if text.rstrip().endswith("}"):
                whole = "\n".join(held)
                held.clear()
                metrics(whole)
                return
            if len(held) < _LONGEST and not _TRAIN.search(text):
                return
            held.clear()
        found = _TRAIN.search(text)
        if found:
            epoch, step, steps = (int(group) for group in found.groups())
            loss, time, lr = (p.search(text) for p in (_LOSS, _TIME, _LR))
            trained, tested = epoch, None
            sink.train(
                epoch,
                step=step,
                fraction=(step + 1) / steps,
                loss=decimal(loss[2]) if loss else None,
                mean=True,
                lr=decimal(lr[1]) if lr else None,
                step_s=decimal(time[2]) if time else None,
                rate_mean=True,
            )
            return
        found = _TEST.search(text)
        if found:
            tested = int(found[1])
            return
        found = TOTAL.search(text)
        if found:
            sink.eval(tested, top1=decimal(found[1]), top5=decimal(found[2]))

    return feed


FORMATS = [
    Format(
        key="cambricon",
        title="Cambricon PyTorch classification",
        gives=("training loss", "top-1 and top-5", "images/s, all cards, where it is appended"),
        lacks={"one hour": "no time stamps", "learning rate": "not printed"},
        signature=re.compile(r'\b(?:Train|Test):\s*\[\d+\]\[\s*\d+/\d+\]\s|"DPF_mode"\s*:'),
        reader=reader,
        base=0,
    )
]
