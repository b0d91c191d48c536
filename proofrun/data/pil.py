"""PIL and torchvision loaders: for hosts without DALI, and the reference for DALI's pixels.

Everything is a function of (seed, epoch, position in the list): the order of an epoch, and the
crop, flip and jitter of each image. The state of the stream is therefore (epoch, step).
"""

from __future__ import annotations

import atexit
import multiprocessing as mp
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

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
from proofrun.data.lists import ImageList, image_error
from proofrun.errors import DataError, Exit, one_line
from proofrun.recipe import EvalProtocol, PaddedPlace, RandomArea, TrainInput
from proofrun.vision import import_torchvision

T = TypeVar("T")


class PilTrain:
    """Train batches by PIL and torchvision; see `proofrun.data.TrainLoader`."""

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
        self._key = stream_key("torchvision", images, batch, shard, seed)
        self._epoch = self._step = 0
        if state is not None:
            check_state(state, self._key)
            self._epoch, self._step = int(state["epoch"]), int(state["step"])
        self._data = _TrainSet(images, spec, seed)
        self._images = len(images.files)
        self._batch = batch
        self._shard = shard
        self._seed = seed

    def epoch(self) -> Iterator[Batch]:
        if self._step == self.steps:
            self._epoch, self._step = self._epoch + 1, 0
        order = epoch_order(self._images, self._seed, self._epoch)
        mine = order[self._shard.rank :: self._shard.world].tolist()
        plan = [
            [(self._epoch, i) for i in mine[step * self._batch : (step + 1) * self._batch]]
            for step in range(self._step, self.steps)
        ]
        for batch in _batches(self._data, plan, self._shard):
            self._step += 1
            yield batch

    def state(self) -> LoaderState:
        return self._key | {"epoch": self._epoch, "step": self._step}

    def close(self) -> None:
        """Worker processes end with each epoch."""


class PilEval:
    """Evaluation batches by PIL and torchvision; see `proofrun.data.EvalLoader`."""

    def __init__(self, images: ImageList, protocol: EvalProtocol, batch: int, shard: Shard) -> None:
        ids = list(eval_ids(len(images.files), shard))
        batches = eval_batches(len(images.files), shard.world, batch)
        self._data = _EvalSet(images, protocol)
        self._plan = [ids[step * batch : (step + 1) * batch] for step in range(batches)]
        self._shard = shard

    def __iter__(self) -> Iterator[Batch]:
        return _batches(self._data, self._plan, self._shard)

    def close(self) -> None:
        """Worker processes end with each pass."""


def epoch_order(images: int, seed: int, epoch: int) -> np.ndarray:
    """The order of the list in an epoch: the same on all ranks, another one in every epoch."""
    return np.random.default_rng([seed, epoch]).permutation(images)


def train_transform(image: Image.Image, spec: TrainInput) -> Image.Image:
    """torchvision's training transforms in their usual order; draws from torch's global RNG."""
    v1 = import_torchvision().transforms
    match spec.crop:
        case RandomArea(area, ratio):
            box = v1.RandomResizedCrop.get_params(image, list(area), list(ratio))
        case PaddedPlace(pixels):
            size = image.height, image.width
            image = v1.functional.pad(image, pixels)
            box = v1.RandomCrop.get_params(image, size)
    image = v1.functional.crop(image, *box)
    image = _resize(image, [spec.image_size, spec.image_size], spec.antialias)
    image = v1.RandomHorizontalFlip(spec.flip_probability)(image)
    if (jitter := spec.color_jitter) is not None:
        image = v1.ColorJitter(jitter.brightness, jitter.contrast, jitter.saturation, jitter.hue)(
            image
        )
    return image


def eval_transform(image: Image.Image, protocol: EvalProtocol) -> Image.Image:
    """torchvision's Resize and CenterCrop."""
    v1 = import_torchvision().transforms
    size = [protocol.resize_to] * (1 if protocol.resize == "shorter_side" else 2)
    return v1.functional.center_crop(_resize(image, size, protocol.antialias), [protocol.crop])


def _resize(image: Image.Image, size: list[int], antialias: bool) -> Image.Image:
    """`size` is [shorter side] or [height, width]."""
    functional = import_torchvision().transforms.functional
    if antialias:
        return functional.resize(image, size)  # bilinear; PIL always filters
    plain = functional.resize(functional.pil_to_tensor(image), size, antialias=False)
    return functional.to_pil_image(plain)


def decode(path: Path) -> Image.Image:
    """The RGB image of a file. Raises DataError."""
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except Exception as error:  # PIL raises OSError, SyntaxError, ValueError, struct.error, …
        raise image_error(path, decode=True) or DataError(
            f"{path}: cannot be decoded ({one_line(error)}); replace it or take it out of the list",
            Exit.IMAGE_INVALID,
        ) from None


class _Images(Dataset[Batch]):
    """Decodes and stacks one batch; an unreadable image is returned as its error.

    (DataLoader raises a worker's exception anew from its traceback's text: the code would be lost.)
    """

    def __init__(self, images: ImageList, size: int) -> None:
        self._images = images
        self._size = size
        import_torchvision()  # takes seconds: once here, not in a step or in every worker process

    def _batch(self, ids: list[int], decoded: Iterator[Image.Image]) -> Batch | DataError:
        rows = np.zeros((len(ids), self._size, self._size, 3), np.uint8)
        try:
            for row, image in zip(rows, decoded, strict=True):
                row[:] = np.asarray(image)
        except DataError as error:
            return error
        index = torch.tensor(ids, dtype=torch.int64)
        return Batch(torch.from_numpy(rows), torch.from_numpy(self._images.labels[ids]), index)


class _TrainSet(_Images):
    def __init__(self, images: ImageList, spec: TrainInput, seed: int) -> None:
        super().__init__(images, spec.image_size)
        self._spec = spec
        self._seed = seed

    def __getitems__(self, keys: list[tuple[int, int]]) -> Batch | DataError:
        return self._batch([index for _, index in keys], (self._one(*key) for key in keys))

    def _one(self, epoch: int, index: int) -> Image.Image:
        image = decode(self._images.path(index))
        words = np.random.SeedSequence([self._seed, epoch, index]).generate_state(2, np.uint32)
        generator = torch.default_generator  # torchvision draws from it; nobody else must notice
        before = generator.get_state()
        try:
            generator.manual_seed(int(words[0]) << 32 | int(words[1]))
            return train_transform(image, self._spec)
        finally:
            generator.set_state(before)


class _EvalSet(_Images):
    def __init__(self, images: ImageList, protocol: EvalProtocol) -> None:
        super().__init__(images, protocol.crop)
        self._protocol = protocol

    def __getitems__(self, ids: list[int]) -> Batch | DataError:
        images = map(decode, map(self._images.path, ids))
        return self._batch(ids, (eval_transform(image, self._protocol) for image in images))


def _batches(data: _Images, plan: list[Any], shard: Shard) -> Iterator[Batch]:
    """The batches of `plan`, made in worker processes that end with this iterator."""
    loader = DataLoader(
        data,
        batch_sampler=plan,
        collate_fn=_same,
        num_workers=shard.threads,
        worker_init_fn=_leave_signals_to_the_rank,
        generator=torch.Generator(),  # else every pass draws from the global one
    )
    others = set(mp.active_children())
    # Blocked while the processes are born, so that they never see a signal before they ignore it.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        batches = iter(loader)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        born = set(mp.active_children()) - others
        _alive.update(born)
    try:
        for batch in batches:
            if isinstance(batch, DataError):
                raise batch
            yield batch
    finally:
        del batches  # its end is that of the processes
        # where the traceback of an error keeps the iterator, they live on: `_end_workers` has them
        _alive.difference_update([worker for worker in born if not worker.is_alive()])


_alive: set[Any] = set()  # processes of passes that have not ended, or not cleanly


@atexit.register
def _end_workers() -> None:
    """Before multiprocessing's own exit function, which waits for processes that it can't end."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch's handler takes a dead worker for a fault
    for worker in _alive:
        worker.kill()


def _same(batch: T) -> T:
    return batch


def _leave_signals_to_the_rank(worker: int) -> None:
    """A signal to the whole process group must not take the data from a rank that wants to save.

    DataLoader tells a worker through its queue to end, and a worker whose rank has died notices
    that by itself within seconds. `_end_workers` has those that an exiting rank forgot.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
