"""The verdict on a device's arithmetic as a JSON file: `align.py` writes it, the report and a
preflight read it. Torch-free."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from proofrun.bootstrap import ROOT
from proofrun.errors import printable
from proofrun.recipe import Strict

#: Under the logs: one file for each network, data, precision and number of cards, the newest.
FOLDER = "align"

_LARGEST = 10_000_000  # bytes of a file that can be a verdict

#: A preflight takes seconds; a card may compile for each shape first. Other nodes wait meanwhile.
QUICK_TIMEOUT_S = 120


class Alignment(Strict):
    """One replay and what came of it. `nearest`: the largest share of a bound that was used;
    above 1 in an aligned one where a `remark` says of what, in how few steps."""

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
    remark: str | None = None
    trusted: str
    trusted_sha256: str
    t_wall: float

    def line(self) -> str:
        """What is known of the device, and where a missed claim on it is to be looked for."""
        day = datetime.fromtimestamp(min(max(self.t_wall, 0), 4e9), UTC).date()
        ranks = f" on {self.ranks} ranks" * (self.ranks > 1)
        steps = f"{self.steps} steps of {self.recipe} in {self.precision}{ranks}"
        steps += f", {day}, torch {self.torch}, against {self.trusted}"
        if self.aligned:
            if self.remark:
                steps += f" ({self.remark})"
            return f"device aligned over {steps}: a missed claim points to data or schedule"
        return f"device misaligned in {steps} ({self.finding}): a missed claim points to the card"

    def write(self, path: Path) -> None:
        """Replaces an earlier one. Raises OSError."""
        partial = path.with_name(f".{path.name}.{os.getpid()}")
        partial.write_text(self.model_dump_json(by_alias=True, indent=1) + "\n", encoding="utf-8")
        partial.replace(path)


def read_all(logs: Path) -> list[Alignment]:
    """Every verdict under `<logs>/align/`, oldest first; what is no verdict is left out."""
    found = [read(path) for path in sorted((logs / FOLDER).glob("*.json"))]
    return sorted((verdict for verdict in found if verdict), key=lambda verdict: verdict.t_wall)


def read(path: Path) -> Alignment | None:
    """The verdict in a file; None for any other."""
    try:
        if path.stat().st_size >= _LARGEST:
            return None
        return Alignment.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, ValidationError):
        return None


def of_device(
    known: list[Alignment], recipe: str, precision: str, device: str, device_name: str
) -> Alignment | None:
    """The verdict on a device of this name in this precision; of the recipe if there is.

    Of those the newest, unless one of more steps or ranks found it misaligned.
    """
    asked = (precision, device, device_name)
    fits = [v for v in known if (v.precision, v.device, v.device_name) == asked]
    best = [v for v in fits if v.recipe == recipe] or fits
    if not best:
        return None
    last = best[-1]
    newest = {(v.steps, v.ranks): v for v in best}.values()
    against = [v for v in newest if v.steps >= last.steps and v.ranks >= last.ranks]
    return next((v for v in against if not v.aligned), last)


def quick_command(run: str, logs: Path) -> tuple[list[str], dict[str, str]]:
    """The command of a preflight before `run`, and what it adds to the environment.

    Its exit code is 0 where the device is aligned, 1 where it is not; any other says why the check
    could not be made.
    """
    line = [sys.executable, str(ROOT / "tools" / "align.py"), "replay", run, "--quick"]
    return line, {"PROOFRUN_LOGS": str(logs)}


def before(run: str, logs: Path) -> str:
    """Align one card before `run` and say in a line what came of it; the verdict is in the logs."""
    line, environment = quick_command(run, logs)
    began = time.time()
    try:
        done = subprocess.run(
            line,
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            errors="replace",
            timeout=QUICK_TIMEOUT_S,
        )
    except subprocess.TimeoutExpired:
        return f"alignment: not checked, no verdict after {QUICK_TIMEOUT_S} s"
    new = [verdict for verdict in read_all(logs) if verdict.t_wall >= began]
    if done.returncode in (0, 1) and new:
        return f"alignment: {printable(new[-1].line())}"
    said = (done.stderr.strip() or f"exit code {done.returncode}").splitlines()[-1]
    return f"alignment: not checked: {printable(said)}"
