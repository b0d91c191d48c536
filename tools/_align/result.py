"""The verdict on one device as a JSON file, for the report and the preflight. Torch-free."""

from __future__ import annotations

import hashlib
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field, ValidationError

from proofrun.bootstrap import ROOT
from proofrun.recipe import Strict

if TYPE_CHECKING:
    from .diff import Comparison
    from .trace import Trace


class Alignment(Strict):
    """One replay and what came of it. `nearest`: the largest share of a bound that was used."""

    schema_: Literal[1] = Field(alias="schema")
    recipe: str
    data: str
    precision: str
    device: str
    device_name: str
    torch: str
    ranks: int
    steps: int
    aligned: bool
    nearest: float
    finding: str | None
    trusted: str
    trusted_sha256: str
    t_wall: float

    def line(self) -> str:
        """`aligned, 20 steps` or the finding."""
        if self.aligned:
            return f"aligned over {self.steps} steps in {self.precision}"
        return f"misaligned in {self.precision}: {self.finding}"

    def points_to(self) -> str:
        """Where a missed claim on this device is to be looked for."""
        return "data or schedule" if self.aligned else "the card"


def write(path: Path, trusted_path: Path, trusted: Trace, other: Trace, found: Comparison) -> Path:
    """Write the verdict to `path`, replacing an earlier one. Returns `path`."""
    of, made = other.header.exercise, other.header.made
    verdict = Alignment(
        schema_=1,
        recipe=of.recipe,
        data=of.data,
        precision=made.precision,
        device=made.device,
        device_name=made.device_name,
        torch=made.torch,
        ranks=of.ranks,
        steps=min(trusted.steps, other.steps),
        aligned=found.aligned,
        nearest=min(found.nearest, 1e12),
        finding=found.first.line() if found.first else None,
        trusted=trusted_path.name,
        trusted_sha256=hashlib.sha256(trusted_path.read_bytes()).hexdigest(),
        t_wall=time.time(),
    )
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_text(verdict.model_dump_json(by_alias=True, indent=1) + "\n", encoding="utf-8")
    partial.replace(path)
    return path


def read_all(logs: Path) -> list[Alignment]:
    """Every verdict under `<logs>/align/`, oldest first; what is no verdict is left out."""
    found = []
    for path in sorted((logs / "align").glob("*.json")):
        try:
            found.append(Alignment.model_validate_json(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, ValidationError):
            continue
    return sorted(found, key=lambda verdict: verdict.t_wall)


def of_device(
    known: list[Alignment], recipe: str, precision: str, device: str, device_name: str
) -> Alignment | None:
    """The newest verdict on a device of this name, in this precision; of the recipe if there is."""
    fits = [
        v for v in known
        if (v.precision, v.device, v.device_name) == (precision, device, device_name)
    ]  # fmt: skip
    own = [v for v in fits if v.recipe == recipe]
    best = own or fits
    return best[-1] if best else None


def quick_command(run: str, logs: Path) -> tuple[list[str], dict[str, str]]:
    """The command that a preflight starts before run `run`, and what its environment adds.

    Exit code 0: aligned; 1: not; else the check itself could not be made.
    """
    line = [sys.executable, str(ROOT / "tools" / "align.py"), "replay", run, "--quick"]
    return line, {"PROOFRUN_LOGS": str(logs)}
