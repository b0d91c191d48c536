"""Where two traces part: the first step and tensor that raise an alarm, and what they look like."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from . import look, rule
from .bounds import (
    Bounds,
    PrecisionBounds,
    added,
    deviations,
    limits,
    scalar_deviations,
    scalar_limits,
    shares,
)
from .trace import SCALARS, Row, Trace, TraceError, Values, check_same

Direction = Literal["forward", "backward", "update"]

_DIRECTION: dict[str, Direction] = {
    "output": "forward", "buffer": "forward", "loss": "forward",
    "grad": "backward", "weight_grad": "backward", "grad_norm": "backward",
    "lr": "update", "moment": "update", "weight": "update",
}  # fmt: skip

#: What a tensor looks like that the compared trace does not have, and should.
MISSING = look.Look("missing", "the trusted trace has it, this one does not")

#: A trace may lack tensors (merged branches have no output of their own), not most of them.
_LEAST_SHARED = 0.6


class Place(NamedTuple):
    """A row of the comparison: a traced tensor, or one of the step's numbers."""

    name: str
    kind: str  # a trace.Kind, or the scalar's name

    @property
    def direction(self) -> Direction:
        return _DIRECTION[self.kind]


@dataclass(frozen=True)
class Finding:
    """One tensor from the step on in which it left its bounds. `excess`: deviation / bound."""

    rank: int
    step: int
    place: Place
    excess: float
    look: look.Look
    over_steps: str

    def line(self) -> str:
        where = self.place.name if self.place.name != self.place.kind else ""
        said = f"step {self.step}, {self.place.direction}, {self.place.kind} {where}".rstrip()
        said += f": {self.look.sort} ({self.look.says})"
        if self.look == MISSING:
            return said
        return f"{said}, {self.excess:.3g} times its bound, {self.over_steps}"


class Remark(NamedTuple):
    """A place out of bounds in too few steps for an alarm. `step`: of its largest `excess`."""

    rank: int
    step: int
    place: Place
    excess: float
    out: int
    steps: int

    def line(self) -> str:
        name = self.place.name if self.place.name != self.place.kind else ""
        return (
            f"{self.place.kind} {name}".rstrip() + f", {self.excess:.3g} times its bound at step "
            f"{self.step}, out in {self.out} of {self.steps} steps: no alarm"
        )


@dataclass(frozen=True, eq=False)
class Comparison:
    """`excess`: (ranks, steps, places), in causal order. `lacking`: rows of layers that were passed
    by, and so without a counterpart."""

    precision: str
    places: list[Place]
    excess: Values
    first: Finding | None
    more: list[Finding]  # the first of each later kind in the same step, for the table
    remarks: list[Remark]  # the farthest out first
    lacking: list[Row]

    @property
    def aligned(self) -> bool:
        return self.first is None

    @property
    def nearest(self) -> float:
        """The largest share of a bound that was used, whether it raised an alarm or not."""
        return float(self.excess.max())


def bounds_of(
    known: Bounds, precision: str, device: str, where: Path
) -> tuple[str, PrecisionBounds]:
    """The bounds of a trace's precision; AMP is what the device makes of it. Raises TraceError."""
    name = precision
    if precision == "AMP":
        name = "BF16" if device == "CPU" else "FP16"
    if name not in known.precisions:
        raise TraceError(
            f"{where}: is in {name}, and bounds of {known.recipe} are known in "
            f"{', '.join(known.precisions)}; replay in one of these, or calibrate it with `python "
            "-m tools._align.calibrate`"
        )
    return name, known.precisions[name]


def compare(trusted: Trace, other: Trace, known: Bounds, where: Path) -> Comparison:
    """Hold `other` against `trusted` over the steps of both, in the bounds of its precision.

    Raises TraceError when they are not of one exercise, or too short to judge.
    """
    check_same(trusted.header.exercise, other.header.exercise, where)
    if not (np.isfinite(trusted.stats).all() and np.isfinite(trusted.scalars).all()):
        raise TraceError(
            f"{where}: cannot be held against the trusted trace, which has numbers that are not "
            "finite; record that one again"
        )
    made = other.header.made
    precision, bounds = bounds_of(known, made.precision, made.device, where)
    steps = min(trusted.steps, other.steps)
    if steps < rule.LEAST_STEPS:
        raise TraceError(
            f"{where}: has {steps} step in common with the trusted trace: a verdict takes "
            f"{rule.LEAST_STEPS}; record and replay more"
        )
    index = {(row.name, row.kind): i for i, row in enumerate(other.rows)}
    shared = [i for i, row in enumerate(trusted.rows) if (row.name, row.kind) in index]
    if len(shared) < _LEAST_SHARED * len(trusted.rows):
        raise TraceError(
            f"{where}: shares {len(shared)} of {len(trusted.rows)} tensors with the trusted trace: "
            "it is of another network; replay again"
        )
    rows = [trusted.rows[i] for i in shared]
    others = [other.rows[index[row.name, row.kind]] for row in rows]
    mine = trusted.stats[:, :steps, shared]
    theirs = other.stats[:, :steps, [index[row.name, row.kind] for row in rows]]
    apart, new = deviations(mine, theirs, rows), added(mine, theirs, rows)
    excess, new = shares(apart, new, limits(bounds, known.margin, rows, steps), rows)
    reshaped = [row.shape != o.shape for row, o in zip(rows, others, strict=True)]
    excess[:, :, reshaped] = np.inf
    single = scalar_deviations(trusted.scalars[:, :steps], other.scalars[:, :steps])
    with np.errstate(over="ignore"):
        single = single / scalar_limits(bounds, known.margin, steps)
    missing = [row for row in trusted.rows if (row.name, row.kind) not in index]
    lacking = [row for row in missing if (_layer(row), "output") not in index]
    missing = [row for row in missing if row not in lacking]
    every, excess, new = _with_missing(trusted.rows, rows, missing, excess, new)
    places, merged, new = _in_order(every, excess, new, single)
    pairs = {
        Place(row.name, row.kind): (mine[:, :, i], theirs[:, :, i], row, others[i].shape)
        for i, row in enumerate(rows)
    }
    numbers = {
        Place(name, name): (trusted.scalars[:, :steps, k], other.scalars[:, :steps, k])
        for k, name in enumerate(SCALARS)
    }
    began = rule.first_steps(merged, new, [place.kind for place in places])
    first, more = _findings(places, merged, began, pairs, numbers)
    remarks = _remarks(places, merged, began)
    return Comparison(precision, places, merged, first, more, remarks, lacking)


def _layer(row: Row) -> str:
    return row.name if row.kind in ("output", "grad") else row.name.rpartition(".")[0]


def _with_missing(
    order: Sequence[Row], rows: list[Row], missing: list[Row], excess: Values, new: Values
) -> tuple[list[Row], Values, Values]:
    """Rows, excess and what a step added, with those that are missing at their place: infinite."""
    column = {(row.name, row.kind): i for i, row in enumerate([*rows, *missing])}
    every = [row for row in order if (row.name, row.kind) in column]
    places = [column[row.name, row.kind] for row in every]
    out = np.full((*excess.shape[:2], len(missing)), np.inf)
    excess, new = (np.concatenate([own, out], axis=-1)[:, :, places] for own in (excess, new))
    return every, excess, new


def _in_order(
    rows: list[Row], excess: Values, new: Values, single: Values
) -> tuple[list[Place], Values, Values]:
    """The step's numbers among its tensors: loss, gradient norm and rate where they arise."""
    places = [Place(row.name, row.kind) for row in rows]
    columns = [excess[:, :, i] for i in range(len(rows))]
    fresh = [new[:, :, i] for i in range(len(rows))]
    direction = [place.direction for place in places]
    backward = direction.index("backward") if "backward" in direction else len(places)
    update = direction.index("update") if "update" in direction else len(places)
    for at, name in ((update, "lr"), (update, "grad_norm"), (backward, "loss")):
        places.insert(at, Place(name, name))
        columns.insert(at, single[:, :, SCALARS.index(name)])
        fresh.insert(at, single[:, :, SCALARS.index(name)])
    return places, np.stack(columns, axis=-1), np.stack(fresh, axis=-1)


def _findings(
    places: list[Place], excess: Values, began: NDArray[np.int64], pairs: dict, numbers: dict
) -> tuple[Finding | None, list[Finding]]:
    """The first finding, and in its step and rank the first of every other kind.

    `began`: (ranks, places), the step of each alarm, -1 where there is none.
    """
    if (began < 0).all():
        return None, []
    step = int(began[began >= 0].min())
    column = int(np.flatnonzero((began == step).any(axis=0))[0])
    rank = int(np.flatnonzero(began[:, column] == step)[0])

    def finding(column: int) -> Finding:
        place = places[column]
        return Finding(
            rank,
            step,
            place,
            float(excess[rank, step, column]),
            _look(place, rank, step, pairs, numbers),
            look.over_steps(excess[rank, :, column], step),
        )

    first = finding(column)
    seen, more = {first.place.kind}, []
    for later in np.flatnonzero(began[rank] == step).tolist():
        if later > column and places[later].kind not in seen:
            seen.add(places[later].kind)
            more.append(finding(later))
    return first, more


def _remarks(places: list[Place], excess: Values, began: NDArray[np.int64]) -> list[Remark]:
    """What was out of bounds and raised no alarm, of several ranks where it was farthest."""
    quiet = (excess > 1).any(axis=1) & (began < 0)
    found = []
    for column in np.flatnonzero(quiet.any(axis=0) & (began < 0).all(axis=0)).tolist():
        own = excess[:, :, column]
        rank, step = divmod(int(own.argmax()), own.shape[1])
        out = int((own[rank] > 1).sum())
        place = places[column]
        found.append(Remark(rank, step, place, float(own[rank, step]), out, own.shape[1]))
    return sorted(found, key=lambda remark: -remark.excess)


def _look(place: Place, rank: int, step: int, pairs: dict, numbers: dict) -> look.Look:
    if place in numbers:
        mine, theirs = (float(values[rank, step]) for values in numbers[place])
        ratio = f", times {theirs / mine:.6g}" if mine and np.isfinite(theirs) else ""
        return look.Look("value", f"{mine:.6g} became {theirs:.6g}{ratio}")
    places = {c: Place(f"input.{c}", "output") for c in "RGB"}
    if place.name == "input" and pairs.keys() >= set(places.values()):
        colours = {c: pairs[of] for c, of in places.items()}
        found = look.colours(
            {c: pair[0][rank, step] for c, pair in colours.items()},
            {c: pair[1][rank, step] for c, pair in colours.items()},
        )
        if found:
            return found
    if place not in pairs:
        return MISSING
    mine, theirs, row, shape = pairs[place]
    moment = Place(place.name, "moment")
    if place.kind == "weight" and row.shape == shape and moment in pairs:
        rates, _ = numbers[Place("lr", "lr")]
        apart = (theirs - mine)[rank]
        new = apart[step] - apart[step - 1] if step else apart[step]
        if said := look.of_update(new, -rates[rank, step] * pairs[moment][0][rank, step]):
            return said
    return look.look(mine[rank, step], theirs[rank, step], row, shape)
