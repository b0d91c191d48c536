"""The report as one self-contained HTML page: no script, no external resource, light and dark.

Every text from a log goes through `_e`; numbers carry the log lines they come from.
"""

from __future__ import annotations

import html
from collections.abc import Sequence

from . import units
from .build import Report
from .cells import SYMBOL, Cell, Grid, claim_name, clean, conditions
from .curves import Figure, figures
from .plots import PALETTE, TITLES, svg
from .read import Rejected
from .verdict import Judgement, Verdict

_CLASS = {
    Verdict.REPRODUCED: "good",
    Verdict.NOT_REPRODUCED: "bad",
    Verdict.INCONCLUSIVE: "open",
    Verdict.NA: "none",
    Verdict.DIFFERENT_HARDWARE: "other",
}


def page(report: Report, grids: Sequence[Grid]) -> str:
    """The whole page as text."""
    body = [
        "<header><h1>proofrun report</h1>",
        f"<p>{_e(report.summary)}</p></header>",
        _cards(report),
        *(_section(grid) for grid in grids),
        *(_figure(figure, i) for i, figure in enumerate(figures(report.logs.runs))),
        _provenance(report),
        _rejected(report.logs.rejected),
    ]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>proofrun report</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        + "\n".join(part for part in body if part)
        + "\n</body>\n</html>\n"
    )


def _e(text: object) -> str:
    return html.escape(clean(text))


def _chip(text: str, verdict: Verdict, why: str = "") -> str:
    title = f' title="{_e(why)}"' if why else ""
    return f'<span class="chip {_CLASS[verdict]}"{title}>{_e(text)}</span>'


def _cards(report: Report) -> str:
    cards = [_card(conditions(row), j) for row in report.rows for j in row.judgements]
    return f'<div class="cards">{"".join(cards)}</div>' if cards else ""


def _card(what: str, judgement: Judgement) -> str:
    claim = judgement.claim
    value = units.quantity(claim.metric, judgement.estimate.value)
    bound = units.bound(claim.metric, claim.direction, claim.value)
    label = "" if claim.label == "published" else f", {claim.label}"
    sources = ", ".join(judgement.estimate.sources)
    chip = _chip(f"{SYMBOL[judgement.verdict]} {judgement.verdict}", judgement.verdict)
    return (
        f'<article class="card {_CLASS[judgement.verdict]}" title="{_e(judgement.reason)}">{chip}'
        f'<p class="value" data-source="{_e(sources)}">{_e(value)}</p>'
        f"<p>{_e(claim_name(judgement))} · claim {_e(bound)}{_e(label)}</p>"
        f'<p class="muted">{_e(what)}</p></article>'
    )


def _section(grid: Grid) -> str:
    if not grid.rows and grid.key in ("others", "references"):
        return ""
    shown = grid.dense() if grid.rows else grid
    head = "".join(
        f'<th scope="col"{_numeric(column.numeric)}>{_e(column.title)}</th>'
        for column in shown.columns
    )
    rows = [
        ('<tr class="continued">' if row.continued else "<tr>")
        + "".join(
            f"<td{_numeric(column.numeric)}>{_cell(cell)}</td>"
            for column, cell in zip(shown.columns, row.cells, strict=True)
        )
        + "</tr>"
        for row in shown.rows
    ]
    table = (
        f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody>'
        "</table></div>"
        if rows
        else f'<p class="muted">{_e(grid.empty)}</p>'
    )
    return (
        f'<section id="{_e(grid.key)}"><h2>{_e(grid.title)}</h2>{table}{_reasons(grid)}</section>'
    )


def _numeric(numeric: bool) -> str:
    return ' class="num"' if numeric else ""


def _cell(cell: Cell) -> str:
    spans = []
    for span in cell:
        if span.verdict is not None:
            spans.append(_chip(span.text, span.verdict, span.why))
            continue
        where = f' title="{_e(", ".join(span.sources))}"' if span.sources else ""
        muted = ' class="muted"' if span.muted else ""
        spans.append(f"<span{where}{muted}>{_e(span.text)}</span>")
    return "<br>".join(spans)


def _reasons(grid: Grid) -> str:
    if not grid.reasons:
        return ""
    items = "".join(
        f"<li>{_chip(verdict, verdict) + ' ' if verdict else ''}<b>{_e(what)}</b>: {_e(why)}</li>"
        for what, verdict, why in grid.reasons
    )
    return f"<details><summary>Reasoning and numbers</summary><ul>{items}</ul></details>"


def _figure(figure: Figure, index: int) -> str:
    legend = "".join(
        f'<li><i style="background:var(--c{colour % PALETTE})"></i>{_e(label)}'
        f"{'' if status == 'finished' else f' ({_e(status)})'}</li>"
        for label, colour, status in figure.runs
    )
    panels = "".join(
        f"<figure><figcaption>{_e(TITLES[panel.key])}</figcaption>"
        f"{svg(panel, f'{index}-{panel.key}')}</figure>"
        for panel in figure.panels
        if panel.series
    )
    return (
        f"<section><h2>{_e(figure.model)} on {_e(figure.data)}: over epochs</h2>"
        f'<ul class="legend">{legend}</ul><div class="panels">{panels}</div></section>'
    )


def _provenance(report: Report) -> str:
    """What each run was started with, and on what."""
    parts = []
    for run in report.logs.runs:
        facts = run.start.provenance if run.start else {}
        shown = {
            "command": " ".join(map(str, facts.get("command") or [])),
            "commit": f"{facts.get('commit')}{' (changed)' if facts.get('dirty') else ''}",
            "device": run.device_name,
            "seed": run.plan.seed,
            "packages": ", ".join(f"{k} {v}" for k, v in dict(facts.get("packages") or {}).items()),
            "config": run.config_hash[:16],
            "log": run.file,
        }
        rows = "".join(f"<dt>{_e(k)}</dt><dd>{_e(v)}</dd>" for k, v in shown.items())
        title = f"{run.plan.run} / {run.number}: {run.status}"
        parts.append(f"<details><summary>{_e(title)}</summary><dl>{rows}</dl></details>")
    return f"<section><h2>Runs</h2>{''.join(parts)}</section>"


def _rejected(rejected: Sequence[Rejected]) -> str:
    if not rejected:
        return ""
    items = "".join(f"<li><b>{_e(r.source)}</b>: {_e(r.reason)}</li>" for r in rejected[:500])
    return (
        f"<section><h2>{len(rejected)} rejected lines (the rest is used)</h2>"
        f"<details><summary>Which</summary><ul>{items}</ul></details></section>"
    )


_STYLE = """
:root{--bg:#fff;--card:#f6f7f9;--ink:#1a1d21;--muted:#626a73;--rule:#dde1e6;--claim:#b3261e;
--good:#146c2e;--good-bg:#dff3e4;--bad:#a31212;--bad-bg:#fbe1e0;--open:#7a4d00;--open-bg:#fdeecb;
--none:#555c64;--none-bg:#e8ebee;--other:#0b5a7d;--other-bg:#dceef7;
--c0:#1f6fb5;--c1:#c4501b;--c2:#2b8a3e;--c3:#8547a8;--c4:#a8790a;--c5:#0f8b8d;--c6:#b5347a;
--c7:#5c6670}
@media (prefers-color-scheme:dark){:root{--bg:#14171a;--card:#1e2226;--ink:#e8eaed;--muted:#a0a8b0;
--rule:#343a40;--claim:#ff8a80;--good:#8fe3a5;--good-bg:#173d22;--bad:#ffaaa3;--bad-bg:#4c1a18;
--open:#ffd27a;--open-bg:#45330c;--none:#c3c9cf;--none-bg:#31363b;--other:#9ad7f2;
--other-bg:#14394b;--c0:#6cb4f2;--c1:#ff9a63;--c2:#77d38c;--c3:#cf9bea;--c4:#e6bf57;--c5:#5fd0d2;
--c6:#f08cc0;--c7:#aab3bc}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:1360px;padding:1.5rem 1rem 4rem;background:var(--bg);color:var(--ink);
font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
h1{font-size:1.6rem;margin:0}h2{font-size:1.15rem;margin:2.2rem 0 .6rem}p{margin:.2rem 0}
.muted{color:var(--muted)}header p{color:var(--muted)}
.cards{display:grid;grid-template-columns:repeat(auto-fill,minmax(240px,1fr));gap:.8rem;
margin-top:1.2rem}
.card{background:var(--card);border-radius:10px;padding:.8rem 1rem;
border-left:4px solid var(--none)}
.card.good{border-color:var(--good)}.card.bad{border-color:var(--bad)}
.card.open{border-color:var(--open)}.card.other{border-color:var(--other)}
.card p{font-size:.85rem}.card .value{font-size:1.45rem;font-weight:650;margin:.25rem 0}
.chip{display:inline-block;border-radius:999px;padding:0 .6em;font-size:.82em;font-weight:600;
white-space:nowrap;color:var(--none);background:var(--none-bg)}
.chip.good{color:var(--good);background:var(--good-bg)}.chip.bad{color:var(--bad);
background:var(--bad-bg)}.chip.open{color:var(--open);background:var(--open-bg)}
.chip.other{color:var(--other);background:var(--other-bg)}
.wide{overflow-x:auto}table{border-collapse:collapse;width:100%;font-size:.88rem;
font-variant-numeric:tabular-nums}
th,td{text-align:left;vertical-align:top;padding:.4rem .7rem;border-top:1px solid var(--rule)}
thead th{border-top:0;color:var(--muted);font-weight:600;white-space:nowrap}
td.num,th.num{text-align:right;white-space:nowrap}tr.continued td{border-top:0;padding-top:0}
details{margin:.5rem 0}summary{cursor:pointer;color:var(--muted)}
li{margin:.25rem 0;font-size:.88rem}
dl{display:grid;grid-template-columns:max-content 1fr;gap:.15rem 1rem;font-size:.85rem;
margin:.4rem 0 .8rem 1rem}dt{color:var(--muted)}dd{margin:0;overflow-wrap:anywhere}
.legend{list-style:none;padding:0;display:flex;flex-wrap:wrap;gap:.1rem 1.2rem}
.legend i{display:inline-block;width:.9em;height:.9em;border-radius:3px;margin-right:.45em;
vertical-align:-.1em}
.panels{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,420px),1fr));gap:1rem}
figure{margin:0;background:var(--card);border-radius:10px;padding:.7rem .8rem}
figcaption{font-weight:600;font-size:.88rem}svg{width:100%;height:auto;display:block}
@media print{body{max-width:none}details{display:block}.card,figure{break-inside:avoid}}
"""
