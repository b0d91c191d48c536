"""The recipes' networks, as the recipes configure them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from proofrun.models import build_model
from proofrun.recipe_yaml import load_recipe

RECIPES = Path(__file__).parents[1] / "recipes"


def build_network(name: str, num_classes: int = 10, **options: Any) -> nn.Module:
    """The published network of recipe `name`; `options` replace some of the recipe's."""
    published, *_ = load_recipe(RECIPES / name / "recipe.yaml").values()
    network = published.model.model_copy(update={"options": published.model.options | options})
    return build_model(RECIPES / name, network, num_classes)
