"""CIFAR-10 from its python or its binary archive: both give the same files, byte for byte.

The images become PNG files, which keep every pixel. They are written uncompressed: then a file is
the same whatever library writes it, so that a hash of it names it, and it has the one disk block
that a compressed one takes too.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from proofrun.archive import DamagedError
from proofrun.data.lists import Split
from proofrun.errors import DataError

from . import build, published, tars, workers
from .batches import read_pickle
from .source import GZIP_LIMITS, Source

SET = "CIFAR-10"
#: In the published order, which is the order of the sorted names as well.
CLASSES = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip
SIDE = 32
PYTHON, BINARY = published.CIFAR10

_BATCHES: dict[Split, tuple[str, ...]] = {
    "train": tuple(f"data_batch_{number}" for number in range(1, 6)),
    "val": ("test_batch",),
}
_PIXELS = 3 * SIDE * SIDE
_DISK_BLOCK = 4096

Batch = tuple[NDArray[np.uint8], list[int]]
Content = Callable[[str], bytes]  # of a file in the archive


def prepare(
    src: Path,
    dst: Path,
    any_archives: bool = False,
    table: Mapping[str, published.Published] = published.CIFAR10,
) -> str:
    """Make the set in `dst` from the archive `src`, or from one that lies in the folder `src`.

    `any_archives` takes one that is not published, with any number of images, and says so.
    Raises DataError NO_DATA, ArchiveError, WriteError.
    """
    path = next((src / name for name in table if (src / name).is_file()), src)
    if path.name not in table:
        raise DataError(f"{src}: is not and does not hold {' or '.join(table)}; give it as --src")
    with Source(path, table[path.name], any_archives) as source:

        def write(work: build.Work) -> build.Contents:
            with source.damage(), source.inflated() as (fd, size):
                return _write(work, source, fd, size)

        return build.make(dst, SET, write, sources={path.name: source})


def _write(work: build.Work, source: Source, fd: int, size: int) -> build.Contents:
    archived = source.finish()  # before anything in it is looked at
    members = tars.below_top(fd, size, GZIP_LIMITS)

    def content(name: str) -> bytes:
        if name not in members:
            raise DamagedError(f"has no {name}")
        return os.pread(fd, members[name].size, members[name].offset)

    names, batches = (_python if source.path.name == PYTHON else _binary)(content)
    if names != list(CLASSES):
        raise DamagedError(f"its classes are {names[:20]}, not those of CIFAR-10 in their order")
    for split, parts in _BATCHES.items():
        if empty := set(range(len(CLASSES))) - {y for part in parts for y in batches[part][1]}:
            raise DamagedError(f"the {split} images have none of {CLASSES[min(empty)]}")
    work.need(sum(len(labels) for _, labels in batches.values()) * _DISK_BLOCK)
    images: dict[Split, list[tuple[str, int]]] = {"train": [], "val": []}
    with workers.Workers(SET, sum(len(labels) for _, labels in batches.values())) as pool:
        for split, parts in _BATCHES.items():
            for name in CLASSES:
                (work.folder / split / name).mkdir(parents=True, exist_ok=True)
            for part in parts:
                pixels, labels = batches[part]
                first = len(images[split])
                word = "test" if split == "val" else "train"
                targets = [
                    f"{split}/{CLASSES[label]}/{word}_{first + index:05d}.png"
                    for index, label in enumerate(labels)
                ]
                images[split] += zip(targets, labels, strict=True)
                for at in range(0, len(labels), workers.BATCH):
                    chunk = slice(at, at + workers.BATCH)
                    some = [f"{work.folder}/{target}" for target in targets[chunk]]
                    pool.submit(len(some), len(some), _save, some, pixels[chunk])
    return build.Contents(
        classes=list(CLASSES), images=images, archives={source.path.name: archived}
    )


def _python(content: Content) -> tuple[list[str], dict[str, Batch]]:
    """Class names and batches of the python version: pickles, read by `batches`."""
    names = read_pickle(content("batches.meta")).get(b"label_names")
    if not isinstance(names, list) or not all(isinstance(name, bytes) for name in names):
        raise DamagedError("batches.meta: has no list of class names")
    found: dict[str, Batch] = {}
    for name in (name for names in _BATCHES.values() for name in names):
        batch = read_pickle(content(name))
        pixels, labels = batch.get(b"data"), batch.get(b"labels")
        if not isinstance(pixels, np.ndarray) or not isinstance(labels, list):
            raise DamagedError(f"{name}: has no data or no labels")
        found[name] = _checked(name, pixels, labels)
    return [name.decode(errors="replace") for name in names], found


def _binary(content: Content) -> tuple[list[str], dict[str, Batch]]:
    """Class names and batches of the binary version: a byte of label, then the pixels."""
    names = content("batches.meta.txt").decode(errors="replace").split()
    found: dict[str, Batch] = {}
    for name in (name for names in _BATCHES.values() for name in names):
        data = np.frombuffer(content(f"{name}.bin"), dtype=np.uint8)
        if len(data) % (1 + _PIXELS):
            raise DamagedError(f"{name}.bin: {len(data):,} bytes are no whole number of images")
        rows = data.reshape(-1, 1 + _PIXELS)
        found[name] = _checked(name, rows[:, 1:], rows[:, 0].tolist())
    return names, found


def _checked(name: str, pixels: NDArray[np.uint8], labels: list[int]) -> Batch:
    if not labels or pixels.shape != (len(labels), _PIXELS):
        raise DamagedError(f"{name}: {len(labels)} labels and pixels of shape {pixels.shape}")
    if not all(type(label) is int and 0 <= label < len(CLASSES) for label in labels):
        raise DamagedError(f"{name}: a label is outside 0 … {len(CLASSES) - 1}")
    return pixels, labels


def _save(targets: list[str], pixels: NDArray[np.uint8]) -> None:
    for target, values in zip(targets, pixels, strict=True):
        workers.write(target, png(values.reshape(3, SIDE, SIDE).transpose(1, 2, 0)))


def png(pixels: NDArray[np.uint8]) -> bytes:
    """An RGB image (height, width, 3) of less than 64 KB as a PNG file with one stored block.

    Source: RFC 2083 (PNG), RFC 1950 and 1951 (its compressed stream).
    """
    height, width, _ = pixels.shape
    lines = np.zeros((height, 1 + 3 * width), np.uint8)  # the first byte: no filter
    lines[:, 1:] = pixels.reshape(height, -1)
    raw = lines.tobytes()
    stored = struct.pack("<BHH", 1, len(raw), 0xFFFF ^ len(raw)) + raw
    stream = b"\x78\x01" + stored + struct.pack(">I", zlib.adler32(raw))
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)),
        (b"IDAT", stream),
        (b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )
