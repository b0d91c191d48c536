"""What each way to run a network for inference is worth: fusing, layout, the compiler.

python -m benchmarks.inference [--size 224] [--rounds 7] [--batches 1 8 32] [--no-compile]
    [--out DIR]

Each round times every way once, in an order drawn anew; the ratios are to plain eager NCHW of the
same round: median, and the range over rounds. The compiler's own seconds stand beside them. All
logits are held against the plain ones first: a way that computes something else (more than 1e-3 of
the largest logit in FP32, 5e-2 in BF16) ends it with 1. Needs a C++ compiler.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from proofrun.fuse import fused
from proofrun.host import cpu_name
from proofrun.models import build_model
from proofrun.recipe_yaml import load_recipe

ROOT = Path(__file__).resolve().parent.parent
SECONDS = 1.5  # of one timing, but at least three calls
LIMIT = {torch.float32: 1e-3, torch.bfloat16: 5e-2}


class Way(NamedTuple):
    """A network, the layout of its input, and what making it took, in seconds."""

    run: Callable[[Tensor], Tensor]
    layout: torch.memory_format
    made_s: float


def ways(net: nn.Module, pixels: Tensor, compiled: bool) -> dict[str, Way]:
    """Every way, made and warmed up on `pixels`; the first is what the others are held against."""
    plain, last = torch.contiguous_format, torch.channels_last
    twin = fused(net)
    found = {
        "eager, NCHW": Way(net, plain, 0.0),
        "fused, NCHW": Way(twin, plain, 0.0),
        "fused, channels-last": Way(fused(net).to(memory_format=last), last, 0.0),  # type: ignore[call-overload]
    }
    if compiled:
        for name, layout in (("NCHW", plain), ("channels-last", last)):
            torch._dynamo.reset()
            made = torch.compile(fused(net).to(memory_format=layout), dynamic=False)  # type: ignore[call-overload]
            start = time.monotonic()
            made(pixels.contiguous(memory_format=layout))
            found[f"fused, compiled, {name}"] = Way(made, layout, time.monotonic() - start)
    return found


def rate(way: Way, pixels: Tensor) -> float:
    """Images per second."""
    given = pixels.contiguous(memory_format=way.layout)
    way.run(given)
    start, calls = time.monotonic(), 0
    while calls < 3 or time.monotonic() - start < SECONDS:
        way.run(given)
        calls += 1
    return calls * len(pixels) / (time.monotonic() - start)


def measure(
    net: nn.Module, dtype: torch.dtype, batch: int, size: int, rounds: int, compiled: bool
) -> list[str]:
    """Rows of the table. Raises ValueError for a way that computes something else."""
    torch.manual_seed(0)
    pixels = torch.randn(batch, 3, size, size).to(dtype)
    with torch.inference_mode():
        arms = ways(net.to(dtype), pixels, compiled)
        first = next(iter(arms))
        expected = arms[first].run(pixels).float()
        for name, way in arms.items():
            found = way.run(pixels.contiguous(memory_format=way.layout)).float()
            apart = float((found - expected).abs().max() / expected.abs().max().clamp(min=1))
            if not apart <= LIMIT[dtype]:
                raise ValueError(f"{name}: logits {apart:.1e} from the plain ones")
        rates: dict[str, list[float]] = {name: [] for name in arms}
        for _ in range(rounds):
            for name in random.sample(list(arms), len(arms)):
                rates[name].append(rate(arms[name], pixels))
    rows = []
    for name, seen in rates.items():
        ratios = [a / b for a, b in zip(seen, rates[first], strict=True)]
        spread = f"{min(ratios):.2f} … {max(ratios):.2f}"
        made = f"{arms[name].made_s:.0f} s" if arms[name].made_s else "–"
        rows.append(
            f"| {batch} | {name} | {statistics.median(seen):.1f} | "
            f"{statistics.median(ratios):.2f} ({spread}) | {made} |"
        )
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--no-compile", action="store_true")
    parser.add_argument("--out", type=Path, help="write inference.md into this folder")
    args = parser.parse_args()
    lines = [
        "# Ways to run the networks for inference",
        "",
        f"{time.strftime('%Y-%m-%d', time.gmtime())}, {cpu_name()}, {torch.get_num_threads()} "
        f"threads, torch {torch.__version__}, {args.size} px, {args.rounds} rounds: "
        "`python -m benchmarks.inference`.",
    ]
    print("\n".join(lines), flush=True)
    for model in ("googlenet", "inceptionv2"):
        folder = ROOT / "recipes" / model
        recipe = load_recipe(folder / "recipe.yaml")["ImageNet"]
        for dtype, name in ((torch.float32, "FP32"), (torch.bfloat16, "BF16")):
            block = [
                f"\n## {recipe.name}, {name}\n",
                "| batch | way | img/s | to eager NCHW (range) | made in |",
                "| --- | --- | --- | --- | --- |",
            ]
            for batch in args.batches:
                torch.manual_seed(0)
                net = build_model(folder, recipe.model, recipe.data.classes).eval()
                block += measure(net, dtype, batch, args.size, args.rounds, not args.no_compile)
            print("\n".join(block), flush=True)
            lines += block
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        (args.out / "inference.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
