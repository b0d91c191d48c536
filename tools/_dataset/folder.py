"""Any tree with a folder for each class, split into a training and a validation part."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import sys
from pathlib import Path
from typing import Literal, NamedTuple

from proofrun.data.lists import EXTENSIONS, Split
from proofrun.errors import DataError, Exit, UsageError, WriteError, printable

from . import build, workers
from .split import validation_part
from .survey import images_below

SET = "folder"
#: copy: the set stays as it is, whatever becomes of the source. hard: no second space, on the same
#: disk; who changes a file in place changes both. symbolic: the set lasts as long as the source.
Link = Literal["copy", "hard", "symbolic"]


class Image(NamedTuple):
    """An image of a class: its name, and what tells that it is the same one later."""

    name: str
    size: int
    mtime_ns: int


Classes = dict[str, list[Image]]


def prepare(
    src: Path, dst: Path, val_fraction: float = 0.2, seed: int = 0, link: Link = "copy"
) -> str:
    """Make a set in `dst` from the images `src/<class>/*`; one line that says what is there.

    Labels follow the sorted class names. Which images are held out depends on their paths and the
    seed alone. Images are not looked into, but for a sample at the end. Raises UsageError,
    DataError NO_DATA, CLASS_COUNT or BAD_LIST, WriteError.
    """
    if not 0 < val_fraction < 1:
        raise UsageError(f"--val-fraction {val_fraction}: give a number between 0 and 1")
    src, dst = Path(os.path.realpath(src)), Path(os.path.realpath(dst))
    if dst.is_relative_to(src):
        raise UsageError(f"{dst}: lies in the folder it is made from; give another --dst")
    classes = _listing(src)
    listing = "".join(
        f"{name}/{image.name}\t{image.size}\t{image.mtime_ns}\n"
        for name, images in classes.items()
        for image in images
    )
    settings: dict[str, str | int | float] = {
        "val_fraction": val_fraction,
        "seed": seed,
        "link": link,
        "files": hashlib.sha256(listing.encode()).hexdigest(),
    }

    def write(work: build.Work) -> build.Contents:
        if link == "copy":
            work.need(sum(image.size + 4096 for images in classes.values() for image in images))
        return _write(work.folder, src, classes, val_fraction, seed, link)

    return build.make(dst, SET, write, settings, own_images=True)


def _listing(src: Path) -> Classes:
    """Each class's images, all sorted. Raises DataError."""
    classes: Classes = {}
    others: list[str] = []
    nested: dict[str, int] = {}
    where = src
    try:
        for entry in sorted(os.scandir(src), key=lambda e: e.name):
            if entry.name.startswith(".") or not entry.is_dir():
                others.append(entry.name)
                continue
            where = src / entry.name
            found = classes.setdefault(_name(where), [])
            for file in sorted(os.scandir(where), key=lambda e: e.name):
                where = Path(file.path)
                if file.name.lower().endswith(EXTENSIONS) and file.is_file():
                    stat = file.stat()
                    found.append(Image(_name(where), stat.st_size, stat.st_mtime_ns))
                elif file.is_dir(follow_symlinks=False) and (count := images_below(where)):
                    nested[f"{entry.name}/{file.name}"] = count
                else:
                    others.append(f"{entry.name}/{file.name}")
            where = src
    except OSError as error:
        raise _unreadable(where, error) from None
    if not any(classes.values()):
        raise DataError(
            f"{src}: has no images in class folders ({', '.join(EXTENSIONS)}); give the folder "
            "that holds a folder for each class"
        )
    if few := [name for name, files in classes.items() if len(files) < 2]:
        raise DataError(
            f"{src / few[0]}: has {len(classes[few[0]])} images, a split needs two; add images or "
            "take the folder out",
            Exit.CLASS_COUNT,
        )
    if others:
        said = f"{src}: {len(others)} other files passed over, first {others[0]}"
        print(printable(said), file=sys.stderr)
    if nested:
        count = sum(nested.values())
        said = f"{src}: {count} images passed over, in folders within class folders, first "
        print(printable(f"{said}{next(iter(nested))}: move them up"), file=sys.stderr)
    return classes


def _name(path: Path) -> str:
    """The name, which must be able to stand in a list."""
    name = path.name
    try:
        name.encode()
        why = "has a line break" if set("\n\r\0") & set(name) else ""
        why = why or ("starts or ends with a space" if name != name.strip() else "")
    except UnicodeEncodeError:
        why = "is not UTF-8"
    if why:
        raise DataError(
            f"{os.fsencode(path)!r}: the name {why}, so no list can have it; rename it",
            Exit.BAD_LIST,
        )
    return name


def _write(
    folder: Path,
    src: Path,
    classes: Classes,
    val_fraction: float,
    seed: int,
    link: Link,
) -> build.Contents:
    labels = [label for label, files in enumerate(classes.values()) for _ in files]
    keys = [f"{name}/{image.name}" for name, images in classes.items() for image in images]
    sizes = [image.size for images in classes.values() for image in images]
    held_out = validation_part(labels, keys, round(val_fraction * len(keys)), seed)
    images: dict[Split, list[tuple[str, int]]] = {"train": [], "val": []}
    batch: list[tuple[Path, Path, int]] = []
    for split in images:
        for name in classes:
            (folder / split / name).mkdir(parents=True, exist_ok=True)
    with workers.Workers(src.name, len(keys)) as pool:
        for index, key in enumerate(keys):
            split = "val" if index in held_out else "train"
            images[split].append((f"{split}/{key}", labels[index]))
            batch.append((src / key, folder / split / key, sizes[index]))
            if len(batch) == workers.BATCH or index == len(keys) - 1:
                pool.submit(len(batch), len(batch), _take, batch, link)
                batch = []
    return build.Contents(classes=list(classes), images=images)


def _take(batch: list[tuple[Path, Path, int]], link: Link) -> None:
    for source, target, size in batch:
        try:
            if link == "copy":
                if not target.exists() or target.stat().st_size != size:
                    shutil.copyfile(source, target)
            elif not os.path.lexists(target):
                os.link(source, target) if link == "hard" else target.symlink_to(source)
        except OSError as error:
            if error.errno == errno.EXDEV:
                raise WriteError(
                    f"{target}: is on another disk than {source}, where no hard link can lead; "
                    "take --link symbolic, or copy"
                ) from None
            if not source.exists() or (error.filename, error.filename2) == (str(source), None):
                raise _unreadable(source, error) from None
            raise


def _unreadable(path: Path, error: OSError) -> DataError:
    return DataError(f"{path}: cannot be read ({error.strerror}); mend it, or take it out of --src")
