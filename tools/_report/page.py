"""The self-contained page: verdict cards, tables, curves, log lines. Every field is escaped."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

from . import plots, standing, units
from .build import Report
from .cells import SYMBOL, Grid, claim_name, conditions
from .curves import Figure, Key
from .evidence import Evidence
from .read import Run
from .sections import breakable, chip, section, t
from .verdict import Judgement
from .words import RULE, Say, summary

_HERE = Path(__file__).parent
REJECTED_SHOWN = 500
MAIN = ("accuracy", "throughput", "mark", "foreign")  # above the curves


def page(
    report: Report, grids: Sequence[Grid], figures: Sequence[Figure], folder: Path, say: Say
) -> str:
    """The whole page as one string, for a file in `folder`."""
    tables = [grid for grid in grids if grid.rows or not grid.optional]
    evidence = Evidence()
    body = [
        f"<header><h1>{say('proofrun report')}</h1>",
        f"<p class=muted>{t(summary(report.summary, say))}</p></header>",
        _cards(report, evidence, say),
        *(section(grid, evidence, say) for grid in tables if grid.key in MAIN),
        _curves(figures, say),
        *(section(grid, evidence, say) for grid in tables if grid.key not in MAIN),
        evidence.section(report.logs.root, folder, say),
        _provenance(report, say),
        _rejected(report, say),
        f"<footer class=muted><p>{t(say(RULE))}</p></footer>",
    ]
    main = "\n".join(part for part in body if part)
    return _document(f"<main>\n{main}\n</main>", say)


def _document(body: str, say: Say) -> str:
    """Nothing may load or run but the page's own style and script, whatever a log smuggles in."""
    style = (_HERE / "style.css").read_text(encoding="utf-8")
    script = "\n" + (_HERE / "script.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    policy += "; base-uri 'none'; form-action 'none'"
    return (
        f'<!DOCTYPE html>\n<html lang="{say("en")}">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{escape(policy)}">\n'
        f"<title>{say('proofrun report')}</title>\n<style>\n{style}</style>\n</head>\n"
        f'<body data-sort="{say("Sort by")}" data-given="{say("the order of the report")}">\n'
        f"{body}\n<script>{script}</script>\n</body>\n</html>\n"
    )


def _cards(report: Report, evidence: Evidence, say: Say) -> str:
    cards = [
        _card(conditions(row), j, evidence, say) for row in report.rows for j in row.judgements
    ]
    if not cards:
        none = say("No claim applies to these runs, so there is no verdict.")
        return f"<p class=empty>{none}</p>"
    return f"<ul class=cards>\n{chr(10).join(cards)}\n</ul>"


def _card(where: str, judgement: Judgement, evidence: Evidence, say: Say) -> str:
    """Folded: what was measured and claimed; unfolded: why, and the log lines."""
    claim, verdict = judgement.claim, judgement.verdict
    label = "" if claim.label == "published" else f" · {t(say(claim.label))}"
    value = units.quantity(claim.metric, judgement.estimate.value)
    bound = units.bound(claim.metric, claim.direction, claim.value)
    sources = judgement.estimate.sources
    lines = f"<p>{evidence.link(value, sources)}: {say('log lines')}</p>" if sources else ""
    return (
        f"<li class=card><details><summary>{chip(verdict, f'{SYMBOL[verdict]} {say(verdict)}')}"
        f"<span class=big>{t(value)}</span>"
        f"<span>{t(say(claim_name(judgement)))} {say('claimed')} {t(bound)}{label}</span>"
        f"{breakable(f'<span class=sub>{t(where)}</span>')}</summary>"
        f"<p>{t(judgement.reason)}</p>{lines}</details></li>"
    )


def _curves(figures: Iterable[Figure], say: Say) -> str:
    parts = []
    for number, figure in enumerate(figures):
        panels = "\n".join(
            f"<figure><figcaption>{t(say(plots.TITLES[panel.key]))}{_legend(panel.legend)}"
            f"</figcaption>{plots.svg(panel, f'{number}{panel.key}', say)}</figure>"
            for panel in figure.panels
        )
        parts.append(
            f"<h3>{t(figure.model)} · {t(figure.data)}</h3>\n"
            f"{_legend(figure.legend)}\n<div class=panels>\n{panels}\n</div>"
        )
    if not parts:
        return ""
    return f'<section id="curves">\n<h2>{say("Curves")}</h2>\n{chr(10).join(parts)}\n</section>'


def _legend(keys: Sequence[Key]) -> str:
    items = "".join(
        f'<li><span class=swatch style="color:var(--c{plots.look(colour)[0]})">'
        f"{plots.sign(colour)}</span>{t(label)}</li>"
        for label, colour in keys
    )
    return f"<ul class=legend>{items}</ul>" if keys else ""


def _provenance(report: Report, say: Say) -> str:
    """What each run was started with, and on what."""
    parts = []
    for run in report.logs.runs:
        facts = run.start.provenance if run.start else {}
        packages, command = facts.get("packages"), facts.get("command")
        packages = packages if isinstance(packages, dict) else {}
        words = command if isinstance(command, list) else [command] if command else []
        shown = {
            "command": " ".join(map(str, words)),
            "commit": f"{facts.get('commit') or ''}{' (changed)' if facts.get('dirty') else ''}",
            "device": run.device_name,
            "seed": str(run.plan.seed),
            "data fingerprint": " ".join(_data_words(run)),
            "packages": ", ".join(f"{name} {version}" for name, version in packages.items()),
            "config": run.config_hash[:16],
            "log": run.file,
        }
        rows = "".join(
            f"<dt>{say(key)}</dt><dd>{t(value or say('n/a'))}</dd>" for key, value in shown.items()
        )
        title = f"{run.plan.run} / {run.number}: {say(run.status)}"
        parts.append(f"<details><summary>{t(title)}</summary><dl>{rows}</dl></details>")
    return f'<section id="runs">\n<h2>{say("Runs")}</h2>\n{chr(10).join(parts)}\n</section>'


def _data_words(run: Run) -> list[str]:
    data = standing.data_of(run)
    told = f"({data.identity}{', changed' * data.changed})" if data.identity else ""
    return [word for word in (data.fingerprint, told) if word]


def _rejected(report: Report, say: Say) -> str:
    rejected = report.logs.rejected
    if not rejected:
        return ""
    items = "\n".join(
        f"<li><span class=src>{t(r.source)}</span>{t(r.reason)}</li>"
        for r in rejected[:REJECTED_SHOWN]
    )
    rest = len(rejected) - REJECTED_SHOWN
    more = f"<p class=muted>{rest} {say('more in rejected_lines.csv')}</p>" if rest > 0 else ""
    count = f"{len(rejected)} {say('rejected line' if len(rejected) == 1 else 'rejected lines')}"
    return (
        f'<section id="rejected">\n<h2>{count}</h2>\n'
        f"<p class=muted>{say('The rest of these files is used.')}</p>\n"
        f"<details open><summary>{say('Show')}</summary><ul>{items}</ul></details>{more}\n"
        "</section>"
    )
