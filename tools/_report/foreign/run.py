"""One run of a foreign log, as `record.Sink` fills it and `figures` reads it. Bounded in memory."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

Scope = Literal["all cards", "per card", "not stated"]
CURVE = 4096  # points a curve may have


class Value(NamedTuple):
    """A number or word and the line it stands on."""

    value: float | int | str
    line: int


class EvalPoint(NamedTuple):
    """One evaluation. `epoch`: epochs done, None where the log does not say; percent."""

    line: int
    label: int | None
    epoch: float | None
    top1: float | None
    top5: float | None
    loss: float | None
    images: int | None
    elapsed_s: float | None


class TrainPoint(NamedTuple):
    """The last training record of an epoch. `mean`: its loss is a mean over the epoch so far."""

    line: int
    label: int
    epoch: float
    loss: float | None
    mean: bool
    lr: float | None
    rate: float | None
    elapsed_s: float | None


@dataclass
class Curve:
    """(epoch, value) for a plot. When full, neighbours are averaged."""

    x: array[float] = field(default_factory=lambda: array("d"))
    y: array[float] = field(default_factory=lambda: array("d"))
    _every: int = 1
    _held: list[tuple[float, float]] = field(default_factory=list)

    def add(self, x: float, y: float) -> None:
        self._held.append((x, y))
        if len(self._held) < self._every:
            return
        self.x.append(self._held[-1][0])
        self.y.append(sum(v for _, v in self._held) / len(self._held))
        self._held.clear()
        if len(self.x) >= CURVE:
            for values in (self.x, self.y):
                kept = [(a + b) / 2 for a, b in zip(values[::2], values[1::2], strict=False)]
                values[:] = array("d", kept)
            self._every *= 2

    def cut(self, epoch: float) -> None:
        """Drop what lies after `epoch`: it was trained again."""
        self._held.clear()
        while self.x and self.x[-1] > epoch:
            self.x.pop()
            self.y.pop()


@dataclass(eq=False)
class ForeignRun:
    """One run of a foreign log. Times are seconds since its first record or stated start.

    `rates` are images/s of each epoch after the first (running means, epoch records), or of each
    window after the first epoch; `step_s` the same in seconds a step where no rate is stated.
    """

    facts: dict[str, Value] = field(default_factory=dict)
    epochs: list[TrainPoint] = field(default_factory=list)
    evals: dict[str, list[EvalPoint]] = field(default_factory=dict)
    curves: dict[str, Curve] = field(default_factory=dict)
    remarks: dict[str, int] = field(default_factory=dict)
    own_units: set[str] = field(default_factory=set)  # series whose unit the values tell
    scope: Scope = "not stated"
    first_line: int = 0
    base: int = 0  # the number of the format's first epoch
    status: str = ""
    stated_start_s: float | None = None
    stated_end_s: float | None = None
    first_stamp_s: float | None = None
    first_record_s: float | None = None
    last_record_s: float | None = None
    last_stamp_s: float | None = None
    timed: bool = False
    warmup_is_marked: bool = (
        False  # its windows have no rate here; else the first epoch counts as it
    )
    rate_values: Rates = field(default_factory=lambda: Rates())
    step_values: Rates = field(default_factory=lambda: Rates())

    @property
    def rates(self) -> list[float]:
        """images/s in the scope stated, without warm-up; [] where none is stated."""
        return self.rate_values.after(None if self.warmup_is_marked else self._first_label)

    @property
    def step_s(self) -> list[float]:
        """Seconds a step, the first epoch left out."""
        return self.step_values.after(self._first_label)

    @property
    def _first_label(self) -> int | None:
        return self.epochs[0].label if self.epochs else None

    @property
    def cards(self) -> int | None:
        found = self.facts.get("cards")
        return int(found.value) if found else None

    @property
    def origin_s(self) -> float | None:
        """Where the run's time starts: a stated start, else its first record's stamp."""
        return self.stated_start_s if self.stated_start_s is not None else self.first_record_s


class Rates:
    """One value an epoch if the log gives running means or epoch records, else one a window."""

    def __init__(self) -> None:
        self._of_epoch: dict[int, float] = {}
        self._windows = array("f")
        self._ends: list[tuple[int, int]] = []  # (label, windows up to it)
        self.final: set[int] = set()

    def add(self, label: int, value: float, mean: bool, whole: bool) -> None:
        if whole:
            self.final.add(label)
        if whole or (mean and label not in self.final):
            self._of_epoch[label] = value
        elif not mean:
            self._windows.append(value)
            if self._ends and self._ends[-1][0] == label:
                self._ends[-1] = (label, len(self._windows))
            else:
                self._ends.append((label, len(self._windows)))

    def cut(self, label: int) -> None:
        """Forget epochs from `label` on."""
        self._of_epoch = {k: v for k, v in self._of_epoch.items() if k < label}
        while self._ends and self._ends[-1][0] >= label:
            self._ends.pop()
        del self._windows[self._ends[-1][1] if self._ends else 0 :]

    def after(self, first: int | None) -> list[float]:
        """Without those of the epoch labelled `first`, unless they are all there is."""
        if self._of_epoch:
            labels = sorted(label for label in self._of_epoch if label != first)
            return [self._of_epoch[label] for label in labels or self._of_epoch]
        skip = len(self._ends) > 1 and self._ends[0][0] == first
        return list(self._windows[self._ends[0][1] if skip else 0 :])
