"""What `align.py` found of the devices that the rows were measured on."""

from __future__ import annotations

from collections.abc import Iterable

from proofrun.alignment import Alignment, of_device, same_torch, standing

from .read import Run
from .rows import Row, add_flag
from .standing import torch_of


def remark(rows: Iterable[Row], known: list[Alignment]) -> None:
    """Say beside the verdicts whether the device is aligned, where a replay is under the logs.

    One with another torch says so and flags nothing: its kernels are not those of the run. Nor does
    one against a trace that this checkout does not have: whoever made it is trusted by its maker.
    """
    for row in rows:
        on_it = of_device(known, row.model, row.precision, row.device, row.device_name)
        found = _standing(on_it, row.torch)
        if found is not None:
            row.notes.append(found.line())
            add_flag(row, _flag(found))
        elif (other := standing(on_it)) is not None:
            own = f"with torch {row.torch}" if row.torch else "with a torch that is not recorded"
            is_run = row.torch and same_torch(other.torch, row.torch)
            row.notes.append(other.line() if is_run else f"not of this run, {own}: {other.line()}")


def flags(runs: Iterable[Run], known: list[Alignment]) -> dict[str, str]:
    """{folder of a run: its device's flag}, of runs that are in no row."""
    found = {}
    for run in runs:
        plan = run.plan
        on_it = of_device(known, plan.recipe.name, plan.precision, plan.device, run.device_name)
        if (verdict := _standing(on_it, torch_of([run]))) is not None:
            found[run.folder] = _flag(verdict)
    return found


def _standing(on_it: list[Alignment], torch: str) -> Alignment | None:
    same = [v for v in on_it if torch and same_torch(v.torch, torch)]
    return standing([v for v in same if v.is_of_checkout])


def _flag(found: Alignment) -> str:
    return "device aligned" if found.aligned else "device misaligned"
