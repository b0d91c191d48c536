"""What a foreign log says of its runs: a reader puts records in, `ForeignRun` comes out.

A reader calls `Sink` with plain values in the units named there. The sink does what all formats
need: lines printed twice, ranks that repeat one another, starts appended to one file, epochs
trained again after a restart, epoch numbers from 0 or 1, clocks, bounded memory. Nothing that
a log does not state is worked out from what is usual.
"""

from __future__ import annotations

import math

from .run import Curve, EvalPoint, Scope, TrainPoint, Value
from .starts import BadRecord, Runs

MAX_EPOCHS = 100_000


class Sink(Runs):
    """Takes the records of one file, as one rank wrote them, and keeps its runs apart."""

    def fact(self, key: str, value: float | int | str) -> None:
        """What the log states of the run.

        Keys: model, data, framework, device, cards, batch_per_card, global_batch, epochs (planned),
        precision, optimizer, base_lr, seed, train_images, val_images, classes, resumed_from,
        label_smoothing. Another key is shown as it is. The first statement in a run counts.
        """
        self.used += 1
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

    def marks_warmup(self) -> None:
        """The log says which windows are warm-up: no rate is given of them."""
        self._run.warmup_is_marked = True

    def stated(self, key: str) -> float | int | str | None:
        """What the run has stated under `key` so far."""
        found = self._run.facts.get(key)
        return found.value if found else None

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
        self.used += 1
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
        self.used += 1
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
        self.used += 1
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
                self._record_time()
            elif self._label is None or label < self._label or self._start_pending is not None:
                self._place(label, None)
            else:
                self._record_time()
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

    def _checked_label(self, label: int) -> int:
        if not 0 <= label < 10_000_000:
            raise BadRecord(f"epoch {label} is not possible")
        return label


def _check_order(top1: float | None, top5: float | None) -> None:
    if top1 is not None and top5 is not None and top5 < top1 - 1e-3:
        raise BadRecord(f"top5 {top5} % is less than top1 {top1} %")
