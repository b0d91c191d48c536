"""Which images of a data set without a validation part are held out."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np


def validation_part(labels: Sequence[int], keys: Sequence[str], want: int, seed: int) -> set[int]:
    """Positions of about `want` validation images: each class by its share, drawn by a hash.

    A hash of seed and key, since the streams of random generators may change between versions of a
    package. Every class keeps an image in each part, so it needs two; that may change the sum.
    """

    def draw(index: int) -> bytes:
        return hashlib.sha256(f"{seed}:{keys[index]}".encode()).digest()

    members: dict[int, list[int]] = {}
    for index, label in enumerate(labels):
        members.setdefault(label, []).append(index)
    counts = np.array([len(members[label]) for label in sorted(members)])
    assert counts.min() >= 2, "a class of one image cannot be split"
    share = counts * want / len(labels)
    quota = np.floor(share).astype(int)
    for place in np.argsort(quota - share, kind="stable")[: want - quota.sum()]:
        quota[place] += 1  # largest remainders
    quota = quota.clip(1, counts - 1)
    held_out: set[int] = set()
    for label, size in zip(sorted(members), quota.tolist(), strict=True):
        held_out.update(sorted(members[label], key=draw)[:size])
    return held_out
