"""Terminal, Markdown and CSV, and the atomic writing of files."""

from __future__ import annotations

import html
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import pandas as pd
from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from proofrun.errors import WriteError
from proofrun.text import clean, csv_text

from .cells import Cell, Grid, GridRow
from .read import Rejected
from .verdict import Verdict
from .words import Say

_STYLE = {
    Verdict.REPRODUCED: "bold green",
    Verdict.NOT_REPRODUCED: "bold red",
    Verdict.INCONCLUSIVE: "bold yellow",
    Verdict.NA: "dim",
    Verdict.DIFFERENT_HARDWARE: "cyan",
}
REJECTED_SHOWN = 20


def write_text(path: Path, text: str) -> None:
    """Raises WriteError."""
    write_bytes(path, text.encode("utf-8", "replace"))


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file whole or not at all. Raises WriteError."""
    part = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(data)
        os.replace(part, path)
    except OSError as error:
        raise WriteError(
            f"cannot write {path}: {error.strerror}; choose another folder with --out"
        ) from None


def terminal(
    console: Console, grids: Sequence[Grid], rejected: Sequence[Rejected], say: Say
) -> None:
    """Print the tables with their reasoning. No cell is cut: too narrow a screen gets lists."""
    for grid in grids:
        if grid.key == "references" or (grid.optional and not grid.rows):
            continue
        console.print(Text(f"\n{grid.title}", style="bold"))
        if not grid.rows:
            console.print(Text(f"  {grid.empty}", style="dim"))
        else:
            _print_grid(console, grid.dense())
        for what, verdict, why in grid.reasons:
            said = f"{say(verdict)}: " if verdict else ""
            style = _STYLE[verdict] if verdict else "dim"
            line = Text.assemble("  ", (said, style), f"{what}: {why}", style="dim")
            console.print(line, soft_wrap=True)
    if rejected:
        console.print(Text(f"\n{_count(rejected, say)}", style="bold"))
        for entry in rejected[:REJECTED_SHOWN]:
            console.print(Text(f"  {entry.source}: {clean(entry.reason)}"), soft_wrap=True)
        if len(rejected) > REJECTED_SHOWN:
            console.print(
                f"  … {len(rejected) - REJECTED_SHOWN} {say('more in rejected_lines.csv')}"
            )


def _count(rejected: Sequence[Rejected], say: Say) -> str:
    lines = say("rejected line" if len(rejected) == 1 else "rejected lines")
    return f"{len(rejected)} {lines} {say('(the rest is used)')}"


def _text(cell: Cell) -> Text:
    lines = []
    for span in cell:
        style = _STYLE[span.verdict] if span.verdict else "dim" if span.muted else ""
        lines.append(Text(span.text, style=style))
    return Text("\n").join(lines)


def _print_grid(console: Console, grid: Grid) -> None:
    table = _table(grid)
    if not console.is_terminal:  # a file or a pipe has no width: every cell on one line
        console.width = max(console.width, _need(console, table).maximum)
    elif _need(console, table).minimum > console.width:
        grid, said = grid.without_constants()
        table = _table(grid)
        console.print(Text(f"  {said}"), soft_wrap=True)
        if _need(console, table).minimum > console.width:
            for row in grid.rows:
                _print_list(console, grid, row)
            return
    console.print(table)


def _need(console: Console, table: Table) -> Measurement:
    return Measurement.get(console, console.options.update(width=10_000), table)


def _table(grid: Grid) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, header_style="bold")
    for column in grid.columns:
        # A number is never broken; words may be.
        numeric = column.numeric
        justify: Literal["left", "right"] = "right" if numeric else "left"
        table.add_column(column.title, justify=justify, no_wrap=numeric, overflow="fold")
    for row in grid.rows:
        table.add_row(*(_text(cell) for cell in row.cells))
    return table


def _print_list(console: Console, grid: Grid, row: GridRow) -> None:
    """One row, a line for each column."""
    for column, cell in zip(grid.columns, row.cells, strict=True):
        for span in cell:
            if span.text:
                style = _STYLE[span.verdict] if span.verdict else ""
                line = Text.assemble(f"  {column.title}: ", (span.text, style))
                console.print(line, soft_wrap=True)
    console.print()


def markdown(grids: Sequence[Grid], rejected: Sequence[Rejected], summary: str, say: Say) -> str:
    """The whole report as Markdown, safe for any field."""
    parts = [f"# {say('Report')}", _md(summary)]
    for grid in grids:
        if not grid.rows and grid.optional:
            continue
        parts += [f"## {grid.title}", _md_table(grid.dense()) if grid.rows else grid.empty]
        if grid.reasons:
            said = [
                f"- {f'**{say(verdict)}** ' if verdict else ''}{_md(what)}: {_md(why)}"
                for what, verdict, why in grid.reasons
            ]
            parts.append("\n".join(said))
    if rejected:
        lines = [f"- `{clean(r.source).replace('`', '')}`: {_md(r.reason)}" for r in rejected]
        parts += [f"## {_count(rejected, say)}", "\n".join(lines)]
    return "\n\n".join(parts) + "\n"


def _md_table(grid: Grid) -> str:
    head = [column.title for column in grid.columns]
    rule = ["---:" if column.numeric else "---" for column in grid.columns]
    body = [
        ["<br>".join(_md(span.text) for span in cell) for cell in row.cells] for row in grid.rows
    ]
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, rule, *body])


def _md(text: str) -> str:
    escaped = html.escape(clean(text), quote=False)
    return re.sub(r"([\\|`*\[\]])", r"\\\1", escaped)


def csv_files(frames: dict[str, pd.DataFrame]) -> dict[str, str]:
    """{file name: text} for each table; an empty table has its header only."""
    return {f"{name}.csv": _csv(frame) for name, frame in frames.items()}


def _csv(frame: pd.DataFrame) -> str:
    texts = {
        str(name): pd.Series([csv_text(value) for value in column], frame.index, object)
        for name, column in frame.items()
        if not pd.api.types.is_numeric_dtype(column)
    }
    return frame.assign(**texts).to_csv(index=False, lineterminator="\n")
