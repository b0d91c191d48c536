"""One table as HTML, with its reasoning. Every field from a log is escaped."""

from __future__ import annotations

import re
from html import escape
from itertools import takewhile

from proofrun.text import clean

from .cells import Cell, Column, Grid, Span
from .evidence import Evidence
from .verdict import Verdict
from .words import Say


def t(text: object) -> str:
    """Text for HTML, in elements and in quoted attributes."""
    return escape(clean(text))


def verdict_class(verdict: Verdict) -> str:
    return f"v-{verdict.value.replace(' ', '-').replace('/', '-')}"


def chip(verdict: Verdict, text: str) -> str:
    return f'<span class="chip {verdict_class(verdict)}">{t(text)}</span>'


def section(grid: Grid, evidence: Evidence, say: Say) -> str:
    """The table, or what is said of an empty one, with its reasoning folded below."""
    parts = [f'<section id="{grid.key}">', f"<h2>{t(grid.title)}</h2>"]
    parts.append(
        _table(grid.dense(), evidence) if grid.rows else f"<p class=empty>{t(grid.empty)}</p>"
    )
    if grid.reasons:
        parts.append(f"<details><summary>{say('Reasoning')} ({len(grid.reasons)})</summary><ul>")
        parts += [
            f"<li>{chip(verdict, say(verdict.value)) if verdict else ''} <b>{t(what)}</b>: "
            f"{t(why)}</li>"
            for what, verdict, why in grid.reasons
        ]
        parts.append("</ul></details>")
    return "\n".join([*parts, "</section>"])


def _table(grid: Grid, evidence: Evidence) -> str:
    head = "".join(
        f'<th scope="col"{" class=num" if column.numeric else ""}>{t(column.title)}</th>'
        for column in grid.columns
    )
    rows = []
    for index, row in enumerate(grid.rows):
        below = list(takewhile(lambda r: r.continued, grid.rows[index + 1 :]))
        cells = []
        for i, column in enumerate(grid.columns):
            if row.continued and _blank(row.cells[i]):
                continue  # covered by the cell above
            tall = len(below) + 1 if below and all(_blank(r.cells[i]) for r in below) else 1
            cells.append(_cell(row.cells[i], column, 1 if row.continued else tall, evidence))
        rows.append(f"<tr{' class=continued' if row.continued else ''}>{''.join(cells)}</tr>")
    body = "\n".join(rows)
    return (
        f"<div class=scroll><table>\n<thead><tr>{head}</tr></thead>\n"
        f"<tbody>\n{body}\n</tbody></table></div>"
    )


def _blank(cell: Cell) -> bool:
    return not any(span.text for span in cell)


def _cell(cell: Cell, column: Column, rows: int, evidence: Evidence) -> str:
    names = ["num"] * column.numeric + ["wrap"] * column.wrap
    attributes = f' class="{" ".join(names)}"' if names else ""
    attributes += f' rowspan="{rows}"' if rows > 1 else ""
    spans = [_span(span, evidence) for span in cell]
    inner = "".join(map(breakable, spans) if column.wrap else map(_bound_together, spans))
    # The wrapper keeps the lines of a cell together where rows become lists on a phone.
    return f'<td{attributes} data-label="{t(column.title)}"><div>{inner}</div></td>'


def _bound_together(markup: str) -> str:
    """`1 card ≥ 1,600 img/s` may break before its sign only, where paper is narrow."""
    return re.sub(r"([≥≤=]) ([\d,.]+) (?=[%i])", r"\1&nbsp;\2&nbsp;", markup)


def breakable(markup: str) -> str:
    """A run's name is one long word that may break at its joints; `n = 1` may not."""
    return re.sub(r"_(?=[^<>]*<)", "_<wbr>", markup).replace("n = ", "n&nbsp;=&nbsp;")


def _span(span: Span, evidence: Evidence) -> str:
    names = ["muted"] * span.muted
    if span.verdict:
        names += ["chip", verdict_class(span.verdict)]
    attributes = f' class="{" ".join(names)}"' if names else ""
    attributes += f' title="{t(span.why)}"' if span.why else ""
    return f"<span{attributes}>{evidence.link(span.text, span.sources)}</span>"
