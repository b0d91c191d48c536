"""How often a verdict is wrong: simulated claims of known truth.

`python -m tools._report.calibrate` prints the table that `reports/calibration.md` holds.

A source trains once and publishes its number; somebody trains n times. Both draw from normal
distributions of one spread; the difference of their means is the truth, and a claim is true when it
is at least minus the tolerance. The rates below are the shares of wrong verdicts among all, at the
truth where they are largest (the tolerance itself) and away from it.
"""

from __future__ import annotations

import math
import time
from typing import NamedTuple

import numpy as np

from .verdict import MIN_REPEATS, Bounds, Noise, Verdict, bounds

DRAWS = 200_000
SEED = 20200401


class Case(NamedTuple):
    """`prior`: the spread that the verdict takes for n < 3; `spread`: the true one."""

    name: str
    tolerance: float
    prior: float
    spread: float


#: Metric, tolerance and prior of the recipes' claims; spreads from the literature and our repeats.
CASES = (
    Case("top1, points (ResNet-50 on ImageNet, NVIDIA: 0.11)", 0.3, 0.11, 0.11),
    Case("top1, points, true spread twice the prior", 0.3, 0.11, 0.22),
    Case("top1, points, true spread half the prior", 0.3, 0.11, 0.055),
    Case("throughput, fraction (assumed: 0.01)", 0.05, 0.01, 0.01),
    Case("top1 of the rehearsal, points (measured: 0.8)", 1.0, 0.8, 0.8),
)
#: Truth, in spreads away from the tolerance: negative is a false claim.
OFFSETS = (-3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0)
REPEATS = (1, 2, 3, 5, 10)


class Rates(NamedTuple):
    """Shares of all draws."""

    reproduced: float
    inconclusive: float
    not_reproduced: float


def simulate(case: Case, n: int, offset: float, equal: bool = False, draws: int = DRAWS) -> Rates:
    """Verdicts on `draws` claims whose truth is -tolerance + offset * spread."""
    draw = np.random.default_rng([SEED, n, round(10 * offset) + 1000, int(equal)])
    truth = -case.tolerance + offset * case.spread
    runs = truth + case.spread * draw.standard_normal((draws, n))
    d = runs.mean(axis=1) - case.spread * draw.standard_normal(draws)
    d = -np.abs(d) if equal else d
    if n >= MIN_REPEATS:
        unit = bounds(0.0, Noise(1.0, n, n - 1, ""), equal)
        spread = runs.std(axis=1, ddof=1)
    else:
        unit = bounds(0.0, Noise(1.0, n, None, ""), equal)
        spread = np.full(draws, case.prior)
    upper, lower = -case.tolerance + unit.upper * spread, -case.tolerance + unit.lower * spread
    assert Bounds(lower[0], upper[0]).decide(d[0]) in Verdict  # the same rule, on one draw
    reproduced, refused = float(np.mean(d >= upper)), float(np.mean(d < lower))
    return Rates(reproduced, 1 - reproduced - refused, refused)


def false_rate(rates: Rates, offset: float) -> float:
    """The wrong verdict at this truth: a claim at the tolerance itself is true, or just false."""
    if offset == 0:
        return max(rates.reproduced, rates.not_reproduced)
    return rates.reproduced if offset < 0 else rates.not_reproduced


def table() -> str:
    """The rates as Markdown."""
    error = 100 * math.sqrt(0.05 * 0.95 / DRAWS)
    lines = [
        "# Calibration of the verdicts",
        "",
        f"`python -m tools._report.calibrate`, {time.strftime('%Y-%m-%d', time.gmtime())}: {DRAWS:,} "
        f"claims a cell, error of a rate of 5 %: {error:.2f} points. In percent of all claims:",
        "false *reproduced* where the truth lies under the tolerance, false *not reproduced* where it",
        "does not; at 0 the larger of both. The truth is given in spreads away from the tolerance.",
    ]
    for equal in (False, True):
        title = "`equal`" if equal else "`at_least` and `at_most`"
        lines += ["", f"## Claims of direction {title}", ""]
        head = " | ".join(f"{offset:+g} s" for offset in OFFSETS)
        lines += [f"| Claim | n | {head} |", "| --- | --- |" + " --- |" * len(OFFSETS)]
        for case in CASES:
            for n in REPEATS:
                cells = (100 * false_rate(simulate(case, n, o, equal), o) for o in OFFSETS)
                lines.append(f"| {case.name} | {n} | {' | '.join(f'{c:.1f}' for c in cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())
