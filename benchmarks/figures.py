"""Numbers from windows measured by turns: spread, paired ratios with intervals, what they allow.

Pure functions of rates; nothing here measures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy import stats

#: Blocks under which no win is claimed.
ENOUGH_BLOCKS = 7

#: How far apart the last two windows of a warm-up may be, as a fraction of the larger.
AGREE = 0.05


@dataclass(frozen=True)
class Spread:
    """Median and quartiles of `n` rates, in their unit."""

    median: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class Ratio:
    """Median of the ratios of the blocks, and its bootstrap 95 % interval."""

    median: float
    low: float
    high: float


@dataclass(frozen=True)
class Target:
    """What is reached for: base over `arm` at least `least`."""

    text: str
    arm: str
    least: float


@dataclass
class Group:
    """Arms that did the same work, as measured: `rates` of each by block, in `unit`.

    `again` is the arm that is the base a second time; `thrown_out` and `absent` give the reason
    for each arm that stands beside no number. `processor_ms` is an image's, of all processors.
    """

    title: str
    work: str
    unit: str
    base: str
    again: str | None
    rates: dict[str, list[float]]
    targets: list[Target] = field(default_factory=list)
    thrown_out: dict[str, str] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)
    checks: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    processor_ms: dict[str, list[float]] = field(default_factory=dict)


def spread(rates: Sequence[float]) -> Spread:
    """Median and quartiles. Raises ValueError for no rates."""
    if not rates:
        raise ValueError("no rates")
    low, median, high = np.quantile(np.asarray(rates, float), [0.25, 0.5, 0.75]).tolist()
    return Spread(median, low, high, len(rates))


def paired_ratio(ours: Sequence[float], theirs: Sequence[float], seed: int = 0) -> Ratio:
    """Ours over theirs, block by block: what both suffered in a block cancels.

    The interval is the percentile bootstrap of the median over blocks; a single block has none,
    and gives (-inf, inf). Raises ValueError for lists of different lengths, or empty ones.
    """
    if len(ours) != len(theirs) or not ours:
        raise ValueError(f"{len(ours)} and {len(theirs)} blocks cannot be paired")
    ratios = np.asarray(ours, float) / np.asarray(theirs, float)
    median = float(np.median(ratios))
    if len(ratios) == 1:
        return Ratio(median, -np.inf, np.inf)
    if np.ptp(ratios) == 0:
        return Ratio(median, median, median)
    found = stats.bootstrap(
        (ratios,), np.median, n_resamples=9999, method="percentile", vectorized=True,
        rng=np.random.default_rng(seed),
    )  # fmt: skip
    low, high = (float(x) for x in found.confidence_interval)
    return Ratio(median, low, high)


def agree(rates: Sequence[float], within: float = AGREE) -> bool:
    """Whether a warm-up has ended: its last two windows are at most `within` apart."""
    if len(rates) < 2:
        return False
    *_, before, last = rates
    return abs(last - before) <= within * max(last, before)


def noise_floor(group: Group) -> float:
    """How far from 1 the interval of A against A reaches, as a factor of 1 or more; 1: no such arm.

    Where even the same arm twice leaves 1 by some factor, a smaller difference is no difference.
    """
    if group.again is None:
        return 1.0
    twice = paired_ratio(group.rates[group.base], group.rates[group.again])
    # an interval that excludes 1 for the same arm is the machine's own drift
    return max(1.0, twice.low, 1 / twice.high if twice.high > 0 else 1.0)


def claim(ratio: Ratio, blocks: int, floor: float = 1.0) -> str:
    """What the interval allows to say: "faster", "slower", "no difference shown", "too few blocks".

    `floor` is `noise_floor`'s.
    """
    if blocks < ENOUGH_BLOCKS:
        return "too few blocks"
    if ratio.low > floor:
        return "faster"
    if ratio.high < 1 / floor:
        return "slower"
    return "no difference shown"


def loss_fault(reference: Sequence[float], found: Sequence[float], within: float) -> str | None:
    """Why an arm did not do the reference's work, by the losses of its first steps; None: it did.

    `within` is the largest difference allowed, relative to the reference's loss.
    """
    apart = [abs(f - r) / abs(r) for r, f in zip(reference, found, strict=True)]
    worst = int(np.argmax(apart)) if np.isfinite(apart).all() else len(apart) - 1
    if all(a <= within for a in apart):
        return None
    return (
        f"loss {found[worst]:.4f} after {worst} steps, the reference has {reference[worst]:.4f} "
        f"(allowed: {100 * within:g} %)"
    )


def ring_all_reduce_s(size: float, ranks: int, bytes_per_s: float, latency_s: float) -> float:
    """Seconds to sum `size` bytes over a ring of `ranks`: 2 (n - 1) hops of size / n bytes each.

    Patarasuk and Yuan, Bandwidth optimal all-reduce algorithms, 2009.
    """
    hops = 2 * (ranks - 1)
    return hops * (latency_s + size / ranks / bytes_per_s)


def efficiency(step_s: float, exchange_s: float, hideable_s: float) -> float:
    """Images per second and card on n cards over those on one, at equal batch per card.

    `hideable_s` is how much of the exchange may run beside the backward pass.
    """
    return step_s / (step_s + max(0.0, exchange_s - hideable_s))


def best(rates: Mapping[str, Sequence[float]], names: Sequence[str]) -> str:
    """Of `names`, the arm of the highest median."""
    return max(names, key=lambda name: spread(rates[name]).median)
