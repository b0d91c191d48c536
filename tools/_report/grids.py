"""The rows as formatted tables: every renderer shows these and formats no number of its own."""

from __future__ import annotations

import math

from . import measure, units
from .build import Report
from .cells import (
    NONE,
    Cell,
    Column,
    Grid,
    GridRow,
    Span,
    bound_text,
    cards_text,
    cell,
    claim_cells,
    conditions,
    nodes_text,
    precision,
    reasons,
    run_text,
    value_cell,
    verdict_span,
)
from .consistency import findings
from .foreign.grid import foreign_grid
from .inference import inference_grid, latency_grid
from .measure import MARK_METRICS, Accuracy, State, Throughput
from .rows import AccuracyRow, MarkRow, ThroughputRow
from .speed import bound_by
from .words import LEGEND


def grids(report: Report) -> list[Grid]:
    """The three tables, inference, the runs that entered none, and published results of others."""
    main = [_accuracy(report.accuracy), _throughput(report.throughput), _mark(report.mark)]
    for grid in main:
        if any(" d = " in why for _, verdict, why in grid.reasons if verdict):
            grid.reasons.append(("how to read it", None, LEGEND))
            break
    return [
        *main,
        inference_grid(report.logs.runs),
        latency_grid(report.logs.runs),
        foreign_grid(report.logs.foreign),
        _claims(report),
        _others(report),
        _references(report),
    ]


def _accuracy(rows: list[AccuracyRow]) -> Grid:
    names = "Model Data Precision Epochs Cards Device top1_% top5_% n Images Protocol Claim Verdict"
    numeric = {"Epochs", "top1_%", "top5_%", "n", "Images"}
    wrap = {"Device", "Protocol", "Flags"}
    columns = tuple(
        Column(name.replace("_", " "), name in numeric, name in wrap)
        for name in (*names.split(), "Flags")
    )
    grid = Grid("accuracy", "Accuracy", columns, empty="no finished run")
    for row in rows:
        found = row.accuracy
        images = "n/a"
        if found and found.count is not None:
            part = "" if found.complete else f" of {found.listed:,}"
            images = f"{found.count:,}{part}"
        cells = (
            cell(row.model),
            cell(row.data or NONE),
            cell(precision(row) or NONE),
            cell(row.epochs if row.epochs is not None else NONE),
            cell(cards_text(row.cards, row.device, row.nodes)),
            cell(row.device_name or NONE),
            value_cell("top1", found.top1 if found else None),
            value_cell("top5", found.top5 if found else None),
            cell(found.top1.n if found else 0),
            cell(images, found.top1.sources if found else (), _binomial(row)),
            cell(row.protocol),
            *claim_cells(row),
            cell(", ".join(row.flags) or NONE),
        )
        grid.rows.append(GridRow(cells))
        if found and found.as_source:
            grid.rows.append(_as_source(found, len(columns)))
    grid.reasons = reasons(rows)
    judged = [row for row in rows if row.judgements and _binomial(row)]
    grid.reasons += [(conditions(row), None, _binomial(row)) for row in judged]
    return grid


def _as_source(found: Accuracy, columns: int) -> GridRow:
    """The line under a row: what the source's own way of scoring gives."""
    scored = found.as_source
    assert scored is not None
    cells = [cell("")] * columns
    cells[6] = cell(units.interval("top1", scored.top1).removesuffix(" %"), scored.sources)
    cells[7] = cell(units.interval("top5", scored.top5).removesuffix(" %"), scored.sources)
    cells[9] = cell(f"{scored.count:,} of {found.listed:,}")
    cells[10] = cell("as the source scores (assumed shards)")
    return GridRow(tuple(cells), continued=True)


def _binomial(row: AccuracyRow) -> str:
    """The evaluation's own error, for readers; it is no part of the verdict."""
    found = row.accuracy
    if found is None or found.top1.value is None or not found.count:
        return ""
    p = found.top1.value / 100
    error = 100 * math.sqrt(p * (1 - p) / found.count)
    said = f"binomial standard error of top1 on {found.count:,} images: {error:.2f} points"
    return f"{said} (shown, not part of the verdict)"


def _rate(found: Throughput | None) -> Cell:
    if found is None:
        return cell("n/a")
    low, high = units.number("throughput", found.q25), units.number("throughput", found.q75)
    sources = found.rate.sources
    quartiles = Span(f"[{low} – {high}]", None, sources, "interquartile range of windows", True)
    printed = found.as_source
    if printed.value is None:
        return (*value_cell("throughput", found.rate), quartiles)
    said = f"source's rule: {units.number('throughput', printed.value)}"
    why = "what the published system would print, by its own rule"
    rule = Span(said, None, printed.sources, why, True)
    return (*value_cell("throughput", found.rate), quartiles, rule)


def _both(one: float | None, many: float | None, cards: int | None, percent: bool) -> Cell:
    """A ratio on 1 card and on N, a line each."""

    def text(value: float) -> str:
        return f"{100 * value:.1f} %" if percent else units.ratio(value)

    found = [(1, one)] + ([(cards, many)] if cards else [])
    return tuple(Span(f"{text(v)} on {n}") for n, v in found if v is not None) or cell(NONE)


def _cards(row: ThroughputRow) -> str | int:
    """N, or nodes x cards."""
    if row.many_cards is None:
        return NONE
    many = row.many_nodes > 1
    return nodes_text(row.many_nodes, row.many_cards) if many else row.many_cards


def _throughput(rows: list[ThroughputRow]) -> Grid:
    columns = (
        Column("Model"),
        Column("Data"),
        Column("Device", wrap=True),
        Column("Precision"),
        Column("1 card, img/s", True),
        Column("N", True),
        Column("N cards, img/s", True),
        Column("Scaling", True),
        Column("AMP / FP32", True),
        Column("Data wait", True),
        Column("Claim", wrap=True),
        Column("Verdict"),
        Column("Flags", wrap=True),
    )
    grid = Grid("throughput", "Throughput", columns, empty="no finished run")
    for row in rows:
        one, many, cards = row.one, row.many, row.many_cards
        sources = tuple(s for part in (one, many) if part for s in part.rate.sources)
        scaling = f"{100 * row.scaling:.1f} %" if row.scaling is not None else "n/a"
        wait = _both(
            one.wait_share if one else None, many.wait_share if many else None, cards, percent=True
        )
        bounds = dict.fromkeys(bound_by(p) for p in (one, many) if p and p.wait_share is not None)
        wait += tuple(Span(said, muted=True) for said in bounds)
        cells = (
            cell(row.model),
            cell(row.data or NONE),
            cell(row.device_name or NONE),
            cell(precision(row) or NONE),
            _rate(one),
            cell(_cards(row)),
            _rate(many),
            cell(scaling, sources),
            _both(row.speedup_one, row.speedup_many, cards, percent=False),
            wait,
            *claim_cells(row),
            cell(", ".join(row.flags) or NONE),
        )
        grid.rows.append(GridRow(cells))
    grid.reasons = reasons(rows)
    return grid


def _mark(rows: list[MarkRow]) -> Grid:
    columns = (
        Column("Run", wrap=True),
        Column("n", True),
        Column("State"),
        *(Column(units.title(f"mark_{name}"), True) for name in MARK_METRICS),
        Column("Flags", wrap=True),
    )
    empty = "no finished run with a mark"
    grid = Grid("mark", "Time mark", columns, empty=empty)
    for row in rows:
        target = units.seconds(row.target_s) if row.target_s is not None else "the mark"
        first = (cell(run_text(row)), cell(row.n), cell(f"at {target}"))
        last = cell(", ".join(row.flags) or NONE)
        grid.rows.append(GridRow((*first, *_state(row.at_mark), last)))
        blank = (cell(""), cell(""))
        if row.at_claim is not None:
            state = (cell(f"at epoch {row.claim_epoch:g}"), *_state(row.at_claim))
            grid.rows.append(GridRow((*blank, *state, cell("")), continued=True))
        by_metric = {j.claim.metric.removeprefix("mark_"): j for j in row.judgements}
        claims: list[Cell] = []
        verdicts: list[Cell] = []
        for name in MARK_METRICS:
            j = by_metric.get(name)
            claims.append(cell(bound_text(j) if j else NONE))
            verdicts.append((verdict_span(j),) if j else cell(NONE))
        if not by_metric:
            claims[0] = cell("no claim applies")
        grid.rows.append(GridRow((*blank, cell("claim"), *claims, cell("")), continued=True))
        if by_metric:
            said = (*blank, cell("verdict"), *verdicts, cell(""))
            grid.rows.append(GridRow(said, continued=True))
    grid.reasons = reasons(rows)
    return grid


def _state(state: State | None) -> list[Cell]:
    return [value_cell(name, state.metrics[name] if state else None) for name in MARK_METRICS]


def _claims(report: Report) -> Grid:
    """Whether the claims of the recipes shown agree with themselves; no run is needed for it."""
    columns = (
        Column("Model"),
        Column("Data"),
        Column("Compared", wrap=True),
        Column("Result"),
        Column("Numbers", wrap=True),
    )
    grid = Grid("claims", "The claims themselves", columns, optional=True)
    for recipe in report.recipes:
        for f in findings(recipe):
            cells = (f.model, f.data, f.what, f.grade, f.numbers)
            grid.rows.append(GridRow(tuple(cell(text) for text in cells)))
    return grid


def _others(report: Report) -> Grid:
    columns = (
        Column("Run", wrap=True),
        Column("No."),
        Column("Status"),
        Column("Epoch", True),
        Column("ce", True),
        Column("top1 %", True),
        Column("img/s", True),
        Column("Flags", wrap=True),
        Column("Message", wrap=True),
    )
    title = "Runs in no table above (in progress, failed, or flagged; not judged)"
    grid = Grid("others", title, columns, optional=True)
    for run in report.others:
        found = measure.so_far(run)
        numbers = [
            cell(units.number(metric, found[name].value), (found[name].source,))
            if name in found
            else cell(NONE)
            for name, metric in (("ce", "ce"), ("top1", "top1"), ("images_per_s", "throughput"))
        ]
        done = f"{run.epochs_done:.2f} of {run.plan.recipe.schedule.epochs}"
        status = "in progress" if run.status == "running" else run.status
        start = (cell(run.plan.run), cell(run.number), cell(status), cell(done))
        end = (cell(", ".join(report.flags(run))), cell(run.message or NONE))
        grid.rows.append(GridRow((*start, *numbers, *end)))
    return grid


def _references(report: Report) -> Grid:
    columns = (
        Column("Beside"),
        Column("Network"),
        Column("System", wrap=True),
        Column("top1 %", True),
        Column("top5 %", True),
        Column("img/s (cards)", True),
        Column("Recipe", wrap=True),
    )
    elsewhere = "As published elsewhere (theirs, not measured here)"
    grid = Grid("references", elsewhere, columns, optional=True)
    for recipe in report.recipes:
        for other in recipe.references:
            rates = [f"{rate:,.0f} ({n})" for n, rate in sorted(other.images_per_s.items())]
            cells = (
                cell(recipe.name),
                cell(other.network),
                cell(other.system),
                cell(units.number("top1", other.top1) if other.top1 is not None else NONE),
                cell(units.number("top5", other.top5) if other.top5 is not None else NONE),
                cell(", ".join(rates) or NONE),
                cell(other.recipe or NONE),
            )
            grid.rows.append(GridRow(cells))
    return grid
