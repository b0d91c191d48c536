"""A small plan of the Inceptionv2 rehearsal: three steps of 8 images a card."""

from __future__ import annotations

from pathlib import Path

from proofrun.recipe_yaml import load_recipe
from proofrun.runs import Plan, World

ROOT = Path(__file__).resolve().parent.parent


def plan(loader: str, digits: str, world: int) -> Plan:
    recipe = load_recipe(ROOT / "recipes/inceptionv2/recipe.yaml")["Digits"]
    small = recipe.model_copy(
        update={
            "batch": recipe.batch.model_copy(update={"per_card": 8}),
            "schedule": recipe.schedule.model_copy(update={"epochs": 1}),
            "marks_s": (),
        }
    )
    return Plan.model_validate(
        {
            "run": "Inceptionv2-Digits_FP32_6E_8CPUs_Train",
            "recipe_dir": str(ROOT / "recipes/inceptionv2"),
            "recipe": small,
            "precision": "FP32",
            "world": World(cards=world),
            "device": "CPU",
            "seed": 3,
            "loader": loader,
            "max_steps": 3,
            "data_dir": digits,
            "data_hash": "test",
        }
    )
