"""Checks before any card is occupied. Torch-free, seconds at most."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

from proofrun import bootstrap, device
from proofrun.data.lists import Split, check_images, list_hash, read_split
from proofrun.errors import DataError, DeviceError, Exit, OverrideError, ProofrunError
from proofrun.recipe import Data
from proofrun.recipe_yaml import load_recipe
from proofrun.runs import Plan, RunName

#: The variable of env.sh that holds each data set's folder, and how to make that folder.
DATA_VARIABLE = {
    "ImageNet": "IMAGENET_TRAIN_DATASET",
    "Cifar10": "CIFAR10_DATASET",
    "Digits": "DIGITS_DATASET",
}

#: Files whose first and last bytes are read: all of a small set, a sample of a large one.
SAMPLE = 5000


def check_device(name: RunName) -> None:
    """Raises DeviceError when the host lacks the cards, naming a script that it can run."""
    count = device.cards_on_host(name.device)
    if count is None or count >= name.cards:
        return
    has = f"{count} {name.device}{'s' if count != 1 else ''}" if count else f"no {name.device}"
    raise DeviceError(
        f"{name} needs {name.cards} {name.device}{'s' if name.cards > 1 else ''}, this host has "
        f"{has}; it can run: bash run_scripts/{_possible(name)}.sh"
    )


def _possible(name: RunName) -> str:
    """The declared run of this model that the host can do, nearest to the one asked for."""
    kind = device.kind_on_host()
    cards = device.cards_on_host(kind)
    candidates: list[RunName] = []
    for path in sorted((bootstrap.ROOT / "recipes").glob("*/recipe.yaml")):
        for recipe in load_recipe(path).values():
            candidates += [RunName.parse(run) for run in recipe.runs if recipe.name == name.model]
    fits = [
        run
        for run in candidates
        if run.device == kind and run.task == name.task and (cards is None or run.cards <= cards)
    ]
    # A tie goes to the rehearsal, which a recipe declares before its other data sets.
    fits.sort(key=lambda run: (run.data != name.data, run.precision != name.precision, run.cards))
    return str(fits[0]) if fits else str(name)


def check_apex(name: RunName) -> None:
    """Raises DeviceError or ProofrunError when FusedSGD is asked for and cannot be had.

    Looks at files only: importing apex takes torch, and PyPI's package of that name fails to.
    """
    advice = "or take torch's own with --set optimizer.implementation=torch"
    if name.device != "GPU":
        raise DeviceError(
            f"optimizer.implementation: apex is for NVIDIA GPUs; take a GPU run, {advice}"
        )
    spec = importlib.util.find_spec("apex")
    folders = list(spec.submodule_search_locations or []) if spec else []
    if not folders:
        raise ProofrunError(
            f"apex is not installed: it is in NVIDIA's PyTorch image (docker/README.md), {advice}",
            Exit.NOT_INSTALLED,
        )
    if not any((Path(folder) / "optimizers" / "fused_sgd.py").is_file() for folder in folders):
        raise ProofrunError(
            f"{folders[0]} is not NVIDIA's apex: PyPI's package of that name is another project; "
            f"uninstall it and use NVIDIA's PyTorch image (docker/README.md), {advice}",
            Exit.NOT_INSTALLED,
        )


def data_dir(data: str, given: str | None) -> Path:
    """The data folder: the flag, else the variable of env.sh. Raises DataError."""
    variable = DATA_VARIABLE[data]
    if not given and not os.environ.get(variable):
        raise DataError(f"{variable} is not set: `source env.sh`, or give --data DIR")
    return bootstrap.folder(variable, "", given)


def check_data(root: Path, data: Data) -> str:
    """Read both lists and sample the files; the hash of the lists. Raises DataError."""
    hashes = []
    counts: dict[Split, int] = {"train": data.train_images, "val": data.val_images}
    for split, count in counts.items():
        images = read_split(root, split, data.classes)
        if len(images.files) != count:
            raise DataError(
                f"{root}: {split} has {len(images.files)} images, {data.name} has {count}: "
                "complete the data; on other data of your own, say so with --set "
                f"data.{split}_images={len(images.files)}",
                Exit.IMAGE_COUNT,
            )
        check_images(images, sample=SAMPLE, seed=0)
        hashes.append(list_hash(images))
    return "-".join(hashes)


def check_batch(plan: Plan) -> None:
    """Raises OverrideError or RecipeError when the batch cannot be cut for this world."""
    images = plan.recipe.data.train_images
    if images < plan.global_batch:
        raise OverrideError(
            f"one step needs {plan.global_batch} images, {plan.recipe.data.name} has {images}: "
            "use a smaller batch"
        )
