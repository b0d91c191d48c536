"""One report in all its forms: terminal, Markdown, CSV, HTML."""

from __future__ import annotations

import sys
from pathlib import Path

from rich.console import Console

from .build import Report
from .grids import grids
from .page import page
from .render import markdown, terminal, write_csv, write_text
from .tables import frames


class _Console(Console):
    def on_broken_pipe(self) -> None:
        raise BrokenPipeError  # `| head` is no failure


def write_report(report: Report, out: Path) -> Path:
    """Print the tables and write report.md, report.html and one CSV a table into `out`.

    Returns the path of the page. Raises WriteError.
    """
    shown = grids(report)
    on_screen = [grid for grid in shown if grid.key != "references"]
    if not report.others:
        on_screen = [grid for grid in on_screen if grid.key != "others"]
    write_text(out / "report.md", markdown(shown, report.logs.rejected, report.summary))
    write_csv(out, frames(report))
    path = out / "report.html"
    write_text(path, page(report, shown))
    console = _Console(file=sys.stdout, highlight=False)
    terminal(console, on_screen, report.logs.rejected)
    console.print(f"\n{report.summary}", soft_wrap=True)
    return path
