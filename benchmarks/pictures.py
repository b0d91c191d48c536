"""Generated JPEG files that cost what photographs cost: many, all different, made fast."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from tests.images import natural

#: Pictures that are synthesised; every file is another crop of one of them.
SCENES = 64

#: With this range a file of 500 x 375 pixels has 80 to 110 KB.
QUALITIES = (79, 86)


def jpegs(count: int, seed: int = 0, size: tuple[int, int] = (500, 375)) -> Iterator[bytes]:
    """`count` different JPEG files, `size` = (width, height) in pixels; the same for a seed."""
    rng = np.random.default_rng(seed)
    width, height = size
    margin = 96
    seeds = rng.integers(1 << 32, size=min(count, SCENES)).tolist()
    scenes = [natural(width + margin, height + margin, each) for each in seeds]
    drawn: set[tuple[int, int, int, int]] = set()
    while len(drawn) < count:
        scene, left, top = rng.integers((len(scenes), margin, margin)).tolist()
        quality = int(rng.integers(*QUALITIES))
        if (scene, left, top, quality) in drawn:
            continue
        drawn.add((scene, left, top, quality))
        buffer = io.BytesIO()
        crop = scenes[scene].crop((left, top, left + width, top + height))
        crop.save(buffer, "JPEG", quality=quality)
        yield buffer.getvalue()


def write_jpegs(
    folder: Path, count: int, seed: int = 0, size: tuple[int, int] = (500, 375)
) -> list[Path]:
    """The files of `jpegs` in `folder`, which is made: 000000.JPEG, 000001.JPEG, …"""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for index, data in enumerate(jpegs(count, seed, size)):
        paths.append(folder / f"{index:06d}.JPEG")
        paths[-1].write_bytes(data)
    return paths
