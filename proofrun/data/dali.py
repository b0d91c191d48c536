"""NVIDIA DALI loaders, on a GPU or on the CPU; what happens to an image is in `dali_graph.py`.

Batches are handed to torch through DLPack without a copy (`exec_dynamic` gives every batch a buffer
of its own, which lives as long as the tensor).
"""

from __future__ import annotations

import contextlib
import re
import threading
import time
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nvidia.dali import Pipeline, fn
from torch import Tensor

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
from proofrun.data.dali_graph import augment, protocol_graph
from proofrun.data.jitter import color_jitter
from proofrun.data.lists import ImageList, image_error
from proofrun.errors import DataError, Exit
from proofrun.recipe import EvalProtocol, TrainInput

#: Batches that DALI prepares ahead.
PREFETCH = 2

#: Images on a GPU whose colours are jittered at a time, to bound the memory that it takes.
JITTERED = 64

#: How long the list is searched for the file that DALI could not decode and did not name.
SEARCH_S = 60.0

# DALI's errors about a file; it names the file in some of them.
_ABOUT_A_FILE = re.compile(
    r"(?:Failed to decode sample #\d+ : (.+)|Could not open file (.+): .*|nvImageCodec failure)"
)


class DaliTrain:
    """Train batches by DALI; see `proofrun.data.TrainLoader`.

    The reader shuffles the whole list before every epoch, the first too, by one seed on all ranks;
    rank r then reads the r-th of `world` slices. Crop, flip and jitter have a seed per rank. Only
    the crop is decoded, so the missing end of a file is noticed when a crop reaches it, not before
    (`check_images` looks at the ends of files).
    """

    def __init__(
        self,
        images: ImageList,
        spec: TrainInput,
        batch: int,
        shard: Shard,
        seed: int,
        state: LoaderState | None,
    ) -> None:
        count = len(images.files)
        self.steps = train_steps(count, shard.world, batch)
        # The padded last batch is read too, and thrown away, so that epochs stay apart.
        self._runs = eval_batches(count, shard.world, batch)
        self._images = images
        self._labels = torch.from_numpy(images.labels)
        self._key = stream_key("dali", images, batch, shard, seed)
        self._jitter = spec.color_jitter
        self._step = 0
        saved: bytes | None = None
        if state is not None:
            check_state(state, self._key)
            self._step = int(state["step"])
            saved = bytes(state["dali"])  # type: ignore[arg-type]
        pipe = _pipeline(
            batch,
            shard,
            seed=_derive(seed, 1, shard.rank),
            enable_checkpointing=True,
            checkpoint=saved,
        )
        with pipe:
            encoded, ids = fn.readers.file(
                files=_paths(images, range(count)),
                shard_id=shard.rank,
                num_shards=shard.world,
                shuffle_after_epoch=True,
                shuffle_after_epoch_seed=_derive(seed, 0),
                pad_last_batch=True,
                dont_use_mmap=True,
            )
            views, *draws = augment(encoded, spec, shard)
            pipe.set_outputs(views, ids, *draws)
        pipe.build()
        self._pipe: _Pipeline | None = pipe

    def epoch(self) -> Iterator[Batch]:
        if self._step == self.steps:
            for _ in range(self._runs - self.steps):
                self._run()
            self._step = 0
        while self._step < self.steps:
            images, ids = self._run()
            self._step += 1
            yield Batch(images, self._labels[ids], ids)

    def state(self) -> LoaderState:
        # DALI's checkpoint is that of the last batch handed out, not of those prepared ahead.
        assert self._pipe is not None
        return self._key | {"step": self._step, "dali": self._pipe.checkpoint()}

    def close(self) -> None:
        if self._pipe is not None:
            self._pipe.end()
        self._pipe = None

    def _run(self) -> tuple[Tensor, Tensor]:
        assert self._pipe is not None, "the loader is closed"
        try:
            self._pipe.schedule_run()  # the first call starts `PREFETCH` runs
            images, ids, *draws = self._pipe.outputs()
            pixels, positions = _tensors((images, ids))
        except RuntimeError as error:
            self.close()
            # Which files come next is known to DALI only.
            raise _data_error(error, self._images, range(len(self._images.files))) from None
        if draws:
            assert self._jitter is not None
            drawn = torch.from_dlpack(draws[0].as_cpu().as_tensor())
            parts = zip(pixels.split(JITTERED), drawn.split(JITTERED), strict=True)
            pixels = torch.cat([color_jitter(*part, self._jitter) for part in parts])
        return pixels, positions


class DaliEval:
    """Evaluation batches by DALI; see `proofrun.data.EvalLoader`."""

    def __init__(self, images: ImageList, protocol: EvalProtocol, batch: int, shard: Shard) -> None:
        self._images = images
        self._labels = torch.from_numpy(images.labels)
        self._protocol = protocol
        self._batch = batch
        self._shard = shard
        self._ids = eval_ids(len(images.files), shard)
        self._batches = eval_batches(len(images.files), shard.world, batch)

    def __iter__(self) -> Iterator[Batch]:
        size = self._protocol.crop
        runs = -(-len(self._ids) // self._batch)
        if runs:
            yield from self._decoded(runs)
        for _ in range(self._batches - runs):
            none = torch.zeros(0, dtype=torch.int64)
            yield Batch(torch.zeros(0, size, size, 3, dtype=torch.uint8), none, none)

    def _decoded(self, runs: int) -> Iterator[Batch]:
        # Nothing is decoded that this pass does not need; `Pipeline.run` would run past its end.
        depth = min(PREFETCH, runs)
        pipe = _pipeline(self._batch, self._shard, seed=0, prefetch_queue_depth=depth)
        with pipe:
            encoded, positions = fn.readers.file(
                files=_paths(self._images, self._ids),
                pad_last_batch=True,
                dont_use_mmap=True,
            )
            pipe.set_outputs(protocol_graph(encoded, self._protocol, self._shard), positions)
        try:
            for run in range(runs):
                start = run * self._batch
                ahead = self._ids[start : start + (depth + 1) * self._batch]
                try:
                    if run == 0:
                        pipe.schedule_run()  # the first call starts `depth` runs
                    images, ids = _tensors(pipe.outputs())
                    if run + depth < runs:
                        pipe.schedule_run()
                except RuntimeError as error:
                    raise _data_error(error, self._images, ahead) from None
                rows = min(self._batch, len(self._ids) - start)
                ids = ids[:rows] * self._shard.world + self._shard.rank
                yield Batch(images[:rows], self._labels[ids], ids)
        finally:
            pipe.end()

    def close(self) -> None:
        """Nothing is held between passes."""


class _Pipeline(Pipeline):
    """One that is idle before it ends.

    DALI's destructor holds Python's lock and waits for the executor, which may be waiting for the
    lock, to resize. So what was scheduled is taken out first.
    """

    def end(self) -> None:
        """Wait for what was scheduled, then end the executor; it cannot be used again."""
        while self._pipe and not self.empty():
            with contextlib.suppress(RuntimeError):  # a bad file, or an interpreter that ends
                self.outputs()
        super()._shutdown()

    def _shutdown(self) -> None:
        """What DALI calls where one is dropped: in any thread, for the garbage collector may run in
        the very thread that the executor waits for."""
        if threading.current_thread() is threading.main_thread():
            self.end()
        elif self._pipe:
            threading.Thread(target=self.end, name="end of a pipeline").start()


def _pipeline(batch: int, shard: Shard, **options: Any) -> _Pipeline:
    return _Pipeline(
        batch_size=batch,
        num_threads=max(1, shard.threads),
        device_id=shard.device_id,
        exec_dynamic=True,
        **({"prefetch_queue_depth": PREFETCH} | options),
    )


def _paths(images: ImageList, ids: range) -> list[str]:
    root = str(images.root)  # joined as text: pathlib takes seconds for a million files
    return [f"{root}/{images.files[i]}" for i in ids]


def _tensors(outputs: Any) -> tuple[Tensor, Tensor]:
    """DALI's (images, ids) as uint8 (B, H, W, 3), on its buffer, and int64 (B,) on the host."""
    images, ids = (torch.from_dlpack(output.as_tensor()) for output in outputs)
    return images, ids.flatten().long()


def _derive(seed: int, *words: int) -> int:
    """A 31-bit seed that does not resemble that of a neighbouring seed or rank."""
    return int(np.random.SeedSequence([seed, *words]).generate_state(1)[0] >> 1)


def _data_error(error: RuntimeError, images: ImageList, ids: Iterable[int]) -> Exception:
    """DALI's exception as a DataError that names the file, if a file was the cause.

    Where DALI does not name it, it is searched among `ids`: by the ends of the files first, then by
    decoding them, for at most `SEARCH_S`.
    """
    about = _ABOUT_A_FILE.search(str(error))
    if about is None:
        return error
    if named := about[1] or about[2]:
        path = Path(named)
        return image_error(path, decode=True) or DataError(
            f"{path}: DALI cannot decode it; replace it or take it out of the list",
            Exit.IMAGE_INVALID,
        )
    ids = list(ids)
    until = time.monotonic() + SEARCH_S
    for index, decode in chain(((i, False) for i in ids), ((i, True) for i in ids)):
        if (found := image_error(images.path(index), decode)) is not None:
            return found
        if time.monotonic() > until:
            break
    return DataError(
        f"{images.root}: DALI cannot decode an image and does not name it ({about[0]}); check the "
        "files of the list",
        Exit.IMAGE_INVALID,
    )
