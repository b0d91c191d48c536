"""What `align.py` found of the devices that the rows were measured on."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from proofrun.alignment import of_device, read_all

from .rows import Row, add_flag


def remark(rows: Iterable[Row], logs: Path) -> None:
    """Say beside the verdicts whether the device is aligned, where a replay is under the logs."""
    known = read_all(logs)
    for row in rows:
        found = of_device(known, row.model, row.precision, row.device, row.device_name)
        if found is not None:
            row.notes.append(found.line())
            add_flag(row, "device aligned" if found.aligned else "device misaligned")
