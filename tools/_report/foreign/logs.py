"""Foreign runs with names: what the report takes from a file that is no log of ours."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from .formats import Format
from .read import read_file
from .run import ForeignRun


@dataclass(frozen=True, eq=False)
class ForeignLog:
    """One run of a foreign file. `part` counts from 1 where the file holds several."""

    file: str
    format: Format
    run: ForeignRun
    part: int
    parts: int
    empty_starts: int

    @property
    def name(self) -> str:
        """`timm.log`, or `timm.log (2 of 3)`."""
        return f"{self.file} ({self.part} of {self.parts})" if self.parts > 1 else self.file

    def at(self, *lines: int) -> str:
        """ "file:line" of a record."""
        return "; ".join(f"{self.file}:{line}" for line in lines)

    def fact(self, key: str) -> str:
        """What the log states, as text; "" where it does not."""
        found = self.run.facts.get(key)
        return "" if found is None else str(found.value)


class ForeignRead(NamedTuple):
    """`rejected` are (file, line, reason)."""

    logs: list[ForeignLog]
    rejected: list[tuple[str, int, str]]


def read_foreign(path: Path, shown: str) -> ForeignRead:
    """The runs of one file, called `shown` in the report. Never raises."""
    try:
        found = read_file(path)
    except OSError as error:
        return ForeignRead([], [(shown, 0, error.strerror or "cannot be read")])
    if found is None:
        return ForeignRead([], [])
    rejected = [(shown, line, reason) for line, reason in found.remarks + found.rejected]
    hidden = found.rejected_count - len(found.rejected)
    if hidden > 0:
        rejected.append((shown, 0, f"{hidden} more lines rejected"))
    if not found.runs:
        rejected.append((shown, 0, f"{found.format.title}: recognised, but no usable record in it"))
    logs = [
        ForeignLog(shown, found.format, run, part, len(found.runs), found.empty_starts)
        for part, run in enumerate(found.runs, 1)
    ]
    return ForeignRead(logs, rejected)
