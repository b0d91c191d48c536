"""What tools/export_log.py wrote, read back: the same figures, named as ours, and never judged.

:::MLLOG {"namespace": "proofrun", "time_ms": …, "key": "tracked_stats", "value": {…}, …}
line,kind,schema,seq,step,epoch,…                                   a row an event
a TensorBoard event file whose first record names proofrun as its writer
An export holds no recipe and no claim, so only the run folder it was made from can be judged.
Evaluations under the recipe's first protocol are the plain series, others are called by theirs.
"""

from __future__ import annotations

import csv
import math
import re
from pathlib import Path
from typing import Any

from . import tensorboard
from .formats import Feed, Format
from .lines import Line, open_log
from .record import Sink
from .starts import BadRecord
from .values import number, object_at, percent, whole

WRITER = "proofrun"
_SLACK = 1e-3  # epochs: TensorBoard keeps seven digits
_HEADER = re.compile(r"^line,kind,schema,seq,step,epoch,wall_s,")
_FACTS = {
    "submission_benchmark": "model",
    "submission_platform": "device",
    "opt_name": "optimizer",
    "seed": "seed",
    "global_batch_size": "global_batch",
    "train_samples": "train_images",
    "eval_samples": "val_images",
    "opt_base_learning_rate": "base_lr",
    "run": "run",
    "device_name": "device",
    "world_size": "cards",
    "per_card_batch": "batch_per_card",
    "global_batch": "global_batch",
}


class _Reader:
    """What the three forms share. Keys are those of the events."""

    def __init__(self, sink: Sink) -> None:
        self.sink = sink
        self.own: str | None = None  # the protocol of the first evaluation
        sink.marks_warmup()

    def fact(self, key: str, value: object) -> None:
        name = _FACTS.get(key)
        exact = whole(value) if name not in ("model", "device", "run", "optimizer") else None
        said = exact if exact is not None else number(value) if name == "base_lr" else value
        if name and isinstance(said, str | int | float) and said != "":
            self.sink.fact(name, said)

    def train(self, found: dict[str, float | None], step: int, warmup: bool) -> None:
        epoch = found.get("epoch")
        if epoch is None or not math.isfinite(epoch) or epoch < 0:
            raise BadRecord(f"epoch {epoch} is not possible")
        label = max(1, math.ceil(epoch - _SLACK))
        self.sink.train(
            label,
            step=step,
            fraction=epoch - label + 1,
            loss=found.get("loss"),
            lr=found.get("lr"),
            rate=None if warmup else found.get("images_per_s"),
            scope="all cards",
            wait_share=found.get("data_wait_share"),
        )

    def evaluation(
        self, found: dict[str, float | None], protocol: str, images: int | None = None
    ) -> None:
        self.own = protocol if self.own is None else self.own
        self.sink.eval(
            None,
            epochs_done=found.get("epoch"),
            top1=found.get("top1"),
            top5=found.get("top5"),
            loss=found.get("eval_loss"),
            images=images,
            series="" if protocol == self.own else protocol,
        )


class _Mllog(_Reader):
    def line(self, line: Line) -> None:
        at = line.text.find(":::MLLOG")
        if at < 0:
            return
        data = object_at(line.text, at + len(":::MLLOG"))
        key, value, meta = str(data.get("key")), data.get("value"), data.get("metadata")
        meta = meta if isinstance(meta, dict) else {}
        if (seconds := number(data.get("time_ms"))) is not None and key != "epoch_stop":
            self.sink.clock(seconds / 1000)
        self.take(key, value, meta)

    def take(self, key: str, value: Any, meta: dict[str, Any]) -> None:
        if key == "run_start":
            self.sink.begin()
            self.fact("world_size", meta.get("world_size"))
        elif key == "run_stop":
            self.sink.end("finished" if meta.get("status") == "success" else "not finished")
        elif key == "tracked_stats" and isinstance(value, dict):
            found = {str(name): number(each) for name, each in value.items()}
            found["images_per_s"] = found.get("throughput")
            found["epoch"] = number(meta.get("epoch"))
            self.train(found, whole(meta.get("step_num")) or 0, bool(meta.get("warmup")))
        elif key == "eval_accuracy":
            told = {name: number(meta.get(name)) for name in ("epoch_num", "top5", "loss")}
            found = {"top1": percent(number(value)), "top5": percent(told["top5"])}
            found |= {"eval_loss": told["loss"], "epoch": told["epoch_num"]}
            self.evaluation(found, str(meta.get("protocol")), whole(meta.get("count")))
        else:
            self.fact(key, value)


class _Csv(_Reader):
    def __init__(self, sink: Sink) -> None:
        super().__init__(sink)
        self.columns: list[str] = []

    def line(self, line: Line) -> None:
        if _HEADER.match(line.text):
            self.columns = line.text.split(",")
            return
        cells = next(csv.reader([line.text]), [])
        if len(cells) != len(self.columns):
            raise BadRecord(f"{len(cells)} cells, {len(self.columns)} columns")
        row = dict(zip(self.columns, cells, strict=True))
        if (seconds := number(row["t_wall"])) is not None:
            self.sink.clock(seconds)
        self.take(row)

    def take(self, row: dict[str, str]) -> None:
        found = {key: number(row.get(key)) for key in ("epoch", "loss", "lr", "top1", "top5")}
        if row["kind"] == "run_start":
            self.sink.begin()
            for key in ("run", "device_name", "world_size", "per_card_batch", "global_batch"):
                self.fact(key, row.get(key))
        elif row["kind"] == "run_end":
            self.sink.end(row.get("status", ""))
        elif row["kind"] == "train":
            images, seconds = number(row.get("images")), number(row.get("window_s"))
            if images is not None and seconds:
                found["images_per_s"] = images / seconds
                found["data_wait_share"] = (number(row.get("data_wait_s")) or 0.0) / seconds
            self.train(found, whole(row["step"]) or 0, row.get("warmup") == "True")
        elif row["kind"] == "eval":
            found["eval_loss"] = found["loss"]
            self.evaluation(found, row.get("protocol", ""), whole(row.get("count")))


class _TensorBoard(_Reader):
    """An event of the run is a record for each of its scalars: held until another one begins."""

    def __init__(self, sink: Sink) -> None:
        super().__init__(sink)
        self.own = ""
        self.key: tuple[float, int, str] | None = None
        self.first = 0  # record of what is held
        self.held: dict[str, float | None] = {}

    def record(self, wall: float, step: int, scalars: list[tuple[str, float]]) -> None:
        for tag, value in scalars:
            group, _, name = tag.partition("/")
            if (wall, step, group) != self.key:
                self.release()
                self.key, self.first = (wall, step, group), self.sink.line
            self.held[name] = value

    def release(self) -> None:
        """Give what is held to the sink. Raises BadRecord."""
        found, self.held = self.held, {}
        wall, step, group = self.key or (0.0, 0, "")
        if group != "train" and group.partition("_")[0] != "eval":
            return
        newest, self.sink.line = self.sink.line, self.first
        self.sink.clock(wall)
        if group == "train":
            self.train(found, step, bool(found.get("warmup")))
        else:
            found["eval_loss"] = found.get("loss")
            self.evaluation(found, group.removeprefix("eval").removeprefix("_"))
        self.sink.line = newest


def mllog(sink: Sink) -> Feed:
    """Epochs from 1."""
    return _Mllog(sink).line


def table(sink: Sink) -> Feed:
    """Epochs from 1."""
    return _Csv(sink).line


def magic(head: bytes) -> bool:
    """Whether a file begins with an event that names this project as its writer."""
    return tensorboard.magic(head) and WRITER.encode() in head[:100]


def read(path: Path, sink: Sink) -> None:
    """Puts the scalars of an event file in. Raises OSError."""
    reader = _TensorBoard(sink)
    with open_log(path) as file:
        for data in tensorboard.records(file, sink):
            try:
                reader.record(*tensorboard.event(data))
            except (ValueError, IndexError, ArithmeticError) as error:
                sink.reject(str(error))
    reader.release()


_GIVES = ("training loss", "top-1 and top-5", "images/s, all cards", "learning rate", "data wait")
_LACKS = {"verdicts": "recipe and claims are in the run folder it was made from"}
FORMATS = [
    Format(
        key="proofrun-mllog",
        title="proofrun, exported as MLLOG",
        gives=(*_GIVES, "time stamps", "run status"),
        lacks=_LACKS,
        signature=re.compile(rf':::MLLOG {{"namespace": "{WRITER}"'),
        reader=mllog,
        base=1,
        one_writer=True,
        own_clock=True,
        decisive=True,
        reexported=True,
    ),
    Format(
        key="proofrun-csv",
        title="proofrun, exported as CSV",
        gives=(*_GIVES, "time stamps", "run status"),
        lacks=_LACKS,
        signature=_HEADER,
        reader=table,
        base=1,
        one_writer=True,
        own_clock=True,
        reexported=True,
    ),
    Format(
        key="proofrun-tensorboard",
        title="proofrun, exported to TensorBoard",
        gives=(*_GIVES, "time stamps"),
        lacks=_LACKS,
        magic=magic,
        read=read,
        base=1,
        one_writer=True,
        reexported=True,
    ),
]
