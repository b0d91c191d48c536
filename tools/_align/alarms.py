"""How often harmless runs raise an alarm, by the very rule of `align.py`."""

from __future__ import annotations

import base64
import json
import zlib
from pathlib import Path

import numpy as np

from proofrun.device import cpu_name
from proofrun.errors import UsageError
from proofrun.recipe import Recipe, Strict

from . import bounds, rule
from .home import BATCH, QUICK_STEPS, REPORTS, bounds_path, golden_path
from .trace import SCALARS, Row, Trace, Values, load

#: The rule at other margins than that of the bounds, to see what it rests on.
_MARGINS = (1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0)


class Series(Strict):
    """Deviations of every tensor and step of one run, as the rule needs them, in little space.

    `rows`: log2 of the deviations, then of what the step added, float16 (so to about 1 %), (steps,
    rows, len(DEVIATIONS) + 2), deflated, base64. `scalars`: (steps, len(SCALARS)).
    """

    count: int
    rows: str
    scalars: tuple[tuple[float, ...], ...]


def pack(trusted: Trace, other: Trace) -> Series:
    """Of two traces of one rank with the same rows."""
    assert trusted.rows == other.rows
    mine, theirs = trusted.stats[0], other.stats[0]
    apart = bounds.deviations(mine, theirs, trusted.rows)
    new = bounds.added(mine, theirs, trusted.rows)
    with np.errstate(divide="ignore"):
        logs = np.log2(np.concatenate([apart, new], axis=-1)).astype("<f2")
    single = bounds.scalar_deviations(trusted.scalars[0], other.scalars[0])
    return Series(
        count=len(trusted.rows),
        rows=base64.b64encode(zlib.compress(logs.tobytes(), 9)).decode(),
        scalars=tuple(tuple(float(f"{v:.3g}") for v in step) for step in single),
    )


def unpack(series: Series) -> tuple[Values, Values, Values]:
    """(steps, rows, len(DEVIATIONS)), (steps, rows, 2) and (steps, len(SCALARS))."""
    raw = np.frombuffer(zlib.decompress(base64.b64decode(series.rows)), dtype="<f2")
    logs = raw.reshape(-1, series.count, len(bounds.DEVIATIONS) + 2).astype(np.float64)
    plain = np.exp2(logs)
    return plain[..., :-2], plain[..., -2:], np.array(series.scalars)


class Judge:
    """What `align.py` would say of a series, in the bounds of one precision."""

    def __init__(self, known: bounds.Bounds, precision: str, rows: tuple[Row, ...]) -> None:
        self.known, self.of = known, known.precisions[precision]
        self.rows = rows
        self.kinds = [*(row.kind for row in rows), *SCALARS]
        self.names = [*(f"{row.kind} {row.name}" for row in rows), *SCALARS]

    def excess(self, series: Series) -> tuple[Values, Values]:
        """Shares of the bounds, each (steps, places): used, and added by the step itself."""
        apart, new, scalars = unpack(series)
        margin, steps = self.known.margin, len(apart)
        single = scalars / bounds.scalar_limits(self.of, margin, steps)
        limit = bounds.limits(self.of, margin, list(self.rows), steps)
        both = bounds.shares(apart, new, limit, self.rows)
        whole, fresh = (np.concatenate([share, single], axis=-1) for share in both)
        return whole, fresh

    def alarms(self, series: Series, wider: float = 1.0) -> list[str]:
        """The places that raise one, with every bound `wider` times as wide."""
        excess, added = self.excess(series)
        first = rule.first_steps(excess / wider, added / wider, self.kinds)
        return [self.names[i] for i in np.flatnonzero(first >= 0)]


def write(recipe: Recipe, found: dict[str, dict[int, Series]]) -> Path:
    """`found`: by precision and seed. A table for people of how many seeds raise an alarm.

    Raises UsageError when a seed is among those of the bounds.
    """
    known = bounds.read(bounds_path(recipe))
    rows = load(golden_path(recipe, "FP64", 1)).rows
    plain = {}
    for precision, own in found.items():
        if shared := set(own) & set(known.seeds):
            raise UsageError(
                f"the bounds were made from seed {min(shared)}: take others for alarms"
            )
        judge = Judge(known, precision, rows)
        excess = {seed: judge.excess(series)[0] for seed, series in own.items()}
        raised = {seed: judge.alarms(series) for seed, series in own.items()}
        largest = np.array([values.max() for values in excess.values()])
        plain[precision] = {
            "seeds": len(own),
            "first_seed": min(own),
            "steps": max(len(values) for values in excess.values()),
            "alarms": sum(bool(names) for names in raised.values()),
            "out_in_the_first_step": sum(bool((v[0] > 1).any()) for v in excess.values()),
            "out_in_some_step": int((largest > 1).sum()),
            "share_of_bound_median": round(float(np.median(largest)), 3),
            "share_of_bound_largest": round(float(largest.max()), 3),
            "alarms_at_margin": {
                f"{margin:g}": sum(
                    bool(judge.alarms(series, margin / known.margin)) for series in own.values()
                )
                for margin in _MARGINS
            },
            "which": [f"seed {s}: {names[0]}" for s, names in raised.items() if names],
        }
    steps = max(len(judged.scalars) for own in found.values() for judged in own.values())
    of = "" if steps == QUICK_STEPS else f"-{steps}steps"
    path = REPORTS / f"alarms-{recipe.name}-{recipe.data.name}{of}.json"
    table = {
        "recipe": recipe.name,
        "data": recipe.data.name,
        "batch": BATCH,
        "margin": known.margin,
        "rule": f"{rule.CERTAIN} times the bound once, or out of bounds in at least "
        f"{rule.LEAST_STEPS} steps, {rule.SHARE:.0%} of those "
        f"from the first on and {rule.SHARE_OF_ALL:.0%} of all",
        "machine": cpu_name(),
        "precisions": plain,
    }
    path.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")
    return path
