"""How often a verdict is wrong: simulated claims of known truth.

`python -m tools._report.calibrate` prints the table that `reports/calibration.md` holds.

A source trains once and publishes its number; somebody trains n times. Both draw from normal
distributions of one spread; the difference of their means is the truth, and a claim is true when it
is at least minus the tolerance. The rates below are the shares of wrong verdicts among all, at the
truth where they are largest (the tolerance itself) and away from it.
"""

from __future__ import annotations

import argparse
import math
import textwrap
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from .verdict import MIN_REPEATS, Bounds, Noise, Verdict, bounds

Values = npt.NDArray[np.float64]

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
)
#: Truth, in spreads away from the tolerance: negative is a false claim.
OFFSETS = (-3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0)
REPEATS = (1, 2, 3, 5, 10)


_INTRO = """
`python -m tools._report.calibrate`: {draws:,} claims of known truth a cell, drawn from seed {seed};
error of a rate of 5 %: {error:.2f} points. A source trains once, somebody trains n times, both with
the spread given. In percent: of the claims whose truth lies so many spreads below the tolerance
(negative) how many are called *reproduced*, of those above it how many *not reproduced*; at 0 the
larger of both. The last two columns: verdicts given (not *inconclusive*) at +3 spreads, and the
wrong ones among those given when the truth lies anywhere within 3 spreads of the tolerance.
"""
_RESULT = """
Where the spread is as assumed, or measured in the repeats, no rate is above 5 % by more than the
error of the draw. A prior of half the true spread is the weak point for n = 1 and 2, shown in
the second case; three repeats end it.
"""


class Rates(NamedTuple):
    """Shares of all draws, and whether the claim is true."""

    reproduced: float
    inconclusive: float
    not_reproduced: float
    true: bool


def simulate(case: Case, n: int, offset: float, equal: bool = False, draws: int = DRAWS) -> Rates:
    """Verdicts on `draws` claims whose truth is -tolerance + offset * spread."""
    draw = np.random.default_rng([SEED, n, round(10 * offset) + 1000, int(equal)])
    return _rates(case, n, np.full(draws, offset), equal, draw)


def share_of_given(case: Case, n: int, equal: bool = False, draws: int = DRAWS) -> float:
    """Wrong verdicts among those given, truths uniform over 3 spreads around the tolerance."""
    draw = np.random.default_rng([SEED, n, int(equal)])
    offsets = draw.uniform(min(OFFSETS), max(OFFSETS), draws)
    verdicts = _decide(case, n, offsets, equal, draw)
    true = _is_true(case, offsets, equal)
    wrong = np.where(true, verdicts == -1, verdicts == 1)
    return float(wrong.sum() / (verdicts != 0).sum())


def _rates(case: Case, n: int, offsets: Values, equal: bool, draw: np.random.Generator) -> Rates:
    verdicts = _decide(case, n, offsets, equal, draw)
    up, open_, down = (float(np.mean(verdicts == v)) for v in (1, 0, -1))
    return Rates(up, open_, down, bool(_is_true(case, offsets, equal)[0]))


def _is_true(case: Case, offsets: Values, equal: bool) -> npt.NDArray[np.bool_]:
    truth = -case.tolerance + offsets * case.spread
    rounding = 1e-9
    kept: npt.NDArray[np.bool_] = truth >= -case.tolerance - rounding
    return kept & (truth <= case.tolerance + rounding) if equal else kept


def _decide(case: Case, n: int, offsets: Values, equal: bool, draw: np.random.Generator) -> Values:
    """1 reproduced, 0 inconclusive, -1 not reproduced, for each claim."""
    draws = len(offsets)
    truth = -case.tolerance + offsets * case.spread
    runs = truth[:, None] + case.spread * draw.standard_normal((draws, n))
    d = runs.mean(axis=1) - case.spread * draw.standard_normal(draws)
    d = -np.abs(d) if equal else d
    own = n >= MIN_REPEATS
    spread = runs.std(axis=1, ddof=1) if own else np.full(draws, case.prior)
    unit = bounds(0.0, Noise(1.0, n, n - 1 if own else None, ""), equal)
    upper, lower = -case.tolerance + unit.upper * spread, -case.tolerance + unit.lower * spread
    for k in range(min(draws, 50)):  # the very rule that judges, claim by claim
        said = Bounds(lower[k], upper[k]).decide(d[k])
        assert _CODE[said] == (d[k] >= upper[k]) * 1 - (d[k] < lower[k]) * 1
    return np.where(d >= upper, 1.0, np.where(d < lower, -1.0, 0.0))


_CODE = {Verdict.REPRODUCED: 1, Verdict.INCONCLUSIVE: 0, Verdict.NOT_REPRODUCED: -1}


def false_rate(rates: Rates, offset: float) -> float:
    """The wrong verdict at this truth: a claim at the tolerance itself is true, or just false."""
    if offset == 0:
        return max(rates.reproduced, rates.not_reproduced)
    return rates.not_reproduced if rates.true else rates.reproduced


def table() -> str:
    """The rates as Markdown."""
    error = 100 * math.sqrt(0.05 * 0.95 / DRAWS)
    lines = [
        "# Calibration of the verdicts",
        "",
        *textwrap.wrap(_INTRO.format(draws=DRAWS, seed=SEED, error=error).strip(), 100),
        "",
        *textwrap.wrap(_RESULT.strip(), 100),
    ]
    for equal in (False, True):
        title = "`equal`" if equal else "`at_least` and `at_most`"
        lines += ["", f"## Claims of direction {title}", ""]
        head = " | ".join(f"{offset:+g} s" for offset in OFFSETS)
        lines += [f"| Claim | n | {head} | given | wrong of given |"]
        lines += ["| --- | ---: |" + " ---: |" * (len(OFFSETS) + 2)]
        for case in CASES:
            for n in REPEATS:
                found = {o: simulate(case, n, o, equal) for o in OFFSETS}
                cells = [f"{100 * false_rate(found[o], o):.1f}" for o in OFFSETS]
                far = found[OFFSETS[-1]]
                given = 100 * (far.reproduced + far.not_reproduced)
                cells += [f"{given:.0f}", f"{100 * share_of_given(case, n, equal):.1f}"]
                lines.append(f"| {case.name} | {n} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    argparse.ArgumentParser(
        prog="python -m tools._report.calibrate", description=(__doc__ or "").splitlines()[0]
    ).parse_args()
    print(table())
