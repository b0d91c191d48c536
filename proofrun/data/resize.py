"""Bilinear resizing and colour jitter on the CPU by torch, in threads of our own, called by DALI.

DALI's own operators take longer on a CPU: the resize four times as long, the jitter with hue three
times (reports/speed/notes.md). Resized pixels agree with PIL's and torchvision's to one of 255.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from proofrun.data.jitter import color_jitter
from proofrun.recipe import ColorJitter

Pixels = NDArray[np.uint8]


def resizer(
    threads: int, antialias: bool, jitter: ColorJitter | None = None
) -> Callable[..., list[Pixels]]:
    """A function of (images, sizes, draws), for a whole batch.

    Images are uint8 (H, W, 3), each of its own size; sizes are int32 (2,): height, width. The
    result is uint8 (height, width, 3) for each. `antialias` is that of torch's `interpolate`.
    Draws, float32 (4,), are there with `jitter` only: see `proofrun.data.jitter`.
    """
    pool = _pool(threads)

    def share(images: Sequence[Pixels], results: Sequence[Pixels], draws: Sequence[Any]) -> None:
        for image, result, draw in zip(images, results, draws, strict=True):
            _resize(image, result, antialias)
            if jitter is not None:
                view = torch.from_numpy(result)[None]
                view.copy_(color_jitter(view, torch.from_numpy(draw), jitter))

    def resize(
        images: Sequence[Pixels],
        sizes: Sequence[NDArray[np.int32]],
        draws: Sequence[NDArray[np.float32]] | None = None,
    ) -> list[Pixels]:
        results = [np.empty((*map(int, size), 3), np.uint8) for size in sizes]
        each: Sequence[Any] = draws or [None] * len(images)
        parts = [slice(i, None, threads) for i in range(threads)]
        done = [pool.submit(share, images[part], results[part], each[part]) for part in parts]
        for share_done in done:
            share_done.result()
        return results

    return resize


@functools.cache
def _pool(threads: int) -> ThreadPoolExecutor:
    """Threads in which torch computes alone, without a team of threads of its own in each.

    They live as long as the process: a pipeline's end is no moment to wait for them.
    """
    ours = torch.get_num_threads()  # first: torch takes the last number set for it, by any thread
    pool = ThreadPoolExecutor(threads, "resize")
    all_there = threading.Barrier(threads)

    def alone() -> None:
        torch.set_num_threads(1)
        all_there.wait()

    wait([pool.submit(alone) for _ in range(threads)])
    torch.set_num_threads(ours)  # and so of threads that start after these
    return pool


def _resize(image: Pixels, result: Pixels, antialias: bool) -> None:
    # `interpolate` with a result that is given: without, half of the time goes into its copy.
    # A view of (1, 3, H, W) in channels-last order is what the fast kernels want.
    source, out = (torch.from_numpy(each).permute(2, 0, 1)[None] for each in (image, result))
    if antialias:
        torch.ops.aten._upsample_bilinear2d_aa.out(
            source, result.shape[:2], False, None, None, out=out
        )
    else:
        torch.ops.aten.upsample_bilinear2d.out(source, result.shape[:2], False, None, None, out=out)
