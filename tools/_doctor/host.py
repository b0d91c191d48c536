"""Cards, cores, memory and disk of this machine; the data sets; what can be run here."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil

from proofrun import bootstrap, device, preflight
from proofrun.data import fingerprint
from proofrun.data.identity import described, published
from proofrun.errors import DataError, one_line
from proofrun.host import cpu_has_bf16, cpu_name, usable_cores
from proofrun.recipe import Data, Recipe
from proofrun.recipe_yaml import load_recipe
from proofrun.runs import RunName

from .page import Line

_MIB = 1 << 20
_MEMORY_A_RANK = 1 << 30  # a rank of the rehearsal of GoogLeNet took 840 MiB on a CPU


def check(run: RunName, recipe: Recipe, logs: Path) -> Iterator[Line]:
    """Lines on the machine."""
    yield from _cards(run)
    yield from _processor(run)
    need = preflight.COLLECTIVE_BYTES * run.cards if run.device != "CPU" and run.cards > 1 else 0
    free = preflight.free_bytes(preflight.SHARED_MEMORY)
    yield Line(
        "Machine",
        str(preflight.SHARED_MEMORY),
        "good" if free >= max(need, _MIB) else "bad",
        f"{free // _MIB:,} MiB free, {need // _MIB} needed",
        "enlarge it: docker/run.sh --shm SIZE, or mount -o remount,size=SIZE",
    )
    folder = logs
    while not folder.exists():
        folder = folder.parent
    need = preflight.checkpoint_bytes(recipe)
    free = preflight.free_bytes(folder)
    yield Line(
        "Machine",
        "disk for logs",
        "good" if free >= need and os.access(folder, os.W_OK) else "bad",
        f"{folder}: {free // _MIB:,} MiB free, {need // _MIB:,} needed by the checkpoints",
        "free space, or set PROOFRUN_LOGS to a folder that can be written",
    )


def _cards(run: RunName) -> Iterator[Line]:
    for kind, backend in device.BACKENDS.items():
        count = device.cards_on_host(kind)
        if count is None:
            continue
        needed = run.cards if run.device == kind else 0
        narrowed = f", {backend.visible} is set" if os.environ.get(backend.visible or "") else ""
        state = "absent" if not count else "good"
        yield Line(
            "Machine",
            f"{kind} cards",
            "bad" if count < needed else state,  # type: ignore[arg-type]
            f"{count} by {' '.join(backend.nodes)}{narrowed}",
            f"load the driver ({run} needs {needed}), or choose a run below",
        )


def _processor(run: RunName) -> Iterator[Line]:
    cores = usable_cores()
    enough = cores >= run.cards
    yield Line(
        "Machine",
        "cores",
        "good" if enough else "odd",
        cpu_name(),
        f"{run.cards} ranks share {cores} cores: it will be slow",
    )
    for name in ("OMP_NUM_THREADS", "PROOFRUN_LOADER_THREADS"):
        if value := os.environ.get(name):
            yield Line("Machine", name, "odd", value, "unset it, and launch shares the cores out")
    bf16 = cpu_has_bf16()
    wants = run.device == "CPU" and run.precision in ("AMP", "BF16")
    yield Line(
        "Machine",
        "bf16 on the CPU",
        "good" if bf16 else ("odd" if wants else "absent"),
        "native" if bf16 else "emulated",
        "AMP will be slower than FP32 here",
    )
    memory = psutil.virtual_memory()
    need = run.cards * _MEMORY_A_RANK
    yield Line(
        "Machine",
        "memory",
        "good" if memory.available >= need else "odd",
        f"{memory.available // _MIB:,} of {memory.total // _MIB:,} MiB available",
        f"{run.cards} ranks take about {need // _MIB:,} MiB",
    )


def check_data(run: RunName, logs: Path, given: Path | None) -> Iterator[Line]:
    """A line for each data set: where env.sh points, what is there, and its fingerprint."""
    for name, data in published(bootstrap.ROOT / "recipes").items():
        needed = name == run.data
        try:
            root = preflight.data_dir(name, str(given) if needed and given else None)
            yield Line("Data", name, "good", f"{root}: {_state(root, data, logs)}")
        except DataError as error:
            what, _, todo = one_line(error).partition("; ")
            yield Line("Data", name, "bad" if needed else "absent", what, todo)


def _state(root: Path, data: Data, logs: Path) -> str:
    """Counts of a good set and what is known of its content; as launch does. Raises DataError.

    Data without a fingerprint is not read: that may take long, and is the first launch's.
    """
    cache = preflight.cache_dir(logs)
    lists = preflight.check_lists(root, data)
    counts = ", ".join(f"{len(images.files)} {split}" for split, images in lists.items())
    known = fingerprint.load(root, cache)
    if known is None:
        return f"{counts} images, no fingerprint yet"
    taken = time.strftime("%Y-%m-%d %H:%M", time.localtime(known.taken))
    paths = sorted(name for images in lists.values() for name in images.files)
    touched = len(paths)
    if paths == known.paths:
        touched = int(np.any(fingerprint.observe(root, paths) != known.stats, axis=1).sum())
    seen = preflight.check_content(root, data, lists, cache)
    since = (
        f"{touched} files were touched since, and are the same" if touched else "untouched since"
    )
    name = f"{seen.fingerprint[:12]} ({described(seen.identity)})"
    return f"{counts} images, fingerprint {name} of {taken}; {since}"


def check_runs() -> Iterator[Line]:
    """Every declared run whose cards this host has."""
    for path in sorted((bootstrap.ROOT / "recipes").glob("*/recipe.yaml")):
        for recipe in load_recipe(path).values():
            for run in recipe.runs:
                name = RunName.parse(run)
                count = device.cards_on_host(name.device)
                if count is None or count >= name.cards:
                    yield Line("Can run here", "", "good", f"bash run_scripts/{run}.sh")
