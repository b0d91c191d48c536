"""Weights from anywhere, ready for a recipe's network: our checkpoints and runs, files of ours,
Cadene's bninception, torchvision's GoogLeNet. No code that a file may hold is ever run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from proofrun import checkpoint
from proofrun.bootstrap import ROOT, in_checkout
from proofrun.candidates import is_checkpoint
from proofrun.errors import CheckpointError, Exit, RunNameError, UsageError, one_line
from proofrun.models import build_model
from proofrun.origins import PUBLISHED, Use, told_by
from proofrun.recipe import Recipe
from proofrun.recipe_yaml import load_recipe
from proofrun.runs import Plan, RunName
from proofrun.saved import file_hash, read_meta
from proofrun.weights import convert, read_plain


@dataclass(frozen=True)
class Loaded:
    """Weights under our names, on the CPU, and how they are to be used.

    `recipe`: with the network's options and the input rule that the weights were trained with;
    `rank0`: rank 0's own BN buffers where several ranks trained; step and epoch are 0 for a file.
    """

    path: Path
    sha256: str
    origin: str
    recipe: Recipe
    state: dict[str, Tensor]
    bgr: bool = False
    rank0: dict[str, Tensor] | None = None
    step: int = 0
    epoch: float = 0.0

    def build(self, recipe_dir: Path) -> nn.Module:
        """The network with these weights, in eval mode, on the CPU. Raises CheckpointError."""
        model = build_model(recipe_dir, self.recipe.model, self.recipe.data.classes)
        try:
            model.load_state_dict(self.state, strict=True)
        except RuntimeError as error:
            raise CheckpointError(
                f"{self.path}: no weights of {self.recipe.name}: {one_line(error)[:300]}",
                Exit.FOREIGN_WEIGHTS,
            ) from None
        return model.eval()


def load(path: Path, recipe: Recipe) -> Loaded:
    """The weights in a file or a checkpoint folder, for the network and data of `recipe`.

    Raises CheckpointError: BAD_CHECKPOINT (damaged, not finite), FOREIGN_WEIGHTS, WEIGHTS_CLASSES.
    """
    if is_checkpoint(path):
        return _from_checkpoint(path, recipe)
    state = _state_in(read_plain(path))
    try:
        ours = convert(state, recipe.name)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}", Exit.FOREIGN_WEIGHTS) from None
    own = f"our {recipe.name}"
    use = next((use for mark, use in PUBLISHED.items() if mark in state), None)
    use = use or told_by(path, own)
    if use is None:
        options = _options_of(ours, recipe)
        use = Use(origin=own, options=options, normalize=recipe.data.normalize)
    _check_classes(path, ours, recipe)
    _check_finite(path, ours)
    return Loaded(
        path=path,
        sha256=file_hash(path),
        origin=use.origin,
        recipe=_used_as(recipe, use),
        state=ours,
        bgr=use.bgr,
    )


def recipe_of(path: Path, data: str | None = None) -> tuple[Path, Recipe]:
    """The recipe folder and recipe that a file or checkpoint belongs to: by its run, else its keys.

    `data`: which data set, where a file does not tell. Raises CheckpointError, RecipeError, and
    UsageError for a data set that does not exist, is not that of the run, or is needed.
    """
    every = [(f.parent, load_recipe(f)) for f in sorted((ROOT / "recipes").glob("*/recipe.yaml"))]
    known = sorted({name for _, recipes in every for name in recipes})
    if data not in (None, *known):
        raise UsageError(f"--dataset {data}: give one of {', '.join(known)}")
    if own := _of_its_run(path, every):
        if data not in (None, own[1].data.name):
            raise UsageError(
                f"{in_checkout(path)}: trained on {own[1].data.name}, not on {data}; leave the "
                "data set out, or give other weights"
            )
        return own
    if is_checkpoint(path):
        state: Mapping[str, Tensor] = checkpoint.load(path).model
    else:
        state = _state_in(read_plain(path))
    foreign = []
    for folder, recipes in every:
        name = next(iter(recipes.values())).name
        try:
            classes = len(convert(state, name)["fc.weight"])
        except CheckpointError as error:
            foreign.append(one_line(error))
            continue
        fits = {d: r for d, r in recipes.items() if r.data.classes == classes and data in (None, d)}
        if len(fits) == 1:
            return folder, next(iter(fits.values()))
        said = f"{in_checkout(path)}: weights of {name} for {classes} classes"
        if fits:
            raise UsageError(f"{said}; say which: --dataset {' or '.join(fits)}")
        has = ", ".join(f"{d} has {r.data.classes}" for d, r in recipes.items())
        raise CheckpointError(f"{said}; of its data sets {has}", Exit.WEIGHTS_CLASSES)
    raise CheckpointError(f"{path}: weights of no network here: {foreign[0]}", Exit.FOREIGN_WEIGHTS)


def _from_checkpoint(path: Path, recipe: Recipe) -> Loaded:
    found = checkpoint.load(path)
    run = _run_of(path)
    if run and (run.model, run.data) != (recipe.name, recipe.data.name):
        same = len(found.model.get("fc.weight", ())) == recipe.data.classes
        raise CheckpointError(
            f"{path}: weights of {run.model} for {run.data}, this is {recipe.name} on "
            f"{recipe.data.name}; give weights of a {recipe.name} that was trained on it",
            Exit.FOREIGN_WEIGHTS if run.model != recipe.name or same else Exit.WEIGHTS_CLASSES,
        )
    try:
        ours = convert(found.model, recipe.name)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}", Exit.FOREIGN_WEIGHTS) from None
    _check_classes(path, ours, recipe)
    _check_finite(path, ours)
    ranks = found.train.get("ranks", [])
    rank0 = ranks[0]["buffers"] if len(ranks) > 1 else None
    _check_finite(path, rank0 or {})
    plan = _plan_of(path)
    used = plan.recipe if plan else recipe
    own = f"our {recipe.name}"
    use = Use(origin=own, options=used.model.options, normalize=used.data.normalize)
    return Loaded(
        path=path,
        sha256=found.meta["files"]["model.safetensors"]["sha256"],
        origin=use.origin,
        recipe=_used_as(recipe, use),
        state=ours,
        rank0=rank0,
        step=found.meta["step"],
        epoch=found.meta["epoch"],
    )


def _plan_of(path: Path) -> Plan | None:
    """The plan of the run that a checkpoint lies in, or None."""
    file = path.resolve().parent.parent / "recipe.yaml"
    inside = path.resolve().parent.name == "checkpoints" and file.is_file()
    return Plan.load(file) if inside else None


def _run_of(path: Path) -> RunName | None:
    """The run that a checkpoint lies in or, wherever it lies, names. Raises CheckpointError."""
    if plan := _plan_of(path):
        return plan.name
    try:
        return RunName.parse(str(read_meta(path).get("run"))) if is_checkpoint(path) else None
    except RunNameError:
        return None


def _of_its_run(
    path: Path, every: list[tuple[Path, dict[str, Recipe]]]
) -> tuple[Path, Recipe] | None:
    """The recipe, as it is now, of the run that a checkpoint belongs to."""
    run, plan = _run_of(path), _plan_of(path)
    for folder, recipes in every:
        own = recipes.get(run.data) if run else None
        if run and own and own.name == run.model:
            return folder, own
    return (ROOT / plan.recipe_dir, plan.recipe) if plan else None


def _state_in(content: Any) -> Mapping[str, Tensor]:
    """The state dict in what a file holds: bare, or as training scripts wrap it.

    `{"state_dict": …}` or `{"model": …}` around it, `module.` (DDP) before every name.
    """
    for key in ("state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if (
        isinstance(content, Mapping)
        and content
        and all(str(k).startswith("module.") for k in content)
    ):
        return {str(key).removeprefix("module."): value for key, value in content.items()}
    found: Mapping[str, Tensor] = content
    return found


def _options_of(state: Mapping[str, Tensor], recipe: Recipe) -> dict[str, Any]:
    """A file of ours says by itself whether its classifier has a bias; all else is the recipe's."""
    options: dict[str, Any] = dict(recipe.model.options)
    if "classifier_bias" in options:
        options["classifier_bias"] = "fc.bias" in state
    return options


def _used_as(recipe: Recipe, use: Use) -> Recipe:
    model = recipe.model.model_copy(update={"options": {**recipe.model.options, **use.options}})
    data = recipe.data.model_copy(update={"normalize": use.normalize})
    return recipe.model_copy(update={"model": model, "data": data})


def _check_classes(path: Path, state: Mapping[str, Tensor], recipe: Recipe) -> None:
    classes = len(state["fc.weight"])
    if classes != recipe.data.classes:
        raise CheckpointError(
            f"{in_checkout(path)}: weights for {classes} classes, {recipe.data.name} has "
            f"{recipe.data.classes}; give weights that were trained on it",
            Exit.WEIGHTS_CLASSES,
        )


def _check_finite(path: Path, state: Mapping[str, Tensor]) -> None:
    for name, value in state.items():
        if not value.isfinite().all():
            raise CheckpointError(
                f"{in_checkout(path)}: {name} holds a NaN or an infinity; check the training that "
                "made it"
            )
