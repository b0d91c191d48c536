"""Windows of several arms by turns: warmed up until they agree, then in blocks of random order."""

from __future__ import annotations

import ctypes
import gc
import os
import random
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple

import psutil

from benchmarks.figures import agree


class Cost(NamedTuple):
    """Images per second, and milliseconds of all processors an image: own and child processes'.

    On a machine that others use too, the second changes less.
    """

    rate: float
    processor_ms: float


class Stopwatch:
    """Started when it is made."""

    def __init__(self) -> None:
        self._processor = _processor_s()
        self._start = time.perf_counter()

    def seconds(self) -> float:
        return time.perf_counter() - self._start

    def window(self, images: int) -> Cost:
        """What `images` took since the start."""
        seconds = self.seconds()
        return Cost(images / seconds, 1000 * (_processor_s() - self._processor) / images)


def keep_memory() -> bool:
    """Let this process keep what its arms free; False where the C library has no such setting.

    glibc gives large blocks back to the kernel, which then hands them out anew, zeroed, page by
    page. How long that takes depends on what the arm before has left (reports/speed/notes.md).
    """
    with suppress(OSError, AttributeError):
        library = ctypes.CDLL(None)
        return all(library.mallopt(option, 2**31 - 1) for option in (_TRIM, _MMAP))
    return False


#: M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of malloc.h.
_TRIM, _MMAP = -1, -3


def _processor_s() -> float:
    own = psutil.Process()
    times = [process.cpu_times() for process in (own, *own.children(recursive=True))]
    return sum(each.user + each.system for each in times)


@dataclass
class Arm:
    """One contender: `window` does a fixed number of steps."""

    name: str
    window: Callable[[], Cost]


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


class Measured(NamedTuple):
    """Rates and processor time of each arm by block, and notes on arms that did not settle."""

    rates: dict[str, list[float]]
    processor_ms: dict[str, list[float]]
    notes: list[str]


def measure(arms: Sequence[Arm], turns: Turns) -> Measured:
    """Warm every arm up, then let them take turns."""
    notes = []
    for arm in arms:
        seen: list[float] = []
        while not agree(seen) and len(seen) < turns.warm_up:
            seen.append(arm.window().rate)
        if not agree(seen):
            notes.append(
                f"{arm.name}: the last two of {len(seen)} warm-up windows were "
                f"{seen[-2]:.4g} and {seen[-1]:.4g}, more than 5 % apart"
            )
        say(f"warm: {arm.name}: {', '.join(f'{rate:.1f}' for rate in seen)}")
    draw = random.Random(turns.seed)  # noqa: S311
    rates: dict[str, list[float]] = {arm.name: [] for arm in arms}
    processor: dict[str, list[float]] = {arm.name: [] for arm in arms}
    busiest = 0.0
    for block in range(turns.blocks):
        busiest = max(busiest, os.getloadavg()[0])
        gc.collect()
        for arm in draw.sample(list(arms), len(arms)):
            window = arm.window()
            rates[arm.name].append(window.rate)
            processor[arm.name].append(window.processor_ms)
        say(f"block {block + 1} of {turns.blocks}, load {os.getloadavg()[0]:.1f}")
    notes.append(f"load average during the blocks: up to {busiest:.1f}")
    return Measured(rates, processor, notes)


def sizes_text(paths: Sequence[str]) -> str:
    """How large the files are: the middle, in KB."""
    with suppress(IndexError):
        sizes = sorted(os.path.getsize(path) for path in paths)
        return f"{sizes[len(sizes) // 2] / 1000:.0f} KB"
    return "no files"
