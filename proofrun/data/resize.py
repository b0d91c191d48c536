"""Bilinear resizing on the CPU: torch's uint8 kernels in threads of our own, for DALI's pipelines.

DALI's own `resize` takes longer on a CPU than decoding does, and four times as long as torch
(reports/speed/notes.md). Pixels agree with PIL's and torchvision's to one of 255.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]


def resizer(
    threads: int, antialias: bool
) -> Callable[[Sequence[Pixels], Sequence[NDArray[np.int32]]], list[Pixels]]:
    """A function of (images, sizes), for a whole batch.

    Images are uint8 (H, W, 3), each of its own size; sizes are int32 (2,): height, width. The
    result is uint8 (height, width, 3) for each. `antialias` is that of torch's `interpolate`.
    """
    pool = ThreadPoolExecutor(threads, "resize") if threads > 1 else None

    def share(images: Sequence[Pixels], results: Sequence[Pixels]) -> None:
        for image, result in zip(images, results, strict=True):
            _resize(image, result, antialias)

    def resize(images: Sequence[Pixels], sizes: Sequence[NDArray[np.int32]]) -> list[Pixels]:
        results = [np.empty((*map(int, size), 3), np.uint8) for size in sizes]
        if pool is None:
            share(images, results)
        else:
            parts = [pool.submit(share, images[i::threads], results[i::threads])
                     for i in range(threads)]  # fmt: skip
            for part in parts:
                part.result()
        return results

    return resize


def _resize(image: Pixels, result: Pixels, antialias: bool) -> None:
    # `interpolate` with a result that is given: without, half of the time goes into its copy.
    # A view of (1, 3, H, W) in channels-last order is what the fast kernels want.
    source, out = (torch.from_numpy(each).permute(2, 0, 1).unsqueeze(0) for each in (image, result))
    if antialias:
        torch.ops.aten._upsample_bilinear2d_aa.out(
            source, result.shape[:2], False, None, None, out=out
        )
    else:
        torch.ops.aten.upsample_bilinear2d.out(source, result.shape[:2], False, None, None, out=out)
