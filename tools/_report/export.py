"""One run in the forms of trackers that people have: MLPerf's log lines, TensorBoard, CSV.

Every function is of the events that count; numbers are those of the log, rounded only where the
form has no more digits.
"""

from __future__ import annotations

import csv
import io
import json
import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from proofrun.events import Eval, Event, Mark, RunEnd, RunStart, Train
from proofrun.runs import Plan
from proofrun.text import csv_text

from .eventlog import Located, read_event_file
from .foreign.reexport import WRITER
from .read import Run

_MANY = 2**53  # images; a log may hold an integer that no float can


@dataclass(frozen=True)
class WholeRun:
    """A run with every field of every event that counts."""

    run: Run
    events: list[Located]

    @property
    def plan(self) -> Plan:
        return self.run.plan

    @property
    def file(self) -> str:
        return self.run.file


def whole(run: Run, root: Path) -> WholeRun:
    """Read the log of `run` again, from below `root`, in memory of its size. Raises OSError."""
    return WholeRun(run, read_event_file(root / run.file, whole=True).logs[0].events)


def scalars(run: WholeRun, event: Event) -> dict[str, float]:
    """An event's numbers under TensorBoard's names: accuracies in percent, rates in images/s."""
    if isinstance(event, Train):
        found = {"train/loss": event.loss, "train/ce": event.ce, "train/lr": event.lr}
        found |= {"train/epoch": event.epoch, "train/warmup": float(event.warmup)}
        if event.window_s > 0:
            found["train/images_per_s"] = min(event.images, _MANY) / event.window_s
            found["train/data_wait_share"] = event.data_wait_s / event.window_s
        return found | ({} if event.scale is None else {"train/loss_scale": event.scale})
    if isinstance(event, Eval) and event.count:
        own = run.plan.recipe.data.eval[0].name
        place = "eval" if event.protocol == own else f"eval_{event.protocol}"
        top1, top5 = (100 * n / event.count for n in (event.correct1, event.correct5))
        scores = {"top1": top1, "top5": top5, "loss": event.loss, "epoch": event.epoch}
        return {f"{place}/{name}": value for name, value in scores.items()}
    if isinstance(event, Mark):
        names = ("epoch", "loss", "ce", "top1", "top5")
        return {f"mark_{event.target_s:g}s/{name}": getattr(event, name) for name in names}
    return {}


def to_csv(run: WholeRun) -> str:
    """One row an event, a column a field; nested fields (the plan, provenance) are left out."""
    plain = [
        {"line": line, **event.model_dump(mode="python", by_alias=True)}
        for event, line in run.events
    ]
    nested = {k for row in plain for k, v in row.items() if isinstance(v, dict | list)}
    columns = dict.fromkeys(["line", "kind", *(k for row in plain for k in row if k not in nested)])
    text = io.StringIO()
    out = csv.DictWriter(text, list(columns), extrasaction="ignore", lineterminator="\n")
    out.writeheader()
    out.writerows({k: csv_text(v) for k, v in row.items()} for row in plain)
    return text.getvalue()


def to_mllog(run: WholeRun) -> str:
    """`:::MLLOG {…}` lines with MLPerf's keys; accuracies are fractions.

    Not a submission: what one must say and no log knows (organisation, division) is left out.
    """
    lines = [f":::MLLOG {json.dumps(entry, allow_nan=False)}\n" for entry in _mllog(run)]
    return "".join(lines)


def _mllog(run: WholeRun) -> Iterator[dict[str, Any]]:
    epoch: int | None = None  # that is open, from 1
    ended = 0.0  # t_wall of its last window
    for located in run.events:
        event, at = located.event, located.event.t_wall
        if isinstance(event, Train | Eval | RunEnd) and epoch is not None:
            over = not isinstance(event, Eval) or event.epoch >= epoch
            over &= not isinstance(event, Train) or _epoch_number(event) != epoch
            if over:
                yield _entry(run, located, "epoch_stop", at=ended, epoch_num=epoch)
                epoch = None
        if isinstance(event, RunStart) and event is run.events[0].event:
            yield _entry(run, located, "init_start", at=at - event.wall_s)
            for key, value in _facts(run, event).items():
                yield _entry(run, located, key, value)
            yield _entry(run, located, "init_stop")
            yield _entry(run, located, "run_start", world_size=event.world_size)
        elif isinstance(event, Train):
            if epoch is None:
                epoch = _epoch_number(event)
                yield _entry(run, located, "epoch_start", at=at - event.window_s, epoch_num=epoch)
            names = {"train/images_per_s": "throughput"}
            found = scalars(run, event)
            told = {"warmup": bool(found.pop("train/warmup")), "epoch": found.pop("train/epoch")}
            stats = {names.get(k, k.removeprefix("train/")): _finite(v) for k, v in found.items()}
            yield _entry(run, located, "tracked_stats", stats, step_num=event.step, **told)
            ended = at
        elif isinstance(event, Eval) and event.count:
            where: dict[str, Any] = {"epoch_num": event.epoch, "step_num": event.step}
            about: dict[str, Any] = {
                name: getattr(event, name) for name in ("why", "protocol", "count")
            }
            about |= {"top5": event.correct5 / event.count, "loss": event.loss}
            accuracy = event.correct1 / event.count
            yield _entry(run, located, "eval_start", at=at - event.eval_s, **where)
            yield _entry(run, located, "eval_accuracy", accuracy, **where, **about)
            yield _entry(run, located, "eval_stop", **where)
        elif isinstance(event, RunEnd) and event is run.events[-1].event:
            status = "success" if event.status == "finished" else "aborted"
            yield _entry(run, located, "run_stop", status=status)


def _facts(run: WholeRun, start: RunStart) -> dict[str, Any]:
    recipe = run.plan.recipe
    return {
        "submission_benchmark": recipe.name,
        "submission_platform": start.device_name,
        "seed": run.plan.seed,
        "global_batch_size": start.global_batch,
        "train_samples": recipe.data.train_images,
        "eval_samples": recipe.data.val_images,
        "opt_name": recipe.optimizer.name,
        "opt_base_learning_rate": _finite(start.lr),
        "opt_weight_decay": _finite(recipe.optimizer.weight_decay),
    }


def _entry(
    run: WholeRun,
    located: Located,
    key: str,
    value: Any = None,
    *,
    at: float | None = None,
    **told: Any,
) -> dict[str, Any]:
    """One line's object; `at` in seconds since 1970, by default the event's own."""
    time_ms = _finite(1000 * (located.event.t_wall if at is None else at))
    kinds = {"start": "INTERVAL_START", "stop": "INTERVAL_END"}
    metadata = {"file": run.file, "lineno": located.line, **told}
    return {
        "namespace": WRITER,
        "time_ms": round(time_ms or 0.0),
        "event_type": kinds.get(key.rpartition("_")[2], "POINT_IN_TIME"),
        "key": key,
        "value": value,
        "metadata": {k: _finite(v) if isinstance(v, float) else v for k, v in metadata.items()},
    }


def _epoch_number(event: Train) -> int:
    """From 1; windows end with their epoch, and epochs are logged with six digits."""
    return math.ceil((_finite(event.epoch) or 0.0) - 1e-6)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def to_tensorboard(run: WholeRun) -> bytes:
    """The content of an event file: `scalars`, at the step and wall time of their event.

    Written here because the libraries for it load torch, or are as large. The form is TFRecord:
    length, its checksum, data, its checksum; the data is a protobuf `Event`.
    """
    first = run.events[0].event.t_wall if run.events else 0.0
    writer = _bytes(10, _bytes(1, WRITER.encode()))  # SourceMetadata
    records = [_number(1, first) + _bytes(3, b"brain.Event:2") + writer]
    for event, _ in run.events:
        head = _number(1, event.t_wall) + _varint(2 << 3) + _varint(min(event.step, 2**63 - 1))
        for tag, value in scalars(run, event).items():
            data = _bytes(1, tag.encode("utf-8", "replace")) + b"\x15" + _float32(value)
            records.append(head + _bytes(5, _bytes(1, data)))
    return b"".join(_record(data) for data in records)


def _record(data: bytes) -> bytes:
    size = struct.pack("<Q", len(data))
    return size + struct.pack("<I", _checksum(size)) + data + struct.pack("<I", _checksum(data))


def _number(field: int, value: float) -> bytes:
    return _varint(field << 3 | 1) + struct.pack("<d", value)


def _bytes(field: int, value: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(value)) + value


def _float32(value: float) -> bytes:
    try:
        return struct.pack("<f", value)
    except OverflowError:
        return struct.pack("<f", math.copysign(math.inf, value))


def _varint(value: int) -> bytes:
    data = bytearray()
    while value > 0x7F:
        data.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*data, value])


def _crc_table() -> list[int]:
    table = list(range(256))
    for _ in range(8):
        table = [value >> 1 ^ (0x82F63B78 if value & 1 else 0) for value in table]
    return table


_CRC = _crc_table()


def _checksum(data: bytes) -> int:
    """CRC-32C, masked as TFRecord does."""
    value = 0xFFFFFFFF
    for byte in data:
        value = value >> 8 ^ _CRC[(value ^ byte) & 0xFF]
    value ^= 0xFFFFFFFF
    return ((value >> 15 | value << 17 & 0xFFFFFFFF) + 0xA282EAD8) & 0xFFFFFFFF
