"""What the curves show: series of numbers over epochs, one set for each network and data set."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

from proofrun.events import Eval
from proofrun.recipe import Claim

from . import measure
from .read import Run
from .verdict import same_hardware

PanelKey = Literal["loss", "accuracy", "lr", "throughput"]
POINTS = 1200  # more than a screen has across; longer series are averaged down to it
ABSURD = 1e12  # a diverged loss must not squash every other curve


@dataclass(frozen=True)
class Series:
    """One line: `run` and `colour` are indices, `second` draws dashes (ce, top5)."""

    run: int
    colour: int
    x: np.ndarray
    y: np.ndarray
    second: bool = False
    dots: bool = False


@dataclass
class Panel:
    """One small plot; `claims` are (value, metric) of horizontal lines."""

    key: PanelKey
    series: list[Series] = field(default_factory=list)
    claims: list[tuple[float, str]] = field(default_factory=list)


@dataclass
class Figure:
    """All panels of one network and data set; `runs` are (label, colour, status) for its legend."""

    model: str
    data: str
    panels: list[Panel]
    runs: list[tuple[str, int, str]] = field(default_factory=list)


def figures(runs: Sequence[Run]) -> list[Figure]:
    """One figure for each network and data set with events; runs of one name share a colour.

    Short runs are left out where there are full ones.
    """
    by_set: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        if len(run.windows):
            key = (run.plan.recipe.name, run.plan.recipe.data.name)
            by_set.setdefault(key, []).append(run)
    return [_figure(*key, members) for key, members in by_set.items()]


def _figure(model: str, data: str, runs: list[Run]) -> Figure:
    runs = [run for run in runs if run.plan.max_steps is None] or runs
    panels = {k: Panel(k) for k in ("loss", "accuracy", "lr", "throughput")}
    figure = Figure(model, data, list(panels.values()))
    names = list(dict.fromkeys(run.plan.run for run in runs))
    for index, run in enumerate(runs):
        colour = names.index(run.plan.run)
        figure.runs.append((f"{run.plan.run} / {run.number}", colour, run.status))
        w = run.windows

        def add(
            key: str,
            x: npt.ArrayLike,
            y: npt.ArrayLike,
            second: bool = False,
            dots: bool = False,
            ids: tuple[int, int] = (index, colour),
        ) -> None:
            xs, ys = _thin(np.asarray(x, dtype=float), np.asarray(y, dtype=float))
            panels[key].series.append(Series(*ids, xs, ys, second, dots))

        add("loss", w.epoch, w.loss)
        if not np.array_equal(w.ce, w.loss, equal_nan=True):
            add("loss", w.epoch, w.ce, second=True)
        own = run.plan.recipe.data.eval[0].name
        evals = [e for e, _ in run.of(Eval) if e.protocol == own and e.count and e.why != "mark"]
        at = [e.epoch for e in evals]
        add("accuracy", at, [100 * e.correct1 / e.count for e in evals], dots=True)
        add("accuracy", at, [100 * e.correct5 / e.count for e in evals], second=True, dots=True)
        add("lr", w.epoch, w.lr)
        kept = measure.steady(run)
        add("throughput", w.epoch[kept], w.rate[kept])
    _claim_lines(panels, runs)
    return figure


def _claim_lines(panels: dict[str, Panel], runs: Sequence[Run]) -> None:
    """Accuracy claims always; speed claims where a run has the claimed hardware and cards."""
    panel_of = {"top1": "accuracy", "top5": "accuracy", "throughput": "throughput"}
    for run in runs:
        for claim in run.plan.recipe.claims:
            key = panel_of.get(claim.metric)
            line = (claim.value, claim.metric)
            if key and line not in panels[key].claims and _drawable(claim, run):
                panels[key].claims.append(line)


def _drawable(claim: Claim, run: Run) -> bool:
    if claim.metric != "throughput":
        return True
    here = same_hardware(claim.hardware, run.device_name) and claim.cards == run.cards
    return here and claim.precision in (None, run.plan.precision)


def _thin(xs: np.ndarray, ys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """At most POINTS points: means over bins; what is not finite leaves a gap."""
    xs = np.where(np.isfinite(xs), xs, math.nan)
    ys = np.where(np.isfinite(ys) & (np.abs(ys) < ABSURD), ys, math.nan)
    if len(xs) <= POINTS:
        return xs, ys
    size = math.ceil(len(xs) / POINTS)
    whole = len(xs) // size * size
    # The mean of a bin with a gap is a gap: a divergence stays visible.
    return xs[:whole].reshape(-1, size).mean(axis=1), ys[:whole].reshape(-1, size).mean(axis=1)
