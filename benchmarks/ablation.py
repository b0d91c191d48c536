"""One row per choice: ours with that choice undone, or with one more, in the same blocks."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import psutil
import torch

from benchmarks import loader_arms, loaders, peer_loaders, steps
from benchmarks.figures import Group
from benchmarks.merged import merge
from benchmarks.step_arms import checked
from benchmarks.turns import Arm, Cost, Turns, measure, say


@contextmanager
def denormals_flushed() -> Iterator[None]:
    """Subnormal numbers count as zero in this thread while the block runs."""
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


@contextmanager
def pinned(warm: Callable[[], object]) -> Iterator[None]:
    """The threads that `warm` keeps busy, one on each core, while the block runs."""
    process = psutil.Process()
    before = {thread.id: thread.user_time for thread in process.threads()}
    warm()
    used = {t.id: t.user_time - before.get(t.id, 0.0) for t in process.threads()}
    cores = sorted(os.sched_getaffinity(0))
    busiest = sorted(used, key=lambda thread: -used[thread])[: len(cores)]
    for thread, core in zip(busiest, cores, strict=False):
        os.sched_setaffinity(thread, {core})
    try:
        yield
    finally:
        for thread in busiest:
            os.sched_setaffinity(thread, cores)


def step(task: steps.Problem, count: int, turns: Turns, compiled: bool) -> Group:
    """The choices of a step."""
    name = "AMP (bf16)" if task.precision == "BF16" else "FP32"
    title = f"Ablation: the step, {task.recipe.name}, {name}"
    say(title)
    batch = len(task.batches[0].labels)
    other = replace(task, precision="FP32" if task.precision == "BF16" else "BF16")
    undone = "FP32" if task.precision == "BF16" else "AMP (bf16)"
    changes: dict[str, Callable[[str], steps.Loop]] = {
        "ours": lambda name: steps.ours(task, name),
        "ours, again": lambda name: steps.ours(task, name),
        "layout: NCHW": lambda name: steps.ours(task, name, layout=torch.contiguous_format),
        f"precision: {undone}": lambda name: steps.ours(other, name),
        "optimizer: not fused": lambda name: steps.ours(task, name, fused=False),
        "host sync after every step": lambda name: steps.ours(task, name, sync=True),
        "1x1 branches merged": lambda name: steps.ours(task, name, change=merge),
    }
    if compiled:
        changes["torch.compile"] = lambda name: steps.ours(task, name, change=torch.compile)
    makers = {name: partial(make, name) for name, make in changes.items()}
    wide = replace(task, precision="BF16")  # its bound of the loss: precision is among the choices
    kept, thrown, _, shown = checked(makers, wide, "ours")
    arms = [Arm(x.name, partial(x.window, count, batch)) for x in kept]

    plain, flushed, bound = (steps.ours(task) for _ in range(3))

    def with_flush() -> Cost:
        with denormals_flushed():
            return flushed.window(count, batch)

    def with_pins() -> Cost:
        with pinned(plain.step):
            return bound.window(count, batch)

    arms += [Arm("denormals flushed", with_flush), Arm("threads pinned", with_pins)]
    rates, processor, notes = measure(arms, turns)
    notes.append(f"batch {batch}, {count} steps a window; a ratio over 1 speaks for ours as it is")
    return Group(
        title, "ours, with one choice changed", "img/s", "ours", "ours, again", rates, [], thrown,
        {}, shown, notes, processor,
    )  # fmt: skip


def loader(task: loaders.Task, turns: Turns) -> Group:
    """The choices of the loader: threads, torch's resize, and decoding the crop alone."""
    return loader_arms.compare(
        "Ablation: the loader, antialiased", "ours, with one choice changed", task,
        [lambda: loaders.ours(task), lambda: loaders.ours(task, "ours, again"),
         lambda: peer_loaders.dali_fused(task), lambda: peer_loaders.dali_unfused(task),
         lambda: loaders.ours(task, "1 thread", 1),
         lambda: loaders.ours(task, f"{2 * task.cores} threads", 2 * task.cores)],
        [], turns,
    )  # fmt: skip
