"""Windows of several arms by turns: warmed up until they agree, then in blocks of random order."""

from __future__ import annotations

import gc
import os
import random
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from benchmarks.figures import agree


@dataclass
class Arm:
    """One contender: `window` does a fixed number of steps and returns images per second."""

    name: str
    window: Callable[[], float]


@dataclass(frozen=True)
class Turns:
    """How arms take turns; `seed` draws the order within each block.

    An arm that still drifts after `warm_up` windows is measured, and the report says so.
    """

    blocks: int
    warm_up: int = 6
    seed: int = 0


def say(text: str) -> None:
    """A line of progress, for whoever waits."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def measure(arms: Sequence[Arm], turns: Turns) -> tuple[dict[str, list[float]], list[str]]:
    """(rates of each arm by block, notes on arms that did not settle)."""
    notes = []
    for arm in arms:
        seen: list[float] = []
        while not agree(seen) and len(seen) < turns.warm_up:
            seen.append(arm.window())
        if not agree(seen):
            notes.append(
                f"{arm.name}: the last two of {len(seen)} warm-up windows were "
                f"{seen[-2]:.4g} and {seen[-1]:.4g}, more than 5 % apart"
            )
        say(f"warm: {arm.name}: {', '.join(f'{rate:.1f}' for rate in seen)}")
    draw = random.Random(turns.seed)  # noqa: S311
    rates: dict[str, list[float]] = {arm.name: [] for arm in arms}
    busiest = 0.0
    for block in range(turns.blocks):
        busiest = max(busiest, os.getloadavg()[0])
        gc.collect()
        for arm in draw.sample(list(arms), len(arms)):
            rates[arm.name].append(arm.window())
        say(f"block {block + 1} of {turns.blocks}, load {os.getloadavg()[0]:.1f}")
    notes.append(f"load average during the blocks: up to {busiest:.1f}")
    return rates, notes


def timed(work: Callable[[], int]) -> float:
    """Images per second of `work`, which returns how many images it did."""
    start = time.perf_counter()
    images = work()
    return images / (time.perf_counter() - start)


def sizes_text(paths: Sequence[str]) -> str:
    """How large the files are: the middle, in KB."""
    with suppress(IndexError):
        sizes = sorted(os.path.getsize(path) for path in paths)
        return f"{sizes[len(sizes) // 2] / 1000:.0f} KB"
    return "no files"
