"""What the curves show: series of numbers, one set of panels for each network and data set."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np

from proofrun.events import Eval, Train

from . import measure
from .build import Report
from .cells import precision
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

    def add(self, colour: int, x: Iterable[float], y: Iterable[float], **look: bool | int) -> None:
        xs, ys = _thin(list(x), list(y))
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
        if any(isinstance(event, Train) for event, _ in run.events):
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
    return found


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
        # without the names of their lines: a long run has 200,000 windows
        train = [e for e, _ in run.events if isinstance(e, Train)]
        x = [e.epoch for e in train]
        loss.add(colour, x, [e.loss for e in train], **many)
        if any(e.ce != e.loss for e in train):
            loss.add(colour, x, [e.ce for e in train], second=True, **many)
        lr.add(colour, x, [e.lr for e in train], **many)
        timed = measure.window_rates(run)
        x = [e.epoch for e, *_ in timed]
        throughput.add(colour, x, [rate for *_, rate in timed], **many)
        wait.add(colour, x, [100 * e.data_wait_s / e.window_s for e, *_ in timed], **many)

        protocol = recipe.data.eval[0].name
        evals = [e for e, _ in run.events if isinstance(e, Eval)]
        evals = [e for e in evals if e.protocol == protocol and e.count]
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
        points = sorted((c.cards, c.rate.value or math.nan, c.rate.spread or 0.0) for c in cells)
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


def _thin(x: list[float], y: list[float]) -> tuple[np.ndarray, np.ndarray]:
    """At most POINTS points: means over bins; what is not finite leaves a gap."""
    xs, ys = np.array(x, dtype=float), np.array(y, dtype=float)
    xs[~(np.abs(xs) < ABSURD)] = math.nan
    ys[~(np.abs(ys) < ABSURD)] = math.nan
    if len(xs) <= POINTS:
        return xs, ys
    size = math.ceil(len(xs) / POINTS)
    whole = len(xs) // size * size
    # The mean of a bin with a gap is a gap: a divergence stays visible.
    return xs[:whole].reshape(-1, size).mean(axis=1), ys[:whole].reshape(-1, size).mean(axis=1)
