"""Arm I: a network from pixels to logits, as ours is run (proofrun.fuse), with a choice undone.

An arm whose logits are not those of the plain network is thrown out before anything is timed.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks.figures import Group
from benchmarks.steps import Precision
from benchmarks.turns import Arm, Cost, Stopwatch, Turns, measure, say
from proofrun.fuse import fused
from proofrun.models import build_model
from proofrun.recipe_yaml import load_recipe

#: Largest difference of a logit from the plain network's in FP32, over the largest of them (or 1).
WITHIN: dict[Precision, float] = {"FP32": 1e-3, "BF16": 5e-2}
#: Images of a window, at least.
IMAGES = 16
SIZE = 224  # pixels


def compare(
    recipe_dir: Path, precision: Precision, batch: int, turns: Turns, compiled: bool
) -> Group:
    """One network, in one precision and one batch size."""
    recipe = load_recipe(recipe_dir / "recipe.yaml")["ImageNet"]
    title = f"I: inference, {recipe.name}, {precision}, batch {batch}"
    say(title)
    torch.manual_seed(0)
    plain = build_model(recipe_dir, recipe.model, recipe.data.classes).eval()
    pixels = torch.randn(batch, 3, SIZE, SIZE)
    dtype = torch.bfloat16 if precision == "BF16" else torch.float32
    nchw, nhwc = torch.contiguous_format, torch.channels_last
    ways: dict[str, Callable[[], Callable[[], Tensor]]] = {
        "ours": lambda: _way(fused(plain), pixels, dtype, nhwc),
        "ours, again": lambda: _way(fused(plain), pixels, dtype, nhwc),
        "layout: NCHW": lambda: _way(fused(plain), pixels, dtype, nchw),
        "BatchNorm not fused": lambda: _way(plain, pixels, dtype, nhwc),
        "neither": lambda: _way(plain, pixels, dtype, nchw),
    }
    if compiled:
        ways["torch.compile"] = lambda: _way(fused(plain), pixels, dtype, nhwc, torch.compile)
    arms, thrown, shown = [], {}, {}
    notes = [f"{SIZE} px, {torch.get_num_threads()} threads"]
    with torch.inference_mode():
        expected = plain(pixels)
        for name, make in ways.items():
            start = time.monotonic()
            run = make()
            apart = float((run().float() - expected).abs().max() / expected.abs().max().clamp(1))
            shown[name] = f"{apart:.1e}"
            if name == "torch.compile":
                notes.append(f"compiling took {time.monotonic() - start:.0f} s")
            if not apart <= WITHIN[precision]:
                thrown[name] = f"logits {apart:.1e} from the plain network's"
            else:
                arms.append(Arm(name, partial(_window, run, batch)))
        rates, processor, more = measure(arms, turns)
    return Group(
        title, "from normalised pixels in memory to logits", "img/s", "ours", "ours, again", rates,
        [], thrown, {}, shown, [*notes, *more], processor,
    )  # fmt: skip


def _way(
    net: nn.Module,
    pixels: Tensor,
    dtype: torch.dtype,
    layout: torch.memory_format,
    change: Callable[[nn.Module], nn.Module] = lambda net: net,
) -> Callable[[], Tensor]:
    """A call of a copy of `net` in this type and layout."""
    given = pixels.to(dtype, memory_format=layout)
    laid = copy.deepcopy(net).to(dtype).to(memory_format=layout)  # type: ignore[call-overload]
    return partial(change(laid), given)


def _window(run: Callable[[], Tensor], batch: int) -> Cost:
    calls = max(1, IMAGES // batch)
    watch = Stopwatch()
    for _ in range(calls):
        run()
    return watch.window(calls * batch)
