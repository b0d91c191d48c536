"""How far two traces are apart, and how far a precision may be: calibrated, read from a file."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationError

from proofrun.errors import one_line
from proofrun.recipe import Strict

from .trace import SCALARS, Row, Sha256, Trace, TraceError, Values

#: Of one tensor, relative to its rms: rms of the six projections' differences (so about the
#: relative error of the tensor), and differences of mean, rms and largest magnitude.
DEVIATIONS = ("projections", "mean", "rms", "max")

#: An rms below this share of the largest of its kind counts as this share: the gradient of a bias
#: that BatchNorm takes out again is zero but for rounding, and has no relative error.
SCALE_FLOOR = 1e-6

#: Traces hold float32: what is this near to a stored number is equal to it.
_STORED = 2.0**-22

#: No bound is lower.
BOUND_FLOOR = 3e-7

#: A bound is this many times the largest deviation that was seen in calibration.
MARGIN = 4.0


#: What a state keeps from the step before: of BatchNorm's statistics 1 - momentum, of the
#: optimizer's moment its momentum, as both recipes have them. A weight keeps all, but moves by the
#: rate times its moment, far less than its bound: what is out of bounds there is the update's own.
KEPT = {"buffer": 0.9, "moment": 0.9}


#: Steps from which on deviations are bounded anew: weights drift apart, and all else with them.
PHASES = (0, 3, 10)


class Phase(Strict):
    """Largest deviations in some steps: by pool of rows (`pool`), one a name of DEVIATIONS; by
    scalar."""

    rows: dict[str, tuple[float, float, float, float]]
    scalars: dict[str, float]


class PrecisionBounds(Strict):
    """Largest deviations seen in each of PHASES."""

    runs: int
    how: str
    phases: tuple[Phase, ...]


class Bounds(Strict):
    """What `python -m tools._align.calibrate` measured for one recipe."""

    schema_: Literal[2] = Field(alias="schema")
    recipe: str
    data: str
    recipe_hash: Sha256
    machine: str
    margin: float
    seeds: tuple[int, ...]
    precisions: dict[str, PrecisionBounds]


def read(path: Path) -> Bounds:
    """Raises TraceError."""
    try:
        return Bounds.model_validate_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        why = error.strerror or "cannot be read"
    except (ValidationError, ValueError) as error:
        why = one_line(error)[:100]
    raise TraceError(
        f"{path}: bounds cannot be read ({why}); make them with `python -m tools._align.calibrate`"
    )


def write(path: Path, bounds: Bounds) -> None:
    plain = bounds.model_dump(mode="json", by_alias=True)
    lines = re.sub(r"\n {5,}|\n {4,}(?=\])", " ", json.dumps(plain, indent=1))
    path.write_text(lines + "\n", encoding="utf-8")


def pool(row: Row) -> str:
    """Rows that share a bound: one kind, one block of the network, one sort of layer.

    A rare large rounding (a ReLU or a pool that decides the other way) is then seen in calibration
    though it did not hit each layer.
    """
    parts = row.name.split(".")
    block = parts[1] if parts[0] == "features" else parts[0]
    role = parts[-1] if row.kind in ("output", "grad") else ".".join(parts[-2:])
    if row.kind in ("buffer", "weight"):  # a block has too few of them
        block = "any"
    return f"{row.kind} {block} {role}"


def sizes(trusted: Values, rows: tuple[Row, ...] | list[Row]) -> Values:
    """(..., rows): what deviations are relative to, of `stats` (..., rows, len(STATS))."""
    scale = np.abs(trusted[..., 1])
    for kind in {row.kind for row in rows}:
        of_kind = np.array([row.kind == kind for row in rows])
        floor = SCALE_FLOOR * np.nanmax(scale[..., of_kind], axis=-1, keepdims=True)
        scale[..., of_kind] = np.maximum(scale[..., of_kind], floor)
    return np.maximum(scale, np.finfo(np.float64).tiny)


def deviations(trusted: Values, other: Values, rows: tuple[Row, ...] | list[Row]) -> Values:
    """(..., rows, len(DEVIATIONS)) of `stats` arrays (..., rows, len(STATS)); inf if not finite."""
    with np.errstate(invalid="ignore", over="ignore"):
        apart = np.maximum(np.abs(other - trusted) - _STORED * np.abs(trusted), 0)
        found = np.stack(
            [
                np.sqrt(np.square(apart[..., 5:]).mean(-1)),
                apart[..., 0],
                apart[..., 1],
                apart[..., 2],
            ],
            axis=-1,
        )
        found = found / sizes(trusted, rows)[..., None]
    return np.where(np.isfinite(found), found, np.inf)


def added(trusted: Values, other: Values, rows: tuple[Row, ...] | list[Row]) -> Values:
    """(..., steps, rows, 2) of `stats` (..., steps, rows, len(STATS)): the first two deviations of
    what each step added to what its tensor kept; inf if not finite.

    Exact for these two, which are sums: a state's difference less `KEPT` of the one before. The rms
    and the largest magnitude tell no such thing.
    """
    kept = np.array([KEPT.get(row.kind, 0.0) for row in rows])[:, None]
    with np.errstate(invalid="ignore", over="ignore"):
        apart, stored = other - trusted, _STORED * np.abs(trusted)
        apart[..., 1:, :, :] -= kept * (other - trusted)[..., :-1, :, :]
        stored[..., 1:, :, :] += kept * stored[..., :-1, :, :]
        apart = np.maximum(np.abs(apart) - stored, 0)
        found = np.stack([np.sqrt(np.square(apart[..., 5:]).mean(-1)), apart[..., 0]], axis=-1)
        found = found / sizes(trusted, rows)[..., None]
    return np.where(np.isfinite(found), found, np.inf)


def shares(
    apart: Values, new: Values, limit: Values, rows: tuple[Row, ...] | list[Row]
) -> tuple[Values, Values]:
    """Of the bounds, (..., rows) each: what `deviations` use, and what the step itself `added`.

    `limit`: of `limits`, or (rows, len(DEVIATIONS)) for all steps.
    """
    whole = (apart / limit).max(axis=-1)
    state = np.array([row.kind in KEPT for row in rows])
    return whole, np.where(state, (new / limit[..., : new.shape[-1]]).max(axis=-1), whole)


def scalar_deviations(trusted: Values, other: Values) -> Values:
    """Relative; the same shape as `scalars`."""
    found = np.abs(other - trusted) / np.maximum(np.abs(trusted), 1e-12)
    return np.where(np.isfinite(found), found, np.inf)


def measure(trusted: Trace, other: Trace) -> tuple[Phase, ...]:
    """The largest deviations of two traces, in each of PHASES. What calibration collects."""
    index = {(row.name, row.kind): i for i, row in enumerate(other.rows)}
    rows = [row for row in trusted.rows if (row.name, row.kind) in index]
    mine = trusted.stats[:, :, [i for i, r in enumerate(trusted.rows) if (r.name, r.kind) in index]]
    theirs = other.stats[:, :, [index[row.name, row.kind] for row in rows]]
    steps = min(mine.shape[1], theirs.shape[1])
    apart = deviations(mine[:, :steps], theirs[:, :steps], rows)
    single = scalar_deviations(trusted.scalars[:, :steps], other.scalars[:, :steps])
    found = []
    for start, end in itertools.pairwise((*PHASES, steps)):
        if start >= steps:
            break
        worst: dict[str, Values] = {}
        for row, values in zip(rows, apart[:, start:end].max(axis=(0, 1)), strict=True):
            worst[pool(row)] = np.maximum(worst.get(pool(row), 0), values)
        largest = single[:, start:end].max(axis=(0, 1))
        found.append(
            Phase(
                rows={key: _short(row) for key, row in worst.items()},
                scalars=dict(zip(SCALARS, _short(largest), strict=True)),
            )
        )
    return tuple(found)


def merged(found: list[Phase]) -> Phase:
    """The largest of all."""
    keys = dict.fromkeys(key for phase in found for key in phase.rows)
    return Phase(
        rows={
            key: _short(np.max([p.rows[key] for p in found if key in p.rows], axis=0))
            for key in keys
        },
        scalars={name: max(phase.scalars[name] for phase in found) for name in SCALARS},
    )


def limits(of: PrecisionBounds, margin: float, rows: list[Row], steps: int) -> NDArray[np.float64]:
    """(steps, rows, len(DEVIATIONS)): the largest deviations that are in bounds."""
    tables = [_limits(phase, margin, rows) for phase in of.phases]
    return np.stack([tables[_phase(of, step)] for step in range(steps)])


def scalar_limits(of: PrecisionBounds, margin: float, steps: int) -> NDArray[np.float64]:
    """(steps, len(SCALARS)). The learning rate is no result of arithmetic on the device: equal."""
    table = np.array(
        [[of.phases[_phase(of, step)].scalars[name] for name in SCALARS] for step in range(steps)]
    )
    table = np.maximum(margin * table, BOUND_FLOOR)
    table[:, SCALARS.index("lr")] = 1e-9
    return table


def _phase(of: PrecisionBounds, step: int) -> int:
    return min(sum(step >= start for start in PHASES), len(of.phases)) - 1


def _limits(phase: Phase, margin: float, rows: list[Row]) -> NDArray[np.float64]:
    kinds: dict[str, Values] = {}
    for key, values in phase.rows.items():
        kind = key.split()[0]
        kinds[kind] = np.maximum(kinds.get(kind, np.zeros(len(DEVIATIONS))), values)
    largest = np.max(list(kinds.values()), axis=0)
    table = [phase.rows.get(pool(row), kinds.get(row.kind, largest)) for row in rows]
    return np.maximum(margin * np.array(table), BOUND_FLOOR)


def _short(values: Values) -> Any:
    return tuple(float(f"{value:.3g}") for value in values.tolist())
