"""Arms E and R: files to updated weights, and the same with batches that are already there.

E runs each contender's loader into its own loop; R replays cached batches through ours. What E
lacks of R is the stall: the share of a step that goes to data, on these cores decoding included.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from benchmarks import loaders, peer_loaders, peer_loops, steps
from benchmarks.figures import Group, Target, paired_ratio
from benchmarks.step_arms import checked
from benchmarks.turns import Arm, Cost, Stopwatch, Turns, measure, say

REPLAY = "R: ours, replayed batches"
TORCHVISION = ("torchvision, default", "torchvision, channels-last")
TIMM = ("timm, default", "timm, channels-last")


class Fed:
    """A loop that takes its batches from a loader, epoch after epoch."""

    def __init__(self, name: str, loader: loaders.Loader, loop: steps.Loop) -> None:
        self.name = name
        self._batches = _endless(loader)
        self._loop = loop
        self.waited: list[float] = []

    def window(self, count: int, batch: int) -> Cost:
        """`count` steps; the share of the time waited for data is kept."""
        waited, watch = 0.0, Stopwatch()
        for _ in range(count):
            before = time.perf_counter()
            taken = next(self._batches)
            waited += time.perf_counter() - before
            last = self._loop.step(taken)
        float(last)
        found = watch.window(count * batch)
        self.waited.append(waited / watch.seconds())
        time.sleep(0.2)  # what was prepared ahead is whole before another's window
        return found


def _endless(loader: loaders.Loader) -> Iterator[Any]:
    while True:
        yield from loader.passes()


def compare(task: loaders.Task, problem: steps.Problem, count: int, turns: Turns) -> Group:
    """Ours twice, ours on cached batches, torchvision and timm by default and at their best."""
    mixed = "AMP (bf16)" if problem.precision == "BF16" else "FP32"
    title = f"E and R: end to end, {problem.recipe.name}, {mixed}"
    say(title)
    makers: dict[str, Callable[[], steps.Loop]] = {
        "ours": lambda: steps.ours(problem),
        "ours, again": lambda: steps.ours(problem, "ours, again"),
        TORCHVISION[0]: lambda: peer_loops.torchvision_loop(problem, TORCHVISION[0], best=False),
        TORCHVISION[1]: lambda: peer_loops.torchvision_loop(problem, TORCHVISION[1], best=True),
        TIMM[0]: lambda: peer_loops.timm_loop(problem, TIMM[0], best=False),
        TIMM[1]: lambda: peer_loops.timm_loop(problem, TIMM[1], best=True),
    }

    def loader(name: str) -> loaders.Loader:
        if name in TIMM:
            return peer_loaders.timm_loader(task, True)
        if name in TORCHVISION:
            return peer_loaders.torchvision_pil(task, True)
        return loaders.ours(task)

    kept, thrown, absent, shown = checked(makers, problem, TORCHVISION[0])
    fed = [Fed(loop.name, loader(loop.name), loop) for loop in kept]
    replay = steps.ours(problem, REPLAY)
    arms = [Arm(x.name, partial(x.window, count, task.batch)) for x in fed if x.name not in thrown]
    arms.append(Arm(REPLAY, lambda: replay.window(count, task.batch)))
    rates, processor, notes = measure(arms, turns)
    stall = paired_ratio(rates["ours"], rates[REPLAY])
    if turns.blocks > 1:
        notes.append(
            f"stall of ours, 1 - E / R: {100 * (1 - stall.median):.1f} % (95 % interval "
            f"{100 * (1 - stall.high):.1f} to {100 * (1 - stall.low):.1f} %); the loop waited "
            f"for data {100 * sum(fed[0].waited) / len(fed[0].waited):.1f} % of the time"
        )
    notes.append(f"batch {task.batch}, {count} steps a window; loader and step share the cores")
    return Group(
        title, "files to updated weights", "img/s", "ours", "ours, again", rates,
        [Target("E at least 0.95 of min(L, S), which here is R", REPLAY, 0.95)],
        thrown, absent, shown, notes, processor,
    )  # fmt: skip
