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


def files(report: Report) -> dict[str, str]:
    """{file name: text} of all that is written; the same logs give the same bytes."""
    shown = grids(report)
    return {
        "report.md": markdown(shown, report.logs.rejected, report.summary),
        **csv_files(frames(report)),
        "report.json": to_json(report),
        "report.html": page(report, shown, figures(report.logs.runs)),
    }


def write_report(report: Report, out: Path) -> Path:
    """Print the tables and write `files` into `out`. The path of the page. Raises WriteError."""
    for name, text in files(report).items():
        write_text(out / name, text)
    show(report)
    return out / "report.html"


def stdout() -> Console:
    """The terminal, or the pipe: one that has no ≥ gets a question mark for it."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    return Console(file=sys.stdout, highlight=False)


def show(report: Report) -> None:
    """Print the tables with their reasoning, and the summary."""
    console = stdout()
    terminal(console, grids(report), report.logs.rejected)
    console.print(f"\n{report.summary}", soft_wrap=True)
