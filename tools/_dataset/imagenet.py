"""ImageNet (ILSVRC2012) from its three archives: train images, validation images, devkit.

Every byte is read from the disk once: the main thread hashes an archive and finds the images in
it, and the workers copy what it has just read. Nothing is unpacked in between.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from proofrun.archive import DamagedError
from proofrun.data.lists import EXTENSIONS, Split
from proofrun.errors import DataError, Exit

from . import build, devkit, published, tars, workers
from .source import Source

SET = "ImageNet"
DEVKIT, VAL, TRAIN = published.IMAGENET

_INNER = re.compile(r"(n\d{8})\.tar")
_VAL_IMAGE = re.compile(r"ILSVRC2012_val_(\d{8})\.JPEG")
_LOSS = 50  # one part in so many: what a disk's blocks take beyond a tar's


class Image(NamedTuple):
    """Where an image is to stand in the set, its label, and where its bytes are."""

    path: str
    label: int
    member: tars.Member


def prepare(
    src: Path,
    dst: Path,
    any_archives: bool = False,
    table: Mapping[str, published.Published] = published.IMAGENET,
) -> str:
    """Make the set in `dst` from the archives in `src`; one line that says what is there now.

    Labels follow the sorted wnids. `any_archives` takes archives that are not the published ones,
    with any number of classes and images, and says so in the line and in the record.
    Raises DataError NO_DATA or CLASS_COUNT, ArchiveError, WriteError.
    """
    with ExitStack() as stack:
        sources = {
            name: stack.enter_context(Source(src / name, table[name], any_archives))
            for name in table
        }

        def write(work: build.Work) -> build.Contents:
            return _write(work, sources)

        return build.make(dst, SET, write, sources=sources)


def _write(work: build.Work, sources: Mapping[str, Source]) -> build.Contents:
    for name, source in sources.items():
        source.skip_hash(work.known_md5(name))
    kit = devkit.read(sources[DEVKIT])
    inner = _classes(sources[TRAIN], kit)
    total = sources[TRAIN].size + sources[VAL].size
    work.need(total + total // _LOSS)
    for split in ("train", "val"):
        for wnid in kit.wnids:
            (work.folder / split / wnid).mkdir(parents=True, exist_ok=True)
    images: dict[Split, list[tuple[str, int]]] = {"train": [], "val": []}
    archives = {DEVKIT: sources[DEVKIT].finish()}
    parts: tuple[tuple[Split, str, Iterator[Image]], ...] = (
        ("val", VAL, _val_images(sources[VAL], kit)),
        ("train", TRAIN, _train_images(sources[TRAIN], inner, kit)),
    )
    with workers.Workers("ImageNet", total) as pool:
        for split, name, found in parts:
            with sources[name].damage():
                images[split] = _copy(work.folder, sources[name], found, pool)
            archives[name] = sources[name].finish()
            work.remember(name, archives[name])
    names = [f"{wnid} {kit.words[wnid]}" for wnid in kit.wnids]
    return build.Contents(classes=names, images=images, archives=archives)


def _copy(
    folder: Path, source: Source, found: Iterator[Image], pool: workers.Workers
) -> list[tuple[str, int]]:
    """Hand the images to the workers in batches, each when its bytes have been hashed."""
    images: list[tuple[str, int]] = []
    batch: list[workers.Piece] = []
    counted = 0

    def hand_over(end: int) -> None:
        nonlocal counted, batch
        pool.submit(end - counted, len(batch), workers.copy, source.fd, batch)
        counted, batch = end, []

    for image in found:
        source.advance(image.member.end)
        images.append((image.path, image.label))
        batch.append(
            workers.Piece(f"{folder}/{image.path}", image.member.offset, image.member.size)
        )
        if len(batch) == workers.BATCH:
            hand_over(image.member.end)
    hand_over(source.size)
    return images


def _classes(source: Source, kit: devkit.Devkit) -> dict[str, tars.Member]:
    """The archive of each class in the train archive. Reads 1000 headers, so a cut one shows."""
    inner: dict[str, tars.Member] = {}
    with source.damage():
        for member in tars.walk(source.fd, 0, source.size, largest=source.size):
            match = _INNER.fullmatch(member.name)
            if match is None:
                raise DamagedError(f"{member.name!r}: is not named like a class (n01440764.tar)")
            inner[match[1]] = member
    if odd := sorted(set(inner) ^ set(kit.wnids)):
        raise DataError(
            f"{source.path}: has {len(inner)} classes, its devkit {len(kit.wnids)}: {odd[0]} is "
            f"only in {'the train archive' if odd[0] in inner else 'the devkit'}; give archives "
            "that belong together",
            Exit.CLASS_COUNT,
        )
    return inner


def _train_images(
    source: Source, inner: Mapping[str, tars.Member], kit: devkit.Devkit
) -> Iterator[Image]:
    """In the order of the archive. Raises DamagedError, DataError for a class without images."""
    for wnid, archive in inner.items():
        count = 0
        try:
            for member in tars.walk(source.fd, archive.offset, archive.offset + archive.size):
                if "/" in member.name or not member.name.lower().endswith(EXTENSIONS):
                    raise DamagedError(f"{member.name!r}: is not named like an image")
                count += 1
                yield Image(f"train/{wnid}/{member.name}", kit.label[wnid], member)
        except DamagedError as error:
            raise DamagedError(f"{archive.name}: {error}") from None
        if not count:
            raise DataError(
                f"{source.path}: {archive.name} has no images; download the archive again",
                Exit.CLASS_COUNT,
            )


def _val_images(source: Source, kit: devkit.Devkit) -> Iterator[Image]:
    """Each under the class that the ground truth gives its number. Raises DamagedError."""
    found: Counter[str] = Counter()
    for member in tars.walk(source.fd, 0, source.size):
        match = _VAL_IMAGE.fullmatch(member.name)
        number = int(match[1]) if match else 0
        if not 1 <= number <= len(kit.val_wnids):
            raise DamagedError(f"{member.name!r}: the ground truth has no such image")
        wnid = kit.val_wnids[number - 1]
        found[wnid] += 1
        yield Image(f"val/{wnid}/{member.name}", kit.label[wnid], member)
    if found.total() != len(kit.val_wnids):
        raise DamagedError(f"has {found.total():,} images, the ground truth {len(kit.val_wnids):,}")
