"""The recipes of this checkout, to hold against those that logs carry."""

from __future__ import annotations

import functools
from typing import Any

from proofrun.bootstrap import ROOT
from proofrun.errors import RecipeError, one_line
from proofrun.recipe import Recipe
from proofrun.recipe_yaml import load_recipe
from proofrun.text import clean


@functools.cache
def own_recipes() -> tuple[dict[tuple[str, str], Recipe], tuple[str, ...]]:
    """This checkout's recipes by network and data set, and why others cannot be read."""
    own: dict[tuple[str, str], Recipe] = {}
    unreadable = []
    for path in sorted((ROOT / "recipes").glob("*/recipe.yaml")):
        try:
            own |= {(r.name, r.data.name): r for r in load_recipe(path).values()}
        except RecipeError as error:
            unreadable.append(clean(one_line(error)))
    return own, tuple(unreadable)


def recipe_here(recipe: Recipe) -> Recipe | None:
    """This checkout's recipe of the same network and data."""
    return own_recipes()[0].get((recipe.name, recipe.data.name))


def deciding(recipe: Recipe) -> list[dict[str, Any]]:
    """What of the claims decides a verdict."""
    words = {"label", "source", "note", "tolerance_source"}
    plain = [claim.model_dump(mode="json", exclude=words) for claim in recipe.claims]
    return [{**claim, "prior_spread": (claim["prior_spread"] or {}).get("value")}
            for claim in plain]  # fmt: skip
