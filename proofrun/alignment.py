"""The verdict on a device's arithmetic as a JSON file: `align.py` writes it, the report and launch
read it. Torch-free."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, ValidationError

from proofrun.bootstrap import ROOT
from proofrun.recipe import Strict
from proofrun.saved import file_hash
from proofrun.text import clean

#: Under the logs: for each network, data, precision and number of cards the newest, a quick one
#: apart, so that it takes the place of no longer one.
FOLDER = "align"

#: Traces of a trusted machine that are committed.
TRUSTED = ROOT / "reports" / "align"

#: Whose size and classes a replay takes without --data: every machine can run it.
DATA = "Digits"

_LARGEST = 10_000_000  # bytes of a file that can be a verdict


#: As a terminal and a page may have it, whoever wrote the file.
Text = Annotated[str, AfterValidator(clean)]


class Alignment(Strict):
    """One replay and what came of it. `nearest`: the largest share of a bound that was used;
    above 1 in an aligned one where a `remark` says of what, in how few steps."""

    schema_: Literal[1] = Field(alias="schema")
    recipe: Text
    data: Text
    precision: Text
    device: Text
    device_name: Text
    torch: Text
    ranks: int
    steps: int
    aligned: bool
    nearest: float
    finding: Text | None
    remark: Text | None = None
    trusted: Text
    trusted_sha256: Text
    t_wall: Annotated[float, Field(ge=0, lt=1e10)]

    def line(self) -> str:
        """What is known of the device, and where a missed claim on it is to be looked for."""
        steps = f"{self.steps} steps of {self.recipe} in {self.precision}"
        if self.aligned:
            remark = f" ({self.remark})" if self.remark else ""
            said = f"device aligned over {steps}{remark}"
            return f"{said}, {self._made}: a missed claim points to data or schedule"
        return (
            f"device misaligned in {steps} ({self.finding}), {self._made}: a missed claim points "
            "to the card"
        )

    @property
    def _made(self) -> str:
        day = time.strftime("%Y-%m-%d", time.gmtime(self.t_wall))
        ranks = f"{self.ranks} rank{'s' * (self.ranks > 1)}"
        against = f", against {self.trusted}, which is no trace of this checkout"
        return f"{day}, torch {self.torch}, {ranks}{'' if self.is_of_checkout else against}"

    @property
    def is_of_checkout(self) -> bool:
        """Whether the trusted trace is one of this checkout's."""
        own = TRUSTED / self.trusted
        return self.trusted == own.name and own.is_file() and file_hash(own) == self.trusted_sha256

    def outdoes(self, other: Alignment) -> bool:
        """Whether this looked at as much as `other`, and later."""
        weaker = self.steps < other.steps or self.ranks < other.ranks
        return not weaker and self.t_wall >= other.t_wall

    def write(self, path: Path) -> None:
        """Replaces an earlier one. Raises OSError."""
        partial = path.with_name(f".{path.name}.{os.getpid()}")
        partial.write_text(self.model_dump_json(by_alias=True, indent=1) + "\n", encoding="utf-8")
        partial.replace(path)


def read(path: Path) -> Alignment | None:
    """The verdict in a file, or None where there is none."""
    try:
        if path.stat().st_size < _LARGEST:
            return Alignment.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, ValidationError):
        pass
    return None


def read_all(logs: Path) -> tuple[list[Alignment], list[Path]]:
    """(every verdict under `<logs>/align/`, oldest first; the files there that are none)."""
    found = {path: read(path) for path in sorted((logs / FOLDER).glob("*.json"))}
    verdicts = [verdict for verdict in found.values() if verdict is not None]
    verdicts.sort(key=lambda verdict: verdict.t_wall)
    return verdicts, [path for path, verdict in found.items() if verdict is None]


def of_device(
    known: list[Alignment], recipe: str, precision: str, device: str, device_name: str
) -> list[Alignment]:
    """The verdicts on a device of this name, in this precision, by this network; oldest first."""
    asked = (recipe, precision, device, device_name)
    return [v for v in known if (v.recipe, v.precision, v.device, v.device_name) == asked]


def standing(verdicts: list[Alignment]) -> Alignment | None:
    """What holds of verdicts on one device, oldest first: the last.

    But no aligned one takes back a misaligned one that saw more steps or ranks.
    """
    aligned = [v for v in verdicts if v.aligned]
    bad = [v for v in verdicts if not v.aligned and not any(a.outdoes(v) for a in aligned)]
    return next(reversed(bad or verdicts), None)


def same_torch(one: str, other: str) -> bool:
    """Of one version, whatever it was built for: `2.13.0+cpu` and `2.13.0`."""
    return one.partition("+")[0] == other.partition("+")[0]


def trace_name(
    recipe: str,
    data: str,
    precision: str,
    device: str,
    ranks: int,
    quick: bool,
    elsewhere: bool = False,
) -> str:
    """Of the file in `FOLDER` that holds a replay; the verdict lies beside it as .json.

    `elsewhere`: held against a trace that is not where trusted ones are kept.
    """
    cards = f"{ranks}{device}{'s' * (ranks > 1)}"
    kind = "_against-another" * elsewhere + "_quick" * quick
    return f"{recipe}-{data}_{precision}_{cards}{kind}.npz"
