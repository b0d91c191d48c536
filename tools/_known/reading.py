"""Flags of the Ascend recipe to a run of ours: its name, and what differs from its recipe."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

from proofrun import device
from proofrun.bootstrap import ROOT
from proofrun.errors import RunNameError, UsageError
from proofrun.recipe import Precision, Recipe
from proofrun.recipe_yaml import load_recipe
from proofrun.runs import DeviceKind, RunName, Task


class Reading(NamedTuple):
    """A run, the flags for it, and a line for each given flag that means nothing here."""

    run: RunName
    flags: list[str]
    notes: list[str]


#: Flags that set one value of a recipe.
_VALUES = {
    "per_batch_size": "batch.per_card",
    "lr": "optimizer.lr.base",
    "weight_decay": "optimizer.weight_decay",
    "momentum": "optimizer.momentum",
    "max_epoch": "schedule.epochs",
    "warmup_epochs": "schedule.warmup_epochs",
    "loss_scale": "precision.amp.loss_scale",
    "label_smooth_factor": "loss.label_smoothing",
}
_KINDS = {"exponential": "multistep", "cosine_annealing": "cosine"}
#: Flags of a schedule of each kind: those of another kind mean nothing in it.
_OF_KIND = {
    "multistep": {"lr_epochs": "milestones", "lr_gamma": "gamma"},
    "cosine": {"eta_min": "min_lr"},
}
_NOTHING = {
    "is_distributed": "--nproc_per_node says how many cards",
    "ckpt_interval": "every epoch is saved, the newest two, the best and marks are kept",
    "is_save_on_master": "rank 0 saves, for all ranks",
}


def read_train(options: argparse.Namespace, cards: int) -> Reading:
    """A training, mixed precision as the Ascend recipe has it. Raises UsageError, RunNameError."""
    if options.pretrained:
        raise UsageError(
            "--pretrained: training starts from fresh weights, as published, and a stopped run "
            "goes on by itself; to score weights: tools/test.py"
        )
    recipe = recipe_by(options.backbone, options.num_classes, options.dataset)
    _check_size(options, recipe)
    run = _declared(recipe, "Train", cards, ("AMP",))
    flags = _place(options.data_dir, options.ckpt_path)
    if options.log_interval:
        flags += ["--log-interval", str(options.log_interval)]
    notes = list(_notes(options))
    if options.T_max:
        if options.T_max != (options.max_epoch or recipe.schedule.epochs):
            raise UsageError(f"--T_max={options.T_max}: the cosine ends with the run, at max_epoch")
        notes.append("--T_max: nothing to do, the cosine ends with the run")
    for key, value in _changes(options, recipe, notes):
        if not _same(value, _value_at(recipe, key)):
            flags += ["--set", f"{key}={json.dumps(value)}"]
    return Reading(run, flags, notes)


def read_test(
    options: argparse.Namespace,
    recipe: Recipe,
    run: RunName | None,
    cards: int,
    precisions: tuple[Precision, ...],
) -> Reading:
    """A scoring of `options.weights`, which are of `recipe`, by `run` if one is named.

    Raises UsageError, RunNameError.
    """
    _check_size(options, recipe)
    _check_fits(options, recipe, run)
    if run and run.task != "Infer":
        raise UsageError(f"--run {run}: test.py scores weights; give a run that ends in _Infer")
    flags = ["--weights", options.weights, *_place(options.data_dir, options.log_path)]
    if options.per_batch_size not in (None, recipe.batch.per_card):
        flags += ["--set", f"batch.per_card={options.per_batch_size}"]
    if options.loader:
        flags += ["--loader", options.loader]
    flags += ["--no-latency"] * options.no_latency
    return Reading(
        run or _declared(recipe, "Infer", cards, precisions), flags, list(_notes(options))
    )


def recipe_by(backbone: str | None, classes: int | None, dataset: str | None) -> Recipe:
    """The recipe that the flags mean; the published data set unless they say another."""
    every = [load_recipe(path) for path in sorted((ROOT / "recipes").glob("*/recipe.yaml"))]
    names = {next(iter(found.values())).name.lower(): found for found in every}
    if (backbone or "").lower() not in names:
        said = "which network?" if backbone is None else f"--backbone={backbone}:"
        raise UsageError(f"{said} give --backbone, one of {', '.join(names)}")
    fits = {
        data: recipe
        for data, recipe in names[(backbone or "").lower()].items()
        if classes in (None, recipe.data.classes) and dataset in (None, data)
    }
    if not fits:
        raise UsageError(f"{backbone} has no data set {dataset or f'of {classes} classes'}")
    if len(fits) > 1 and classes is not None:
        raise UsageError(f"{classes} classes have {', '.join(fits)}: say which with --dataset")
    return next(iter(fits.values()))


def _declared(recipe: Recipe, task: Task, cards: int, precisions: tuple[Precision, ...]) -> RunName:
    """The recipe's run on so many cards: of this host's kind, else of the kind it was published on.

    Raises RunNameError when none is declared.
    """
    runs = [RunName.parse(run) for run in recipe.runs]
    runs = [run for run in runs if run.task == task]
    here = device.kind_on_host()
    kinds: list[DeviceKind] = [here, *(run.device for run in runs)]
    wanted = ((p, k) for k in kinds for p in precisions)
    for precision, kind in wanted:
        for run in runs:
            if (run.precision, run.device, run.cards) == (precision, kind, cards):
                return run
    known = ", ".join(map(str, runs)) or "none"
    raise RunNameError(
        f"no recipe declares a run to {task.lower()} {recipe.name} on {recipe.data.name} with "
        f"{cards} card{'s' * (cards > 1)} in {' or '.join(precisions)}; there are {known}"
    )


def _place(data: str | None, logs: str | None) -> list[str]:
    return (["--data", data] if data else []) + (["--logs", logs] if logs else [])


def _check_size(options: argparse.Namespace, recipe: Recipe) -> None:
    size = recipe.data.train.image_size
    if options.image_size not in (None, size):
        raise UsageError(
            f"--image_size={options.image_size}: {recipe.name} on {recipe.data.name} takes {size}; "
            "another size is another protocol: --set data.train.image_size and data.eval"
        )


def _check_fits(options: argparse.Namespace, recipe: Recipe, run: RunName | None) -> None:
    """Raises UsageError for a flag that says of the weights what they are not."""
    name, data, classes = recipe.name, recipe.data.name, recipe.data.classes
    for flag, wrong in (
        ("backbone", options.backbone and options.backbone.lower() != name.lower()),
        ("num_classes", options.num_classes and options.num_classes != classes),
        ("run", run and (run.model, run.data) != (name, data)),
    ):
        if wrong:
            raise UsageError(
                f"--{flag}={getattr(options, flag)}: the weights are of {name} for {data}, "
                f"{classes} classes; leave the flag out, or give other weights"
            )


def _notes(options: argparse.Namespace) -> Iterator[str]:
    for flag, why in _NOTHING.items():
        if getattr(options, flag, None) is not None:
            yield f"--{flag}: nothing to do, {why}"


def _changes(
    options: argparse.Namespace, recipe: Recipe, notes: list[str]
) -> Iterator[tuple[str, Any]]:
    """(key, value) of every flag that was given, whether or not it is the recipe's value."""
    kind = _KINDS.get(options.lr_scheduler or "", recipe.schedule.kind)
    own = {
        name: getattr(options, flag)
        for flag, name in _OF_KIND.get(kind, {}).items()
        if getattr(options, flag) is not None
    }
    for other, names in _OF_KIND.items():
        if other != kind:
            given = [flag for flag in names if getattr(options, flag) is not None]
            notes += [f"--{flag}: nothing to do, the schedule is {kind}" for flag in given]
    skip = set()
    if kind == recipe.schedule.kind:
        yield from ((f"schedule.{name}", value) for name, value in own.items())
    else:  # a schedule of another kind replaces the recipe's as a whole
        missing = [f"--{flag}" for flag, name in _OF_KIND[kind].items() if name not in own]
        if kind == "multistep" and missing:
            raise UsageError(f"--lr_scheduler=exponential needs {' and '.join(missing)} here")
        epochs = options.max_epoch or recipe.schedule.epochs
        warmup = recipe.schedule.warmup_epochs
        warmup = warmup if options.warmup_epochs is None else options.warmup_epochs
        yield "schedule", {"kind": kind, "epochs": epochs, "warmup_epochs": warmup, **own}
        skip = {"max_epoch", "warmup_epochs"}
    if options.is_dynamic_loss_scale:
        yield "precision.amp.loss_scale", "dynamic"
        skip.add("loss_scale")
    if options.label_smooth is False:
        yield "loss.label_smoothing", 0.0
        skip.add("label_smooth_factor")
        if options.label_smooth_factor is not None:
            notes.append("--label_smooth_factor: nothing to do, --label_smooth=0 smoothes nothing")
    elif options.label_smooth and not (recipe.loss.label_smoothing or options.label_smooth_factor):
        raise UsageError("--label_smooth=1 needs --label_smooth_factor: the recipe has none")
    for flag, key in _VALUES.items():
        if flag not in skip and (value := getattr(options, flag)) is not None:
            yield key, value


def _value_at(recipe: Recipe, key: str) -> Any:
    value: Any = recipe.model_dump(mode="json", by_alias=True)
    for part in key.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def _same(given: Any, own: Any) -> bool:
    if isinstance(given, float) and isinstance(own, int | float):
        return math.isclose(given, own, rel_tol=1e-9)
    return bool(given == own)
