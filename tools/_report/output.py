"""One report in all its forms: terminal, Markdown, CSV, HTML."""

from __future__ import annotations

import io
import sys
from pathlib import Path

from rich.console import Console

from .build import Report
from .curves import figures
from .grids import grids
from .page import page
from .render import markdown, terminal, write_csv, write_text
from .tables import frames
from .words import speaker, spoken, summary


def write_report(report: Report, out: Path, language: str = "en") -> Path:
    """Print the tables and write report.md, report.html and one CSV a table into `out`.

    `language`: en or zh, of the fixed words; CSV files are English. Returns the path of the page.
    Raises WriteError.
    """
    say = speaker(language)
    shown = [spoken(grid, say) for grid in grids(report)]
    said = summary(report.summary, say)
    write_text(out / "report.md", markdown(shown, report.logs.rejected, said, say))
    write_csv(out, frames(report))
    path = out / "report.html"
    write_text(path, page(report, shown, figures(report), out, say))
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # an ASCII terminal has no ≥
    console = Console(file=sys.stdout, highlight=False)
    terminal(console, shown, report.logs.rejected, say)
    console.print(f"\n{said}", soft_wrap=True)
    return path
