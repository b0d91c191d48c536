"""The self-contained page: verdict cards, tables, curves. Every field from a log is escaped."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from html import escape
from itertools import takewhile
from pathlib import Path

from . import plots, units
from .build import Report
from .cells import SYMBOL, Cell, Column, Grid, Span, claim_name, clean, conditions
from .curves import Figure
from .verdict import Judgement, Verdict

# Nothing may load, whatever a log smuggles in.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
_RULE = (
    "d is measured minus claimed, positive is better; the margin is q·s·√(1 + 1/n): s is the "
    "spread of at least 3 repeats with q of Student's t, or a known one (the row is marked n = 1 "
    "or n = 2) with q = 1.645. Reproduced: d ≥ −tolerance + margin. Not reproduced: d < −tolerance "
    "− margin. Inconclusive: in between, or no known s. A false verdict of either kind is at most "
    "5 % likely. "
    "Accuracy needs equal data, protocol, epochs, global batch and precision, as far as the claim "
    "states them; speed and marks also need the claim's hardware, else they are compared only. "
    "Missing is n/a, never a pass."
)
REJECTED_SHOWN = 500


def page(report: Report, grids: Sequence[Grid], figures: Sequence[Figure]) -> str:
    """The whole page as one string."""
    tables = [
        grid
        for grid in grids
        if grid.rows or grid.key not in ("references", "others", "foreign", "claims")
    ]
    style = (Path(__file__).parent / "style.css").read_text(encoding="utf-8")
    body = [
        f"<header><h1>proofrun report</h1><p class=muted>{_t(report.summary)}</p></header>",
        _cards(report),
        *(_section(grid) for grid in tables[:3]),
        _curves(figures),
        *(_section(grid) for grid in tables[3:]),
        _provenance(report),
        _rejected(report),
        f"<footer class=muted><p>{_t(_RULE)}</p><p>Dotted numbers know the log lines they come "
        "from: hold the pointer over them.</p></footer>",
    ]
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{escape(_POLICY)}">\n'
        f"<title>proofrun report</title>\n<style>\n{style}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(part for part in body if part)
        + "\n</main>\n</body>\n</html>\n"
    )


def _t(text: object) -> str:
    return escape(clean(text))


def _chip(verdict: Verdict, text: str) -> str:
    name = verdict.value.replace(" ", "-").replace("/", "-")
    return f'<span class="chip v-{name}">{_t(text)}</span>'


def _cards(report: Report) -> str:
    cards = [_card(conditions(row), j) for row in report.rows for j in row.judgements]
    if not cards:
        return "<p class=empty>No claim applies to these runs, so there is no verdict.</p>"
    return f"<ul class=cards>\n{chr(10).join(cards)}\n</ul>"


def _card(where: str, judgement: Judgement) -> str:
    claim, verdict = judgement.claim, judgement.verdict
    label = "" if claim.label == "published" else f" · {_t(claim.label)}"
    value = units.quantity(claim.metric, judgement.estimate.value)
    bound = units.bound(claim.metric, claim.direction, claim.value)
    source = _t("; ".join(judgement.estimate.sources))
    return (
        f'<li class=card title="{_t(judgement.reason)}">'
        f"{_chip(verdict, f'{SYMBOL[verdict]} {verdict}')}"
        f'<div class=big data-src="{source}">{_t(value)}</div>'
        f"<div>{_t(claim_name(judgement))} claimed {_t(bound)}{label}</div>"
        f"{_breakable(f'<div class=sub>{_t(where)}</div>')}</li>"
    )


def _section(grid: Grid) -> str:
    shown = grid.dense()
    parts = [f'<section id="{grid.key}">', f"<h2>{_t(grid.title)}</h2>"]
    if grid.rows:
        parts.append(_table(shown))
    else:
        parts.append(f"<p class=empty>{_t(grid.empty)}</p>")
    if grid.reasons:
        parts.append(f"<details><summary>Reasoning ({len(grid.reasons)})</summary><ul>")
        parts += [
            f"<li>{_chip(verdict, verdict.value) if verdict else ''} <b>{_t(what)}</b>: {_t(why)}"
            "</li>"
            for what, verdict, why in grid.reasons
        ]
        parts.append("</ul></details>")
    parts.append(_sources(grid))
    return "\n".join([*(part for part in parts if part), "</section>"])


def _sources(grid: Grid) -> str:
    """Every number of the table with its log lines, for readers without a pointer."""
    found: dict[str, None] = {}
    for row in grid.rows:
        for cell in row.cells:
            for span in cell:
                if span.sources and span.verdict is None:
                    lines = _t("; ".join(span.sources))
                    found[f"{_t(span.text)} <span class=src>{lines}</span>"] = None
    if not found:
        return ""
    items = "".join(f"<li>{item}</li>" for item in found)
    return f"<details><summary>Log lines ({len(found)})</summary><ul>{items}</ul></details>"


def _table(grid: Grid) -> str:
    head = "".join(
        f'<th scope="col"{" class=num" if column.numeric else ""}>{_t(column.title)}</th>'
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
            cells.append(_cell(row.cells[i], column, 1 if row.continued else tall))
        rows.append(f"<tr{' class=continued' if row.continued else ''}>{''.join(cells)}</tr>")
    body = "\n".join(rows)
    return (
        f"<div class=scroll><table>\n<thead><tr>{head}</tr></thead>\n"
        f"<tbody>\n{body}\n</tbody></table></div>"
    )


def _blank(cell: Cell) -> bool:
    return not any(span.text for span in cell)


def _cell(cell: Cell, column: Column, rows: int) -> str:
    names = ["num"] * column.numeric + ["wrap"] * column.wrap
    attributes = f' class="{" ".join(names)}"' if names else ""
    attributes += f' rowspan="{rows}"' if rows > 1 else ""
    spans = "".join(_breakable(_span(span)) if column.wrap else _span(span) for span in cell)
    # The wrapper keeps the lines of a cell together where rows become lists on a phone.
    return f'<td{attributes} data-label="{_t(column.title)}"><div>{spans}</div></td>'


def _breakable(markup: str) -> str:
    """A run's name is one long word that may break at its joints; `n = 1` may not."""
    return re.sub(r"_(?=[^<>]*<)", "_<wbr>", markup).replace("n = ", "n&nbsp;=&nbsp;")


def _span(span: Span) -> str:
    names = ["muted"] * span.muted
    if span.verdict:
        names += ["chip", f"v-{span.verdict.value.replace(' ', '-').replace('/', '-')}"]
    attributes = f' class="{" ".join(names)}"' if names else ""
    if span.sources:
        attributes += f' data-src="{_t("; ".join(span.sources))}"'
    title = span.why or "; ".join(span.sources)
    if title:
        attributes += f' title="{_t(title)}"'
    return f"<span{attributes}>{_t(span.text)}</span>"


def _curves(figures: Iterable[Figure]) -> str:
    parts = []
    for number, figure in enumerate(figures):
        legend = "".join(
            f'<li><span class=swatch style="background:var(--c{colour % plots.PALETTE})"></span>'
            f"{_t(label)}{'' if status == 'finished' else f' ({_t(status)})'}</li>"
            for label, colour, status in figure.runs
        )
        panels = "\n".join(
            f"<figure><figcaption>{_t(plots.TITLES[panel.key])}</figcaption>"
            f"{plots.svg(panel, f'{number}{panel.key}')}</figure>"
            for panel in figure.panels
        )
        parts.append(
            f"<h3>{_t(figure.model)} on {_t(figure.data)}, over epochs</h3>\n"
            f"<ul class=legend>{legend}</ul>\n<div class=panels>\n{panels}\n</div>"
        )
    if not parts:
        return ""
    return f'<section id="curves">\n<h2>Curves</h2>\n{chr(10).join(parts)}\n</section>'


def _provenance(report: Report) -> str:
    """What each run was started with, and on what."""
    parts = []
    for run in report.logs.runs:
        facts = run.start.provenance if run.start else {}
        packages = dict(facts.get("packages") or {})
        shown = {
            "command": " ".join(map(str, facts.get("command") or [])),
            "commit": f"{facts.get('commit')}{' (changed)' if facts.get('dirty') else ''}",
            "device": run.device_name,
            "seed": run.plan.seed,
            "packages": ", ".join(f"{name} {version}" for name, version in packages.items()),
            "config": run.config_hash[:16],
            "log": run.file,
        }
        rows = "".join(f"<dt>{_t(key)}</dt><dd>{_t(value)}</dd>" for key, value in shown.items())
        title = f"{run.plan.run} / {run.number}: {run.status}"
        parts.append(f"<details><summary>{_t(title)}</summary><dl>{rows}</dl></details>")
    return f'<section id="runs">\n<h2>Runs</h2>\n{chr(10).join(parts)}\n</section>'


def _rejected(report: Report) -> str:
    rejected = report.logs.rejected
    if not rejected:
        return ""
    items = "\n".join(
        f"<li><span class=src>{_t(r.source)}</span>{_t(r.reason)}</li>"
        for r in rejected[:REJECTED_SHOWN]
    )
    rest = len(rejected) - REJECTED_SHOWN
    more = f"<p class=muted>{rest} more in rejected_lines.csv</p>" if rest > 0 else ""
    count = f"{len(rejected)} rejected line{'s' * (len(rejected) != 1)}"
    return (
        f'<section id="rejected">\n<h2>{count}</h2>\n<p class=muted>The rest of these files is '
        f"used.</p>\n<details open><summary>Show</summary><ul>{items}</ul></details>{more}\n"
        "</section>"
    )
