"""How long a batch takes: from pixels to logits, and with reading and decoding before it."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from proofrun.data import LoaderName, Shard, open_eval
from proofrun.data.lists import ImageList
from proofrun.device import Device
from proofrun.recipe import EvalProtocol

#: Images per card that are timed.
BATCHES = (1, 8, 32, 128)
#: Batches before the timing: caches, autotuning, a full pipeline.
WARMUP = 3
#: Batches timed, at most, and seconds after which no more are begun (but at least ten).
MOST, LEAST, SECONDS = 200, 10, 4.0


@dataclass(frozen=True)
class Latency:
    """Milliseconds of a batch over all ranks' batches; images/s of all ranks together."""

    batch: int
    pipeline: bool
    batches: int
    p50_ms: float
    p95_ms: float
    p99_ms: float
    images_per_s: float


def from_pixels(
    net: nn.Module, inputs: nn.Module, size: int, batch: int, device: Device
) -> Latency | None:
    """Time batches whose pixels (uint8) are already in the host's memory. None except on rank 0."""
    rng = np.random.default_rng(0)
    pixels = torch.from_numpy(rng.integers(0, 256, (batch, size, size, 3), np.uint8))
    device.sum([0.0])  # all ranks begin together
    return _summary(
        batch, False, list(_timed(net, inputs, itertools.repeat(pixels), device)), device
    )


def from_files(
    net: nn.Module,
    inputs: nn.Module,
    loader: LoaderName,
    images: ImageList,
    protocol: EvalProtocol,
    batch: int,
    shard: Shard,
    device: Device,
) -> Latency | None:
    """Time batches that come from the input pipeline. None except on rank 0."""
    need = shard.world * batch * (WARMUP + MOST)
    again = np.resize(np.arange(len(images.files)), need)  # a short list is gone through again
    files = [images.files[i] for i in again]
    source = open_eval(
        loader,
        ImageList(images.root, files, images.labels[again], images.class_count),
        protocol,
        batch,
        shard,
    )
    device.sum([0.0])
    try:
        pixels = (found.images for found in source)
        return _summary(batch, True, list(_timed(net, inputs, pixels, device)), device)
    finally:
        source.close()


@torch.no_grad()
def _timed(
    net: nn.Module, inputs: nn.Module, batches: Iterator[Tensor], device: Device
) -> Iterator[float]:
    """Seconds from asking for each batch to having its logits on the host."""
    began = time.monotonic()
    for count in range(WARMUP + MOST):
        start = time.monotonic()
        if count == WARMUP:
            began = start
        pixels = next(batches)
        with device.autocast():
            net(inputs(pixels)).float().cpu()  # the copy waits for the card
        end = time.monotonic()
        if count >= WARMUP:
            yield end - start
            if count - WARMUP + 1 >= LEAST and end - began >= SECONDS:
                return


def _summary(batch: int, pipeline: bool, mine: list[float], device: Device) -> Latency | None:
    (rate,) = device.sum([batch / statistics.fmean(mine)])
    times = [1000 * second for rank in device.gather(mine) for second in rank]
    if not times:
        return None
    p50, p95, p99 = np.percentile(times, [50, 95, 99]).tolist()
    return Latency(batch, pipeline, len(times), p50, p95, p99, rate)
