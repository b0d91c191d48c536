"""Import torchvision, also where it is a CUDA build beside a CPU-only torch."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType

import torch

#: What torch 2.2 and later say when torchvision's compiled operators could not be loaded:
#: https://github.com/pytorch/pytorch/issues/157648
_SYMPTOM = "operator torchvision::nms does not exist"

#: The two operators for which torchvision registers shapes unconditionally while it is imported.
_SCHEMAS = ("nms", "qnms")
_ARGUMENTS = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"

# Definitions vanish with the object that made them.
_library: torch.library.Library | None = None


def import_torchvision() -> ModuleType:
    """The package torchvision, ready for its transforms, datasets and networks.

    PyPI's torchvision is a CUDA build. Beside a CPU-only torch its compiled operators do not
    load, and the import fails. Only then, two of them are declared without a kernel (calling
    them still fails) and the import is done again. A build that fits is not touched. Every
    other error of the import passes through.
    """
    global _library
    try:
        return importlib.import_module("torchvision")
    except RuntimeError as error:
        if str(error) != _SYMPTOM or _library is not None:
            raise
    # what the failed import left behind would hide the operators from the second one
    for name in [n for n in sys.modules if n == "torchvision" or n.startswith("torchvision.")]:
        del sys.modules[name]
    _library = torch.library.Library("torchvision", "FRAGMENT")
    for operator in _SCHEMAS:
        _library.define(operator + _ARGUMENTS)
    return importlib.import_module("torchvision")
