"""Networks are loaded from their recipe folder: a function of `recipes/<name>/model.py`."""

from __future__ import annotations

import inspect
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from proofrun.errors import RecipeError

if TYPE_CHECKING:
    from torch import nn

    from proofrun.recipe import Network


def load_model_module(recipe_dir: Path) -> ModuleType:
    """Run `recipe_dir/model.py` and return it as a module.

    Raises RecipeError if the file is missing. What the file itself raises while it runs passes
    through: its author needs the traceback.
    """
    path = Path(recipe_dir) / "model.py"
    if not path.is_file():
        raise RecipeError(f"{path} does not exist: a recipe folder needs a model.py")
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
    return module


def build_model(recipe_dir: Path, network: Network, num_classes: int) -> nn.Module:
    """The recipe's network with `num_classes` outputs: `network.graph` of model.py, called.

    Raises RecipeError as `load_model_module` does, for a function that model.py lacks, and for an
    option that the function does not have or whose value it refuses (its ValueError).
    """
    path = Path(recipe_dir) / "model.py"
    graph, options = network.graph, network.options
    build = getattr(load_model_module(recipe_dir), graph, None)
    if not inspect.isfunction(build):
        raise RecipeError(f"{path} has no function {graph!r}, which the recipe's model.graph names")
    where = f"{path}: {graph}{inspect.signature(build)}"
    try:
        inspect.signature(build).bind(num_classes=num_classes, **options)
    except TypeError as error:
        raise RecipeError(f"{where} does not fit the recipe's model options: {error}") from error
    try:
        model: nn.Module = build(num_classes=num_classes, **options)
    except ValueError as error:
        raise RecipeError(f"{where} refuses the recipe's model options: {error}") from error
    return model
