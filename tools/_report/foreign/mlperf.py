"""MLPerf training logs, `:::MLLOG` (v0.7 on), `:::MLL` (v0.6) and `:::MLPv0.5.0`.

:::MLLOG {"time_ms": 1600000000123, "key": "eval_accuracy", "value": 0.7, "metadata": {…}}
:::MLL 1560000000.123 eval_accuracy: {"value": 0.75, "metadata": {"epoch_num": 4}}
:::MLPv0.5.0 resnet 1540000000.123 (main.py:12) eval_accuracy: {"epoch": 3, "value": 0.75}
Accuracy is a fraction. Throughput is of all cards, in `throughput` and `tracked_stats` after each
epoch's `epoch_stop`; v0.5 and v0.6 have none. Where no epochs are logged, `epoch_count` of the
last `block_start` says how many end with an evaluation. A run lasts from run_start to run_stop.
The clocks of other lines in the same file may be of another time zone and do not count.
"""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Any

from .formats import Feed, Format
from .lines import Line
from .record import Sink
from .starts import BadRecord
from .values import json_at, number, object_at, percent, whole

_MARK = re.compile(r":::ML(?=LOG|L\s|Pv)")
_MLL = re.compile(r":::MLL\s+(\d+\.?\d*)\s+(\w+)\s*:?\s*")
_MLP = re.compile(r":::MLPv[\d.]+\s+(\S+)\s+(\d+\.?\d*)\s+\([^)]*\)\s+(\w+)[ \t]*:?[ \t]*")
_STARTS = ("submission_benchmark", "cache_clear", "run_clear_caches", "init_start", "run_start")
_TEXT_FACTS = {
    "submission_benchmark": "model",
    "submission_platform": "device",
    "submission_org": "submission_org",
    "opt_name": "optimizer",
}
_WHOLE_FACTS = {
    "global_batch_size": "global_batch",
    "d_batch_size": "batch_per_card",
    "input_batch_size": "input_batch_size",
    "seed": "seed",
    "run_set_random_seed": "seed",
    "train_samples": "train_images",
    "num_train_examples": "train_images",
    "preproc_num_train_examples": "train_images",
    "eval_samples": "val_images",
    "num_eval_examples": "val_images",
    "eval_size": "val_images",
}
_IMAGES = ("resnet", "imagenet", "image_classification", "resnet50")


class _Reader:
    def __init__(self, sink: Sink) -> None:
        self.sink = sink
        self.forget()
        self.stopped = False

    def forget(self) -> None:
        """What is remembered of one run."""
        self.last: int | None = None  # the epoch that ended last
        self.evaluated: int | None = None
        self.block = 0  # epochs of the current block
        self.lowest = 1  # number of the first epoch
        self.epochs_logged = False

    def line(self, line: Line) -> None:
        marks = [found.start() for found in _MARK.finditer(line.text)]
        for at, end in pairwise([*marks, len(line.text)]):
            self.event(line.text[at:end])

    def event(self, text: str) -> None:
        if text.startswith(":::MLLOG"):
            data = object_at(text, len(":::MLLOG"))
            meta = data.get("metadata")
            seconds = number(data.get("time_ms"))
            seconds = None if seconds is None else seconds / 1000
            key, value = str(data.get("key")), data.get("value")
        elif found := _MLL.match(text):
            data = object_at(text, found.end())
            seconds, key = float(found[1]), found[2]
            value, meta = data.get("value"), data.get("metadata")
        elif found := _MLP.match(text):
            seconds, key = float(found[2]), found[3]
            rest = text[found.end() :]
            meta = value = json_at(rest) if rest else None
            if isinstance(value, dict):
                value = value.get("value")
            self.sink.fact("model", found[1])
        else:
            raise BadRecord("no MLPerf event")
        self.take(key, value, meta if isinstance(meta, dict) else {}, seconds)

    def take(self, key: str, value: Any, meta: dict[str, Any], seconds: float | None) -> None:
        sink = self.sink
        if key in _STARTS:
            self.start(key)
        if key in _TEXT_FACTS and isinstance(value, str):
            sink.fact(_TEXT_FACTS[key], value)
        elif key in _WHOLE_FACTS and whole(value) is not None:
            sink.fact(_WHOLE_FACTS[key], whole(value) or 0)
        elif key.endswith("base_learning_rate") and number(value) is not None:
            sink.fact("base_lr", number(value) or 0.0)
        if self.stopped or key not in _TIMED:
            return
        if seconds:  # some submissions write 0 for lines that they added later
            sink.clock(seconds)
        _TIMED[key](self, value, meta)

    def start(self, key: str) -> None:
        """Ranks repeat these lines: only after a record, or at a first line again, a new run."""
        if self.stopped or self.evaluated is not None or (self.last is not None and self.block):
            self.sink.start(new=True)
            self.forget()
            self.stopped = False
        elif key != "run_start":
            self.sink.start(new=True)

    def run_start(self, value: Any, meta: dict[str, Any]) -> None:
        self.sink.begin()

    def run_stop(self, value: Any, meta: dict[str, Any]) -> None:
        status = str(meta.get("status") or "")
        if str(meta.get("success", "")).lower() in ("true", "false"):
            status = "success" if str(meta["success"]).lower() == "true" else "failed"
        self.sink.end(status)
        self.stopped = True

    def block_start(self, value: Any, meta: dict[str, Any]) -> None:
        self.block = max(0, whole(meta.get("epoch_count")) or 0)
        self.lowest = min(self.lowest, max(0, whole(meta.get("first_epoch_num", 1)) or 0))

    def epoch_stop(self, value: Any, meta: dict[str, Any]) -> None:
        label = whole(meta.get("epoch_num", value))
        if label is None:
            return
        self.epochs_logged = True
        self.last = label
        self.sink.train(label, whole=True)

    def train_epoch(self, value: Any, meta: dict[str, Any]) -> None:
        """v0.5: an epoch starts; some list all epochs after the last evaluation."""
        label = whole(value)
        if label is None:
            return
        self.epochs_logged = True
        self.last = label
        if self.evaluated is not None and label < self.evaluated:
            self.sink.trained(label)
        else:
            self.sink.train(label, fraction=1.0)

    def throughput(self, value: Any, meta: dict[str, Any]) -> None:
        data = value if isinstance(value, dict) else {"throughput": value}
        label = whole(meta.get("epoch_num", meta.get("step")))
        if self.last is None or (label is not None and label != self.last):
            return
        rate = number(data.get("imgs_sec", data.get("throughput")))
        loss = number(data.get("train_loss", data.get("loss")))
        if rate is not None or loss is not None:
            self.sink.train(self.last, rate=rate, scope="all cards", loss=loss, whole=True)

    def eval_accuracy(self, value: Any, meta: dict[str, Any]) -> None:
        top1 = percent(number(value))
        done = number(meta.get("epoch_num", meta.get("epoch")))
        label = whole(done)
        model = self.sink.stated("model")
        if isinstance(model, str) and model.lower() not in _IMAGES:
            self.sink.remark(f"eval_accuracy is that of {model}: not a top-1 of images")
        if label is None:
            self.sink.eval(None, top1=top1, epochs_done=done)
            return
        if not self.epochs_logged and self.block and 0 <= label < 100_000:
            before = self.lowest - 1 if self.last is None else self.last
            for one in range(max(label - self.block, before) + 1, label + 1):
                self.sink.train(one, whole=True)
            self.last = label
        self.evaluated = label
        self.sink.eval(label, top1=top1, late=True)


_TIMED = {
    "run_start": _Reader.run_start,
    "run_stop": _Reader.run_stop,
    "block_start": _Reader.block_start,
    "epoch_stop": _Reader.epoch_stop,
    "train_epoch": _Reader.train_epoch,
    "throughput": _Reader.throughput,
    "tracked_stats": _Reader.throughput,
    "eval_accuracy": _Reader.eval_accuracy,
}


def reader(sink: Sink) -> Feed:
    """Labels as logged: from 1 in v0.6 and later, mostly from 0 in v0.5."""
    return _Reader(sink).line


FORMATS = [
    Format(
        key="mlperf",
        title="MLPerf training",
        gives=("top-1", "images/s, all cards (v0.7 on)", "time stamps", "run status"),
        lacks={"training loss": "not logged", "top-5": "not logged", "learning rate": "not logged"},
        signature=re.compile(r":::ML(?:LOG\s*\{|L\s+\d|Pv\d)"),
        reader=reader,
        own_clock=True,
        decisive=True,
    )
]
