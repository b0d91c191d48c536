"""Write a network in another form, and hold what was written against torch."""

from __future__ import annotations

import io
import json
import math
import shlex
import sys
import warnings
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save as to_safetensors
from torch import Tensor, nn

from proofrun.bootstrap import ROOT
from proofrun.errors import Exit, ProofrunError, one_line
from proofrun.origins import USE, Use
from proofrun.pretrained import Loaded, load
from proofrun.recipe import Recipe

Format = Literal["safetensors", "torch.export", "onnx"]
ONNX_OPSET = 18
#: The extra file of a torch.export program with what it says of itself.
FACTS = "proofrun.json"


class Check(NamedTuple):
    """What was written against torch, unfused, on the same images."""

    images: int
    same_top1: int
    max_error: float  # of the logits, absolute
    largest: float  # logit of torch, for scale

    @property
    def holds(self) -> bool:
        return self.same_top1 == self.images and math.isfinite(self.max_error)


def check_installed(to: Format) -> None:
    """Raises ProofrunError NOT_INSTALLED when the format needs packages that are not there."""
    if to != "onnx":
        return
    try:  # imported, for each needs packages of its own
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        folder = ROOT / "requirements"
        needs = ["-r", str(folder / "export.txt"), "-c", str(folder / "constraints.txt")]
        raise ProofrunError(
            f"--to onnx: {one_line(error)}: `"
            f"{shlex.join([sys.executable, '-m', 'pip', 'install', *needs])}`",
            Exit.NOT_INSTALLED,
        ) from None


def pack(to: Format, weights: Loaded, model: nn.Module, net: nn.Module, example: Tensor) -> bytes:
    """`model` (eval mode, CPU), or `net`, the same fused, as the bytes of a file.

    Input: float32 NCHW, normalised, any batch size.
    """
    facts = _facts(weights)
    if to == "safetensors":
        tensors = {name: value.contiguous() for name, value in model.state_dict().items()}
        return to_safetensors(tensors, facts)
    if to == "torch.export":
        program = torch.export.export(
            net, (example[:2],), dynamic_shapes=({0: torch.export.Dim("batch")},)
        )
        buffer = io.BytesIO()
        torch.export.save(program, buffer, extra_files={FACTS: json.dumps(facts)})
        return buffer.getvalue()
    else:
        words = io.StringIO()  # the exporter tells of its steps
        with warnings.catch_warnings(), redirect_stdout(words), redirect_stderr(words):
            warnings.simplefilter("ignore")
            made = torch.onnx.export(
                net,
                (example[:2],),
                input_names=["images"],
                output_names=["logits"],
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                opset_version=ONNX_OPSET,
                verbose=False,
            )
        assert made is not None
        proto = made.model_proto
        for key, value in facts.items():
            proto.metadata_props.add(key=key, value=value)
        packed: bytes = proto.SerializeToString()
        return packed


def _facts(weights: Loaded) -> dict[str, str]:
    """What a file says of itself, in the metadata of its format."""
    recipe = weights.recipe
    use = Use(
        origin=weights.origin,
        options=recipe.model.options,
        normalize=recipe.data.normalize,
        bgr=weights.bgr,
    )
    return {
        "origin": weights.origin,
        "network": recipe.model.graph,
        "data": recipe.data.name,
        "protocol": recipe.data.eval[0].model_dump_json(),
        USE: use.model_dump_json(),
        "sha256_of_source": weights.sha256,
    }


@torch.no_grad()
def check(
    to: Format, model: nn.Module, images: Tensor, path: Path, recipe_dir: Path, recipe: Recipe
) -> Check:
    """Run the file on `images` and compare its logits with those of `model`.

    `recipe`: as published, without what the weights change in it.
    """
    expected = model(images).numpy()
    found = _run(to, images, path, recipe_dir, recipe)
    return Check(
        images=len(images),
        same_top1=int((expected.argmax(1) == found.argmax(1)).sum()),
        max_error=float(np.abs(expected - found).max()),
        largest=float(np.abs(expected).max()),
    )


def _run(
    to: Format, images: Tensor, path: Path, recipe_dir: Path, recipe: Recipe
) -> NDArray[np.float32]:
    logits: NDArray[np.float32]
    if to == "safetensors":  # as test.py and predict.py read it
        logits = load(path, recipe).build(recipe_dir)(images).numpy()
    elif to == "torch.export":
        logits = torch.export.load(path).module()(images).numpy()
    else:
        import onnxruntime

        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        (logits,) = session.run(None, {"images": images.numpy()})
    return logits
