"""Networks are loaded from their recipe folder: `recipes/<name>/model.py` with a `build` in it."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Mapping
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from proofrun.errors import RecipeError

if TYPE_CHECKING:
    from torch import nn


def load_model_module(recipe_dir: Path) -> ModuleType:
    """Run `recipe_dir/model.py` and return it as a module.

    Raises RecipeError if the file is missing or has no function `build`. What the file itself
    raises while it runs passes through: its author needs the traceback.
    """
    path = Path(recipe_dir) / "model.py"
    if not path.is_file():
        raise RecipeError(f"{path} does not exist: a recipe folder needs a model.py with `build`")
    name = f"_proofrun_recipe_{path.parent.resolve().name}"
    spec = spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickle look a class's module up there
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    if not callable(getattr(module, "build", None)):
        raise RecipeError(f"{path} has no function `build(num_classes, ...)`: add one")
    return module


def build_model(recipe_dir: Path, num_classes: int, options: Mapping[str, Any]) -> nn.Module:
    """The recipe's network with `num_classes` outputs; `options` are further arguments of `build`.

    Raises RecipeError as `load_model_module` does, and for an option that `build` does not have
    or whose value it refuses (its ValueError).
    """
    build = load_model_module(recipe_dir).build
    where = f"{Path(recipe_dir) / 'model.py'}: build{inspect.signature(build)}"
    try:
        inspect.signature(build).bind(num_classes=num_classes, **options)
    except TypeError as error:
        raise RecipeError(f"{where} does not fit the recipe's model options: {error}") from error
    try:
        model: nn.Module = build(num_classes=num_classes, **options)
    except ValueError as error:
        raise RecipeError(f"{where} refuses the recipe's model options: {error}") from error
    return model
