"""Arm L: the loader alone: read, decode, crop, resize and flip the same files."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from benchmarks.figures import Group, Target
from benchmarks.loaders import ENDS, Loader, Task, content, ours, ours_normalised, unlike, window
from benchmarks.peer_loaders import (
    bare_decode,
    dali_fused,
    dali_unfused,
    timm_loader,
    torchvision_decode,
    torchvision_pil,
    torchvision_tensors,
)
from benchmarks.turns import Arm, Turns, measure, say, sizes_text
from proofrun.errors import one_line
from proofrun.recipe import ColorJitter


def compare(
    title: str, work: str, task: Task, makers: list[Callable[[], Loader]], targets: list[Target],
    turns: Turns,
) -> Group:  # fmt: skip
    """Open the loaders (the first is the base, the second the base again), check, take turns."""
    say(title)
    absent: dict[str, str] = {}
    loaders: list[Loader] = []
    for make in makers:
        try:
            loaders.append(make())
        except Exception as error:
            absent[(make.__doc__ or make.__name__).split(".")[0]] = one_line(error).split(". ")[0]
    thrown_out: dict[str, str] = {}
    checks: dict[str, str] = {}
    peer = next(one for one in loaders[2:] if one.pixels is not None)
    reference = content(peer)
    assert reference is not None
    for loader in loaders:
        if (found := content(loader)) is None:
            continue
        checks[loader.name] = ", ".join(f"{what} {value:.2f}" for what, value in found.items())
        if why := unlike(reference, found):
            thrown_out[loader.name] = why
    steps = len(task.files) // task.batch - 2 * ENDS
    arms = [
        Arm(one.name, partial(window, one, task.batch, steps))
        for one in loaders
        if one.name not in thrown_out
    ]
    rates, processor, notes = measure(arms, turns)
    notes.append(
        f"{len(task.files)} files of {sizes_text(task.files)}, batch {task.batch}, "
        f"{steps} batches a window, {task.cores} decode threads or processes"
    )
    notes.append(f"views are held against those of: {peer.name}")
    return Group(
        title, work, "img/s", loaders[0].name, loaders[1].name, rates, targets,
        thrown_out, absent, checks, notes, processor,
    )  # fmt: skip


def measure_all(task: Task, jitter: ColorJitter, turns: Turns) -> list[Group]:
    """The comparisons of L: antialiased, the same normalised, with jitter, and not antialiased."""

    def other(change: dict[str, object]) -> Task:
        spec = task.spec.model_copy(update=change)
        return Task(task.root, spec, task.normalize, task.batch)

    sharp = other({"antialias": False})
    colourful = other({"color_jitter": jitter})

    def decode_jpeg() -> Loader:
        """torchvision, decode_jpeg"""
        return torchvision_decode(task)

    limit = "limit: bare libjpeg-turbo decode"
    return [
        compare(
            "L: the loader, antialiased", "file to uint8 pixels of a random 224 px crop", task,
            [lambda: ours(task), lambda: ours(task, "ours, again"),
             lambda: torchvision_pil(task, False), decode_jpeg, lambda: timm_loader(task, False),
             lambda: dali_fused(task), lambda: dali_unfused(task), lambda: bare_decode(task)],
            [Target("at least 1.9 x torchvision with PIL", "torchvision, DataLoader with PIL", 1.9),
             Target("at least 1.5 x timm", "timm, create_loader", 1.5)],
            turns,
        ),
        compare(
            "L: the loader, antialiased and normalised",
            "the same to normalised float32, which a card does for ours and for timm", task,
            [lambda: ours_normalised(task, "ours"), lambda: ours_normalised(task, "ours, again"),
             lambda: torchvision_pil(task, True), lambda: timm_loader(task, True),
             lambda: dali_unfused(task, True)],
            [], turns,
        ),
        compare(
            "L: the loader, antialiased, with GoogLeNet's colour jitter",
            "file to uint8 pixels of a random 224 px crop in other colours", colourful,
            [lambda: ours(colourful), lambda: ours(colourful, "ours, again"),
             lambda: torchvision_pil(colourful, False)],
            [], turns,
        ),
        compare(
            "L: the loader, not antialiased", "file to uint8 pixels of a random 224 px crop", sharp,
            [lambda: ours(sharp), lambda: ours(sharp, "ours, again"),
             lambda: torchvision_tensors(sharp), lambda: dali_fused(sharp),
             lambda: dali_unfused(sharp), lambda: bare_decode(sharp)],
            [Target("at least 0.57 of the bare full decode", limit, 0.57),
             Target("reach for 0.75 of it", limit, 0.75)],
            turns,
        ),
    ]  # fmt: skip
