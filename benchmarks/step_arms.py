"""Arm S: the training step alone, on batches that are there: ours against the peers' loops.

The peers train networks of their own (Cadene's BN-Inception, torchvision's GoogLeNet) with the
weights that ours starts from. Ours gets raw pixels and normalises them in the step; the peers get
what their loaders' workers have normalised.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

import torch

from benchmarks.figures import Group, Target, best, loss_fault
from benchmarks.peer_loops import timm_loop, torchvision_loop
from benchmarks.steps import LOSS_WITHIN, Loop, Problem, first_losses, ours
from benchmarks.turns import Arm, Turns, measure, say
from proofrun.errors import one_line

#: The arm that has every default, precision included.
FP32 = "torchvision's loop, default, in FP32"


def checked(
    makers: Mapping[str, Callable[[], Loop]], task: Problem, reference: str
) -> tuple[list[Loop], dict[str, str], dict[str, str], dict[str, str]]:
    """(loops that do the reference's work, why others do not, why others are absent, losses).

    Work is compared by the losses of the first steps. An arm whose package is missing is absent.
    """
    loops, absent = [], {}
    for name, make in makers.items():
        try:
            loops.append(make())
        except ImportError as error:
            absent[name] = one_line(error)
    found = {loop.name: first_losses(loop) for loop in loops}
    within = LOSS_WITHIN[task.precision]
    faults = {name: loss_fault(found[reference], values, within) for name, values in found.items()}
    thrown = {name: why for name, why in faults.items() if why}
    say(f"losses: {found}; thrown out: {thrown}")
    shown = {name: ", ".join(f"{v:.4f}" for v in values) for name, values in found.items()}
    return [loop for loop in loops if loop.name not in thrown], thrown, absent, shown


def compare(task: Problem, steps: int, turns: Turns, compiled: bool) -> Group:
    """One network in one precision: ours twice, each peer at its defaults and at its best."""
    precision = "AMP (bf16)" if task.precision == "BF16" else "FP32"
    size, batch = task.batches[0].images.shape[1], len(task.batches[0].labels)
    title = f"S: the step, {task.recipe.name}, {precision}"
    say(title)
    default, laid = "torchvision's loop, default", "torchvision's loop, channels-last"
    timm, timm_laid = "timm's settings, default", "timm's settings, channels-last"
    fast = "timm's settings, channels-last, compiled"
    makers: dict[str, Callable[[], Loop]] = {
        "ours": lambda: ours(task),
        "ours, again": lambda: ours(task, "ours, again"),
        default: lambda: torchvision_loop(task, default, best=False),
        laid: lambda: torchvision_loop(task, laid, best=True),
        timm: lambda: timm_loop(task, timm, best=False),
        timm_laid: lambda: timm_loop(task, timm_laid, best=True),
    }
    if task.precision == "BF16":  # what who changes nothing has
        plain = replace(task, precision="FP32")
        makers[FP32] = lambda: torchvision_loop(plain, FP32, best=False)
    if compiled:
        makers[fast] = lambda: timm_loop(task, fast, best=True, compiled=True)
    kept, thrown, absent, shown = checked(makers, task, default)
    rates, processor, notes = measure([Arm(x.name, partial(x.window, steps, batch)) for x in kept],
                           turns)  # fmt: skip
    network = "torchvision's googlenet" if task.recipe.name == "GoogLeNet" else "Cadene's network"
    notes.append(
        f"batch {batch}, {size} px, {steps} steps a window, {torch.get_num_threads()} threads; "
        f"peers train {network}"
    )
    peers = [x.name for x in kept if not x.name.startswith("ours")]
    targets = [Target("never below the best peer at its best", best(rates, peers), 1.0)]
    if FP32 in rates:
        targets.insert(0, Target("at least 2.5 x the peers' default", FP32, 2.5))
    return Group(title, "a training step on a batch in memory", "img/s", "ours", "ours, again",
                 rates, targets, thrown, absent, shown, notes, processor)  # fmt: skip
