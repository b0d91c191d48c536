"""events.jsonl to events that count, whatever became of the file: bounded memory, nothing raised.

Windows of training are most of a log, so they are kept as columns (73 bytes a window); all other
events are kept whole. Lines that cannot be used are given back with the reason; of a line in which
two events are glued, or an event follows a torn one, what can be read is used.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from pydantic import ValidationError

from proofrun.events import (
    AnyEvent,
    Eval,
    Mark,
    Resume,
    RunStart,
    Train,
    parse_event,
    survives,
    why_not,
)

from .foreign.lines import LONGEST, Unpacked, open_log, raw_lines

MAX_REJECTED = 1000
MOST = 1 << 31  # cards, nodes, images in a batch
ROUNDED = 0.005  # percent: what a stated accuracy may differ from its counts
LOSS_ROUNDED = 1e-3
_BEGIN = re.compile(rb'\{"schema"')
Column = npt.NDArray[np.float64]


class Located(NamedTuple):
    """An event and its line number in the file, from 1."""

    event: AnyEvent
    line: int


class Window(NamedTuple):
    """One window of training, with the fields of proofrun.events.Train that a report needs."""

    line: int
    seq: int
    step: int
    steps: int
    images: int
    warmup: int
    epoch: float
    loss: float
    ce: float
    lr: float
    window_s: float
    data_wait_s: float
    mark_s: float


_TYPES = "IqqIIBddddddd"  # array codes of Window's fields


class Windows:
    """Windows in order, as columns: `windows.loss` is an array over all of them."""

    def __init__(self) -> None:
        self._columns = [array(code) for code in _TYPES]

    def __len__(self) -> int:
        return len(self._columns[0])

    def __getitem__(self, index: int) -> Window:
        return Window(*(column[index] for column in self._columns))

    def __iter__(self) -> Iterator[Window]:
        return (Window(*row) for row in zip(*self._columns, strict=True))

    def __getattr__(self, name: str) -> Column:
        if name.startswith("_") or name not in Window._fields:
            raise AttributeError(name)
        column = self._columns[Window._fields.index(name)]
        return np.asarray(np.frombuffer(column, dtype=column.typecode), dtype=np.float64)

    @property
    def rate(self) -> Column:
        """images/s; not finite where the time of a window is 0, or next to it."""
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            return np.asarray(self.images / self.window_s)

    def add(self, event: Train, line: int) -> None:
        """Raises OverflowError for a count that no run can have; nothing is added then."""
        row = (line, *(getattr(event, name) for name in Window._fields[1:]))
        size = len(self)
        try:
            for column, value in zip(self._columns, row, strict=True):
                column.append(value)
        except OverflowError:
            for column in self._columns:
                del column[size:]
            raise

    def cut(self, seq: int) -> None:
        """Drop the windows after `seq`: they were trained again."""
        seqs = self._columns[1]
        while seqs and seqs[-1] > seq:
            for column in self._columns:
                column.pop()


@dataclass
class EventLog:
    """One process history of a run: the events that count, and how many lines did not.

    `events` holds all kinds but train, in order (with `whole`, these too, and no windows); `last`
    is the last event of any kind. `missing` says where the first number in a row was left out.
    """

    whole: bool = False

    events: list[Located] = field(default_factory=list)
    windows: Windows = field(default_factory=Windows)
    last: AnyEvent | None = None
    epochs_done: float = 0.0
    mark_s: float = 0.0
    missing: str = ""
    _seq: int = -1

    def add(self, event: AnyEvent, line: int) -> str:
        """Take an event, or say why not."""
        if event.seq <= self._seq:
            return f"event {event.seq} again (the last was {self._seq})"
        if reason := impossible(event) or self._uncounted(event):
            return reason
        if event.seq != self._seq + 1 and not self.missing:
            first, last = self._seq + 1, event.seq - 1
            what = f"event {first}" if first == last else f"events {first} to {last}"
            self.missing = f"{what} before line {line}"
        self._seq = event.seq
        if isinstance(event, Resume):
            self._supersede(event)
        if isinstance(event, Train) and not self.whole:
            try:
                self.windows.add(event, line)
            except OverflowError:
                return "train: a count is not possible"
        else:
            self.events.append(Located(event, line))
        self.last = event
        return ""

    def _uncounted(self, event: AnyEvent) -> str:
        """Why a mark is not what the evaluation before it counted, or ""."""
        if not isinstance(event, Mark):
            return ""
        scored = next((e for e, _ in reversed(self.events) if isinstance(e, Eval)), None)
        at = (event.step, event.protocol, event.count)
        if scored is None or scored.why != "mark":
            return "mark: the evaluation that it states is not in the log"
        if at != (scored.step, scored.protocol, scored.count):
            return "mark: the evaluation before it is another one (step, protocol or count)"
        before = self.windows[len(self.windows) - 1] if len(self.windows) else event
        for name in ("loss", "ce"):
            said, was = getattr(event, name), getattr(before, name)
            if abs(said - was) > LOSS_ROUNDED:  # never of NaN
                return f"mark: {name} {said:g} is stated, the window before it has {was:g}"
        return "mark: " + why if (why := _other_counts(event, scored)) else ""

    def _supersede(self, resume: Resume) -> None:
        starts = [event for event, _ in self.events if isinstance(event, RunStart)]
        last = starts[-1] if starts else None
        self.events = [each for each in self.events if survives(each.event, resume, last)]
        self.windows.cut(resume.from_seq)

    def finish(self) -> None:
        """Work out what is asked often."""
        others = [event for event, _ in self.events]
        tail = self.windows[len(self.windows) - 1] if len(self.windows) else None
        epochs = [event.epoch for event in others] + ([tail.epoch] if tail else [])
        marks = [event.mark_s for event in others] + ([tail.mark_s] if tail else [])
        self.epochs_done = max(epochs, default=0.0)
        self.mark_s = max(marks, default=0.0)


@dataclass
class EventFile:
    """What a file holds: usually one history; more where files of runs were put together."""

    logs: list[EventLog] = field(default_factory=list)
    rejected: list[tuple[int, str]] = field(default_factory=list)
    rejected_count: int = 0
    damaged: str = ""


def impossible(event: AnyEvent) -> str:
    """Why an event of valid form cannot be true, or ""."""
    if isinstance(event, RunStart):
        sizes = (event.world_size, event.nodes, event.per_card_batch, event.global_batch)
        if not all(0 < size < MOST for size in sizes):
            return "run_start: cards, nodes or batch are not possible"
    if isinstance(event, Train) and min(event.loss, event.ce) < 0:
        return f"train: a loss of {min(event.loss, event.ce):g} is not possible"
    if isinstance(event, Train) and not (event.window_s > 0 and event.steps > 0):
        return f"train: {event.steps} steps in {event.window_s:g} s are not possible"
    if isinstance(event, Eval) and not 0 <= event.correct1 <= event.correct5 <= event.count:
        wrong = f"{event.correct1} and {event.correct5} correct of {event.count}"
        return f"eval: {wrong} is not possible"
    if isinstance(event, Eval) and (why := _other_counts(event, event)):
        return f"eval: {why}"
    return ""


def _other_counts(stated: Eval | Mark, scored: Eval) -> str:
    """Where stated percentages are not those of the counts."""
    for name, correct in (("top1", scored.correct1), ("top5", scored.correct5)):
        if not scored.count:
            return ""
        percent, said = 100 * correct / scored.count, getattr(stated, name)
        if not abs(said - percent) <= ROUNDED:
            return f"{name} {said:g} % is stated, {correct} of {scored.count} are {percent:.2f} %"
    return ""


def read_event_file(path: Path, whole: bool = False) -> EventFile:
    """All that can be used of events.jsonl (or .gz). Raises OSError if it cannot be opened.

    `whole` keeps every field of the windows too, in memory of the size of the log.
    """
    found = EventFile([EventLog(whole)])
    with open_log(path) as file:
        for line, raw in raw_lines(file):
            if not raw.strip():
                continue
            for event in _events(raw):
                reason = event if isinstance(event, str) else _take(found, event, line)
                if reason:
                    found.rejected_count += 1
                    if len(found.rejected) < MAX_REJECTED:
                        found.rejected.append((line, reason))
        found.damaged = file.fault if isinstance(file, Unpacked) else ""
    for log in found.logs:
        log.finish()
    return found


def _take(found: EventFile, event: AnyEvent, line: int) -> str:
    log = found.logs[-1]
    if isinstance(event, RunStart) and event.seq == 0 and log.last is not None:
        first = next((e for e, _ in log.events if isinstance(e, RunStart)), None)
        if first is not None and first.t_wall == event.t_wall:
            return "event 0 again"
        log = EventLog(log.whole)
        found.logs.append(log)
    return log.add(event, line)


def _events(raw: bytes) -> Iterator[AnyEvent | str]:
    """The event of a line; of a line that is none, events glued together or after a torn one."""
    try:
        yield parse_event(raw)
        return
    except ValidationError as error:
        reason = why_not(error)
    if len(raw) >= LONGEST:
        yield f"line: longer than {LONGEST:,} bytes"
        return
    starts = [found.start() for found in _BEGIN.finditer(raw)][:100]
    if not starts or starts == [0]:
        yield reason
        return
    for at, end in zip(starts, [*starts[1:], len(raw)], strict=True):
        try:
            yield parse_event(raw[at:end].strip())
        except ValidationError:
            yield reason if len(starts) == 1 else "a torn event in a line of several"
