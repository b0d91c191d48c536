"""A comparison as tables for a terminal."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from .diff import Comparison, Finding
from .trace import Row, Trace

#: So many of the remarks are printed.
_REMARKS = 5


def headline(found: Comparison) -> str:
    if found.first is not None:
        return f"not aligned: {found.first.line()}"
    if found.remarks:
        return (
            f"aligned: {len(found.remarks)} of {len(found.places)} tensors left their bounds, none "
            f"of them step after step; the farthest: {found.remarks[0].line()}"
        )
    return f"aligned: no tensor of any step used more than {found.nearest:.0%} of its bound"


def show(console: Console, found: Comparison, trusted: Trace, other: Trace) -> None:
    """The verdict, where the traces part, and how many places are out step by step."""
    for name, trace in (("trusted", trusted), ("compared", other)):
        made = trace.header.made
        ranks = trace.header.exercise.ranks
        console.print(
            f"{name}: {made.precision} on {made.device} ({made.device_name}), torch {made.torch}, "
            f"{trace.steps} steps, {ranks} rank{'s' * (ranks > 1)}, {made.took_s:.0f} s",
            markup=False,
        )
    if found.lacking:
        console.print(_lacking(found.lacking), markup=False)
    if found.first is not None:
        console.print(_findings([found.first, *found.more]))
    if found.first is not None or found.remarks:
        console.print(_steps(found))
    remarks = found.remarks if found.aligned else []  # else they may follow from the fault
    for remark in remarks[:_REMARKS]:
        console.print(f"remark: {remark.line()}", markup=False)
    if len(remarks) > _REMARKS:
        console.print(f"and {len(remarks) - _REMARKS} more such remarks")
    colour = "green" if found.aligned else "red"
    console.print(f"[bold {colour}]{'aligned' if found.aligned else 'not aligned'}[/]", end="")
    console.print(headline(found).partition("aligned")[2], markup=False)


def _lacking(rows: list[Row]) -> str:
    names = ", ".join(row.name for row in rows[:3]) + ", …" * (len(rows) > 3)
    if len(rows) == 1:
        return f"1 tensor has no counterpart, as its layer was passed by ({names}): not compared"
    said = f"{len(rows)} tensors have no counterpart, as their layers were passed by"
    return f"{said} ({names}): not compared"


def _findings(findings: list[Finding]) -> Table:
    table = Table(title="where the traces part, in the order of the computation")
    for column in ("step", "direction", "what", "layer", "looks like", "times bound", "later"):
        table.add_column(column, overflow="fold")
    for f in findings:
        name = "" if f.place.name == f.place.kind else f.place.name
        rank = f" (rank {f.rank})" if f.rank else ""
        table.add_row(
            f"{f.step}{rank}", f.place.direction, f.place.kind, Text(name),
            Text(f"{f.look.sort}: {f.look.says}"), f"{f.excess:.3g}", f.over_steps,
        )  # fmt: skip
    return table


def _steps(found: Comparison) -> Table:
    table = Table(title="places out of bounds, by step")
    table.add_column("step", justify="right")
    directions = ("forward", "backward", "update")
    for direction in directions:
        total = sum(place.direction == direction for place in found.places)
        table.add_column(f"{direction} (of {total})", justify="right")
    out = (found.excess.max(axis=0) > 1).tolist()
    shown = sorted({*range(min(5, len(out))), *range(4, len(out), 5), len(out) - 1})
    for step in shown:
        cells = [
            str(sum(o for o, p in zip(out[step], found.places, strict=True)
                    if p.direction == direction))
            for direction in directions
        ]  # fmt: skip
        table.add_row(str(step), *cells)
    return table
