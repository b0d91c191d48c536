"""Write a network in another form, and hold what was written against torch."""

from __future__ import annotations

import importlib.util
import io
import warnings
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor, nn

from proofrun.errors import Exit, ProofrunError
from proofrun.fuse import fused
from proofrun.models import build_model
from proofrun.pretrained import Loaded
from proofrun.weights import read_plain

Format = Literal["safetensors", "torch.export", "onnx"]
ONNX_OPSET = 18
ONNX_PACKAGES = ("onnx", "onnxscript", "onnxruntime")


class Check(NamedTuple):
    """What was written against torch, unfused, on the same images."""

    images: int
    same_top1: int
    max_error: float  # of the logits, absolute
    largest: float  # logit of torch, for scale

    @property
    def holds(self) -> bool:
        return self.same_top1 == self.images


def check_installed(to: Format) -> None:
    """Raises ProofrunError NOT_INSTALLED when the format needs packages that are not there."""
    missing = [name for name in ONNX_PACKAGES if importlib.util.find_spec(name) is None]
    if to == "onnx" and missing:
        raise ProofrunError(
            f"--to onnx needs {', '.join(missing)}: `python -m pip install -r "
            "requirements/export.txt -c requirements/constraints.txt`",
            Exit.NOT_INSTALLED,
        )


def write(to: Format, weights: Loaded, model: nn.Module, example: Tensor, path: Path) -> None:
    """`model` (eval mode, CPU) as one file. Input: float32 NCHW, normalised, any batch size."""
    if to == "safetensors":
        facts = {"origin": weights.origin, "network": weights.recipe.model.graph}
        tensors = {name: value.contiguous() for name, value in model.state_dict().items()}
        save_file(tensors, path, {**facts, "sha256_of_source": weights.sha256})
    elif to == "torch.export":
        program = torch.export.export(
            fused(model), (example[:2],), dynamic_shapes=({0: torch.export.Dim("batch")},)
        )
        torch.export.save(program, path)
    else:
        words = io.StringIO()  # the exporter tells of its steps
        with warnings.catch_warnings(), redirect_stdout(words), redirect_stderr(words):
            warnings.simplefilter("ignore")
            torch.onnx.export(
                fused(model),
                (example[:2],),
                str(path),
                input_names=["images"],
                output_names=["logits"],
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                opset_version=ONNX_OPSET,
                external_data=False,
                verbose=False,
            )


@torch.no_grad()
def check(
    to: Format, weights: Loaded, model: nn.Module, images: Tensor, path: Path, recipe_dir: Path
) -> Check:
    """Run the file on `images` and compare its logits with those of `model`."""
    expected = model(images).numpy()
    found = _run(to, weights, images, path, recipe_dir)
    return Check(
        images=len(images),
        same_top1=int((expected.argmax(1) == found.argmax(1)).sum()),
        max_error=float(np.abs(expected - found).max()),
        largest=float(np.abs(expected).max()),
    )


def _run(
    to: Format, weights: Loaded, images: Tensor, path: Path, recipe_dir: Path
) -> NDArray[np.float32]:
    logits: NDArray[np.float32]
    if to == "safetensors":
        again = build_model(recipe_dir, weights.recipe.model, weights.recipe.data.classes)
        again.load_state_dict(read_plain(path))
        logits = again.eval()(images).numpy()
    elif to == "torch.export":
        logits = torch.export.load(path).module()(images).numpy()
    else:
        import onnxruntime

        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        (logits,) = session.run(None, {"images": images.numpy()})
    return logits
