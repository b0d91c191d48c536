"""Which known data set this is, told by class names and counts, and by content. Torch-free.

A claim is judged on its own data set only, and a folder's name proves nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from proofrun.data.lists import ImageList, Split
from proofrun.recipe import Data
from proofrun.recipe_yaml import load_recipe

OTHER = "other"

#: What the class folders of each set are called.
CLASS_NAMES = {
    "ImageNet": re.compile(r"n\d{8}"),
    "Cifar10": re.compile("airplane|automobile|bird|cat|deer|dog|frog|horse|ship|truck"),
    "Digits": re.compile(r"digit_\d"),
}

#: Splits in which every class has as many images, by set.
EQUAL_SHARES = {"ImageNet": ("val",), "Cifar10": ("train", "val")}

#: Fingerprint and list hashes of sets whose content and labels are known, as `tools/dataset.py`
#: writes them: another is not that set.
KNOWN = {
    "Digits": (
        "c6c9184f9d6dcd93e4a89f611536594006b1245939d2cb6b5609241cec43fb34",
        "22f71cd98e78bddeb792f6eafa158d921045d9ebfdb80a1fe91efeeecf69611c",
        "9d16ef69133e16bca4a7d801111125b75f7a94b6bc0bfbbeadce93c3a204a32a",
    )
}

_MOST = 0.9  # of the class names, and of the number of classes: a damaged set is still that set


def published(recipes: Path) -> dict[str, Data]:
    """What the recipes declare of each data set. Raises RecipeError."""
    found: dict[str, Data] = {}
    for path in sorted(recipes.glob("*/recipe.yaml")):
        for name, recipe in load_recipe(path).items():
            found.setdefault(name, recipe.data)
    return found


def resembles(names: Collection[str], sets: Mapping[str, Data]) -> str:
    """The set that a folder with these class names is meant to be, complete or not."""
    for name, data in sets.items():
        pattern = CLASS_NAMES.get(name)
        if pattern is None or not names:
            continue
        fitting = sum(1 for folder in names if pattern.fullmatch(folder))
        expected = range(int(data.classes * _MOST), int(data.classes / _MOST) + 1)
        if fitting >= _MOST * len(names) and len(names) in expected:
            return name
    return OTHER


def identify(lists: Mapping[Split, ImageList], sets: Mapping[str, Data]) -> str:
    """The set that these lists look like, with all its classes and images; else `OTHER`."""
    names = {split: class_names(images.files) for split, images in lists.items()}
    every = set().union(*names.values())
    guess = resembles(every, sets)
    if guess == OTHER:
        return OTHER
    data = sets[guess]
    whole = (
        all(len(found) == data.classes for found in names.values())
        and all(CLASS_NAMES[guess].fullmatch(name) for name in every)
        and len(every) == data.classes
        and len(lists["train"].files) == data.train_images
        and len(lists["val"].files) == data.val_images
    )
    return guess if whole else OTHER


def confirmed(name: str, lists: Mapping[Split, str], fingerprint: Callable[[], str]) -> str:
    """`name`, unless that set's content and labels are known and are not these."""
    if name not in KNOWN or (fingerprint(), lists["train"], lists["val"]) == KNOWN[name]:
        return name
    return OTHER


def described(name: str) -> str:
    """`name`, for people: where only names and counts tell, it looks like it."""
    return name if name == OTHER or name in KNOWN else f"looks like {name}"


def class_names(files: Collection[str]) -> set[str]:
    """The class folders of `split/class/name` paths."""
    return {parts[1] for name in files if len(parts := name.split("/")) > 2}
