"""Checks before any card is occupied. Torch-free, seconds at most."""

from __future__ import annotations

import argparse
import importlib.util
import shutil
from pathlib import Path

from proofrun import bootstrap, device
from proofrun.data import LoaderName, apart
from proofrun.data.entries import undecodable_name
from proofrun.data.fingerprint import Seen, settle
from proofrun.data.identity import identify, published
from proofrun.data.lists import ImageList, Split, check_images, read_split
from proofrun.errors import (
    DataError,
    DeviceError,
    Exit,
    OverrideError,
    ProofrunError,
    UsageError,
    WriteError,
)
from proofrun.recipe import Data, Recipe
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

#: Checkpoints on the disk at once, besides those of marks: the newest two, best, one being written.
CHECKPOINTS = 4

#: Weights and momentum in float32.
BYTES_PER_PARAMETER = 8

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108

#: Batches that torch's DataLoader keeps ready for each of its processes (its prefetch_factor).
PREFETCHED = 2

#: Of one card's collective library. Ours: an assumption, half of a container's usual 64 MiB.
COLLECTIVE_BYTES = 32 << 20


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


def check_flags(name: RunName, options: argparse.Namespace) -> None:
    """Raises UsageError for a flag that means nothing in a run of this task."""
    others = {
        "Train": ("weights", "no_latency"),
        "Infer": ("throughput", "max_steps", "seed", "log_interval", "stop_at_epoch_end", "align"),
    }
    for flag in others[name.task]:
        if getattr(options, flag) not in (None, False):
            raise UsageError(
                f"--{flag.replace('_', '-')} means nothing in {name}: the run's name ends in "
                f"_{name.task}; see --help"
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
    if not given and not bootstrap.setting(variable):
        raise DataError(f"{variable} is neither set nor in env.sh; give --data DIR")
    return bootstrap.folder(variable, "", given)


def cache_dir(logs: Path) -> Path:
    """Where manifests of data that cannot be written are kept: env.sh, else beside the logs."""
    return bootstrap.folder("PROOFRUN_CACHE", str(logs / ".cache"), None)


def check_data(
    root: Path, data: Data, cache: Path, loader: LoaderName = "dali", accept: bool = False
) -> Seen:
    """Read both lists, sample the files, and see that the content is what was fingerprinted.

    `accept` takes changed data as it is. Raises DataError.
    """
    return check_content(root, data, check_lists(root, data, loader), cache, accept)


def check_content(
    root: Path, data: Data, lists: dict[Split, ImageList], cache: Path, accept: bool = False
) -> Seen:
    """See that the content of these lists is what was fingerprinted. Raises DataError."""
    identity = identify(lists, published(bootstrap.ROOT / "recipes"))
    return settle(root, lists, identity, cache, accept, apart.PUBLISHED.get(data.name, 0))


def check_lists(root: Path, data: Data, loader: LoaderName = "dali") -> dict[Split, ImageList]:
    """Both lists, held against the recipe's counts and a sample of the files. Raises DataError."""
    lists: dict[Split, ImageList] = {}
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
        odd = undecodable_name(images.files) if loader == "dali" else None
        if odd is not None:
            raise DataError(
                f"{root}: the name {odd!r} is not UTF-8, and DALI cannot open it; rename the file",
                Exit.IMAGE_INVALID,
            )
        check_images(images, sample=SAMPLE, seed=0)
        lists[split] = images
    apart.check_lists(lists)
    return lists


def check_shared_memory(plan: Plan, workers: int, folder: Path = SHARED_MEMORY) -> None:
    """Raises ProofrunError when what the ranks of this host share does not fit into /dev/shm.

    `workers` are the loader's processes of one rank. The torchvision loader hands batches over in
    shared memory, two ahead of each process; DALI's threads need none.
    """
    need, users = 0, []
    if plan.loader == "torchvision" and workers:
        data = plan.recipe.data
        side = max(data.train.image_size, *(protocol.crop for protocol in data.eval))
        batches = plan.world.cards * (PREFETCHED * workers + 1)
        need += batches * plan.per_card_batch * side * side * 3
        users.append(f"{plan.world.cards * workers} loader processes")
    if plan.device != "CPU" and plan.world.cards > 1:
        need += plan.world.cards * COLLECTIVE_BYTES
        users.append(f"{plan.world.cards} cards")
    free = free_bytes(folder)
    if need > free:
        raise ProofrunError(
            f"{folder} has {free >> 20} MiB free, {' and '.join(users)} need about "
            f"{-(-need >> 20)} MiB: enlarge it (docker/run.sh --shm SIZE), or use fewer "
            "PROOFRUN_LOADER_THREADS or the dali loader",
            Exit.SHARED_MEMORY,
        )


def check_space(plan: Plan, run_dir: Path) -> None:
    """Raises WriteError when the checkpoints that the run will keep do not fit on its disk."""
    if plan.purpose != "full" or plan.name.task == "Infer":
        return  # a measurement saves once, and small; inference nothing
    there = sum(path.stat().st_size for path in run_dir.glob("checkpoints/*/*") if path.is_file())
    need = checkpoint_bytes(plan.recipe) - there
    free = free_bytes(run_dir)
    if need > free:
        raise WriteError(
            f"{run_dir}: has {free >> 20} MiB free, the run's checkpoints need about "
            f"{need >> 20} MiB more; free space, or give another --logs DIR"
        )


def checkpoint_bytes(recipe: Recipe) -> int:
    """What all checkpoints that a run keeps take at once."""
    kept = CHECKPOINTS + len(recipe.marks_s)
    return kept * recipe.model.parameters * BYTES_PER_PARAMETER


def free_bytes(folder: Path) -> int:
    """Bytes that may be written there; 0 where there is no such folder."""
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return 0


def check_batch(plan: Plan) -> None:
    """Raises OverrideError or RecipeError when the batch cannot be cut for this world."""
    images = plan.recipe.data.train_images
    if plan.name.task == "Train" and images < plan.global_batch:
        raise OverrideError(
            f"one step needs {plan.global_batch} images, {plan.recipe.data.name} has {images}: "
            "use a smaller batch"
        )
