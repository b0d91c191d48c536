"""PyTorch's imagenet example (`main.py`), on stdout.

Epoch: [0][  10/5005]	Time  0.465 ( 1.153)	Data  0.001 ( 0.641)	Loss 7.0e+00 (7.1e+00)	…
Test: [ 10/782]	Time …	Acc@1  51.56 ( 50.31)	Acc@5  82.81 ( 80.02)
 * Acc@1 72.320 Acc@5 90.900
Older versions write `Prec@1`, and no space inside brackets. Time is seconds a step of this process.
"""

from __future__ import annotations

import re

from .formats import Feed, Format
from .lines import Line
from .record import Sink
from .values import NUMBER, decimal

_TRAIN = re.compile(r"Epoch:?\s*\[(\d+)\]\s*\[\s*(\d+)/(\d+)\]\s")
_METER = rf"\s+[^\s(]+\s*\(\s*{NUMBER}\)"  # the mean so far is in parentheses
_TIME = re.compile(r"\bTime" + _METER)
_DATA = re.compile(r"\bData" + _METER)
_LOSS = re.compile(r"\bLoss" + _METER)
_METERS = re.compile(rf"\s*Time{_METER}\s+Data{_METER}\s+Loss{_METER}")
_LR = re.compile(r"\b[Ll][Rr][:\s]+" + NUMBER)
TOTAL = re.compile(rf"\*\s+(?:Acc|Prec)@1:?\s+{NUMBER}\s+(?:Acc|Prec)@5:?\s+{NUMBER}")
_MODEL = re.compile(r"=> (?:creating model|using pre-trained model) '([^']+)'")
_LOADED = re.compile(r"=> loaded checkpoint '([^']*)'")


def _mean(pattern: re.Pattern[str], text: str) -> str | None:
    found = pattern.search(text)
    return found[1] if found else None


def reader(sink: Sink) -> Feed:
    """Epochs from 0; a train line's loss in parentheses is the mean over the epoch so far."""

    def feed(line: Line) -> None:
        text = line.text
        found = _TRAIN.search(text)
        if found:
            epoch, step, steps = (int(group) for group in found.groups())
            meters = _METERS.match(text, found.end())
            if meters:  # as the example prints them; forks leave some out
                time, data, loss = meters[1], meters[2], meters[3]
            else:
                time, data, loss = (_mean(pattern, text) for pattern in (_TIME, _DATA, _LOSS))
            lr = _LR.search(text) if "LR" in text or "lr" in text else None
            seconds = decimal(time) if time else None
            waited = decimal(data) / seconds if data and seconds else None
            sink.train(
                epoch,
                step=step,
                fraction=(step + 1) / steps,
                loss=decimal(loss) if loss else None,
                mean=True,
                lr=decimal(lr[1]) if lr else None,
                step_s=seconds,
                rate_mean=True,
                wait_share=waited,
            )
            return
        found = TOTAL.search(text)
        if found:
            sink.eval(None, top1=decimal(found[1]), top5=decimal(found[2]))
            return
        found = _MODEL.search(text)
        if found:
            sink.start()
            sink.fact("model", found[1])
            return
        found = _LOADED.search(text)
        if found:
            sink.fact("resumed_from", found[1])

    return feed


FORMATS = [
    Format(
        key="torch-imagenet",
        title="PyTorch, imagenet example",
        gives=("training loss", "top-1 and top-5", "seconds a step", "data wait"),
        lacks={
            "throughput": "no batch size in the log",
            "one hour": "no time stamps",
            "learning rate": "not printed",
        },
        signature=re.compile(r"\bEpoch:?\s*\[\d+\]\s*\[\s*\d+/\d+\]\s+Time\s"),
        scores=re.compile(rf"\bTest:\s*\[\s*\d+/\d+\]\s*Time\s|{TOTAL.pattern}"),
        reader=reader,
        base=0,
    )
]
