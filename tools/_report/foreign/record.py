"""What a foreign log says of its runs: a reader puts records in, `ForeignRun` comes out.

A reader calls `Sink` with plain values in the units named there. The sink does what all formats
need: lines printed twice, ranks that repeat one another, starts appended to one file, epochs
trained again after a restart, epoch numbers from 0 or 1, clocks, bounded memory. Nothing that
a log does not state is worked out from what is usual.
"""

from __future__ import annotations

import math
from array import array
from collections import deque
from typing import Literal

from .clock import Elapsed
from .run import Curve, EvalPoint, ForeignRun, Scope, TrainPoint, Value

REMEMBERED = 64  # records looked back on for a line that is printed again
MAX_EPOCHS = 100_000
MAX_REJECTED = 1000
_STEPS_BACK = "the clock steps back in this file: time spans are uncertain"


class BadRecord(ValueError):
    """A line of the format that cannot be true; the message says why."""


class _Recent:
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


class Sink:
    """Takes the records of one file, as one rank wrote them, and keeps its runs apart."""

    def __init__(self, base: Literal[0, 1, None] = None) -> None:
        """`base`: the number of the format's first epoch; None: 0 if an epoch 0 is seen, else 1."""
        self._given_base = base
        self._base = base if base is not None else 1
        self.runs: list[ForeignRun] = []
        self.rejected: list[tuple[int, str]] = []
        self.rejected_count = 0
        self.empty_starts = 0
        self._clock = Elapsed()
        self._seen = _Recent()
        self._run = ForeignRun()
        self._start_pending: int | None = None
        self._pending_facts: dict[str, Value] = {}
        self._pending_begin: float | None = None
        self._pending_timed = False
        self._start_s: float | None = None
        self._stamp_line = 0
        self._label: int | None = None
        self._step: float | None = None
        self._steps_seen = 0
        self.line = 0

    # ---- what readers call -------------------------------------------------------------------

    def fact(self, key: str, value: float | int | str) -> None:
        """What the log states of the run.

        Keys: model, data, framework, device, cards, batch_per_card, global_batch, epochs (planned),
        precision, optimizer, base_lr, seed, train_images, val_images, classes, resumed_from,
        label_smoothing. Another key is shown as it is. The first statement in a run counts.
        """
        if isinstance(value, float) and not math.isfinite(value):
            raise BadRecord(f"{key} is not a finite number")
        if key in ("cards", "batch_per_card", "global_batch", "epochs") and (
            not isinstance(value, int) or not 0 < value < 1 << 31
        ):
            raise BadRecord(f"{key} is {value!r}")
        if isinstance(value, str):
            value = value.strip()[:300]
        facts = self._pending_facts if self._undecided() else self._owner().facts
        facts.setdefault(key, Value(value, self.line))

    def stated(self, key: str) -> float | int | str | None:
        """What the run has stated under `key` so far."""
        found = self._run.facts.get(key)
        return found.value if found else None

    def start(self, new: bool = False) -> None:
        """A process of the run starts here: its first, a resumed one, or that of a new run.

        new: the format says that it is a new run. What a start without records stated is dropped.
        """
        if new:
            run = self._run
            if run.epochs or any(run.evals.values()) or run.stated_start_s is not None:
                self._next_run()
                self._run.facts.clear()
                self._clock.pause()
            return
        if self._start_pending is not None:
            return
        self._start_pending = self.line
        self._seen.clear()  # the same numbers again are another process's
        stamped = self._stamp_line == self.line
        self._clock.pause(stamped)
        self._start_s = self._clock.seconds if stamped else None
        self._pending_timed = stamped
        if self._start_s is not None and self._run.last_stamp_s is not None:
            self._run.last_stamp_s = min(self._run.last_stamp_s, self._start_s)

    def clock(self, seconds: float, dated: bool = True) -> None:
        """The time stamp of the current line, in seconds of any one origin. Before its record."""
        if not math.isfinite(seconds) or abs(seconds) > 1e14:
            raise BadRecord("the time stamp is not a possible time")
        now = self._clock.at(seconds, dated)
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
        if self._undecided():
            self._pending_begin = self._clock.seconds
        elif self._run.stated_start_s is None:
            self._run.stated_start_s = self._clock.seconds

    def train(
        self,
        label: int,
        *,
        fraction: float | None = None,
        step: float | None = None,
        loss: float | None = None,
        mean: bool = False,
        lr: float | None = None,
        rate: float | None = None,
        rate_mean: bool = False,
        scope: Scope = "not stated",
        step_s: float | None = None,
        wait_share: float | None = None,
        whole: bool = False,
    ) -> None:
        """A line on training in the epoch that the log calls `label`.

        fraction: of the epoch done, 0 to 1; step: of the epoch, rising, in any unit; mean: loss is
        the mean over the epoch so far; rate: images/s of `scope`, rate_mean: a running mean;
        step_s: seconds a step (mean like the rate); wait_share: of the time, waited for data, 0 to
        1; whole: the line sums up the epoch. Loss may be NaN: that is a state, and is kept.
        """
        label = self._checked_label(label)
        key = ("train", label, step, loss, rate, step_s, whole)
        if key in self._seen:
            return
        if (
            step is not None
            and not whole
            and ("step", label, step) in self._seen
            and not self._from_the_start(label, step)
        ):
            self.remark("several ranks write here: the first line of each step is used")
            return
        self._seen.add(key)
        if step is not None and not whole:
            self._seen.add(("step", label, step))
        self._place(label, None if whole else step)
        for name, value in (("rate", rate), ("step_s", step_s), ("lr", lr)):
            if value is not None and not 0 <= value < 1e15:
                raise BadRecord(f"{name} is {value}")
        run = self._run
        done = 1.0 if whole else fraction if fraction is not None else 0.0
        epoch = label + min(max(done, 0.0), 1.0)  # the base comes off at the end
        last = run.epochs[-1] if run.epochs and run.epochs[-1].label == label else None
        if last is not None and last.epoch == label + 1 and last.mean and not whole:
            return  # the epoch has been summed up
        mean = loss is not None and (mean or whole)
        if last is not None:
            run.epochs.pop()
            loss, mean = (last.loss, last.mean) if loss is None else (loss, mean)
            lr = last.lr if lr is None else lr
        elif len(run.epochs) >= MAX_EPOCHS:
            raise BadRecord(f"more than {MAX_EPOCHS} epochs")
        point = TrainPoint(self.line, label, epoch, loss, mean, lr, rate, self._elapsed())
        run.epochs.append(point)
        if rate is not None and rate > 0:
            run.rate_values.add(label, rate, rate_mean, whole)
            run.scope = scope
        if step_s is not None and step_s > 0:
            run.step_values.add(label, step_s, rate_mean, whole)
        drawn = {"loss": loss, "lr": lr, "rate": rate, "wait": wait_share}
        for name, value in drawn.items():
            if value is not None and (not whole or name == "rate"):
                if name not in run.curves:
                    run.curves[name] = Curve()
                run.curves[name].add(epoch, value)

    def trained(self, label: int) -> None:
        """The log lists, out of its order, that epoch `label` was trained, and no more of it."""
        label = self._checked_label(label)
        run = self._run
        if self._given_base is None and label == 0:
            self._base = 0
        if (not run.epochs or run.epochs[-1].label < label) and len(run.epochs) < MAX_EPOCHS:
            run.epochs.append(
                TrainPoint(self.line, label, label + 1.0, None, True, None, None, None)
            )
            self._owner()

    def eval(
        self,
        label: int | None,
        *,
        top1: float | None = None,
        top5: float | None = None,
        loss: float | None = None,
        images: int | None = None,
        series: str = "",
        epochs_done: float | None = None,
        late: bool = False,
        own_unit: bool = False,
    ) -> None:
        """An evaluation: percent, plain loss, images scored; `series` names EMA weights and such.

        label None: after the epoch that was trained last, or before training. `epochs_done` where
        the format states it instead of a label; late: if `label` lies back, a checkpoint of it was
        scored later, and nothing is trained again. own_unit: a user named and scaled the metric:
        its series is percent if any value in it is above 1, for no fraction is, else a fraction.
        Raises BadRecord outside 0 to 100 %.
        """
        for name, value in (("top1", top1), ("top5", top5)):
            if value is not None and not 0 <= value <= 100 + 1e-6:
                raise BadRecord(f"{name} is {value} %")
        _check_order(top1, top5)
        if top1 is None and top5 is None and loss is None:
            return
        if label is not None:
            label = self._checked_label(label)
            if late and self._label is not None and label < self._label:
                self.remark("checkpoints were scored later: their times are those of the scoring")
            elif self._label is None or label < self._label or self._start_pending is not None:
                self._place(label, None)
        else:
            label = self._label
            self._record_time()
        key = ("eval", series, label, epochs_done, top1, top5, loss)
        if key in self._seen:
            return
        self._seen.add(key)
        points = self._owner().evals.setdefault(series, [])
        if own_unit:
            self._run.own_units.add(series)
        epoch = epochs_done if epochs_done is not None else None if label is None else label + 1.0
        where = (self.line, label if epochs_done is None else None, epoch)
        last = points[-1] if points and points[-1][1:3] == where[1:] else None
        if last is not None:
            before = (last.top1, last.top5, last.loss)
            given = (top1, top5, loss)
            if all(old is None or new is None for old, new in zip(before, given, strict=True)):
                top1, top5, loss = (
                    old if new is None else new for old, new in zip(before, given, strict=True)
                )
                _check_order(top1, top5)
                points.pop()  # one evaluation on several lines
            elif last.top1 is None and top1 is not None:
                points.pop()
            elif where[1:] != (None, None):
                self.remark("several evaluations after one epoch: the first is used")
                return
        if len(points) >= MAX_EPOCHS:
            raise BadRecord(f"more than {MAX_EPOCHS} evaluations")
        points.append(EvalPoint(*where, top1, top5, loss, images, self._elapsed()))

    def end(self, status: str = "") -> None:
        """The log's own statement that the run ends here, and how."""
        self._run.status = status.strip()[:100] or self._run.status
        self._run.stated_end_s = self._clock.seconds

    def remark(self, text: str) -> None:
        """Something that a reader of the tables must know; the line is added."""
        self._run.remarks.setdefault(text, self.line)

    def reject(self, reason: str) -> None:
        """The current line is of the format and cannot be used."""
        self.rejected_count += 1
        if len(self.rejected) < MAX_REJECTED:
            self.rejected.append((self.line, reason))

    # ---- runs --------------------------------------------------------------------------------

    def _elapsed(self) -> float | None:
        return self._clock.seconds if self._run.timed else None

    def _checked_label(self, label: int) -> int:
        if not 0 <= label < 10_000_000:
            raise BadRecord(f"epoch {label} is not possible")
        return label

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
            if label <= first:
                self._next_run()
            elif back or label <= current:
                self._resumed(label)
            else:
                self.remark("stopped and went on")
        elif self._start_pending is not None and not trained and run.first_line:
            self.empty_starts += self._start_pending > run.first_line and not run.facts
        self._start_pending = None
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

    def _from_the_start(self, label: int, step: float) -> bool:
        """Whether an epoch begins again, and not only a rank that lags behind the others."""
        current, last = self._label, self._step
        if current is None or last is None or label > current or step >= last:
            return False
        return label < current or (self._steps_seen >= 3 and step <= 1 + 0.02 * last)

    def _record_time(self) -> None:
        """The run has a record at this time, since its start if that was stamped."""
        run, seconds = self._run, self._clock.seconds
        if run.timed:
            if run.first_stamp_s is None:
                run.first_stamp_s = seconds if self._start_s is None else self._start_s
            if run.first_record_s is None:
                run.first_record_s = seconds
            run.last_stamp_s = seconds
        self._start_s = None

    def _next_run(self) -> None:
        old = self._run
        self.runs.append(old)
        facts = dict(self._pending_facts or old.facts)
        timed = old.timed and old.stated_end_s is None
        if self._start_pending is not None:
            timed = self._pending_timed
        self._run = ForeignRun(facts=facts, timed=timed, stated_start_s=self._pending_begin)
        self._seen.clear()
        self._label = self._step = None

    def _resumed(self, label: int) -> None:
        """What was recorded from epoch `label` on was trained again and counts once."""
        run = self._run
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


def _check_order(top1: float | None, top5: float | None) -> None:
    if top1 is not None and top5 is not None and top5 < top1 - 1e-3:
        raise BadRecord(f"top5 {top5} % is less than top1 {top1} %")


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
    run.epochs[:] = [p._replace(epoch=p.epoch - base) for p in run.epochs]
    for points in run.evals.values():
        points[:] = [
            p if p.epoch is None or p.label is None else p._replace(epoch=p.epoch - base)
            for p in points
        ]
    for curve in run.curves.values():
        curve.x[:] = array("d", [x - base for x in curve.x])
