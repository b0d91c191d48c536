"""What one run is: its name, and the plan that launch writes and every rank reads. Torch-free.

The run name is the key of the project: script stem = log folder = report row.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

import yaml
from pydantic import ValidationError

from proofrun.errors import OverrideError, RecipeError, RunNameError, one_line
from proofrun.recipe import Precision, Recipe, Strict
from proofrun.recipe_yaml import (
    deep_merge,
    dump_yaml,
    explain,
    first_error,
    load_recipe,
    parse_yaml,
    validate_recipe,
    yaml_reason,
)

DeviceKind = Literal["MLU", "NPU", "GPU", "CPU"]
Task = Literal["Train", "Infer"]

_NAME = re.compile(
    r"(?P<model>[A-Za-z0-9]+)(-(?P<data>[A-Za-z0-9]+))?_(?P<precision>FP32|TF32|AMP|BF16|FP16)"
    r"(_(?P<epochs>[1-9]\d*)E)?_(?P<cards>[1-9]\d*)(?P<device>MLU|NPU|GPU|CPU)(?P<plural>s?)"
    r"_(?P<task>Train|Infer)"
)


class RunName(NamedTuple):
    """`<Model>[-<Data>]_<Precision>[_<Epochs>E]_<N><Device>[s]_<Train|Infer>`.

    No data name means ImageNet; a Train name has epochs, an Infer name has none.
    """

    model: str
    data: str
    precision: Precision
    epochs: int | None
    cards: int
    device: DeviceKind
    task: Task

    @classmethod
    def parse(cls, text: str) -> RunName:
        """Raises RunNameError when `text` is not such a name."""
        found = _NAME.fullmatch(text)
        if found:
            part = found.groupdict()
            name = cls(
                part["model"],
                part["data"] or "ImageNet",
                cast(Precision, part["precision"]),
                int(part["epochs"]) if part["epochs"] else None,
                int(part["cards"]),
                cast(DeviceKind, part["device"]),
                cast(Task, part["task"]),
            )
            if str(name) == text:  # one spelling: `8MLUs`, `1MLU`, epochs with Train only
                return name
        raise RunNameError(
            f"{text!r} is no run name: it reads like Inceptionv2_AMP_100E_8MLUs_Train "
            "or GoogLeNet_FP16_1NPU_Infer"
        )

    def __str__(self) -> str:
        data = "" if self.data == "ImageNet" else f"-{self.data}"
        epochs = f"_{self.epochs}E" if self.task == "Train" else ""
        cards = f"{self.cards}{self.device}{'s' if self.cards > 1 else ''}"
        return f"{self.model}{data}_{self.precision}{epochs}_{cards}_{self.task}"


def find_recipe(run: str, recipes_dir: Path) -> tuple[RunName, Path, Recipe]:
    """The name of a run in its parts, its recipe folder and its recipe for the run's data set.

    Raises RunNameError with the nearest declared names, RecipeError when a recipe is not valid.
    """
    declared: list[str] = []
    for path in sorted(recipes_dir.glob("*/recipe.yaml")):
        for data, recipe in load_recipe(path).items():
            if run in recipe.runs:
                name = RunName.parse(run)
                if data != name.data or recipe.name != name.model:
                    raise RecipeError(f"{path}: run {run} is declared under {recipe.name}-{data}")
                return name, path.parent, recipe
            declared += recipe.runs
    near = difflib.get_close_matches(run, declared, n=3, cutoff=0.0)
    raise RunNameError(f"no recipe declares {run!r}; the nearest are {', '.join(near) or 'none'}")


class World(Strict):
    """How many ranks, where: `cards` on each of `nodes` machines."""

    cards: int
    nodes: int = 1

    @property
    def size(self) -> int:
        return self.cards * self.nodes


Purpose = Literal["full", "throughput"]


class Plan(Strict):
    """Everything that decides a run's result. Written to `<run>/recipe.yaml`; ranks read only this.

    `max_steps` with purpose "throughput" ends a run after so many steps: it enters the throughput
    table only. `overrides` are the extra flags: any of them keeps the run out of headline tables.
    """

    run: str
    recipe_dir: str
    recipe: Recipe
    precision: Precision
    world: World
    device: DeviceKind
    seed: int
    loader: Literal["dali", "torchvision", "synthetic"] = "dali"
    purpose: Purpose = "full"
    max_steps: int | None = None
    log_interval: int = 10
    stop_at_epoch_end: bool = False
    overrides: dict[str, Any] = {}
    data_dir: str
    data_hash: str
    weights: tuple[str, ...] = ()  # Infer: files and checkpoints to score
    latency: bool = True  # Infer: time batches as well

    @property
    def name(self) -> RunName:
        return RunName.parse(self.run)

    @property
    def per_card_batch(self) -> int:
        return self.recipe.batch.on(self.world.size)

    @property
    def global_batch(self) -> int:
        return self.per_card_batch * self.world.size

    @property
    def lr(self) -> float:
        """Peak learning rate, after the recipe's rule for the global batch."""
        return self.recipe.optimizer.lr.at(self.global_batch)

    def config_hash(self) -> str:
        """sha256 of what must be equal for a resume: recipe, overrides, data, precision, loader.

        Claims, sources and names say nothing about the computation, and the world may change.
        """
        recipe = self.recipe.model_dump(
            mode="json",
            exclude={"claims", "sources", "references", "conflicts", "runs", "paper", "marks_s"},
        )
        parts: dict[str, Any] = {
            "recipe": recipe,
            "marks_s": list(self.recipe.marks_s),
            "overrides": self.overrides,
            "data": self.data_hash,
            "precision": self.precision,
            "loader": self.loader,
            "purpose": self.purpose,
            "max_steps": self.max_steps,
        }
        if self.name.task == "Infer":
            parts |= {"weights": self.weights, "latency": self.latency}
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def flags(self) -> str:
        """The flags of the command line that decide the result, ready to be given again."""
        words: list[str] = []
        if self.purpose == "throughput":
            words += ["--throughput", str(self.max_steps)]
        for key, value in self.overrides.items():
            if key in ("loader", "max_steps", "seed"):
                words += [f"--{key.replace('_', '-')}", str(value)]
            elif key == "accept_changed_data":
                words.append("--accept-changed-data")
            else:
                words += [
                    "--set",
                    f"{key}={value if isinstance(value, str) else json.dumps(value)}",
                ]
        return shlex.join(words)

    def to_yaml(self) -> str:
        plain = self.model_dump(mode="json", by_alias=True)
        return dump_yaml(plain)

    @classmethod
    def load(cls, path: Path) -> Plan:
        """Read a plan that launch wrote. Raises RecipeError."""
        try:
            plain = parse_yaml(path.read_text(encoding="utf-8"), aliases=False)
            return cls.model_validate_json(json.dumps(plain))
        except yaml.YAMLError as error:
            reason = yaml_reason(error)
        except ValidationError as error:
            reason = explain(first_error(error))
        except (OSError, ValueError, TypeError) as error:
            reason = one_line(error)
        raise RecipeError(
            f"{path}: damaged, the run cannot go on ({reason}); start beside it with --new"
        )


def apply_overrides(recipe: Recipe, pairs: Sequence[str]) -> tuple[Recipe, dict[str, Any]]:
    """Lay `section.key=value` flags over a recipe: (recipe, {key: value as read}).

    Values are YAML (`0.02`, `[0.5, 1]`, `null`). Raises OverrideError with the nearest valid key.
    """
    raw = recipe.model_dump(mode="json", by_alias=True)
    applied: dict[str, Any] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals or not key:
            raise OverrideError(f"--set {pair}: write it as --set optimizer.lr.base=0.02")
        try:
            value = parse_yaml(text)
        except yaml.YAMLError:
            raise OverrideError(f"--set {pair}: {text!r} is no YAML value") from None
        change: Any = value
        for part in reversed(key.split(".")):
            change = {part: change}
        raw = deep_merge(raw, change)
        applied[key] = value
    try:
        return validate_recipe(raw), applied
    except ValidationError as error:
        first = first_error(error)
        where = ".".join(str(part) for part in first["loc"])
        raise OverrideError(f"--set: {where}: {explain(first)}") from None
    except TypeError as error:  # a date or another value that YAML knows and JSON does not
        raise OverrideError(f"--set: {one_line(error)}; put the value in quotes") from None
