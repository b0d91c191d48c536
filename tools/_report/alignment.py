"""What `align.py` found of the devices that the rows were measured on."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from proofrun.alignment import of_device, read_all, same_torch, standing

from .rows import Row, add_flag


def remark(rows: Iterable[Row], logs: Path) -> None:
    """Say beside the verdicts whether the device is aligned, where a replay is under the logs.

    One with another torch says so and flags nothing: its kernels are not those of the run.
    """
    known = read_all(logs)
    for row in rows:
        on_it = of_device(known, row.model, row.precision, row.device, row.device_name)
        found = standing([v for v in on_it if row.torch and same_torch(v.torch, row.torch)])
        if found is not None:
            row.notes.append(found.line())
            add_flag(row, "device aligned" if found.aligned else "device misaligned")
        elif (other := standing(on_it)) is not None:
            own = f"with torch {row.torch}" if row.torch else "with a torch that is not recorded"
            row.notes.append(f"not of this run, {own}: {other.line()}")
