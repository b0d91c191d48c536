"""Arm L: the loader alone. Every contender reads, decodes, crops, resizes and flips the same files.

A window is one epoch: the first batches fill what each loader prepares ahead and are not timed, nor
are the last, so that what is timed is the rate at which batches are made.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.turns import Cost, Stopwatch
from proofrun import host
from proofrun.data import Shard, open_train
from proofrun.data.lists import ImageList, read_split
from proofrun.evaluate import Inputs
from proofrun.recipe import Normalize, RandomArea, TrainInput

#: Batches at either end of an epoch that are not timed.
ENDS = 4

#: Views of the same files have the same mean, spread and detail; more than these fractions apart,
#: an arm has another filter or other crops.
CONTENT = {"mean": 0.05, "spread": 0.05, "detail": 0.12}

Pixels = Callable[[Any], np.ndarray]
Passes = Callable[[], Iterable[Any]]


@dataclass
class Task:
    """What all arms do: files under `root`/train, `batch` views as `spec` has them."""

    root: Path
    spec: TrainInput
    normalize: Normalize
    batch: int
    images: ImageList = field(init=False)
    cores: int = field(default_factory=host.usable_cores)

    def __post_init__(self) -> None:
        classes = len(list((self.root / "train").iterdir()))
        self.images = read_split(self.root, "train", classes)

    @property
    def crop(self) -> RandomArea:
        assert isinstance(self.spec.crop, RandomArea)
        return self.spec.crop

    @property
    def files(self) -> list[str]:
        return [str(self.images.path(i)) for i in range(len(self.images.files))]


@dataclass
class Loader:
    """`passes` starts an epoch; `pixels` shows a batch as (B, H, W, 3) of 255; None: no views."""

    name: str
    passes: Passes
    pixels: Pixels | None


def ours(task: Task, name: str = "ours", threads: int | None = None) -> Loader:
    """proofrun's loader as a run opens it: uint8 pixels."""
    shard = Shard(0, 1, threads or task.cores)
    loader = open_train("dali", task.images, task.spec, task.batch, shard, seed=0)
    return Loader(name, loader.epoch, lambda batch: batch.images.numpy())


def ours_normalised(task: Task, name: str) -> Loader:
    """The same, and the device's normalisation, here on the CPU."""
    plain = ours(task)
    inputs = Inputs(task.normalize, torch.device("cpu"))
    return Loader(
        name,
        lambda: ((inputs(batch.images), batch.labels) for batch in plain.passes()),
        denormalised(task),
    )


def nchw(batch: Any) -> np.ndarray:
    return batch[0].permute(0, 2, 3, 1).numpy()


def denormalised(task: Task) -> Pixels:
    mean, std = (np.array(x) for x in (task.normalize.mean, task.normalize.std))
    return lambda batch: 255 * (batch[0].permute(0, 2, 3, 1).numpy() * std + mean)


def window(loader: Loader, batch: int, steps: int) -> Cost:
    """What an image costs in `steps` batches in the middle of an epoch; the epoch is used up."""
    batches = iter(loader.passes())
    for _ in range(ENDS):
        next(batches)
    watch = Stopwatch()
    for _ in range(steps):
        next(batches)
    found = watch.window(batch * steps)
    for _ in batches:
        pass
    time.sleep(0.2)  # DALI prepares the next epoch's first batches now, not in another's window
    return found


def content(loader: Loader) -> dict[str, float] | None:
    """What the views of an epoch look like: mean, spread and detail, of 255; None: no views."""
    if loader.pixels is None:
        return None
    views = [loader.pixels(batch).astype(np.float32) for batch in loader.passes()]
    return {
        "mean": float(np.mean([view.mean() for view in views])),
        "spread": float(np.mean([view.std((1, 2)).mean() for view in views])),
        "detail": float(np.mean([np.abs(np.diff(view, axis=2)).mean() for view in views])),
    }


def unlike(reference: dict[str, float], found: dict[str, float]) -> str | None:
    """Why a loader makes other views than the reference; None: the same, within `CONTENT`."""
    for what, within in CONTENT.items():
        if abs(found[what] / reference[what] - 1) > within:
            return f"{what} of its pixels is {found[what]:.2f}, not {reference[what]:.2f}"
    return None
