"""One report in all its forms: terminal, Markdown, CSV, JSON, HTML."""

from __future__ import annotations

import io
import sys
from pathlib import Path

from rich.console import Console

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
    """Print the tables and write `files` into `out`. The path of the page. Raises WriteError."""
    for name, text in files(report, out, language).items():
        write_text(out / name, text)
    show(report, language)
    return out / "report.html"


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
