"""NVIDIA DLLogger, as its DeepLearningExamples use it for image classification.

DLLL {"timestamp": "1600000000.5", "type": "LOG", "step": [0, 100], "data": {"train.loss": 6.9, …}}
DLL 2020-01-02 03:04:05.6 - Epoch: 0 Iteration: 100  train.loss : 6.9  train.total_ips : 900.0 img/s
The step is "PARAMETER", [epoch, iteration], [epoch], [epoch, iteration, iteration of validation]
or [] for the run. The record of [] averages epochs and takes the best accuracy: it is not used.
Rates are of all ranks: train.total_ips (PyTorch), train.ips (MXNet, PaddlePaddle), imgs_per_sec
(TensorFlow); compute_ips leaves out the wait for data. PyTorch's top1 is in percent; MXNet's
accuracy, PaddlePaddle's top1 (beside val.ips) and TensorFlow's top1_accuracy are fractions.
"""

from __future__ import annotations

import re
from typing import Any

from .clock import stamp
from .formats import Feed, Format
from .lines import Line
from .record import Sink
from .values import first, number, object_at, percent, whole

_JSON = re.compile(r'(?:DLLL\s*)?(?=\{.*"(?:step|metadata)"\s*:)')
_TEXT = re.compile(r"DLL (?=\d{4}-\d\d-\d\d [\d:.]+ - )")
_STEP = re.compile(
    r" - (?:Epoch:\s*(\d+)\s*(?:Iteration:\s*(\d+)\s*)?(?:Validation Iteration:\s*(\d+)\s*)?"
    r"|\((\d*)(?:,\s*(\d*))?(?:,\s*(\d+))?\)\s*|(PARAMETER)\s+|Summary:\s+)"
)
_PAIR = re.compile(r"([A-Za-z][\w./]*) : (\S*)")
_SCORE = re.compile(r"^(?:(\w*val\w*)\.)?(top1|top5|loss)$")
_LOSS = ("train.loss", "total_loss", "loss")
_RATE = ("train.total_ips", "train.ips", "total_ips", "imgs_per_sec", "img/s")
_LR = ("lr", "train.lr", "learning_rate")


class _Reader:
    def __init__(self, sink: Sink) -> None:
        self.sink = sink
        self.percent = False  # the log says itself that val.top1 is in percent
        self.steps = 0  # iterations of the longest epoch so far

    def line(self, line: Line) -> None:
        text = line.text
        found = _JSON.search(text)
        if found is None:
            self.text(text)
            return
        record = object_at(text, found.end())
        if record.get("type") == "METADATA":
            metric, about = record.get("metric"), record.get("metadata")
            if metric == "val.top1" and isinstance(about, dict) and about.get("unit") == "%":
                self.percent = True
            return
        data = record.get("data")
        if "step" in record and isinstance(data, dict):
            self.record(record["step"], data, number(record.get("timestamp")))

    def text(self, text: str) -> None:
        found = _TEXT.search(text)
        if found is None:
            return
        time = stamp(text[found.end() :])
        step = _STEP.search(text, found.end())
        if step is None or time is None:
            return
        data = dict(_PAIR.findall(text, step.end()))
        numbers = [int(group) for group in step.groups()[:6] if group]
        self.record("PARAMETER" if step[7] else numbers, data, time.seconds)

    def record(self, step: Any, data: dict[str, Any], seconds: float | None) -> None:
        sink = self.sink
        if step == "PARAMETER":
            sink.start()
        if seconds is not None:
            sink.clock(seconds)
        if step == "PARAMETER":
            sink.begin()
            self.parameters(data)
        elif step == []:
            self.evaluation(None, {key: data.get(key) for key in _TF_TOP})
            sink.end()
        elif isinstance(step, list) and whole(step[0]) is not None:
            epoch = whole(step[0]) or 0
            if len(step) == 1:
                self.train(epoch, None, data)
                self.evaluation(epoch, data)
            elif len(step) == 2:
                self.train(epoch, whole(step[1]), data)

    def train(self, epoch: int, step: int | None, data: dict[str, Any]) -> None:
        loss, rate, lr = first(data, _LOSS), first(data, _RATE), first(data, _LR)
        wait, work = number(data.get("train.data_time")), number(data.get("train.compute_time"))
        share = wait / (wait + work) if wait is not None and work else None
        if loss is None and rate is None and (step is None or (lr is None and share is None)):
            return
        sums_up = step is None and "total_loss" not in data  # TensorFlow repeats its last step
        fraction = None
        if step is not None:
            fraction = step / self.steps if self.steps else None
            self.steps = max(self.steps, step)
        self.sink.train(
            epoch,
            step=step if loss is not None or rate is not None else None,
            fraction=1.0 if step is None else fraction,
            loss=loss,
            lr=lr,
            rate=rate,
            scope="all cards",
            wait_share=share,
            whole=sums_up,
        )

    def evaluation(self, epoch: int | None, data: dict[str, Any]) -> None:
        series: dict[str, dict[str, float | None]] = {}
        for key, value in data.items():
            found = _SCORE.match(key)
            if found is None or (found[1] is None and found[2] == "loss"):
                continue
            score, name = number(value), found[1] or "val"
            if f"{name}.ips" in data and found[2] != "loss" and not self.percent:
                score = percent(score)
            series.setdefault(name, {})[found[2]] = score
        top1 = percent(first(data, ("val.accuracy", "top1_accuracy")))
        if top1 is not None:
            top5 = percent(first(data, ("val.top_k_accuracy_5", "top5_accuracy")))
            series.setdefault("val", {}).update(top1=top1, top5=top5)
        for name, scores in series.items():
            self.sink.eval(epoch, series="" if name == "val" else name, **scores)  # type: ignore[arg-type]

    def parameters(self, data: dict[str, Any]) -> None:
        sink = self.sink
        if isinstance(data.get("arch"), str):
            sink.fact("model", data["arch"])
        for key, name in _WHOLE:
            value = whole(data.get(key))
            if value is not None and value > 0:
                sink.fact(name, value)
        for key, name in (("lr", "base_lr"), ("label_smoothing", "label_smoothing")):
            rate = number(data.get(key))
            if rate is not None:
                sink.fact(name, rate)
        if str(data.get("amp")) == "True":
            sink.fact("precision", "amp")
        resume = data.get("resume")
        if isinstance(resume, str) and resume not in ("", "None"):
            sink.fact("resumed_from", resume)


_TF_TOP = ("top1_accuracy", "top5_accuracy")
_WHOLE = (
    ("world_size", "cards"),
    ("batch_size", "batch_per_card"),
    ("optimizer_batch_size", "global_batch"),
    ("epochs", "epochs"),
    ("seed", "seed"),
    ("num_classes", "classes"),
)


def reader(sink: Sink) -> Feed:
    """Epochs from 0."""
    return _Reader(sink).line


FORMATS = [
    Format(
        key="dllogger",
        title="NVIDIA DLLogger",
        gives=(
            "training loss",
            "top-1 and top-5",
            "images/s, all cards",
            "learning rate",
            "time stamps",
            "settings",
        ),
        lacks={},
        signature=re.compile(
            r'DLLL \{"|^\{"timestamp".*"step":.*"data":|^DLL \d{4}-\d\d-\d\d [\d:.]+ - '
        ),
        reader=reader,
        base=0,
        own_clock=True,
        decisive=True,
    )
]
