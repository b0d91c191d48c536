"""Where traces and bounds are kept, and the size of the exercise. Torch-free."""

from __future__ import annotations

from pathlib import Path

from proofrun.alignment import TRUSTED
from proofrun.bootstrap import ROOT
from proofrun.errors import UsageError
from proofrun.recipe import Recipe
from proofrun.recipe_yaml import load_recipe

REPORTS = TRUSTED

#: Steps of the whole exercise, of the quick one, and images per rank and step.
STEPS, QUICK_STEPS, BATCH = 20, 3, 8


def find(model: str, data: str) -> tuple[Path, Recipe]:
    """The recipe folder and recipe of a network, by the folder's or the network's name.

    Raises UsageError naming what there is, RecipeError.
    """
    known = []
    for path in sorted((ROOT / "recipes").glob("*/recipe.yaml")):
        for name, recipe in load_recipe(path).items():
            if model.lower() in (recipe.name.lower(), path.parent.name) and name == data:
                return path.parent, recipe
            known.append(f"{recipe.name} --data {name}")
    raise UsageError(f"no recipe is {model} --data {data}; there are: {', '.join(known)}")


def golden_path(recipe: Recipe, precision: str, ranks: int) -> Path:
    """The committed trace of a trusted machine."""
    cards = "" if ranks == 1 else f"-{ranks}ranks"
    return REPORTS / f"{recipe.name}-{recipe.data.name}-{precision}{cards}.npz"


def bounds_path(recipe: Recipe) -> Path:
    """Bounds are those of the rehearsal's size, which every machine can run."""
    return REPORTS / f"bounds-{recipe.name}-Digits.json"
