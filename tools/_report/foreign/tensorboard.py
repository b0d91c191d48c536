"""TensorBoard event files: scalars of training, as Keras, Lightning, mmengine and others tag them.

A record is: length (8 bytes), its CRC, the event, its CRC; of the event only wall_time, step, and
the scalars of its summary are read, as simple_value or as a tensor with one number. What the tags
mean is in `names`; `accuracy/top1` (mmengine) and `acc1`, `acc5` (timm's meter) are percent, other
accuracies fractions or as the user scaled them. Some tags count epochs and some steps: steps become
epochs where a scalar `epoch` says so, else a validation's step is an epoch if it rises by one.
"""

from __future__ import annotations

import bisect
import itertools
import math
import re
import struct
from collections.abc import Iterator
from io import BufferedIOBase
from pathlib import Path

from .formats import Format
from .lines import open_log
from .names import Meaning, meaning
from .record import Sink
from .starts import BadRecord

LARGEST = 1 << 26  # bytes of one record; images and graphs are in these files too
SCALARS = 2_000_000  # of one file
_PERCENT = re.compile(r"(?i)accuracy[/_]top-?[15]$|(?:^|[/_])(?:acc|prec)@?_?[15]$")
_POLYNOMIAL = 0x82F63B78


def _table() -> list[int]:
    found = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (_POLYNOMIAL if byte & 1 else 0)
        found.append(byte)
    return found


_CRC = _table()


def masked_crc(data: bytes) -> int:
    """CRC-32C, rotated and shifted as the record format has it."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _CRC[(crc ^ byte) & 255] ^ crc >> 8
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def records(file: BufferedIOBase, sink: Sink) -> Iterator[bytes]:
    """The events in order. A damaged one is rejected; after a damaged length nothing follows."""
    yield from _records(file, sink)
    if fault := getattr(file, "fault", ""):
        sink.reject(fault)


def _records(file: BufferedIOBase, sink: Sink) -> Iterator[bytes]:
    while True:
        try:
            head = file.read(12)
            if len(head) < 12:
                return
            (length,), (crc,) = struct.unpack("<Q", head[:8]), struct.unpack("<I", head[8:])
            sink.line += 1
            if masked_crc(head[:8]) != crc or length > LARGEST:
                sink.reject("the length of this record is damaged: the file is read up to here")
                return
            data, check = file.read(length), file.read(4)
        except OSError:
            return
        if len(data) < length or len(check) < 4:
            return  # still being written, or cut
        if length < 1 << 16 and masked_crc(data) != struct.unpack("<I", check)[0]:
            sink.reject("the content of this record is damaged")
            continue
        yield data


def _fields(data: bytes) -> Iterator[tuple[int, int | float | bytes]]:
    """(number, value) of a message: varints, floats and doubles, bytes. Raises ValueError."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        number, wire = key >> 3, key & 7
        if wire == 0:
            value, at = _varint(data, at)
            yield number, value
        elif wire == 2:
            size, at = _varint(data, at)
            if at + size > len(data):
                raise ValueError("a field ends outside its message")
            yield number, data[at : at + size]
            at += size
        elif wire in (1, 5):
            size = 8 if wire == 1 else 4
            if at + size > len(data):
                raise ValueError("a field ends outside its message")
            yield number, struct.unpack("<d" if wire == 1 else "<f", data[at : at + size])[0]
            at += size
        else:
            raise ValueError(f"a field of type {wire}")


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = data[at]  # an IndexError is a rejected record
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
    raise ValueError("a number of more than ten bytes")


def _scalar(value: bytes) -> tuple[str, float] | None:
    """(tag, number) of one summary value."""
    tag, number = "", None
    for field, content in _fields(value):
        if field == 1 and isinstance(content, bytes):
            tag = content.decode(errors="replace")[:200]
        elif field == 2 and isinstance(content, float):
            number = content
        elif field == 8 and isinstance(content, bytes):
            number = _tensor(content)
    return (tag, number) if tag and number is not None else None


def _tensor(content: bytes) -> float | None:
    """The one number of a float, double or integer tensor."""
    kind = 0
    found: list[float] = []
    for field, value in _fields(content):
        if field == 1 and isinstance(value, int):
            kind = value
        elif field in (4, 5, 6) and isinstance(value, bytes):
            code = {5: "<f", 6: "<d"}.get(field) or {1: "<f", 2: "<d"}.get(kind, "<q")
            if len(value) == struct.calcsize(code):
                found.append(float(struct.unpack(code, value)[0]))
            elif value:
                return None
        elif field in (7, 10) and isinstance(value, bytes):
            found += [float(_varint(value, 0)[0])]
        elif field in (5, 6, 7, 10) and isinstance(value, int | float):
            found.append(float(value))
    return found[0] if len(found) == 1 else None


def event(data: bytes) -> tuple[float, int, list[tuple[str, float]]]:
    """(wall time, step, scalars) of an event."""
    wall, step = 0.0, 0
    found: list[tuple[str, float]] = []
    for field, content in _fields(data):
        if field == 1 and isinstance(content, float):
            wall = content
        elif field == 2 and isinstance(content, int):
            step = content
        elif field == 5 and isinstance(content, bytes):
            for number, value in _fields(content):
                scalar = _scalar(value) if number == 1 and isinstance(value, bytes) else None
                if scalar:
                    found.append(scalar)
    return wall, step, found


class _Tag:
    """The values of one tag: steps, wall times, numbers."""

    def __init__(self, name: str, means: Meaning) -> None:
        self.name, self.means = name, means
        self.rows: list[tuple[int, float, float, int]] = []  # step, wall, value, record

    @property
    def by_one(self) -> bool:
        """Whether steps rise by one, as epochs do."""
        steps = [row[0] for row in self.rows]
        return all(0 <= b - a <= 1 for a, b in itertools.pairwise(steps))


class _Log:
    """The tags of one file, and what their steps are."""

    def __init__(self, path: Path, sink: Sink) -> None:
        self.sink = sink
        self.tags: dict[str, _Tag] = {}
        self.epochs: dict[int, int] = {}
        self.keras_val = path.resolve().parent.name == "validation"
        count = 0
        with open_log(path) as file:
            for data in records(file, sink):
                try:
                    wall, step, scalars = event(data)
                except (ValueError, IndexError) as error:
                    sink.reject(str(error))
                    continue
                for name, value in scalars:
                    self._take(name, step, wall, value)
                count += len(scalars)
                if count > SCALARS:
                    sink.reject(f"more than {SCALARS} scalars: the file is read up to here")
                    break

    def _take(self, name: str, step: int, wall: float, value: float) -> None:
        if step >= 1 << 53 or not math.isfinite(wall):
            return
        if name == "epoch" and math.isfinite(value):
            self.epochs[step] = int(value)
        self.keras_val = self.keras_val or name.startswith("evaluation_")
        if name not in self.tags:
            means = meaning(name)
            if means is None or len(self.tags) >= 1000:
                return
            self.tags[name] = _Tag(name, means)
        self.tags[name].rows.append((step, wall, value, self.sink.line))

    def _split(self, tag: _Tag) -> str:
        """Which data a tag is of; "" where nothing says so."""
        if tag.means.split:
            return tag.means.split
        if tag.name.startswith("epoch_"):
            return "val" if self.keras_val else "train"
        if tag.means.kind in ("top1", "top5"):
            return "val" if re.search(r"(?i)accuracy[/_]top-?[15]$", tag.name) else ""
        return "train"

    def feed(self) -> None:
        """Everything in order of time; the first tag of a kind and split counts."""
        chosen: dict[tuple[str, str], _Tag] = {}
        order = sorted(self.tags.values(), key=lambda tag: tag.means.when != "epoch")
        for tag in order:
            split = self._split(tag)
            if split and not (split != "train" and tag.means.when == "step"):
                chosen.setdefault((split, tag.means.kind), tag)
        if not any(split == "val" for split, _ in chosen):
            chosen = {("val" if s == "test" else s, kind): tag for (s, kind), tag in chosen.items()}
        evals = [tag for (split, kind), tag in chosen.items() if split == "val" and kind != "lr"]
        self.labels = self._eval_labels(evals)
        self.walls = sorted(
            (row[1], self.labels[row[0]]) for t in evals for row in t.rows if row[0] in self.labels
        )
        rows = [
            (wall, split != "train", line, step, value, split, tag)
            for (split, _), tag in chosen.items()
            for step, wall, value, line in tag.rows
        ]
        for wall, _, line, step, value, split, tag in sorted(rows, key=lambda row: row[:3]):
            self.sink.line = line
            try:
                self.sink.clock(wall)
                if split == "train":
                    self._train(tag, step, wall, value)
                elif tag.means.kind != "lr":
                    self._eval(tag, step, value, "" if split == "val" else split)
            except (BadRecord, ArithmeticError) as error:
                self.sink.reject(str(error))

    def _eval_labels(self, evals: list[_Tag]) -> dict[int, int]:
        """The epoch of each step that was evaluated at, where that can be known."""
        steps = {row[0] for tag in evals for row in tag.rows}
        if self.epochs and all(step in self.epochs for step in steps):
            return {step: self.epochs[step] for step in steps}
        last = max(self.epochs.values(), default=0)
        if all(tag.by_one for tag in evals) or (last and max(steps, default=0) <= last + 1):
            return {step: step for step in steps}
        return {}

    def _train(self, tag: _Tag, step: int, wall: float, value: float) -> None:
        label: int | None = None
        whole = tag.means.when == "epoch"
        if step in self.epochs:
            label = self.epochs[step]
        elif whole or (tag.by_one and set(self.labels) and len(tag.rows) <= len(self.labels) + 1):
            label, whole = step, True
        elif self.walls:
            at = bisect.bisect_left(self.walls, (wall, -1))
            label = self.walls[at][1] if at < len(self.walls) else self.walls[-1][1] + 1
        if label is None or label < 0:
            return
        if tag.means.kind == "loss":
            self.sink.train(label, step=None if whole else step, loss=value, whole=whole)
        elif tag.means.kind == "lr":
            self.sink.train(label, lr=value, whole=whole)
        else:
            self.sink.train(label, whole=whole)

    def _eval(self, tag: _Tag, step: int, value: float, series: str) -> None:
        kind = tag.means.kind
        own_unit = kind != "loss" and _PERCENT.search(tag.name) is None
        self.sink.eval(
            self.labels.get(step),
            top1=value if kind == "top1" else None,
            top5=value if kind == "top5" else None,
            loss=value if kind == "loss" else None,
            series=series,
            own_unit=own_unit,
        )


def magic(head: bytes) -> bool:
    """Whether a file begins with a record whose length checks, and an event in it."""
    if len(head) < 13:
        return False
    return masked_crc(head[:8]) == struct.unpack("<I", head[8:12])[0] and head[12] == 0x09


def read(path: Path, sink: Sink) -> None:
    """Puts the scalars of an event file in. Raises OSError."""
    _Log(path, sink).feed()


FORMATS = [
    Format(
        key="tensorboard",
        title="TensorBoard event file",
        gives=("training loss", "top-1 and top-5 where their tags are known", "times"),
        lacks={"throughput": "no batch size and no such tag that all share"},
        magic=magic,
        read=read,
    )
]
