"""One report in all its forms: terminal, Markdown, CSV, JSON, HTML."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Iterable
from pathlib import Path

from rich.console import Console

from proofrun.errors import UsageError

from .build import Report
from .curves import figures
from .document import to_json
from .grids import grids
from .page import page
from .render import csv_files, markdown, terminal, write_text
from .tables import frames
from .words import speaker, spoken, summary


def files(report: Report, out: Path, language: str = "en") -> dict[str, str]:
    """{file name: text} of all that is written into `out`; the same logs give the same bytes.

    `language`: en or zh, of the fixed words; CSV and JSON are English.
    """
    say = speaker(language)
    shown = [spoken(grid, say) for grid in grids(report)]
    said = summary(report.summary, say)
    return {
        "report.md": markdown(shown, report.logs.rejected, said, say),
        **csv_files(frames(report)),
        "report.json": to_json(report),
        "report.html": page(report, shown, figures(report), out, say),
    }


def write_report(report: Report, out: Path, language: str = "en") -> Path:
    """Print the tables and write `files` into `out`. The path of the page.

    Raises WriteError, and UsageError where `out` holds files of these names that are none of ours.
    """
    made = files(report, out, language)
    _refuse_to_overwrite(out, made)
    for name in sorted(made, key=lambda name: name != "report.json"):  # first: it says whose all is
        write_text(out / name, made[name])
    show(report, language)
    return out / "report.html"


def _refuse_to_overwrite(out: Path, names: Iterable[str]) -> None:
    there = [name for name in names if os.path.lexists(out / name)]
    if there and not _is_ours(out / "report.json"):
        raise UsageError(
            f"{out}: holds {there[0]} and no report of ours, so nothing is overwritten; choose "
            "another folder with --out"
        )


def _is_ours(path: Path) -> bool:
    """Whether a file is a report.json as `document` writes it."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(found, dict) and {"schema", "summary", "judgements", "tables"} <= set(found)


def stdout() -> Console:
    """The terminal, or the pipe: one that has no ≥ gets a question mark for it."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    return Console(file=sys.stdout, highlight=False)


def show(report: Report, language: str = "en") -> None:
    """Print the tables with their reasoning, and the summary."""
    console, say = stdout(), speaker(language)
    shown = [spoken(grid, say) for grid in grids(report)]
    terminal(console, shown, report.logs.rejected, say)
    console.print(f"\n{summary(report.summary, say)}", soft_wrap=True)
