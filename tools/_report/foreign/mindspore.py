"""MindSpore's monitors, with or without a logger's prefix, and MindCV.

epoch: 1 step: 5388, loss is 0.654                            LossMonitor: of that step
epoch time: 12345.678 ms, per step time: 12.3 ms              TimeMonitor; also `Train epoch time`
epoch: [  0/200], step:[  624/  625], loss:[5.258/5.259], …   of the step / mean (model zoo)
epoch time: 140522.500, per step time: 224.836, avg loss: 5.258
epoch: [1/90] step: [100/625], loss: 5.2, …, per step time: 98.1 ms, fps: 2609.5 img/s
epoch: 1, acc: 0.7 · result: {'top_1_accuracy': 0.7, …} ckpt=…-90_625.ckpt · metrics: {…}
metric: {'Loss': 0.8, 'Top1-Acc': 0.7, 'Top5-Acc': 0.9} · eval results:{…}
Epoch: [1/100], batch: [100/1251], loss: 2.3, lr: 0.1, time: 25.7s        MindCV, since its last
Validation Top_1_Accuracy: 70.1%, Top_5_Accuracy: 90.2%, time: 14.1s      line in the epoch
Epoch  TrainLoss  Top_1_Accuracy  …  TotalTime                            MindCV's result.log
Epoch: 1, batch:[100/1251], loss:2.3, … · Validation accuracy: 70.1, …    its first version
Accuracy is a fraction unless a percent sign follows it; the first MindCV, with the columns
`Epoch TrainLoss ValAcc Time`, writes percent without.
"""

from __future__ import annotations

import re

from .formats import Feed, Format
from .lines import Line
from .record import Sink
from .values import NUMBER, decimal, images_per_s

_I = re.IGNORECASE
_LOSS = re.compile(rf"\bepoch:?\s*(\d+),?\s+step:?\s*(\d+),?\s*loss(?: is|:)?\s*{NUMBER}", _I)
_STEPS = re.compile(
    r"\bepoch:\s*\[?\s*(\d+)(?:/\s*(\d+)\])?,?\s*(?:step|batch):\s*\[\s*(\d+)/\s*(\d+)\]", _I
)
_SUMMED = re.compile(r"\bepoch:?\s*\[\s*(\d+)(?:/\s*\d+)?\],?\s+(?:loss|epoch time):", _I)
_TIME = re.compile(rf"\bepoch time:\s*{NUMBER}\s*(ms|s)?,", _I)
_STEP_TIME = re.compile(rf"\bper[ _]step[ _]time:\s*{NUMBER}\s*(ms|s)?", _I)
_PLAIN_LOSS = re.compile(rf"\bloss\s*[:=]\s*\[?\s*{NUMBER}(?:\s*/\s*{NUMBER})?", _I)
_MEAN_LOSS = re.compile(rf"\bavg[ _]loss:\s*{NUMBER}", _I)
_LR = re.compile(rf"\blr\s*[:=]\s*\[?\s*{NUMBER}", _I)
_FPS = re.compile(rf"\bfps\s*[:=]\s*{NUMBER}\s*(?:img|image|sample)", _I)
_SINCE = re.compile(rf"\btime:\s*{NUMBER}s", _I)
_SCORES = re.compile(
    r"\b(?:eval results?|result|metrics?)\s*:\s*\{|^\{['\"](?:top|acc)"
    r"|\bepoch:?\s*\d+,\s*['\"{]*(?:top|acc)"
    r"|\bValidation (?:Top_1_)?Accuracy:|\bepoch:?\s*\d+,?\s*eval_?\w*:",
    _I,
)
_SCORE = re.compile(
    rf"\b(top[_-]?1[_-]?acc\w*|top[_-]?5[_-]?acc\w*|acc(?:uracy)?|loss)['\"]?\s*[:=]\s*{NUMBER}\s*(%?)",
    _I,
)
_LABEL = re.compile(r"\bepoch:?\s*(\d+)\b", _I)
_EPOCHS_DONE = re.compile(r"\bckpt\s*=.{0,300}?-(\d+)_\d+\s?\.ckpt", _I)
_FACT = re.compile(r"(?:^|[-|:]\s*)([A-Z][A-Za-z ]+|[a-z_]+):\s*(\S.*)$")
_FACTS = {
    "Number of devices": "cards",
    "Batch size": "batch_per_card",
    "Model": "model",
    "Number of epochs": "epochs",
    "Number of classes": "classes",
    "Number of training samples": "train_images",
    "Number of validation samples": "val_images",
    "Optimizer": "optimizer",
    "Auto mixed precision": "precision",
    "Learning rate": "base_lr",
}
_WHOLE = ("cards", "batch_per_card", "epochs", "classes", "train_images", "val_images")


class _Reader:
    """`label` is the epoch under way; `steps` the steps of one where that has been seen."""

    def __init__(self, sink: Sink) -> None:
        self.sink = sink
        self.label: int | None = None
        self.batch = 0
        self.steps = 0
        self.columns: list[str] = []

    def feed(self, line: Line) -> None:
        text = line.text
        if self.columns and self._row(text):
            return
        found = _STEPS.search(text)
        if found:
            self._step(found, text)
            return
        found = _LOSS.search(text)
        if found:
            self._loss(int(found[1]), int(found[2]), decimal(found[3]))
            return
        if _SCORES.search(text):
            self._scores(text)
        elif _TIME.search(text) or _SUMMED.search(text):
            self._summed(text)
        elif text.split()[:2] == ["Epoch", "TrainLoss"]:
            self.columns = text.split()
        elif ": " in text:
            self._fact(text)

    def _loss(self, label: int, step: int, loss: float) -> None:
        if label != self.label:
            self.steps = self.batch if self.label is not None else 0
        self.label, self.batch = label, step
        fraction = min(1.0, step / self.steps) if self.steps else None
        self.sink.train(label, step=step, fraction=fraction, loss=loss)

    def _step(self, found: re.Match[str], text: str) -> None:
        label, step, steps = (int(found[i]) for i in (1, 3, 4))
        loss, lr, fps, per_step = (p.search(text) for p in (_PLAIN_LOSS, _LR, _FPS, _STEP_TIME))
        since = _SINCE.search(text)
        done = step - (self.batch if label == self.label and step > self.batch else 0)
        seconds = _seconds(per_step) if per_step else None
        if since and (done > 1 or steps == 1):  # before the first step it may have evaluated
            seconds = decimal(since[1]) / done
        self.label, self.batch = label, step
        self.sink.train(
            label,
            step=step,
            fraction=step / steps,
            loss=decimal(loss[2] or loss[1]) if loss else None,
            mean=bool(loss and loss[2]),
            lr=decimal(lr[1]) if lr else None,
            rate=images_per_s(fps[1]) if fps else None,
            step_s=seconds,
        )
        if found[2]:
            self.sink.fact("epochs", int(found[2]))

    def _summed(self, text: str) -> None:
        found = _SUMMED.search(text)
        if found:
            self.label = int(found[1])
        if self.label is None:
            return
        step, loss = _STEP_TIME.search(text), _MEAN_LOSS.search(text)
        loss = loss or (_PLAIN_LOSS.search(text) if found else None)
        lr, fps = _LR.search(text), _FPS.search(text)
        self.sink.train(
            self.label,
            whole=True,
            loss=decimal(loss[1]) if loss else None,
            lr=decimal(lr[1]) if lr else None,
            rate=images_per_s(fps[1]) if fps else None,
            step_s=_seconds(step) if step else None,
        )

    def _scores(self, text: str) -> None:
        values: dict[str, float] = {}
        for name, number, sign in _SCORE.findall(text):
            key = "loss" if name.lower() == "loss" else "top5" if "5" in name else "top1"
            early = name == "accuracy" and "Validation accuracy:" in text
            scale = 1 if sign or key == "loss" or early else 100
            values.setdefault(key, decimal(number) * scale)
        label, done = _LABEL.search(text), _EPOCHS_DONE.search(text)
        self.sink.eval(
            int(label[1]) if label else None,
            epochs_done=float(done[1]) if done else None,
            top1=values.get("top1"),
            top5=values.get("top5"),
            loss=values.get("loss"),
        )

    def _row(self, text: str) -> bool:
        """A row of result.log: epoch, loss, one column each metric, seconds."""
        cells = text.split()
        if len(cells) != len(self.columns) or not cells[0].isdigit():
            return False
        row = dict(zip(self.columns, cells, strict=True))
        label = int(row["Epoch"])
        self.sink.train(label, fraction=1.0, loss=decimal(row["TrainLoss"]))
        values: dict[str, float] = {}
        for name, cell in row.items():
            key = {"top_1_accuracy": "top1", "accuracy": "top1", "top_5_accuracy": "top5"}.get(
                name.lower()
            )
            if name == "ValAcc" and decimal(cell) >= 0:  # -1: not evaluated
                values["top1"] = decimal(cell)
            elif key:
                value = decimal(cell.rstrip("%"))
                values[key] = value if cell.endswith("%") else 100 * value
        self.sink.eval(label, top1=values.get("top1"), top5=values.get("top5"))
        return True

    def _fact(self, text: str) -> None:
        found = _FACT.search(text)
        key = _FACTS.get(found[1]) if found else None
        if found and key:
            self.sink.fact(key, int(found[2].replace(",", "")) if key in _WHOLE else found[2])


def _seconds(found: re.Match[str]) -> float:
    """Without a unit these monitors mean milliseconds."""
    return decimal(found[1]) / (1 if (found[2] or "ms").lower() == "s" else 1000)


def reader(sink: Sink) -> Feed:
    """Epochs from 1, in some model zoo scripts from 0."""
    return _Reader(sink).feed


FORMATS = [
    Format(
        key="mindspore",
        title="MindSpore monitors, MindCV",
        gives=("loss of a step", "seconds a step", "top-1 and top-5 where evaluated"),
        lacks={
            "throughput": "no images/s in most of these logs",
            "one hour": "time stamps only where a logger adds them",
        },
        signature=re.compile(
            r"(?i)\bepoch: \d+,? step:? \d+, loss is "
            r"|\bepoch time: [\d.]+ ?(?:ms)?, per step time: "
            r"|\bepoch: ?(?:\[ *\d+/ *\d+\]|\d+),? ?(?:step|batch): ?\[ *\d+/ *\d+\],? ?loss: ?"
            r"|\b(?:result|metrics): ?\{'(?:top_?[15]_|acc)|Validation Top_1_Accuracy: "
            r"|\b(?:eval results?|result|metrics?): *\{.{0,80}'top1-acc': *\d"
            r"|^\s*Epoch\s+TrainLoss\s|^\{'top_?[15]_?acc"
        ),
        reader=reader,
    )
]
