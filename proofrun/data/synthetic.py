"""Synthetic batches: random pixels without files or decoding, to measure the rest of a step.

Runs on them are marked by the loader's name and never enter an accuracy table.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from proofrun.data import (
    Batch,
    LoaderState,
    Shard,
    check_state,
    eval_batches,
    eval_ids,
    stream_key,
    train_steps,
)
from proofrun.data.lists import ImageList
from proofrun.recipe import EvalProtocol, TrainInput


def synthetic_list(count: int, classes: int) -> ImageList:
    """A list of `count` images that do not exist, their labels 0 … classes - 1 in turn."""
    labels = np.arange(count, dtype=np.int64) % classes
    return ImageList(Path("synthetic"), ["synthetic"] * count, labels, classes)


class SyntheticTrain:
    """One fixed batch of pixels per rank; ids and labels go through the list, in its order."""

    def __init__(
        self,
        images: ImageList,
        spec: TrainInput,
        batch: int,
        shard: Shard,
        seed: int,
        state: LoaderState | None,
    ) -> None:
        self.steps = train_steps(len(images.files), shard.world, batch)
        self._key = stream_key("synthetic", images, batch, shard, seed)
        self._step = 0
        if state is not None:
            check_state(state, self._key)
            self._step = int(state["step"])
        self._labels = torch.from_numpy(images.labels)
        self._ids = torch.arange(batch) * shard.world + shard.rank
        self._stride = batch * shard.world
        self._pixels = _pixels(batch, spec.image_size, seed, shard.rank)

    def epoch(self) -> Iterator[Batch]:
        self._step %= self.steps
        while self._step < self.steps:
            ids = self._ids + self._step * self._stride
            self._step += 1
            yield Batch(self._pixels, self._labels[ids], ids)

    def state(self) -> LoaderState:
        return self._key | {"step": self._step}

    def close(self) -> None:
        """Nothing is held."""


class SyntheticEval:
    """The evaluation contract with fixed random pixels."""

    def __init__(self, images: ImageList, protocol: EvalProtocol, batch: int, shard: Shard) -> None:
        self._labels = torch.from_numpy(images.labels)
        self._ids = torch.tensor(list(eval_ids(len(images.files), shard)), dtype=torch.int64)
        self._batch = batch
        self._batches = eval_batches(len(images.files), shard.world, batch)
        self._pixels = _pixels(batch, protocol.crop, 0, shard.rank)

    def __iter__(self) -> Iterator[Batch]:
        for step in range(self._batches):
            ids = self._ids[step * self._batch : (step + 1) * self._batch]
            yield Batch(self._pixels[: len(ids)], self._labels[ids], ids)

    def close(self) -> None:
        """Nothing is held."""


def _pixels(batch: int, size: int, seed: int, rank: int) -> torch.Tensor:
    rng = np.random.default_rng([seed, rank])
    return torch.from_numpy(rng.integers(0, 256, (batch, size, size, 3), np.uint8))
