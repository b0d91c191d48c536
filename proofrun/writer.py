"""The writer of the event log, and the clocks that go on after a restart. Torch-free."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any, NamedTuple, cast

from proofrun.errors import WriteError
from proofrun.events import AnyEvent, Event, Resume, Train, read_events


class Clock:
    """Three monotonic clocks that go on after a restart.

    `wall_s` runs from process start; `mark_s` from the start of the first step, standing still in
    evaluations; `train_s` is the sum of step windows. Down time counts in none of them.
    """

    def __init__(self, process_start: float | None = None) -> None:
        """`process_start`: a time.monotonic() reading, by default now."""
        self._wall_from = time.monotonic() if process_start is None else process_start
        self._wall_base = 0.0
        self._mark_base = 0.0
        self._mark_from: float | None = None
        self.train_s = 0.0

    @property
    def wall_s(self) -> float:
        return self._wall_base + time.monotonic() - self._wall_from

    @property
    def mark_s(self) -> float:
        running = 0.0 if self._mark_from is None else time.monotonic() - self._mark_from
        return self._mark_base + running

    def start_mark(self) -> None:
        """Let the mark clock run: at the first step and after each evaluation."""
        if self._mark_from is None:
            self._mark_from = time.monotonic()

    def stop_mark(self) -> None:
        self._mark_base = self.mark_s
        self._mark_from = None

    def go_on_from(self, wall_s: float, mark_s: float, train_s: float) -> None:
        """Add what earlier processes of the run spent, as their last event says."""
        self._wall_base += wall_s
        self._mark_base += mark_s
        self.train_s += train_s

    def readings(self) -> dict[str, float]:
        """The clock fields of an event, in seconds."""
        return {
            "wall_s": round(self.wall_s, 6),
            "mark_s": round(self.mark_s, 6),
            "train_s": round(self.train_s, 6),
            "t_wall": round(time.time(), 3),
        }


class Losses(NamedTuple):
    """Of one window of training."""

    seq: int
    loss: float
    ce: float


class EventWriter:
    """Appends events to a file, one os.write a line, numbered in order. Rank 0 only."""

    def __init__(self, path: Path, clock: Clock) -> None:
        self._path = path
        self._clock = clock
        self.next_seq = 0
        self.last: AnyEvent | None = None
        self._losses: list[Losses] = []
        torn = False
        if path.exists():
            for _, event in read_events(path):
                if not isinstance(event, str):
                    self._remember(event)
                    self.next_seq = max(self.next_seq, event.seq + 1)
            torn = path.stat().st_size > 0 and path.read_bytes()[-1:] != b"\n"
        try:
            self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        except OSError as error:
            raise WriteError(f"cannot write {path}: {error.strerror}; check the folder") from None
        if torn:  # a kill in the middle of a line: close it, so that ours starts on its own
            self._write(b"\n")

    def write(self, kind: type[Event], *, step: int, epoch: float, **fields: Any) -> Any:
        """Build an event of `kind`, stamp it with the clock, append it and return it."""
        event = kind(
            seq=self.next_seq, step=step, epoch=round(epoch, 6), **self._clock.readings(), **fields
        )
        self._write(event.model_dump_json(by_alias=True).encode() + b"\n")
        self.next_seq += 1
        self._remember(cast(AnyEvent, event))
        return event

    def _remember(self, event: AnyEvent) -> None:
        self.last = event
        if isinstance(event, Train):
            self._losses.append(Losses(event.seq, event.loss, event.ce))
        if isinstance(event, Resume):
            while self._losses and self._losses[-1].seq > event.from_seq:
                self._losses.pop()

    @property
    def losses(self) -> Losses | None:
        """Of the last window that counts: none that a resume dropped."""
        return self._losses[-1] if self._losses else None

    def _write(self, line: bytes) -> None:
        try:
            written = os.write(self._fd, line)
        except OSError as error:
            raise WriteError(
                f"cannot write {self._path}: {error.strerror}; free space, then run the same again"
            ) from None
        if written != len(line):  # take the half line back: one is whole or not there
            os.ftruncate(self._fd, os.fstat(self._fd).st_size - written)
            raise WriteError(f"{self._path}: the disk is full; free space, then run the same again")

    def close(self) -> None:
        os.close(self._fd)
