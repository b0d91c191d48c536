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
from proofrun.errors import CheckpointError, Exit, one_line
from proofrun.models import build_model
from proofrun.recipe import Normalize, Recipe
from proofrun.recipe_yaml import load_recipe
from proofrun.runs import Plan
from proofrun.saved import file_hash
from proofrun.weights import CADENE_MARK, TORCHVISION_MARK, convert, read_plain


@dataclass(frozen=True)
class Published:
    """Weights that others trained: what they need beside their names in our network."""

    origin: str
    options: dict[str, bool | int | float | str]  # of the network, over the recipe's
    normalize: Normalize
    bgr: bool = False


#: By a key that only they have. Input rules: see proofrun.weights.
PUBLISHED = {
    CADENE_MARK: Published(
        "Cadene's bninception",
        {},
        Normalize(mean=(104 / 255, 117 / 255, 128 / 255), std=(1 / 255, 1 / 255, 1 / 255)),
        bgr=True,
    ),
    TORCHVISION_MARK: Published(
        "torchvision's googlenet",
        {"pooling": "ceil", "classifier_bias": True, "bn_eps": 1e-3},
        Normalize(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)),
    ),
}


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

    Raises CheckpointError: BAD_CHECKPOINT (damaged), FOREIGN_WEIGHTS, WEIGHTS_CLASSES.
    """
    if is_checkpoint(path):
        return _from_checkpoint(path, recipe)
    state = _state_in(read_plain(path))
    try:
        ours = convert(state, recipe.name)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}", Exit.FOREIGN_WEIGHTS) from None
    known = next((p for mark, p in PUBLISHED.items() if mark in state), None)
    options = known.options if known else _options_of(ours, recipe)
    _check_classes(path, ours, recipe)
    return Loaded(
        path=path,
        sha256=file_hash(path),
        origin=known.origin if known else f"our {recipe.name}",
        recipe=_used_as(recipe, options, known.normalize if known else recipe.data.normalize),
        state=ours,
        bgr=known is not None and known.bgr,
    )


def recipe_of(path: Path, data: str | None = None) -> tuple[Path, Recipe]:
    """The recipe folder and recipe that a file or checkpoint belongs to: by its run, else its keys.

    `data`: which data set, where a file does not tell. Raises CheckpointError, RecipeError.
    """
    if plan := _plan_of(path):
        folder, own = ROOT / plan.recipe_dir, plan.recipe
        now = load_recipe(folder / "recipe.yaml").get(own.data.name)
        return folder, now or own
    if is_checkpoint(path):
        state: Mapping[str, Tensor] = checkpoint.load(path).model
    else:
        state = _state_in(read_plain(path))
    said = []
    for file in sorted((ROOT / "recipes").glob("*/recipe.yaml")):
        recipes = load_recipe(file)
        name = next(iter(recipes.values())).name
        try:
            classes = len(convert(state, name)["fc.weight"])
        except CheckpointError as error:
            said.append(one_line(error))
            continue
        fits = {d: r for d, r in recipes.items() if r.data.classes == classes and data in (None, d)}
        if len(fits) == 1:
            return file.parent, next(iter(fits.values()))
        known = ", ".join(f"{d} has {r.data.classes}" for d, r in recipes.items())
        advice = (
            f"say which: --dataset {' or '.join(fits)}" if fits else f"of its data sets {known}"
        )
        raise CheckpointError(
            f"{path}: weights of {name} for {classes} classes; {advice}", Exit.WEIGHTS_CLASSES
        )
    raise CheckpointError(f"{path}: weights of no network here: {said[0]}", Exit.FOREIGN_WEIGHTS)


def _from_checkpoint(path: Path, recipe: Recipe) -> Loaded:
    found = checkpoint.load(path)
    plan = _plan_of(path)
    used = plan.recipe if plan else recipe
    if used.name != recipe.name or used.data.name != recipe.data.name:
        raise CheckpointError(
            f"{path}: weights of {used.name} for {used.data.name}, this is {recipe.name} on "
            f"{recipe.data.name}; give weights of a {recipe.name} that was trained on it",
            Exit.FOREIGN_WEIGHTS
            if used.name != recipe.name or used.data.classes == recipe.data.classes
            else Exit.WEIGHTS_CLASSES,
        )
    try:
        ours = convert(found.model, recipe.name)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}", Exit.FOREIGN_WEIGHTS) from None
    _check_classes(path, ours, recipe)
    ranks = found.train.get("ranks", [])
    return Loaded(
        path=path,
        sha256=found.meta["files"]["model.safetensors"]["sha256"],
        origin=f"our {recipe.name}",
        recipe=_used_as(recipe, used.model.options, used.data.normalize),
        state=ours,
        rank0=ranks[0]["buffers"] if len(ranks) > 1 else None,
        step=found.meta["step"],
        epoch=found.meta["epoch"],
    )


def _plan_of(path: Path) -> Plan | None:
    """The plan of the run that a checkpoint lies in, or None."""
    file = path.resolve().parent.parent / "recipe.yaml"
    inside = path.resolve().parent.name == "checkpoints" and file.is_file()
    return Plan.load(file) if inside else None


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


def _used_as(recipe: Recipe, options: Mapping[str, Any], normalize: Normalize) -> Recipe:
    model = recipe.model.model_copy(update={"options": {**recipe.model.options, **options}})
    data = recipe.data.model_copy(update={"normalize": normalize})
    return recipe.model_copy(update={"model": model, "data": data})


def _check_classes(path: Path, state: Mapping[str, Tensor], recipe: Recipe) -> None:
    classes = len(state["fc.weight"])
    if classes != recipe.data.classes:
        raise CheckpointError(
            f"{in_checkout(path)}: weights for {classes} classes, {recipe.data.name} has "
            f"{recipe.data.classes}; give weights that were trained on it",
            Exit.WEIGHTS_CLASSES,
        )
