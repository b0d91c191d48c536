"""Where two traces part: the first step and the first tensor out of bounds, and what it is like."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from . import look
from .bounds import Bounds, PrecisionBounds, deviations, limits, scalar_deviations, scalar_limits
from .trace import SCALARS, Row, Trace, TraceError, Values, check_same

Direction = Literal["forward", "backward", "update"]

_DIRECTION: dict[str, Direction] = {
    "output": "forward", "buffer": "forward", "loss": "forward",
    "grad": "backward", "weight_grad": "backward", "grad_norm": "backward",
    "lr": "update", "moment": "update", "weight": "update",
}  # fmt: skip

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
    """One tensor of one step out of bounds. `excess`: deviation / bound."""

    rank: int
    step: int
    place: Place
    excess: float
    look: look.Look
    over_steps: str

    def line(self) -> str:
        where = self.place.name if self.place.name != self.place.kind else ""
        return (
            f"step {self.step}, {self.place.direction}, {self.place.kind} {where}".rstrip()
            + f": {self.look.sort} ({self.look.says}), {self.excess:.3g} times its bound, "
            + self.over_steps
        )


@dataclass(frozen=True, eq=False)
class Comparison:
    """`excess`: (ranks, steps, places), in causal order. `lacking`: rows without a counterpart."""

    precision: str
    places: list[Place]
    excess: Values
    first: Finding | None
    more: list[Finding]  # the first of each later kind in the same step, for the table
    lacking: list[Row]

    @property
    def aligned(self) -> bool:
        return self.first is None

    @property
    def nearest(self) -> float:
        """The largest share of a bound that was used; above 1 is out."""
        return float(self.excess.max())


def bounds_of(known: Bounds, precision: str, device: str) -> tuple[str, PrecisionBounds]:
    """The bounds of a trace's precision; AMP is what the device makes of it. Raises TraceError."""
    name = precision
    if precision == "AMP":
        name = "BF16" if device == "CPU" else "FP16"
    if name not in known.precisions:
        raise TraceError(
            f"bounds of {known.recipe} know {', '.join(known.precisions)}, not {name}; replay in "
            "one of these, or calibrate it with `python -m tools._align.calibrate`"
        )
    return name, known.precisions[name]


def compare(trusted: Trace, other: Trace, known: Bounds, where: Path) -> Comparison:
    """Hold `other` against `trusted` over the steps of both, in the bounds of its precision.

    Raises TraceError when they are not of one exercise.
    """
    check_same(trusted, other, where)
    made = other.header.made
    precision, bounds = bounds_of(known, made.precision, made.device)
    steps = min(trusted.steps, other.steps)
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
    apart = deviations(mine, theirs, rows) / limits(bounds, known.margin, rows)
    excess = apart.max(axis=-1)
    reshaped = [row.shape != o.shape for row, o in zip(rows, others, strict=True)]
    excess[:, :, reshaped] = np.inf
    limit = scalar_limits(bounds, known.margin)
    single = scalar_deviations(trusted.scalars[:, :steps], other.scalars[:, :steps])
    single = single / np.array([limit[name] for name in SCALARS])
    places, merged = _in_order(rows, excess, single)
    pairs = {
        Place(row.name, row.kind): (mine[:, :, i], theirs[:, :, i], row, others[i].shape)
        for i, row in enumerate(rows)
    }
    numbers = {
        Place(name, name): (trusted.scalars[:, :steps, k], other.scalars[:, :steps, k])
        for k, name in enumerate(SCALARS)
    }
    first, more = _findings(places, merged, pairs, numbers)
    lacking = [row for row in trusted.rows if (row.name, row.kind) not in index]
    return Comparison(precision, places, merged, first, more, lacking)


def _in_order(rows: list[Row], excess: Values, single: Values) -> tuple[list[Place], Values]:
    """The step's numbers among its tensors: loss, gradient norm and rate where they arise."""
    places = [Place(row.name, row.kind) for row in rows]
    columns = [excess[:, :, i] for i in range(len(rows))]
    direction = [place.direction for place in places]
    backward = direction.index("backward") if "backward" in direction else len(places)
    update = direction.index("update") if "update" in direction else len(places)
    for at, name in ((update, "lr"), (update, "grad_norm"), (backward, "loss")):
        places.insert(at, Place(name, name))
        columns.insert(at, single[:, :, SCALARS.index(name)])
    return places, np.stack(columns, axis=-1)


def _findings(
    places: list[Place], excess: Values, pairs: dict, numbers: dict
) -> tuple[Finding | None, list[Finding]]:
    """The first finding, and in its step and rank the first of every other kind."""
    out = excess > 1
    if not out.any():
        return None, []
    step = int(np.flatnonzero(out.any(axis=(0, 2)))[0])
    column = int(np.flatnonzero(out[:, step].any(axis=0))[0])
    rank = int(np.flatnonzero(out[:, step, column])[0])

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
    for later in np.flatnonzero(out[rank, step]).tolist():
        if later > column and places[later].kind not in seen:
            seen.add(places[later].kind)
            more.append(finding(later))
    return first, more


def _look(place: Place, rank: int, step: int, pairs: dict, numbers: dict) -> look.Look:
    if place in numbers:
        mine, theirs = (float(values[rank, step]) for values in numbers[place])
        ratio = f", times {theirs / mine:.6g}" if mine else ""
        return look.Look("value", f"{mine:.6g} became {theirs:.6g}{ratio}")
    if place.name == "input":
        colours = {c: pairs[Place(f"input.{c}", "output")] for c in "RGB"}
        found = look.colours(
            {c: pair[0][rank, step] for c, pair in colours.items()},
            {c: pair[1][rank, step] for c, pair in colours.items()},
        )
        if found:
            return found
    mine, theirs, row, shape = pairs[place]
    return look.look(mine[rank, step], theirs[rank, step], row, shape)
