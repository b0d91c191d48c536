"""Rows of the throughput table: 1 card beside N cards, scaling, and mixed precision's speed-up."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from . import measure, standing, units
from .measure import Group, Throughput
from .read import Run
from .rows import (
    ThroughputRow,
    add_flag,
    add_judgement,
    estimate,
    flag_repeats,
    identity,
)
from .verdict import Estimate, Facts

SUPER_LINEAR = 1.02  # above this, measured scaling is remarked on
INPUT_BOUND = 0.10  # of the time waited for data: the input pipeline sets the speed
WHOLE_TIME = 0.9  # less of the median over the whole time is remarked on
COMPUTE_BOUND = 0.03  # less than this: the cards do


class _Where(NamedTuple):
    """Cards of all nodes."""

    cards: int
    nodes: int


ONE = _Where(1, 1)


@dataclass
class _Series:
    """All runs that differ in the number of cards and nodes only."""

    precision: str
    comparable: tuple[str, ...]
    cells: dict[_Where, list[Run]] = field(default_factory=dict)

    def at(self, where: _Where) -> Throughput | None:
        return measure.throughput(self.cells.get(where, []))


def throughput_rows(runs: Sequence[Run]) -> list[ThroughputRow]:
    """One row for each series and each number of cards above 1."""
    found: dict[tuple[str, ...], _Series] = {}
    for run in runs:
        comparable = _comparable(run)
        key = (*comparable, run.plan.precision)
        series = found.setdefault(key, _Series(run.plan.precision, comparable))
        series.cells.setdefault(_Where(run.cards, run.nodes), []).append(run)
    rows = []
    for series in found.values():
        series.cells = {where: _preferred(cell) for where, cell in series.cells.items()}
    fp32 = {s.comparable: s for s in found.values() if s.precision == "FP32"}
    for series in found.values():
        several: list[_Where | None] = [where for where in sorted(series.cells) if where != ONE]
        for index, where in enumerate(several or [None]):
            rows.append(_row(series, where, fp32.get(series.comparable), first=index == 0))
    return rows


def _comparable(run: Run) -> tuple[str, ...]:
    """What must be equal for a ratio: all of the configuration except precision and length."""
    plain = {"purpose": "full", "max_steps": None, "precision": "FP32"}
    same = run.plan.model_copy(update=plain).config_hash()
    known = (run.plan.recipe.name, run.plan.recipe.data.name, run.device_name, same)
    return (*known, *standing.flags(run))


def _preferred(runs: list[Run]) -> list[Run]:
    """Full runs if there are any; of short ones, the longest kind: lengths are never mixed."""
    full = [run for run in runs if run.plan.purpose == "full"]
    longest = max((run.plan.max_steps or 0 for run in runs), default=0)
    return full or [run for run in runs if (run.plan.max_steps or 0) == longest]


def _row(series: _Series, many: _Where | None, fp32: _Series | None, first: bool) -> ThroughputRow:
    members = [*series.cells.get(ONE, []), *(series.cells[many] if many else [])]
    row = ThroughputRow(**identity(Group(tuple(members))))  # type: ignore[arg-type]
    row.one = series.at(ONE)
    row.many = series.at(many) if many else None
    _name_short_runs(row)
    for cell in (row.one, row.many):
        if cell:
            flag_repeats(row, cell.rate)
            row.notes.append(diagnosis(cell))
    row.notes += [note for run in members if (note := _whole_time(run))]
    ratio = _scaling(row)
    row.scaling = ratio.value
    if row.scaling is not None and row.scaling > SUPER_LINEAR:
        row.notes.append(
            f"scaling {100 * row.scaling:.1f} % is above 100 %: look for a slow run on 1 card"
        )
    if fp32 is not None and fp32 is not series:
        row.speedup_one = _speedup(row.one, fp32.at(ONE))
        row.speedup_many = _speedup(row.many, fp32.at(many)) if many else None
    _judge(row, series, ratio, many, first)
    return row


def _judge(
    row: ThroughputRow, series: _Series, ratio: Estimate, many: _Where | None, first: bool
) -> None:
    """Claims on 1 card are judged in the first row only, so that each counts once."""
    for where, cell in ((ONE, row.one if first else None), (many, row.many)):
        if where is None or not series.cells.get(where) or (where == ONE and not first):
            continue
        run = series.cells[where][-1]
        barred = standing.bars(run, timed=True)
        facts = Facts(
            run.device_name, run.plan.precision, run.cards, run.global_batch, nodes=run.nodes
        )
        for claim in run.plan.recipe.claims:
            if claim.cards != run.cards or claim.metric not in ("throughput", "scaling"):
                continue
            if claim.metric == "throughput":
                measured = estimate(cell.rate) if cell else Estimate(None, 0, None)
                missing = "" if cell else "no window after warm-up"
            else:
                measured = ratio
                missing = "" if ratio.value is not None else "no run on 1 card to compare with"
            add_judgement(row, claim, facts, measured, barred or missing)


def _scaling(row: ThroughputRow) -> Estimate:
    """img/s on N cards / (N x img/s on 1), at equal images per card; errors add in quadrature."""
    one, many = row.one, row.many
    if one is None or many is None or one.rate.value is None or many.rate.value is None:
        return Estimate(None, 0, None)
    if one.per_card_batch != many.per_card_batch:
        row.notes.append(
            f"no scaling: {one.per_card_batch} images per card on 1 card, "
            f"{many.per_card_batch} on {many.cards}"
        )
        return Estimate(None, 0, None)
    assert many.cards is not None
    value = many.rate.value / (many.cards * one.rate.value)
    spread = None
    if one.rate.spread is not None and many.rate.spread is not None:
        relative = math.hypot(one.rate.spread / one.rate.value, many.rate.spread / many.rate.value)
        spread = value * relative
    n = min(one.rate.n, many.rate.n)
    return Estimate(value, n, spread, (*one.rate.sources, *many.rate.sources))


def _whole_time(run: Run) -> str:
    """Where all images / all the time of training are well under the median of windows."""
    cell = measure.throughput([run])
    seconds = float(run.windows.mark_s[-1]) if len(run.windows) else 0.0
    if cell is None or not cell.rate.value or run.plan.max_steps is not None or seconds <= 0:
        return ""
    over_all = float(run.windows.images.sum()) / seconds
    share = over_all / cell.rate.value
    if not share < WHOLE_TIME:
        return ""
    return (
        f"{run.folder}: all images over all the time (evaluations left out) are "
        f"{units.quantity('throughput', over_all)}, {100 * share:.1f} % of the median of windows: "
        "warm-up, checkpoints or slow windows took the rest"
    )


def bound_by(cell: Throughput) -> str:
    """What sets the speed, by the share of time that rank 0 waits for data (thresholds: ours)."""
    if cell.wait_share is None:
        return "not stated"
    if cell.wait_share >= INPUT_BOUND:
        return "input-bound"
    return "compute-bound" if cell.wait_share < COMPUTE_BOUND else "partly input-bound"


def diagnosis(cell: Throughput) -> str:
    """The reasoning in one line: what the cards could do if no data were waited for."""
    value = cell.rate.value
    assert value is not None and cell.wait_share is not None
    said = (
        f"{cell.cards} card{'s' * (cell.cards != 1)}: {bound_by(cell)}: "
        f"{100 * cell.wait_share:.1f} % of the time waits for data"
    )
    if cell.wait_share < COMPUTE_BOUND or cell.wait_share >= 1:
        return said
    without = units.quantity("throughput", value / (1 - cell.wait_share))
    return f"{said}; without the wait it would be {without} at most"


def _speedup(fast: Throughput | None, slow: Throughput | None) -> float | None:
    if fast is None or slow is None or not fast.rate.value or not slow.rate.value:
        return None
    return fast.rate.value / slow.rate.value


def _name_short_runs(row: ThroughputRow) -> None:
    """`20 steps` becomes `20 steps on 2` where the other cell comes from a full run."""
    cells = [cell for cell in (row.one, row.many) if cell]
    limits = {cell.steps_limit for cell in cells}
    if len(limits) < 2:
        return
    row.flags = [flag for flag in row.flags if not flag.endswith(" steps")]
    for cell in cells:
        if cell.steps_limit is not None:
            add_flag(row, f"{cell.steps_limit} steps on {cell.cards}")
