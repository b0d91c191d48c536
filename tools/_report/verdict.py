"""Verdicts: pure functions from a claim, a measure and its conditions to a judgement.

The rule: with d = measured minus claimed, signed so that positive is better, a claim of tolerance
tol is reproduced if d >= -tol + q s sqrt(1 + 1/n), not reproduced if d < -tol - q s sqrt(1 + 1/n),
else inconclusive. s is the spread between runs: that of the n >= 3 repeats measured, or a prior.
sqrt(1 + 1/n), because the claimed number is one run of its own with the same spread, and the
measured one the mean of n. q is the 95 % quantile: 1.645 for a prior, Student's with n - 1 degrees
of freedom for a spread that n repeats gave (2.920 for three: their spread is itself uncertain).
`calibrate.py` simulates how often this is wrong.

`equal` takes d = -|measured - claimed|. *Reproduced* is then two one-sided tests that must both
pass, whose joint error stays at 5 %, so the one-sided quantile holds. *Not reproduced* is either of
two tests, whose errors add up, so it takes the two-sided one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from scipy.special import ndtri, stdtrit

from proofrun.recipe import Claim

from . import units

ERROR_RATE = 0.05  # of a false verdict of each kind, at most
MIN_REPEATS = 3
ROUNDING = 1e-9  # relative: 71.86 - 71.56 must not miss a tolerance of 0.3 in the last bit


class Verdict(StrEnum):
    REPRODUCED = "reproduced"
    NOT_REPRODUCED = "not reproduced"
    INCONCLUSIVE = "inconclusive"
    NA = "n/a"
    DIFFERENT_HARDWARE = "different hardware"


class Estimate(NamedTuple):
    """A measured number: mean over n repeats, their sample spread, and log lines.

    `grain`: the step between two values that one run can have, as 100 / images for an accuracy.
    """

    value: float | None
    n: int
    spread: float | None
    sources: tuple[str, ...] = ()
    grain: float = 0.0


class Facts(NamedTuple):
    """The conditions of a measured row. None: does not apply to it."""

    device_name: str
    precision: str
    cards: int
    global_batch: int
    epochs: int | None = None
    eval_protocol: str | None = None
    mark_s: float | None = None
    nodes: int = 1


class Match(NamedTuple):
    """How a claim's conditions fit a row: what differs, and what the claim leaves open."""

    differs: tuple[str, ...]
    unstated: tuple[str, ...]
    same_hardware: bool


@dataclass(frozen=True)
class Judgement:
    """A verdict on one claim and everything said for it, in one line."""

    claim: Claim
    estimate: Estimate
    verdict: Verdict
    reason: str

    @property
    def ratio(self) -> float | None:
        """Measured over claimed."""
        value = self.estimate.value
        return value / self.claim.value if value is not None and self.claim.value else None


_CONDITIONS = {
    "top1": ("epochs", "precision", "cards", "global_batch", "eval_protocol"),
    "top5": ("epochs", "precision", "cards", "global_batch", "eval_protocol"),
    "throughput": ("precision", "cards", "global_batch"),
    "scaling": ("precision", "cards", "global_batch"),
    "mark_epoch": ("mark_s", "precision", "cards", "global_batch"),
    "mark_loss": ("mark_s", "precision", "cards", "global_batch"),
    "mark_top1": ("mark_s", "precision", "cards", "global_batch", "eval_protocol"),
    "mark_top5": ("mark_s", "precision", "cards", "global_batch", "eval_protocol"),
}


def match(claim: Claim, facts: Facts) -> Match:
    """Compare a claim's conditions with a row's; hardware matters for speed only."""
    differs = []
    unstated = []
    for name in _CONDITIONS[claim.metric]:
        stated, given = getattr(claim, name), getattr(facts, name)
        label = name.replace("_", " ")
        if stated is None:
            unstated.append(label)
        elif given is not None and stated != given:
            differs.append(f"{label} is {given}, claimed for {stated}")
    accuracy = claim.metric in ("top1", "top5")
    if facts.nodes > 1 and not accuracy:  # every published speed is that of one machine
        differs.append(f"nodes are {facts.nodes}, claimed for one")
    same = accuracy or same_hardware(claim.hardware, facts.device_name)
    return Match(tuple(differs), tuple(unstated), same)


def same_hardware(claimed: str, device_name: str) -> bool:
    """Whether a driver's device name is the claimed hardware; "any" fits all.

    Case and punctuation do not count, and one side may leave out the maker's name. A longer model
    name is another model: Ascend 910B is not Ascend 910.
    """
    if claimed == "any":
        return True
    return bool(_spellings(claimed) & _spellings(device_name))


def _spellings(name: str) -> set[str]:
    words = "".join(c if c.isalnum() else " " for c in name.casefold()).split()
    short = words[1:] if len(words) > 1 and words[0].isalpha() else words
    return {"".join(words), "".join(short)} - {""}


def difference(claim: Claim, measured: float) -> float:
    """d: measured minus claimed, positive is better; for `equal` never positive."""
    if claim.direction == "equal":
        return -abs(measured - claim.value)
    return claim.value - measured if claim.direction == "at_most" else measured - claim.value


def tolerance(claim: Claim) -> float:
    """In the metric's unit; throughput states it as a fraction of the claim."""
    return claim.tolerance * (abs(claim.value) if claim.metric == "throughput" else 1.0)


class Noise(NamedTuple):
    """Spread of one run (in the metric's unit), of how many runs the mean was taken, its origin.

    `dof`: degrees of freedom of a spread that was measured; None for one that is taken as known.
    """

    spread: float
    n: int
    dof: int | None
    origin: str

    def margin(self, error: float) -> float:
        """What the difference of the two numbers exceeds by chance with probability `error`."""
        quantile = ndtri(1 - error) if self.dof is None else stdtrit(self.dof, 1 - error)
        return float(quantile) * self.spread * math.sqrt(1 + 1 / self.n)


def noise(claim: Claim, estimate: Estimate) -> Noise | None:
    """The spread that a verdict takes, or None where nothing gives it."""
    n = estimate.n
    if n >= MIN_REPEATS and estimate.spread is not None:
        least = estimate.grain / math.sqrt(12)  # equal repeats differ by less than a grain
        if estimate.spread < least:
            return Noise(least, n, n - 1, f"spread of {n} repeats, no less than their rounding")
        return Noise(estimate.spread, n, n - 1, f"spread of {n} repeats")
    if claim.prior_spread is None:
        return None
    scale = abs(claim.value) if claim.metric == "throughput" else 1.0
    prior = claim.prior_spread
    return Noise(prior.value * scale, max(n, 1), None, f"prior, {prior.source}")


class Bounds(NamedTuple):
    """In d: reproduced from `upper`, not reproduced under `lower`, between them inconclusive."""

    lower: float
    upper: float

    def decide(self, d: float) -> Verdict:
        if d >= self.upper:
            return Verdict.REPRODUCED
        return Verdict.NOT_REPRODUCED if d < self.lower else Verdict.INCONCLUSIVE


def bounds(tol: float, found: Noise, two_sided: bool = False) -> Bounds:
    """The rule of this module on plain numbers of one unit; all finite, tol not negative."""
    error = ERROR_RATE / 2 if two_sided else ERROR_RATE
    return Bounds(-tol - found.margin(error), -tol + found.margin(ERROR_RATE))


def judge(claim: Claim, estimate: Estimate, fit: Match, missing: str = "") -> Judgement:
    """Judge a claim whose conditions fit (`fit.differs` is empty).

    `missing` says why there is no number that may be judged, if there is none.
    """
    assert not fit.differs
    verdict, reason = _judge(claim, estimate, fit, missing)
    if fit.unstated:
        reason += f"; not stated with the claim, any accepted: {', '.join(fit.unstated)}"
    return Judgement(claim, estimate, verdict, reason)


def _judge(claim: Claim, estimate: Estimate, fit: Match, missing: str) -> tuple[Verdict, str]:
    metric, value = claim.metric, estimate.value
    if missing or value is None:
        return Verdict.NA, missing or "nothing measured"
    if not math.isfinite(value):
        return Verdict.NA, "the measured value is not a finite number"
    head = f"{units.quantity(metric, value)} (n = {estimate.n}) against "
    head += units.bound(metric, claim.direction, claim.value)
    if not fit.same_hardware:
        compared = f", {units.ratio(value / claim.value)} of the claim" if claim.value else ""
        return (
            Verdict.DIFFERENT_HARDWARE,
            f"{head}{compared}; claimed on {claim.hardware}: compared, not judged",
        )
    found = noise(claim, estimate)
    if found is None:
        return (
            Verdict.INCONCLUSIVE,
            f"{head}: the spread is not known; {MIN_REPEATS} repeats give it",
        )
    d, rounding = difference(claim, value), ROUNDING * max(1.0, abs(claim.value))
    limits = bounds(tolerance(claim), found, two_sided=claim.direction == "equal")
    reason = f"{head}: {_numbers(metric, d, limits)}; {_origins(claim, found.origin)}"
    return limits.decide(d + rounding), reason


def _numbers(metric: str, d: float, limits: Bounds) -> str:
    scale = 100.0 if metric == "scaling" else 1.0
    digits = 1 if metric in ("throughput", "scaling") else 3 if metric == "mark_loss" else 2

    def signed(x: float) -> str:
        return f"{scale * x + 0.0:+,.{digits}f}"

    return (
        f"d = {signed(d)}, reproduced from {signed(limits.upper)}, "
        f"not reproduced under {signed(limits.lower)}"
    )


def _origins(claim: Claim, origin: str) -> str:
    fraction = claim.metric == "throughput"
    tol = f"{100 * claim.tolerance:g} %" if fraction else f"{claim.tolerance:g}"
    return f"tolerance {tol} ({claim.tolerance_source}), s: {origin}"
