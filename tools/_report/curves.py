"""What the curves show: series of numbers, one set of panels for each network and data set."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from proofrun.events import Eval

from . import measure
from .build import Report
from .cells import precision
from .foreign.figures import main_series
from .foreign.logs import ForeignLog
from .read import Run
from .rows import ThroughputRow
from .verdict import Verdict, same_hardware

PanelKey = Literal["loss", "accuracy", "time", "lr", "throughput", "wait", "scaling"]
POINTS = 1200  # more than a screen has across; longer series are averaged down to it
ABSURD = 1e12  # a diverged loss must not squash every other curve


@dataclass(frozen=True)
class Series:
    """One line. `colour` is an index, `second` draws dashes (ce, top5), `ideal` only dots;
    `repeats`: how many lines have this colour; `spread`: of each point, in units of y."""

    colour: int
    x: np.ndarray
    y: np.ndarray
    second: bool = False
    ideal: bool = False
    repeats: int = 1
    spread: np.ndarray | None = None


class Claimed(NamedTuple):
    """A claim: a level over all of the panel, or with `x` one point of it."""

    value: float
    metric: str
    x: float | None = None


class Key(NamedTuple):
    """One line of a legend."""

    label: str
    colour: int


@dataclass
class Panel:
    """One small plot. x: epochs; in `time` seconds of the mark clock, in `scaling` cards.
    `marks` are times of vertical lines; `legend` is set where colours are not those of runs."""

    key: PanelKey
    series: list[Series] = field(default_factory=list)
    claims: list[Claimed] = field(default_factory=list)
    marks: list[float] = field(default_factory=list)
    legend: list[Key] = field(default_factory=list)

    def add(self, colour: int, x: ArrayLike, y: ArrayLike, **look: bool | int) -> None:
        xs, ys = _thin(np.array(x, dtype=float), np.array(y, dtype=float))
        self.series.append(Series(colour, xs, ys, **look))  # type: ignore[arg-type]

    def claim(self, claimed: Claimed) -> None:
        if claimed not in self.claims and max(abs(claimed.value), claimed.x or 0) < ABSURD:
            self.claims.append(claimed)

    @property
    def empty(self) -> bool:
        return not any((np.isfinite(s.x) & np.isfinite(s.y)).any() for s in self.series)


@dataclass
class Figure:
    """All panels of one network and data set, with the legend of its runs."""

    model: str
    data: str
    panels: list[Panel]
    legend: list[Key]


def figures(report: Report) -> list[Figure]:
    """One figure for each network and data set with events; runs of one name share a colour.

    Short runs are left out where there are full ones.
    """
    by_set: dict[tuple[str, str], list[Run]] = {}
    for run in report.logs.runs:
        if len(run.windows):
            key = (run.plan.recipe.name, run.plan.recipe.data.name)
            by_set.setdefault(key, []).append(run)
    found = []
    for (model, data), members in by_set.items():
        runs = [run for run in members if run.plan.max_steps is None] or members
        colours = {name: i for i, name in enumerate(dict.fromkeys(r.plan.run for r in runs))}
        rows = [row for row in report.throughput if (row.model, row.data) == (model, data)]
        panels = [*_over_epochs(runs, colours), _scaling(rows, members, colours)]
        shown = [panel for panel in panels if not panel.empty]
        found.append(Figure(model, data, shown, _legend(runs, colours)))
    files: dict[str, list[ForeignLog]] = {}
    for log in report.logs.foreign:
        files.setdefault(log.file, []).append(log)
    return found + [_foreign(logs) for logs in files.values()]


def _foreign(logs: Sequence[ForeignLog]) -> Figure:
    """The runs of one file of another system, in the panels that its format can fill."""
    loss, accuracy, time = Panel("loss"), Panel("accuracy"), Panel("time")
    lr, throughput, wait = Panel("lr"), Panel("throughput"), Panel("wait")
    drawn = {"loss": (loss, 1.0), "lr": (lr, 1.0), "rate": (throughput, 1.0), "wait": (wait, 100.0)}
    for colour, log in enumerate(logs):
        for name, (panel, scale) in drawn.items():
            curve = log.run.curves.get(name)
            if curve is not None and len(curve.x):
                panel.add(colour, np.array(curve.x), scale * np.array(curve.y))
        scored = [e for e in log.run.evals.get(main_series(log.run), []) if e.top1 is not None]
        placed = [e for e in scored if e.epoch is not None]
        nan = math.nan
        x = [nan if e.epoch is None else e.epoch for e in placed]
        for second, values in ((False, [e.top1 for e in placed]), (True, [e.top5 for e in placed])):
            if any(v is not None for v in values):
                accuracy.add(colour, x, [nan if v is None else v for v in values], second=second)
        origin = log.run.origin_s
        stamped = [e for e in scored if e.elapsed_s is not None and origin is not None]
        seconds = [(e.elapsed_s or 0.0) - (origin or 0.0) for e in stamped]
        if stamped:
            time.add(colour, seconds, [nan if e.top1 is None else e.top1 for e in stamped])
    panels = [loss, accuracy, time, throughput, wait, lr]
    legend = [Key(log.name, colour) for colour, log in enumerate(logs)]
    shown = [panel for panel in panels if not panel.empty]
    return Figure(logs[0].file, logs[0].format.title, shown, legend)


def _legend(runs: Sequence[Run], colours: dict[str, int]) -> list[Key]:
    """A line for each name, with the numbers of its repeats and what is not finished."""
    keys = []
    for name, colour in colours.items():
        numbers = ", ".join(
            run.number if run.status == "finished" else f"{run.number} ({run.status})"
            for run in runs
            if run.plan.run == name
        )
        keys.append(Key(f"{name} / {numbers}", colour))
    return keys


def _over_epochs(runs: Sequence[Run], colours: dict[str, int]) -> list[Panel]:
    loss, accuracy, time = Panel("loss"), Panel("accuracy"), Panel("time")
    lr, throughput, wait = Panel("lr"), Panel("throughput"), Panel("wait")
    repeats = {name: sum(run.plan.run == name for run in runs) for name in colours}
    for run in runs:
        recipe, colour = run.plan.recipe, colours[run.plan.run]
        many = {"repeats": repeats[run.plan.run]}
        w = run.windows
        loss.add(colour, w.epoch, w.loss, **many)
        if not np.array_equal(w.ce, w.loss, equal_nan=True):
            loss.add(colour, w.epoch, w.ce, second=True, **many)
        lr.add(colour, w.epoch, w.lr, **many)
        kept = measure.steady(run)
        throughput.add(colour, w.epoch[kept], w.rate[kept], **many)
        wait.add(colour, w.epoch[kept], 100 * w.data_wait_s[kept] / w.window_s[kept], **many)

        protocol = recipe.data.eval[0].name
        evals = [e for e, _ in run.of(Eval) if e.protocol == protocol and e.count]
        top1 = [100 * e.correct1 / e.count for e in evals]
        time.add(colour, [e.mark_s for e in evals], top1, **many)
        time.marks += [m for m in recipe.marks_s if m not in time.marks and m < ABSURD]
        evals = [e for e in evals if e.why != "mark"]
        x = [e.epoch for e in evals]
        accuracy.add(colour, x, [100 * e.correct1 / e.count for e in evals], **many)
        accuracy.add(colour, x, [100 * e.correct5 / e.count for e in evals], second=True, **many)
        device, cards = run.device_name, run.cards
        for claim in recipe.claims:
            if claim.metric in ("top1", "top5"):
                accuracy.claim(Claimed(claim.value, claim.metric))
            if claim.metric == "top1":
                time.claim(Claimed(claim.value, "top1"))
            if claim.metric == "mark_top1":
                time.claim(Claimed(claim.value, "mark_top1", claim.mark_s))
            # speed: where the run has the claimed hardware, cards and precision
            here = same_hardware(claim.hardware, device) and claim.cards == cards
            here = here and claim.precision in (None, run.plan.precision)
            if claim.metric == "throughput" and here:
                throughput.claim(Claimed(claim.value, "throughput"))
    return [loss, accuracy, time, throughput, wait, lr]


def _scaling(rows: Sequence[ThroughputRow], runs: Sequence[Run], colours: dict[str, int]) -> Panel:
    """img/s over cards with the ideal line; empty where nothing was measured on several cards."""
    panel = Panel("scaling")
    if not any(row.many for row in rows):
        return panel
    names = {run.folder: run.plan.run for run in runs}
    # Rows of one series share what was measured on 1 card.
    series: dict[tuple[str, ...], list[ThroughputRow]] = {}
    for row in rows:
        cells = [cell for cell in (row.one, row.many) if cell]
        if cells:
            series.setdefault((precision(row), *cells[0].rate.sources), []).append(row)
    for number, members in enumerate(series.values()):
        first = members[0]
        colour = colours.get(names.get(first.runs[0], ""), len(colours) + number)
        cells = [cell for row in members[:1] for cell in (row.one,) if cell]
        cells += [row.many for row in members if row.many]
        cells = [cell for cell in cells if cell.cards]
        points = sorted(
            (c.cards or 0, c.rate.value or math.nan, c.rate.spread or 0.0) for c in cells
        )
        if not points:
            continue
        cards, rates, spread = (
            np.array(column, dtype=float) for column in zip(*points, strict=True)
        )
        panel.series.append(Series(colour, cards, rates, spread=spread))
        panel.legend.append(Key(f"{precision(first)}, {first.device_name}", colour))
        if first.one:
            ideal = rates[0] * np.array([1.0, cards[-1]])
            panel.series.append(Series(colour, np.array([1.0, cards[-1]]), ideal, ideal=True))
        for judgement in (j for row in members for j in row.judgements):
            claim = judgement.claim
            if claim.metric == "throughput" and judgement.verdict != Verdict.DIFFERENT_HARDWARE:
                panel.claim(Claimed(claim.value, "throughput", claim.cards))
    return panel


def _thin(xs: np.ndarray, ys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """At most POINTS points: means over bins; what is not finite leaves a gap. Own arrays."""
    xs[~(np.abs(xs) < ABSURD)] = math.nan
    ys[~(np.abs(ys) < ABSURD)] = math.nan
    if len(xs) <= POINTS:
        return xs, ys
    size = math.ceil(len(xs) / POINTS)
    whole = len(xs) // size * size
    # The mean of a bin with a gap is a gap: a divergence stays visible.
    return xs[:whole].reshape(-1, size).mean(axis=1), ys[:whole].reshape(-1, size).mean(axis=1)
