"""Weights, input batches and projection vectors that any machine makes alike, from names.

All of it comes from the raw words of numpy's Philox, a counter-based generator whose raw stream is
fixed by its definition (Salmon et al., 2011); no library's distributions are used.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

#: Projections of a tensor: over all places of a channel alike, and two with balanced signs.
PROJECTIONS = 3


def words(count: int, *name: object) -> NDArray[np.uint64]:
    """`count` raw 64-bit words of the stream called `name`."""
    digest = hashlib.sha256("/".join(map(str, name)).encode()).digest()
    raw = np.random.Philox(key=int.from_bytes(digest[:16], "little")).random_raw(count)
    return np.asarray(raw, dtype=np.uint64)


def uniform(shape: tuple[int, ...], low: float, high: float, *name: object) -> NDArray[np.float64]:
    unit = (words(math.prod(shape), *name) >> np.uint64(11)).astype(np.float64) * 2.0**-53
    return (low + (high - low) * unit).reshape(shape)


def weight(name: str, shape: tuple[int, ...], seed: int) -> NDArray[np.float32]:
    """A parameter's first value. Nothing is 0 or 1 throughout, so that a lost term shows.

    Matrices and kernels: He-uniform over fan-in. BN gamma: 0.8 to 1.2. Biases: +/- 0.1, those of BN
    1.5 to 2.5: then few elements lie where ReLU bends, and rounding does not grow from layer to
    layer as it does in a fresh network.
    """
    key = ("weight", seed, name)
    if len(shape) > 1:
        bound = math.sqrt(6 / math.prod(shape[1:]))
        return uniform(shape, -bound, bound, *key).astype(np.float32)
    low, high = (0.8, 1.2) if name.endswith(".weight") else (-0.1, 0.1)
    if name.endswith("bn.bias"):
        low, high = 1.5, 2.5
    return uniform(shape, low, high, *key).astype(np.float32)


class Images(NamedTuple):
    """pixels: uint8 (B, H, W, 3) RGB; labels: int64 (B,)."""

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]


def batch(step: int, rank: int, count: int, size: int, classes: int, seed: int) -> Images:
    """The images of one rank and step: coarse and fine noise, each image with a tint and contrast.

    Images must differ as wholes: over likenesses BatchNorm divides by next to nothing, and rounding
    grows. Rank and step are part of the name: more ranks see more images, each always its own.
    """
    key = ("batch", seed, step, rank)
    total = np.zeros((count, size, size, 3), dtype=np.int64)
    for cell, weight in ((16, 3), (4, 2), (1, 1)):
        side = -(-size // cell)
        noise = (words(count * side * side * 3, *key, cell) >> np.uint64(56)).astype(np.int64)
        noise = noise.reshape(count, side, side, 3).repeat(cell, 1).repeat(cell, 2)
        total += weight * (noise[:, :size, :size] - 128)
    tint = (
        (words(count * 4, *key, "tint") >> np.uint64(56)).astype(np.int64).reshape(count, 1, 1, 4)
    )
    total = total * (tint[..., 3:] + 32) // 1024 + tint[..., :3]
    total = total.clip(0, 255)
    labels = (words(count, *key, "labels") >> np.uint64(32)) % np.uint64(classes)
    return Images(total.astype(np.uint8), labels.astype(np.int64))


class Vectors(NamedTuple):
    """A projection is the sum of x[c, m] * channels[j, c] * places[j, m] over channels and places.

    channels: (PROJECTIONS, C) of +/-1; places: (PROJECTIONS, M) of +/-1. The first takes all places
    alike; the others have as many + as - (but for an odd one), so that they see no shift of a whole
    channel.
    """

    channels: NDArray[np.float32]
    places: NDArray[np.float32]


def vectors(name: str, channels: int, places: int) -> Vectors:
    signs = (words(PROJECTIONS * channels, "channels", name) >> np.uint64(63)).astype(np.float32)
    over = np.ones((PROJECTIONS, places), dtype=np.float32)
    if places > 1:
        for j in range(1, PROJECTIONS):
            order = np.argsort(words(places, "places", name, j), kind="stable")
            over[j, order[: places // 2]] = -1
    return Vectors(signs.reshape(PROJECTIONS, channels) * 2 - 1, over)


def ramp(channels: int) -> NDArray[np.float64]:
    """A weight per channel from -1 to 1: two projections of a change, with and without it, tell in
    which channel it lies."""
    return np.linspace(-1, 1, channels) if channels > 1 else np.zeros(1)


def digest(arrays: Mapping[str, NDArray[np.generic]]) -> str:
    """sha256 over names and little-endian bytes, in the order of the names."""
    total = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        total.update(f"{name}{array.shape}".encode())
        total.update(array.astype(array.dtype.newbyteorder("<")).tobytes())
    return total.hexdigest()
