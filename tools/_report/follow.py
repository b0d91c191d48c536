"""A run that is being written: its events as they come, each byte read once."""

from __future__ import annotations

import math
import os
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import ValidationError

from proofrun.errors import ProofrunError
from proofrun.events import AnyEvent, Eval, Fault, Resume, RunStart, Train, parse_event
from proofrun.heartbeat import TIMEOUT_S, Beat, read_beat
from proofrun.runs import Plan

from .eventlog import Located, impossible
from .read import Status, plan_of, status_of

PACE_EVENTS = 100  # the time left follows the last so many windows and evaluations
LINE_BYTES = 1 << 24  # a longer line is no event


class Tail:
    """The whole lines that were appended to a file since the last look."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: tuple[int, int] | None = None
        self._offset = 0
        self._part = b""

    def read(self) -> tuple[list[bytes], bool]:
        """(new lines, whether the file is another or shorter: then they are from its start)."""
        try:
            with self._path.open("rb") as file:
                state = os.fstat(file.fileno())
                this = (state.st_dev, state.st_ino)
                again = self._file is not None and (
                    this != self._file or state.st_size < self._offset
                )
                if again:
                    self._offset, self._part = 0, b""
                self._file = this
                file.seek(self._offset)
                new = file.read()
        except OSError:
            return [], False
        self._offset += len(new)
        *lines, self._part = (self._part + new).split(b"\n")
        self._part = self._part[:LINE_BYTES]
        return lines, again


@dataclass
class Progress:
    """Where one run is. `evals` are those of the recipe's own protocol that count.

    `line_age_s`: since the last line was written; `silent`: for so long that nobody may write.
    """

    folder: Path
    status: Status = "running"
    message: str = ""
    plan: Plan | None = None
    start: RunStart | None = None
    train: Train | None = None
    evals: list[Eval] = field(default_factory=list)
    last: AnyEvent | None = None
    line_age_s: float | None = None
    silent: bool = False
    _beat: Beat | None = None
    _pace: deque[tuple[int, float]] = field(default_factory=lambda: deque(maxlen=PACE_EVENTS))

    def __post_init__(self) -> None:
        self._tail = Tail(self.folder / "events.jsonl")

    def update(self) -> None:
        """Take in what was written since the last call."""
        lines, again = self._tail.read()
        if again:
            self.start = self.train = self.last = None
            self.evals.clear()
            self._pace.clear()
        for line in lines:
            if line.strip():
                try:
                    self._take(parse_event(line))
                except ValidationError:
                    continue  # the report names it
        self._listen()
        self.status, self.message = status_of(
            self.folder, self.last, [self.last.message] if isinstance(self.last, Fault) else []
        )
        if self.plan is None:
            starts = [Located(self.start, 0)] if self.start else []
            with suppress(ProofrunError, ValidationError):
                self.plan = plan_of(self.folder, starts)

    def _listen(self) -> None:
        """How old the last line is, and whether its writer gives no sign of life any more."""
        try:
            written = (self.folder / "events.jsonl").stat().st_mtime
        except OSError:
            self.line_age_s, self.silent = None, False
            return
        self.line_age_s = max(0.0, time.time() - written)
        beat, before = read_beat(self.folder, 0), self._beat
        self._beat = beat
        lives = before is not None and beat != before
        if beat is not None and not lives:  # of this host; the clock of another one says nothing
            lives = 0 <= time.monotonic() - beat.at_s < TIMEOUT_S
        self.silent = self.line_age_s >= TIMEOUT_S and not lives

    def _take(self, event: AnyEvent) -> None:
        self.last = event
        if isinstance(event, RunStart):
            self.start = event
            self._pace.clear()
        elif isinstance(event, Resume):
            self.evals = [e for e in self.evals if e.seq <= event.from_seq]
            self.train = None
            self._pace.clear()
        elif isinstance(event, Train):
            self.train = event
        elif isinstance(event, Eval) and not impossible(event):
            self.evals.append(event)
        if isinstance(event, Train | Eval):
            self._pace.append((event.step, event.wall_s))

    @property
    def top1(self) -> float | None:
        """Percent, of the last evaluation under the recipe's own protocol."""
        own = self.plan.recipe.data.eval[0].name if self.plan else None
        found = [e for e in self.evals if e.count and e.protocol == own]
        return 100 * found[-1].correct1 / found[-1].count if found else None

    @property
    def left_s(self) -> float | None:
        """Seconds to the last step at the present pace, evaluations included."""
        if not self.plan or not self.start or len(self._pace) < 2 or self.status != "running":
            return None
        (step, wall), (now, wall_now) = self._pace[0], self._pace[-1]
        last = self.plan.recipe.schedule.epochs * self.start.steps_per_epoch
        last = min(last, self.plan.max_steps or last)
        try:
            seconds = (last - now) * (wall_now - wall) / (now - step)
        except (ZeroDivisionError, OverflowError):
            return None
        return max(seconds, 0.0) if math.isfinite(seconds) else None
