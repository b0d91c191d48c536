"""The table of all figures of foreign logs, and what they cannot tell."""

from __future__ import annotations

from collections.abc import Sequence

from proofrun.text import clean

from .. import units
from ..cells import NONE, Cell, Column, Grid, GridRow, Span, cell
from .figures import Figures, figures, off_the_end
from .logs import ForeignLog
from .rows import after, scope_text
from .run import EvalPoint


def foreign_grid(logs: Sequence[ForeignLog]) -> Grid:
    """Every figure of the logs of other systems, and what they cannot tell."""
    columns = (
        Column("Log", wrap=True),
        Column("Format"),
        Column("Epochs", True),
        Column("Evals", True),
        Column("Final top1 %", True),
        Column("top5 %", True),
        Column("Best top1 %", True),
        Column("Train loss", True),
        Column("img/s", True),
        Column("Of", wrap=True),
        Column("s/step", True),
        Column("Span, s", True),
        Column("Status"),
        Column("Cannot tell", wrap=True),
    )
    grid = Grid("foreign", "Logs of other systems", columns, optional=True)
    for log in logs:
        f = figures(log.run)
        labels = "" if f.first_label is None else f"{f.first_label} – {f.last_label}"
        best_at = after(f.best) if f.best else ""
        rate, loss = f.rate, f.last_train_loss
        cells = (
            cell(log.name),
            cell(log.format.title),
            (Span(str(f.epochs_trained)), Span(labels, muted=True)),
            cell(f.evals),
            (*_point(log, f.final, f.final.top1 if f.final else None), *_off(log, f)),
            _point(log, f.final, f.final.top5 if f.final else None),
            (*_point(log, f.best, f.best.top1 if f.best else None), Span(best_at, muted=True)),
            cell(f"{loss.value:.4f}", (log.at(*loss.lines),)) if loss else cell("n/a"),
            cell(f"{rate.median:,.2f}" if rate else "n/a"),
            cell(scope_text(rate.scope, log.run.cards) if rate else NONE),
            cell(f"{f.step_s:.4g}" if f.step_s is not None else NONE),
            cell(f"{f.span_s:,.1f}" if f.span_s is not None else "n/a"),
            cell(log.run.status or NONE),
            cell("; ".join(f"{what}: {why}" for what, why in log.format.lacks.items()) or NONE),
        )
        grid.rows.append(GridRow(cells))
        said = [f"{text} (line {line})" if line else text for text, line in log.run.remarks.items()]
        if log.empty_starts and log.part == 1:
            said.append(f"{log.empty_starts} more starts in this file came to no record")
        grid.reasons += [(log.name, None, clean(text)) for text in said]
    return grid


def _off(log: ForeignLog, found: Figures) -> Cell:
    said = off_the_end(log.run, found)
    return (Span(said, muted=True),) if said else ()


def _point(log: ForeignLog, point: EvalPoint | None, value: float | None) -> Cell:
    if point is None or value is None:
        return cell("n/a")
    return cell(units.number("accuracy3", value), (log.at(point.line),))
