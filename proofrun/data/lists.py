"""Image lists, and checks of the files in them. Torch-free: launch uses this in its preflight.

A data set is a folder in the ImageNet layout: `train.txt` and `val.txt` with a line `path label`
per image, or only the folder tree `train/<class>/*`, `val/<class>/*`.
"""

from __future__ import annotations

import hashlib
import mmap
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from proofrun.data.entries import Line, list_lines
from proofrun.errors import DataError, Exit, one_line

Split = Literal["train", "val"]

#: The formats of the layout; content decides, not the name (ImageNet has a PNG named .JPEG).
EXTENSIONS = (".jpeg", ".jpg", ".png")

_HOW_TO_MAKE = (
    "give the folder that holds train and val (--data, or the variable in env.sh); "
    "`python tools/dataset.py prepare digits --dst DIR` makes the embedded digits"
)

_JPEG_START = b"\xff\xd8"
_JPEG_END = b"\xff\xd9"
_PNG_START = b"\x89PNG\r\n\x1a\n"
_PNG_END = b"\0\0\0\0IEND\xaeB`\x82"


@dataclass(frozen=True, eq=False)
class ImageList:
    """Images and labels: `files` are relative to `root`, labels in 0 … class_count - 1."""

    root: Path
    files: list[str]
    labels: NDArray[np.int64]
    class_count: int

    def path(self, index: int) -> Path:
        return self.root / self.files[index]


def read_split(root: Path, split: Split, classes: int) -> ImageList:
    """The images of the list `<root>/<split>.txt`, else of the tree `<root>/<split>/<class>/*`.

    A line is `relative/path label`; the path is relative to `root` or to `root/split`, the same for
    the whole list, and may have spaces in it. In a tree the sorted names of the class folders give
    the labels. Every file is known to exist afterwards; none was opened (see `check_images`).
    Raises DataError: NO_DATA, BAD_LIST, LIST_MISSING_FILE, LABEL_OUT_OF_RANGE, CLASS_COUNT.
    """
    list_file = root / f"{split}.txt"
    try:
        if not root.is_dir():
            raise DataError(f"{root}: there is no such data folder; {_HOW_TO_MAKE}", Exit.NO_DATA)
        if list_file.is_file():
            return _read_list(root, split, list_file, classes)
        return _read_tree(root, split, classes)
    except OSError as error:
        where = error.filename or root
        raise DataError(
            f"{where}: cannot be read ({error.strerror}); check the path and its permissions",
            Exit.NO_DATA,
        ) from None


def list_hash(images: ImageList) -> str:
    """sha256 over the sorted (path, label) pairs: a list, its permutation and a tree share one."""
    digest = hashlib.sha256()
    for name, label in sorted(zip(images.files, images.labels.tolist(), strict=True)):
        digest.update(f"{name}\t{label}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()


def check_images(images: ImageList, sample: int | None, seed: int = 0, decode: int = 8) -> None:
    """Look at the start and the end of files without decoding, and decode a few of them.

    `sample` files are looked at (None: all), `decode` of them are decoded; `seed` draws them.
    Raises DataError IMAGE_TRUNCATED or IMAGE_INVALID for the first bad one in list order.
    """
    count = len(images.files)
    rng = np.random.default_rng(seed)
    chosen = np.arange(count)
    if sample is not None and sample < count:
        chosen = np.sort(rng.choice(count, sample, replace=False))
    decoded = set(rng.choice(chosen, min(decode, len(chosen)), replace=False).tolist())
    for index in chosen.tolist():
        if (error := image_error(images.path(index), decode=index in decoded)) is not None:
            raise error


def image_error(path: Path, decode: bool) -> DataError | None:
    """What is wrong with an image file, or None. `decode` also decodes it fully, with PIL."""
    try:
        with open(path, "rb") as file:
            if os.fstat(file.fileno()).st_size == 0:
                return _truncated(path, "has 0 bytes")
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                error = format_error(path, data)
    except OSError as problem:
        return DataError(
            f"{path}: cannot be read ({problem.strerror}); check its permissions",
            Exit.IMAGE_INVALID,
        )
    return _decode_error(path) if error is None and decode else error


def rooted(root: Path, split: Split, names: list[str]) -> list[str]:
    """Names of a list relative to `root`: one form for the list and the tree, so one hash."""
    if not names or _under_root(root, split, names[0]):
        return names
    return [f"{split}/{name}" for name in names]


def missing(root: Path, files: list[str]) -> list[int]:
    """Positions of files that are not there; scans each folder once, no stat per file."""
    present: dict[str, set[str]] = {}
    found = []
    for index, name in enumerate(files):
        folder, _, base = name.rpartition("/")
        if folder not in present:
            present[folder] = files_in(root / folder)
        if base not in present[folder]:
            found.append(index)
    return found


def files_in(folder: Path) -> set[str]:
    """Names of the files in a folder, links to files included; empty where there is no folder."""
    try:
        with os.scandir(folder) as entries:
            return {entry.name for entry in entries if _is(entry.is_file)}
    except (FileNotFoundError, NotADirectoryError):
        return set()


def class_folders(folder: Path) -> list[str]:
    """Sorted names of the folders in a split's folder: their order gives the labels."""
    with os.scandir(folder) as entries:
        return sorted(e.name for e in entries if _is(e.is_dir) and not e.name.startswith("."))


def class_images(folder: Path) -> list[str]:
    """Sorted names of the images in a class folder."""
    return sorted(name for name in files_in(folder) if name.lower().endswith(EXTENSIONS))


def _read_list(root: Path, split: Split, list_file: Path, classes: int) -> ImageList:
    lines: list[Line] = []
    for line in list_lines(list_file, classes):
        if line.error is not None:
            raise line.error
        lines.append(line)
    if not lines:
        raise DataError(f"{list_file}: the list is empty; {_HOW_TO_MAKE}", Exit.NO_DATA)
    files = rooted(root, split, [line.name for line in lines])
    if absent := missing(root, files):
        more = f" (and {len(absent) - 1} more)" if len(absent) > 1 else ""
        raise DataError(
            f"{list_file}:{lines[absent[0]].number}: the list names {root / files[absent[0]]}, "
            f"which is not there{more}; complete the data or correct the list",
            Exit.LIST_MISSING_FILE,
        )
    labels = np.array([line.label for line in lines], dtype=np.int64)
    _check_class_count(list_file, len(np.unique(labels)), classes)
    return ImageList(root, files, labels, classes)


def _under_root(root: Path, split: Split, first: str) -> bool:
    """Whether the paths of a list are relative to `root`, or else to `root/split`."""
    if (root / first).is_file():
        return True
    return first.startswith(f"{split}/") and not (root / split / first).is_file()


def _is(kind: Callable[[], bool]) -> bool:
    try:
        return kind()
    except OSError:  # a loop of links
        return False


def _read_tree(root: Path, split: Split, classes: int) -> ImageList:
    folder = root / split
    if not folder.is_dir():
        raise DataError(
            f"{root}: has neither {split}.txt nor a folder {split}; {_HOW_TO_MAKE}",
            Exit.NO_DATA,
        )
    names = class_folders(folder)
    if not names and (loose := len(class_images(folder))):
        raise DataError(
            f"{folder}: has {loose} images but no class folders, so their labels are not known; "
            f"sort them into {folder}/<class>/, or add the list {split}.txt",
            Exit.NO_DATA,
        )
    if split == "val" and (root / "train").is_dir():
        odd = sorted(set(names) ^ set(class_folders(root / "train")))
        if odd:  # the labels of the two splits would not mean the same
            raise DataError(
                f"{root}: class folder {odd[0]} is only in one of train and val (so are "
                f"{len(odd) - 1} more); complete the data",
                Exit.CLASS_COUNT,
            )
    files: list[str] = []
    labels: list[int] = []
    for label, name in enumerate(names):
        inside = class_images(folder / name)
        files += [f"{split}/{name}/{file}" for file in inside]
        labels += [label] * len(inside)
    if not files:
        raise DataError(
            f"{folder}: has no images in class folders ({', '.join(EXTENSIONS)}); {_HOW_TO_MAKE}",
            Exit.NO_DATA,
        )
    # A folder without images counts too: what it should hold is missing, or it is no class.
    _check_class_count(folder, len(set(labels)) if len(names) <= classes else len(names), classes)
    return ImageList(root, files, np.array(labels, dtype=np.int64), classes)


def _check_class_count(where: Path, found: int, classes: int) -> None:
    if found != classes:
        raise DataError(
            f"{where}: has images of {found} classes, the recipe of {classes}; complete the data, "
            "or use a recipe with as many classes",
            Exit.CLASS_COUNT,
        )


def format_error(path: Path, data: mmap.mmap | bytes) -> DataError | None:
    """What is wrong with the start or the end of an image file of at least one byte, or None."""
    if data[:8] == _PNG_START:
        ends = data.rfind(_PNG_END) >= 0
    elif data[:2] == _JPEG_START:
        ends = _jpeg_ends(data)
    elif any(magic.startswith(data[:8]) for magic in (_PNG_START, _JPEG_START)):
        ends = False  # cut within the signature
    else:
        return DataError(
            f"{path}: starts neither like a JPEG nor like a PNG file; replace it or take it out of "
            "the list",
            Exit.IMAGE_INVALID,
        )
    return None if ends else _truncated(path, "is cut off: its end marker is missing")


def _jpeg_ends(data: mmap.mmap | bytes) -> bool:
    """Whether an end marker follows the start of the pixels; zeros or junk may follow it."""
    at = first_scan(data)
    return at >= 0 and data.rfind(_JPEG_END, at) >= 0


def first_scan(data: mmap.mmap | bytes) -> int:
    """Where the marker of a JPEG's first scan stands; -1: nowhere.

    Segments before the pixels are skipped by their length, since an EXIF thumbnail has an end
    marker of its own. Structure: ITU-T T.81, annex B.
    """
    at = 2
    while 0 <= (at := data.find(b"\xff", at)) < len(data) - 3:
        marker = data[at + 1]
        if marker == 0xDA:  # start of scan
            return at
        if marker in (0x00, 0xFF) or 0xD0 <= marker <= 0xD8:  # stuffing, fill, no length
            at += 1
        else:
            at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return -1


def _decode_error(path: Path) -> DataError | None:
    from PIL import Image

    try:
        with Image.open(path) as image:
            image.convert("RGB")
    except Exception as error:  # PIL raises OSError, SyntaxError, ValueError, struct.error, …
        if "truncated" in str(error):
            return _truncated(path, f"is cut off ({one_line(error)})")
        return DataError(
            f"{path}: cannot be decoded ({one_line(error)}); replace it or take it out of the list",
            Exit.IMAGE_INVALID,
        )
    return None


def _truncated(path: Path, what: str) -> DataError:
    return DataError(
        f"{path}: {what}; copy it again or take it out of the list", Exit.IMAGE_TRUNCATED
    )
