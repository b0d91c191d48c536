"""What stands against a run: other or changed data, a world that changed, repeats that are missing.

Such a run keeps its row and its numbers, flagged; claims that it cannot answer are n/a.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from proofrun.events import RunStart

from .checkout import deciding, recipe_here
from .differences import differences
from .read import Logs, Run

WORLD, CHANGED, OTHER = "world changed", "data changed", "other data"
MISSING, PLAN, LOSS = "lines missing", "recipe.yaml changed", "loss is not finite"
RECIPE, CLAIMS = "other recipe than here", "other claims than here"
SHOWN = 12  # digits of a fingerprint


class Data(NamedTuple):
    """What a run's provenance says of its data; "" where an older log says nothing."""

    fingerprint: str
    identity: str
    changed: bool


def data_of(run: Run) -> Data:
    """Of the last process; `changed` if any process says so, or two saw different data."""
    told = [_data(start) for start, _ in run.of(RunStart)]
    last = told[-1] if told else Data("", "", False)
    prints = {each.fingerprint for each in told} - {""}
    return last._replace(changed=len(prints) > 1 or any(each.changed for each in told))


def _data(start: RunStart) -> Data:
    facts = start.provenance.get("data")
    if not isinstance(facts, dict):
        return Data("", "", False)
    words = (facts.get("fingerprint"), facts.get("identity"))
    fingerprint, identity = (word if isinstance(word, str) else "" for word in words)
    return Data(fingerprint, identity, bool(facts.get("changed")))


def torch_of(runs: Sequence[Run]) -> str:
    """The version that all processes of these runs record; "" where there is no such one."""
    packages = [start.provenance.get("packages") for run in runs for start, _ in run.of(RunStart)]
    found = {p.get("torch") if isinstance(p, dict) else None for p in packages}
    (version,) = found if len(found) == 1 else ("",)
    return version if isinstance(version, str) else ""


#: What of a recipe decides what is trained.
_TRAINING = {"model", "optimizer", "schedule", "batch", "loss", "precision"}
_DATA = {"name", "classes", "train_images", "val_images", "train", "normalize"}


@functools.lru_cache(maxsize=512)
def other_recipe(run: Run) -> str:
    """Where a run without overrides was not trained as recipes/ here say, or "".

    A network that this checkout does not have is compared with nothing.
    """
    here = recipe_here(run.plan.recipe)
    if here is None or run.plan.overrides:
        return ""
    one, two = (
        recipe.model_dump(mode="json", include=_TRAINING)
        | recipe.data.model_dump(mode="json", include=_DATA)
        for recipe in (here, run.plan.recipe)
    )
    return "; ".join(map(str, itertools.islice(differences(one, two), 3)))


@functools.lru_cache(maxsize=512)
def other_claims(run: Run) -> str:
    """Where the claims that a run carries are not those of recipes/ here, or "".

    How sure a claim is (the prior spread) may differ.
    """
    here = recipe_here(run.plan.recipe)
    if here is None:
        return ""
    one, two = (
        [{k: v for k, v in claim.items() if k != "prior_spread"} for claim in deciding(recipe)]
        for recipe in (here, run.plan.recipe)
    )
    return "; ".join(map(str, itertools.islice(differences(one, two, "claims"), 3)))


def worlds(run: Run) -> list[tuple[int, int]]:
    """(cards of all nodes, nodes) of the processes that count, each once, in order."""
    return list(dict.fromkeys((start.world_size, start.nodes) for start, _ in run.of(RunStart)))


def flags(run: Run) -> list[str]:
    """The words for a row."""
    data = data_of(run)
    other = data.identity not in ("", run.plan.recipe.data.name)
    against = {
        WORLD: len(worlds(run)) > 1,
        CHANGED: data.changed,
        OTHER: other,
        MISSING: bool(run.log.missing or run.damaged),
        PLAN: bool(run.changed),
        LOSS: not np.isfinite(run.windows.loss).all(),
        RECIPE: bool(other_recipe(run)),
        CLAIMS: bool(other_claims(run)),
    }
    return [flag for flag, applies in against.items() if applies]


def bars(run: Run, timed: bool) -> str:
    """Why no claim is judged on the run, or "". `timed`: a claim of speed, or of a state in time.

    Accuracy stands a changed world as long as the global batch stayed.
    """
    data, against = data_of(run), flags(run)
    if OTHER in against:
        return f"not judged, other data: {data.identity}, claimed for {run.plan.recipe.data.name}"
    if CHANGED in against:
        return "not judged, data changed: not what the run, or one before it, was started with"
    if MISSING in against:
        return f"not judged, lines missing from its log: {run.damaged or run.log.missing}"
    if PLAN in against:
        return f"not judged, recipe.yaml is not what the log says: {', '.join(run.changed)}"
    if LOSS in against and not np.isfinite(run.windows.loss[-1]):
        return "not judged, the loss is not finite at the end"
    if RECIPE in against:
        return f"not judged, not the recipe of this checkout: {other_recipe(run)}"
    if CLAIMS in against:
        return f"not judged, not the claims of this checkout: {other_claims(run)}"
    if WORLD not in against:
        return ""
    seen = " -> ".join(f"{cards} card{'s' * (cards != 1)}" + f" on {nodes} nodes" * (nodes > 1)
                       for cards, nodes in worlds(run))  # fmt: skip
    batches = list(dict.fromkeys(start.global_batch for start, _ in run.of(RunStart)))
    if timed:
        return f"not judged, world changed: {seen}"
    if len(batches) > 1:
        return f"not judged, world changed: global batch {' -> '.join(map(str, batches))}"
    return ""


def on_different_data(runs: Sequence[Run]) -> str:
    """The remark on repeats whose data are not known to be the same, or ""."""
    prints = {run: data_of(run).fingerprint for run in runs}
    if len(set(prints.values())) < 2:
        return ""
    told = "; ".join(f"{run.folder}: {found[:SHOWN] or 'not recorded'}"
                     for run, found in prints.items())  # fmt: skip
    known = len(set(prints.values()) - {""})
    said = "differ" if known > 1 else "are not known to be equal"
    return f"fingerprints of the data {said} between repeats: {told}"


def missing_numbers(logs: Logs) -> dict[str, str]:
    """{folder of a run's name: remark}, where its numbers from 001 on have gaps.

    A folder that is there and cannot be read is no gap: it is among the rejected.
    """
    there = [run.folder for run in logs.runs]
    there += [str(Path(rejected.file).parent) for rejected in logs.rejected]
    found: dict[str, set[int]] = {}
    for folder in map(Path, there):
        if folder.name.isdecimal():
            found.setdefault(str(folder.parent), set()).add(int(folder.name))
    remarks = {}
    for parent, numbers in found.items():
        gaps = [f"{n:03d}" for n in range(1, min(max(numbers), 10_000)) if n not in numbers]
        if gaps:
            listed = ", ".join(gaps[:20]) + (f" and {len(gaps) - 20} more" if gaps[20:] else "")
            remarks[parent] = (
                f"{parent}: {listed} missing before {max(numbers):03d}: what was left out could "
                "change the mean and the verdict"
            )
    return remarks
