"""mmpretrain and mmcls: the text log, `vis_data/scalars.json` and the older `*.log.json`.

… - mmengine - INFO - Epoch(train) [1][ 100/1252]  lr: 1.0e-01  eta: 1 day, 2:03:04  time: 0.35
        data_time: 0.01  memory: 5000  loss: 6.9                                 (one line)
… - mmengine - INFO - Epoch(val) [1][98/98]    accuracy/top1: 20.1  accuracy/top5: 40.2
… - mmcls - INFO - Epoch [1][100/1252]	lr: 1.0e-01, eta: 2:03:04, time: 0.35, loss: 6.9
… - mmcls - INFO - Epoch(val) [1][98]	accuracy_top-1: 20.1, accuracy_top-5: 40.2
{"lr": 0.1, "data_time": 0.01, "loss": 6.9, "time": 0.35, "epoch": 1, "iter": 100, "step": 100}
{"accuracy/top1": 20.1, "accuracy/top5": 40.2, "step": 1}
{"mode": "val", "epoch": 1, "iter": 98, "lr": 0.1, "accuracy_top-1": 20.1}
Loss and time are of the lines' windows; the step of a line with scores is the epoch. Accuracies are
in percent; `acc/top1`, of mmaction2, is a fraction.
"""

from __future__ import annotations

import re
from typing import Any

from .formats import Feed, Format
from .lines import Line
from .record import Sink
from .values import NUMBER, first, number, object_at, percent, whole

_PLACE = re.compile(r"\bEpoch(?:\((train|val)\))?\s*\[(\d+)\]\[\s*(\d+)(?:/(\d+))?\]")
_PAIR = re.compile(rf"([A-Za-z][\w./-]*):\s*{NUMBER}")
_SCORE = re.compile(r"^(?:(.*)[/_])?(accuracy|acc)(?:/top|_top-)([15])(?:_(\w+))?$")
_FACTS = (
    (re.compile(r"\bsamples_per_gpu=(\d+)"), "batch_per_card"),
    (re.compile(r"\bmax_epochs=(\d+)"), "epochs"),
    (re.compile(r"\bGPU number: (\d+)"), "cards"),
    (re.compile(r"\bnum_classes=(\d+)"), "classes"),
)
_BATCH = re.compile(r"\bbatch_size=(\d+)")


class _Reader:
    def __init__(self, sink: Sink) -> None:
        self.sink = sink
        self.epoch: int | None = None
        self.iterations = False  # training is counted in them, and so are the steps of scores
        self.train_loader = False  # inside that part of the configuration

    def train(
        self, epoch: int, step: int | None, data: dict[str, Any], steps: int | None = None
    ) -> None:
        self.epoch = epoch
        seconds, waited = number(data.get("time")), number(data.get("data_time"))
        self.sink.train(
            epoch,
            step=step,
            fraction=step / steps if step is not None and steps else None,
            loss=number(data.get("loss")),
            lr=first(data, ("lr", "base_lr")),
            step_s=seconds,
            wait_share=waited / seconds if waited is not None and seconds else None,
        )

    def scores(self, epoch: int | None, data: dict[str, Any]) -> bool:
        """Whether there were any."""
        series: dict[str, dict[str, float | None]] = {}
        for key, value in data.items():
            if found := _SCORE.match(key):
                score = number(value)
                name = " ".join(part for part in (found[1], found[4]) if part)
                shown = percent(score) if found[2] == "acc" else score
                series.setdefault(name, {})[f"top{found[3]}"] = shown
        for name, values in series.items():
            self.sink.eval(epoch, series=name, **values)  # type: ignore[arg-type]
        return bool(series)

    def text(self, line: Line) -> None:
        text = line.text
        found = _PLACE.search(text)
        if found is None:
            self.other(text)
            return
        data = dict(_PAIR.findall(text, found.end()))
        epoch, step = int(found[2]), int(found[3])
        if found[1] == "val":
            self.scores(epoch, data)
        elif "loss" in data or "lr" in data:
            self.train(epoch, step, data, int(found[4]) if found[4] else None)

    def other(self, text: str) -> None:
        if "System environment:" in text or "Environment info:" in text:
            self.sink.start()
        elif re.match(r"\w+ = ", text):
            self.train_loader = text.startswith("train_dataloader = ")
        if self.train_loader and (found := _BATCH.search(text)):
            self.sink.fact("batch_per_card", int(found[1]))
        for pattern, name in _FACTS:
            if found := pattern.search(text):
                self.sink.fact(name, int(found[1]))

    def json(self, line: Line) -> None:
        if not line.text.startswith("{"):
            return
        data = object_at(line.text)
        epoch, step = whole(data.get("epoch")), whole(data.get("step"))
        if epoch is None and "loss" in data:
            self.iterations = True
        elif data.get("mode") is None and epoch is None and not self.iterations:
            epoch = step
        if self.scores(epoch, data) or data.get("mode") == "val":
            return
        if epoch is not None and "loss" in data:
            self.train(epoch, whole(data.get("iter", data.get("step"))), data)
        elif whole(data.get("seed")) is not None:
            self.sink.start()
            self.sink.fact("seed", whole(data["seed"]) or 0)


def text(sink: Sink) -> Feed:
    """Epochs from 1."""
    return _Reader(sink).text


def json(sink: Sink) -> Feed:
    """Epochs from 1."""
    return _Reader(sink).json


_GIVES = ("training loss", "top-1 and top-5", "seconds a step", "learning rate", "data wait")
FORMATS = [
    Format(
        key="mmpretrain",
        title="mmpretrain, mmcls, text log",
        gives=(*_GIVES, "time stamps"),
        lacks={"throughput": "images/s are not in the log"},
        signature=re.compile(
            r"\bEpoch(?:\((?:train|val)\))?\s*\[\d+\]\[\s*\d+(?:/\d+)?\]\s*"
            r"(?:(?:base_)?lr|eta|time|acc\w*[/_]\S+|loss):\s"
        ),
        reader=text,
        base=1,
    ),
    Format(
        key="mmpretrain-json",
        title="mmpretrain, mmcls, JSON",
        gives=_GIVES,
        lacks={"throughput": "no batch size in the log", "one hour": "no time stamps"},
        signature=re.compile(
            r'^\{(?=.*"(?:iter|step)":\s*\d)'
            r'(?=.*(?:"data_time":|"mode":\s*"(?:train|val)"|"acc\w*[/_]top))'
        ),
        reader=json,
        base=1,
        own_clock=True,
    ),
]
