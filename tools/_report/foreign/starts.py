"""Which run a record of a foreign log belongs to: starts, restarts, several runs in one file.

Also its time: clocks that stand still between the processes of a run.
"""

from __future__ import annotations

import math
from array import array
from collections import deque
from typing import Literal

from .clock import Elapsed
from .run import ForeignRun, Value

REMEMBERED = 64  # records looked back on for a line that is printed again
MAX_REJECTED = 1000
_STEPS_BACK = "the clock steps back in this file: time spans are uncertain"


class BadRecord(ValueError):
    """A line of the format that cannot be true; the message says why."""


class Recent:
    """The newest records: whether one is there again."""

    def __init__(self) -> None:
        self._order: deque[tuple[object, ...]] = deque()
        self._keys: set[tuple[object, ...]] = set()

    def __contains__(self, key: tuple[object, ...]) -> bool:
        return key in self._keys

    def add(self, key: tuple[object, ...]) -> None:
        self._order.append(key)
        self._keys.add(key)
        if len(self._order) > REMEMBERED:
            self._keys.discard(self._order.popleft())

    def clear(self) -> None:
        self._order.clear()
        self._keys.clear()


class Runs:
    """The runs of one file, as one rank wrote them, and the state of reading."""

    def __init__(self, base: Literal[0, 1, None] = None, one_writer: bool = False) -> None:
        """`base`: the number of the format's first epoch; None: 0 if an epoch 0 is seen, else 1.

        one_writer: only one rank prints, so that a step back is a restart.
        """
        self._given_base = base
        self._one_writer = one_writer
        self._base = base if base is not None else 1
        self.runs: list[ForeignRun] = []
        self.rejected: list[tuple[int, str]] = []
        self.rejected_count = 0
        self.empty_starts = 0
        self._clock = Elapsed()
        self._seen = Recent()
        self._run = ForeignRun()
        self._start_pending: int | None = None
        self._marks: dict[str, int] = {}  # of the start that is pending, and their newest line
        self._pending_facts: dict[str, Value] = {}
        self._pending_begin: float | None = None
        self._pending_timed = False
        self._start_s: float | None = None
        self._stamp_line = 0
        self._label: int | None = None
        self._step: float | None = None
        self._steps_seen = 0
        self.line = 0
        self.used = 0  # calls that a line led to

    def start(self, new: bool = False, mark: str = "", stamped: bool = False) -> None:
        """A process of the run starts here: its first, a resumed one, or that of a new run.

        new: the format says that it is a new run. What a start without records stated is dropped.
        mark: a start prints it once, so again it is another start. stamped: the last time stamp,
        although on an earlier line, is of this start.
        """
        self.used += 1
        if new:
            run = self._run
            if run.epochs or any(run.evals.values()) or run.stated_start_s is not None:
                self._next_run()
                self._run.facts.clear()
                self._clock.pause()
            return
        before = self._marks.get(mark) if mark else None
        self._marks[mark] = self.line
        if self._start_pending is not None:
            if before is None or self.line - before <= 1:  # one line printed twice
                return
            self._forget_start()
            self._marks = {mark: self.line}
        self._start_pending = self.line
        self._seen.clear()  # the same numbers again are another process's
        stamped = stamped or self._stamp_line == self.line
        self._clock.pause(stamped)
        self._start_s = self._clock.seconds if stamped else None
        self._pending_timed = stamped
        if self._start_s is not None and self._run.last_stamp_s is not None:
            self._run.last_stamp_s = min(self._run.last_stamp_s, self._start_s)

    def clock(self, seconds: float, dated: bool = True, style: str = "") -> None:
        """The time stamp of the current line, in seconds of any one origin for each style.

        Before its record.
        """
        if not math.isfinite(seconds) or abs(seconds) > 1e14:
            raise BadRecord("the time stamp is not a possible time")
        now = self._clock.at(seconds, dated, style)
        self._stamp_line = self.line
        if self._start_pending is not None and self._start_s is None:
            self._start_s = now
        if self._undecided():  # whose time this is will be seen at the next record
            self._pending_timed = True
            return
        run = self._run
        run.timed = True
        if run.first_stamp_s is None:
            run.first_stamp_s = now
        run.last_stamp_s = now

    @property
    def timed(self) -> bool:
        """Whether the run has had a time stamp."""
        return self._run.timed

    def begin(self) -> None:
        """The run's own statement that its time starts at the current line."""
        self.used += 1
        if self._undecided():
            self._pending_begin = self._clock.seconds
        elif self._run.stated_start_s is None:
            self._run.stated_start_s = self._clock.seconds

    def end(self, status: str = "") -> None:
        """The log's own statement that the run ends here, and how."""
        self.used += 1
        self._run.status = status.strip()[:100] or self._run.status
        self._run.stated_end_s = self._clock.seconds

    def remark(self, text: str) -> None:
        """Something that a reader of the tables must know; the line is added."""
        self.used += 1
        self._run.remarks.setdefault(text, self.line)

    def reject(self, reason: str) -> None:
        """The current line is of the format and cannot be used."""
        self.used += 1
        self.rejected_count += 1
        if len(self.rejected) < MAX_REJECTED:
            self.rejected.append((self.line, reason))

    def _elapsed(self) -> float | None:
        return self._clock.seconds if self._run.timed else None

    def _undecided(self) -> bool:
        """Whether a start after records waits for the record that tells what it is."""
        run = self._run
        return self._start_pending is not None and bool(run.epochs or any(run.evals.values()))

    def _owner(self) -> ForeignRun:
        """The run that a statement belongs to: after a start with records before it, a new one."""
        self._run.first_line = self._run.first_line or self.line
        return self._run

    def _place(self, label: int, step: float | None) -> None:
        """Decide what a record at (label, step) is: more of the run, a resumed one, a new one."""
        run, current = self._run, self._label
        if self._given_base is None and label == 0:
            self._base = 0
        trained = bool(run.epochs or any(run.evals.values()))
        first = run.epochs[0].label if run.epochs else label
        back = current is not None and (
            label < current
            or (label == current and step is not None and self._from_the_start(label, step))
        )
        if trained and current is not None and (back or self._start_pending is not None):
            if label <= first or self._other_model():
                self._next_run()
            else:
                self._goes_on(label, again=back or label <= current)
        elif self._start_pending is not None and not trained and run.first_line:
            self.empty_starts += self._start_pending > run.first_line and not run.facts
        self._start_pending = None
        self._marks.clear()
        for key, value in self._pending_facts.items():
            self._run.facts.setdefault(key, value)
        self._pending_facts.clear()
        self._pending_begin, self._pending_timed = None, False
        if label != self._label:
            self._steps_seen = 0
        self._label, self._step = label, step if step is not None else self._step
        if step is None:
            self._step = None
        self._steps_seen += 1
        self._record_time()
        self._owner()

    def _forget_start(self) -> None:
        """A start that came to no record: what it stated is not of the next one."""
        self.empty_starts += 1
        self._pending_facts.clear()
        if not self._undecided():
            self._run.facts.clear()
            self._run.first_line = 0

    def _other_model(self) -> bool:
        """Whether the start that is pending states another network than the run."""
        given, known = (facts.get("model") for facts in (self._pending_facts, self._run.facts))
        return given is not None and known is not None and given.value != known.value

    def _from_the_start(self, label: int, step: float) -> bool:
        """Whether an epoch begins again, and not only a rank that lags behind the others."""
        current, last = self._label, self._step
        if current is None or last is None or label > current or step > last:
            return False
        if step == last:
            return self._one_writer and self._steps_seen == 1  # killed after its first line
        lags = self._steps_seen < 3 or step > 1 + 0.02 * last
        return label < current or self._one_writer or not lags

    def _record_time(self) -> None:
        """The run has a record at this time, since its start if that was stamped."""
        run, seconds = self._run, self._clock.seconds
        if run.timed:
            if run.first_stamp_s is None:
                run.first_stamp_s = seconds if self._start_s is None else self._start_s
            if run.first_record_s is None:
                run.first_record_s = seconds
            run.last_record_s = run.last_stamp_s = seconds
        self._start_s = None

    def _next_run(self) -> None:
        old = self._run
        self.runs.append(old)
        facts = dict(self._pending_facts or old.facts)
        timed = old.timed and old.stated_end_s is None
        if self._start_pending is not None:
            timed = self._pending_timed
        self._run = ForeignRun(
            facts=facts,
            timed=timed,
            stated_start_s=self._pending_begin,
            warmup_is_marked=old.warmup_is_marked,
        )
        self._seen.clear()
        self._label = self._step = None

    def _goes_on(self, label: int, again: bool) -> None:
        """`again`: what was recorded from epoch `label` on was trained again and counts once."""
        run = self._run
        run.stated_end_s = None
        if not again:
            self.remark("stopped and went on")
            return
        self.remark("stopped and went on from an earlier epoch; what was trained again counts once")
        run.epochs[:] = [point for point in run.epochs if point.label < label]
        for points in run.evals.values():
            points[:] = [p for p in points if p.label is None or p.label < label]
        for curve in run.curves.values():
            curve.cut(float(label))
        run.rate_values.cut(label)
        run.step_values.cut(label)
        self._seen.clear()

    def finish(self) -> list[ForeignRun]:
        """The runs of the file, epochs counted from 0 done. The sink takes no more."""
        runs = [*self.runs, self._run]
        self.runs = []
        for run in runs:
            _renumber(run, self._base)
            _to_percent(run)
            if self._clock.steps_back:
                run.remarks.setdefault(_STEPS_BACK, 0)
        kept = [run for run in runs if run.epochs or any(run.evals.values())]
        self.empty_starts += len(runs) - len(kept) - (not kept)
        return kept


def _to_percent(run: ForeignRun) -> None:
    for series in run.own_units:
        points = run.evals[series]
        if any((value or 0.0) > 1 for point in points for value in (point.top1, point.top5)):
            run.remarks.setdefault("accuracies above 1 are logged, so they are in percent", 0)
            continue
        points[:] = [
            point._replace(
                top1=None if point.top1 is None else 100 * point.top1,
                top5=None if point.top5 is None else 100 * point.top5,
            )
            for point in points
        ]


def _renumber(run: ForeignRun, base: int) -> None:
    run.base = base
    run.epochs[:] = [p._replace(epoch=p.epoch - base) for p in run.epochs]
    for points in run.evals.values():
        points[:] = [
            p if p.epoch is None or p.label is None else p._replace(epoch=p.epoch - base)
            for p in points
        ]
    for curve in run.curves.values():
        curve.x[:] = array("d", [x - base for x in curve.x])
