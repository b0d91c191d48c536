"""What the lists and the folders say, all of it: findings where a run stops at the first."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from proofrun.data import apart
from proofrun.data.entries import list_lines
from proofrun.data.identity import EQUAL_SHARES
from proofrun.data.lists import (
    EXTENSIONS,
    ImageList,
    Split,
    class_folders,
    class_images,
    missing,
    rooted,
)
from proofrun.errors import DataError, Exit
from proofrun.recipe import Data

from .findings import Finding

SPLITS: tuple[Split, ...] = ("train", "val")

_OF_CODE = {Exit.BAD_LIST: "bad_line", Exit.LABEL_OUT_OF_RANGE: "label_range"}


@dataclass
class Survey:
    """The images that are there and listed, by split; findings on lists and folders.

    `expected` is what the recipes have of the set that this should be; None for another set.
    """

    root: Path
    expected: Data | None
    lists: dict[Split, ImageList] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)

    def add(self, kind: str, path: str, what: str) -> None:
        self.findings.append(Finding(kind, path, f"{self.root / path}: {what}"))


def folders_of(root: Path) -> set[str]:
    """The class folders of both splits. Raises DataError when there is no such data folder."""
    with _readable(root):
        if not root.is_dir():
            raise DataError(f"{root}: there is no such data folder; check the path", Exit.NO_DATA)
        folders = [root / split for split in SPLITS if (root / split).is_dir()]
        return {name for folder in folders for name in class_folders(folder)}


@contextmanager
def _readable(root: Path) -> Iterator[None]:
    """An OSError in here is about the data. Raises DataError."""
    try:
        yield
    except OSError as error:
        raise DataError(
            f"{error.filename or root}: cannot be read ({error.strerror}); check the path and its "
            "permissions",
            Exit.NO_DATA,
        ) from None


def survey(root: Path, expected: Data | None) -> Survey:
    """Read both splits. Raises DataError when the root or a folder in it cannot be read."""
    found = Survey(root, expected)
    with _readable(root):
        for split in SPLITS:
            if (root / f"{split}.txt").is_file():
                _read_list(found, split)
            else:
                _read_tree(found, split)
    for path in apart.in_both_lists(found.lists):
        found.add("other_split", path, "is listed in train and in val; correct the lists")
    _check_counts(found)
    _check_order(found)
    return found


def _read_list(found: Survey, split: Split) -> None:
    root, name = found.root, f"{split}.txt"
    good = []
    for line in list_lines(root / name, found.expected.classes if found.expected else None):
        if line.error is not None:
            kind = _OF_CODE[line.error.exit_code]
            found.findings.append(Finding(kind, name, str(line.error)))
        else:
            good.append(line)
    files = rooted(root, split, [line.name for line in good])
    absent = missing(root, files)
    for index in absent:
        what = f"{files[index]} is not there; complete the data or correct the list"
        where = f"{root / name}:{good[index].number}"
        found.findings.append(Finding("missing", files[index], f"{where}: {what}"))
    keep = sorted(set(range(len(files))) - set(absent))
    if not keep:
        found.add("no_images", name, "names no image that is there")
        return
    labels = np.array([good[index].label for index in keep], np.int64)
    listed = [files[index] for index in keep]
    found.lists[split] = ImageList(root, listed, labels, int(labels.max()) + 1)
    for path in sorted(set(_tree(root, split)) - set(files)):
        found.add("unlisted", path, f"is not in {name}")
    folders = {f"{path.rpartition('/')[0]}/" for path in files}
    for name in class_folders(root / split) if (root / split).is_dir() else []:
        for below, count in _nested(root / split / name).items():
            path = f"{split}/{name}/{below}"
            if not any(folder.startswith(f"{path}/") for folder in folders):
                found.add("nested", path, f"has {count} images, none of which is in {split}.txt")
    if outside := [path for path in listed if path.count("/") < 2]:
        for path in outside:
            found.add("no_classes", path, "is not in a class folder")


def _read_tree(found: Survey, split: Split) -> None:
    folder = found.root / split
    if not folder.is_dir():
        found.add("no_images", split, f"there is neither {split}.txt nor a folder {split}")
        return
    names = class_folders(folder)
    loose = class_images(folder)
    twin = found.root / ("train" if split == "val" else "val")
    if names and twin.is_dir() and (others := class_folders(twin)):
        for name in sorted(set(others) - set(names)):
            what = f"there is no such class folder, {twin.name} has one; complete the data"
            found.add("class_count", f"{split}/{name}", what)
        every = sorted({*names, *others})  # as if it were there: else all labels behind it differ
    else:
        every = names
    if not names and loose:
        what = f"has {len(loose)} images but no class folders: their labels are not known"
        found.add("no_images", split, f"{what}; sort them into {split}/<class>/ or add {split}.txt")
        return
    for name in loose:
        found.add("unlisted", f"{split}/{name}", "is in no class folder, and there is no list")
    files: list[str] = []
    labels: list[int] = []
    for name in names:
        label = every.index(name)
        inside = class_images(folder / name)
        if not inside:
            found.add("class_count", f"{split}/{name}", "is a class folder without images")
        for below, count in _nested(folder / name).items():
            what = f"has {count} images that no run sees; move them up into the class folder"
            found.add("nested", f"{split}/{name}/{below}", what)
        files += [f"{split}/{name}/{image}" for image in inside]
        labels += [label] * len(inside)
    if not files:
        found.add("no_images", split, "has no images in class folders")
        return
    found.lists[split] = ImageList(found.root, files, np.array(labels, np.int64), len(every))


def images_below(folder: Path) -> int:
    """How many images there are in a folder and in those within; links are not followed."""
    return sum(
        name.lower().endswith(EXTENSIONS) for _, _, names in os.walk(folder) for name in names
    )


def _nested(folder: Path) -> dict[str, int]:
    """The folders within a class folder that have images, and how many."""
    with os.scandir(folder) as entries:
        inside = sorted(e.name for e in entries if e.is_dir(follow_symlinks=False))
    return {name: count for name in inside if (count := images_below(folder / name))}


def _tree(root: Path, split: Split) -> Iterator[str]:
    folder = root / split
    if folder.is_dir():
        yield from (f"{split}/{name}" for name in class_images(folder))
        for name in class_folders(folder):
            yield from (f"{split}/{name}/{image}" for image in class_images(folder / name))


def _check_counts(found: Survey) -> None:
    data = found.expected
    seen = {split: set(images.labels.tolist()) for split, images in found.lists.items()}
    if len(seen) == len(SPLITS) and seen["train"] != seen["val"]:
        odd = sorted(seen["train"] ^ seen["val"])
        where = "train" if odd[0] in seen["train"] else "val"
        what = f"class {odd[0]} has images in {where} only (so have {len(odd) - 1} more)"
        found.add("class_count", where, f"{what}; complete the data")
    for split, images in found.lists.items():
        if data is None:
            continue
        if len(seen[split]) != data.classes:
            what = f"has images of {len(seen[split])} classes, {data.name} has {data.classes}"
            found.add("class_count", split, f"{what}; complete the data")
        count = {"train": data.train_images, "val": data.val_images}[split]
        if len(images.files) != count:
            what = f"has {len(images.files)} images that are there, {data.name} has {count}"
            found.add("image_count", split, f"{what}; complete the data")
        if split in EQUAL_SHARES.get(data.name, ()):
            each = count // data.classes
            for label, number in sorted(Counter(images.labels.tolist()).items()):
                if number != each:
                    what = f"class {label} has {number} images, {data.name} has {each} of each"
                    found.add("class_count", split, f"{what}; complete the data")


def _check_order(found: Survey) -> None:
    """Labels are the places of the class folders in sorted order, the same in both splits."""
    labels: dict[str, Counter[int]] = {}
    entries = [
        (split, path, path.split("/")[1], label)
        for split, images in found.lists.items()
        for path, label in zip(images.files, images.labels.tolist(), strict=True)
        if path.count("/") > 1
    ]
    for _, _, name, label in entries:
        labels.setdefault(name, Counter())[label] += 1
    usual = {name: counts.most_common(1)[0][0] for name, counts in labels.items()}
    for split, path, name, label in entries:
        if label != usual[name]:
            what = f"has label {label}, other images of class {name} have {usual[name]}"
            found.add("label_order", path, f"{what}; correct {split}.txt")
    place = {name: index for index, name in enumerate(sorted(usual))}
    wrong = [name for name, label in usual.items() if place[name] != label]
    settled = {finding.kind for finding in found.findings} & {"class_count", "label_order"}
    if wrong and not settled:  # else the places say nothing
        name = min(wrong)
        what = f"class {name} has label {usual[name]}, and is number {place[name]} by name"
        kind = "label_order" if found.expected else "own_order"
        advice = "; published weights and other people's results expect that order"
        found.add(kind, name, f"{what} (so have {len(wrong) - 1} more){advice}")
