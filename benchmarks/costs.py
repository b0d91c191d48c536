"""Start-up, saving, scaling from 1 to 2 processes, and a projection to 8 cards.

What runs here are the product's own launches and its own save; the projection is arithmetic.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from benchmarks import saving
from benchmarks.figures import (
    Group,
    Target,
    efficiency,
    paired_ratio,
    ring_all_reduce_s,
    spread,
)
from benchmarks.turns import Turns, say
from proofrun.recipe import Recipe
from proofrun.recipe_yaml import load_recipe

ROOT = Path(__file__).resolve().parent.parent

#: Seconds of a hop that do not depend on its size: *assumed*, for links between cards of a machine.
LATENCY_S = 20e-6
#: Bytes per second and direction between neighbours of a ring: *assumed*, a slow to a fast link.
LINKS = {"16 GB/s": 16e9, "50 GB/s": 50e9, "200 GB/s": 200e9}
#: Of a step, the share of the backward pass: two of three equal parts of arithmetic.
BACKWARD = 2 / 3


@contextmanager
def digits() -> Iterator[Path]:
    """The embedded data set in a folder that is gone afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "digits"
        _python(["tools/dataset.py", "prepare", "digits", "--dst", str(root)])
        yield root


def _python(arguments: list[str], **environment: str) -> None:
    subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, env={**os.environ, **environment},
        check=True, capture_output=True,
    )  # fmt: skip


def launch(run: str, data: Path, flags: list[str], **environment: str) -> tuple[float, list[Any]]:
    """(time.time() at the start, events) of a run by its script's own call."""
    with tempfile.TemporaryDirectory() as logs:
        start = time.time()
        _python(
            ["proofrun/launch.py", run, "--data", str(data), "--logs", logs, "--new", *flags],
            **environment,
        )
        (path,) = Path(logs).glob("*/*/events.jsonl")
        return start, [json.loads(line) for line in path.read_text().splitlines()]


def start_up(repeats: int) -> dict[str, Any]:
    """Seconds from calling launch to the end of the first step; the first call warms the caches."""
    say("start-up")
    seconds = []
    with digits() as data:
        for _ in range(repeats + 1):
            began, lines = launch(
                "Inceptionv2-Digits_FP32_6E_1CPU_Train", data, ["--throughput", "1"]
            )
            first = next(line for line in lines if line["kind"] == "train")
            seconds.append(first["t_wall"] - began)
    return {"first_call_s": seconds[0], "seconds": seconds[1:]}


def save(repeats: int) -> dict[str, Any]:
    """Seconds and bytes of a save of each network, see `benchmarks.saving`."""
    say("save")
    found: dict[str, Any] = {}
    for name in ("googlenet", "inceptionv2"):
        folder = ROOT / "recipes" / name
        recipe = load_recipe(folder / "recipe.yaml")["ImageNet"]
        with tempfile.TemporaryDirectory() as place:
            seconds, _, size = saving.measure(recipe, folder, Path(place), repeats)
        found[recipe.name] = {"seconds": seconds, "bytes": size}
    return found


def _rate(events: list[Any]) -> float:
    """Images per second of the windows after warm-up, as the report takes it."""
    windows = [e for e in events if e["kind"] == "train" and not e["warmup"]]
    return statistics.median(e["images"] / e["window_s"] for e in windows)


def scaling(turns: Turns, steps: int) -> tuple[Group, dict[str, Any]]:
    """1 and 2 processes of one thread each, by turns; and what the model says of the second."""
    say("scaling")
    rates: dict[str, list[float]] = {"1 process": [], "2 processes": [], "half of 2": []}
    one = {"OMP_NUM_THREADS": "1", "PROOFRUN_LOADER_THREADS": "1"}
    # synthetic pixels: the second process shall not wait for another's decoding
    flags = ["--throughput", str(steps), "--loader", "synthetic", "--set", "batch.per_card=32"]
    order = np.random.default_rng(turns.seed)
    with digits() as data:
        for block in range(turns.blocks):
            for ranks in order.permutation([1, 2]).tolist():
                run = f"GoogLeNet-Digits_FP32_10E_{ranks}CPU{'s' if ranks > 1 else ''}_Train"
                _, events = launch(run, data, flags, **one)
                rates[f"{ranks} process{'es' if ranks > 1 else ''}"].append(_rate(events))
            rates["half of 2"].append(rates["2 processes"][-1] / 2)
            say(f"block {block + 1} of {turns.blocks}")
    recipe = load_recipe(ROOT / "recipes/googlenet/recipe.yaml")["ImageNet"]
    classifier = 1024 * (recipe.data.classes - 10)  # the digits have 10 classes
    size = 4 * (recipe.model.parameters - classifier)
    exchange = all_reduce_s(size)
    step_s = 32 / spread(rates["1 process"]).median
    predicted = [efficiency(step_s, exchange, hidden) for hidden in (0.0, BACKWARD * step_s)]
    measured = paired_ratio(rates["half of 2"], rates["1 process"])
    group = Group(
        "Scaling: 1 to 2 processes on CPU", "GoogLeNet on synthetic digits, batch 32 a process, "
        "one thread a process, FP32", "img/s", "half of 2", None, rates,
        [Target("efficiency: the model, without overlap", "1 process", predicted[0])],
    )  # fmt: skip
    return group, {
        "gradient_bytes": size,
        "all_reduce_s": exchange,
        "step_s": step_s,
        "efficiency": [measured.median, measured.low, measured.high],
        "model_without_overlap": predicted[0],
        "model_with_overlap": predicted[1],
    }


def all_reduce_s(size: int, repeats: int = 20) -> float:
    """Seconds of one all-reduce of `size` bytes between 2 processes over gloo: the median."""
    with tempfile.NamedTemporaryFile(suffix=".json") as out:
        meeting = f"{out.name}.meet"
        mp.spawn(_exchange, (size, repeats, meeting, out.name), nprocs=2)
        Path(meeting).unlink(missing_ok=True)
        return float(json.loads(Path(out.name).read_text()))


def _exchange(rank: int, size: int, repeats: int, meeting: str, out: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
    tensor, seconds = torch.ones(size // 4), []
    for _ in range(repeats):
        dist.barrier()
        start = time.perf_counter()
        dist.all_reduce(tensor)
        seconds.append(time.perf_counter() - start)
    if rank == 0:
        Path(out).write_text(json.dumps(statistics.median(seconds)))
    dist.destroy_process_group()


def projection() -> list[dict[str, Any]]:
    """8 cards from the published rate of one: images per second by link, with and without overlap.

    Ring all-reduce of float32 gradients; nothing here was measured on cards.
    """
    recipe: Recipe = load_recipe(ROOT / "recipes/googlenet/recipe.yaml")["ImageNet"]
    one, eight = (
        next(c.value for c in recipe.claims if c.metric == "throughput" and c.cards == cards)
        for cards in (1, 8)
    )
    step_s = recipe.batch.on(1) / one
    rows = []
    for link, rate in LINKS.items():
        exchange = ring_all_reduce_s(4 * recipe.model.parameters, 8, rate, LATENCY_S)
        for overlap in (False, True):
            part = efficiency(step_s, exchange, BACKWARD * step_s * overlap)
            rows.append(
                {
                    "link": link,
                    "overlap": overlap,
                    "exchange_ms": 1000 * exchange,
                    "efficiency": part,
                    "images_per_s": 8 * one * part,
                    "published": eight,
                }
            )
    return rows
