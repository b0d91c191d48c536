"""Cells: the formatted lines of a table, each with its log lines and its reasoning."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from proofrun.text import clean

from . import units
from .measure import Measure
from .rows import AccuracyRow, MarkRow, Row, ThroughputRow
from .verdict import Judgement, Verdict

SYMBOL = {
    Verdict.REPRODUCED: "✓",
    Verdict.NOT_REPRODUCED: "✗",
    Verdict.INCONCLUSIVE: "?",
    Verdict.NA: "–",
    Verdict.DIFFERENT_HARDWARE: "≠",
}
NONE = "–"


@dataclass(frozen=True)
class Span:
    """One line of a cell. `sources` are the log lines of its number, `why` the reasoning."""

    text: str
    verdict: Verdict | None = None
    sources: tuple[str, ...] = ()
    why: str = ""
    muted: bool = False


Cell = tuple[Span, ...]


@dataclass(frozen=True)
class Column:
    title: str
    numeric: bool = False
    wrap: bool = False  # holds words that may stand on several lines


@dataclass(frozen=True)
class GridRow:
    """`continued`: belongs to the row above."""

    cells: tuple[Cell, ...]
    continued: bool = False


@dataclass
class Grid:
    """One formatted table; `reasons` are (what, verdict or None, one line) for under it."""

    key: str
    title: str
    columns: tuple[Column, ...]
    rows: list[GridRow] = field(default_factory=list)
    reasons: list[tuple[str, Verdict | None, str]] = field(default_factory=list)
    empty: str = "none"
    optional: bool = False  # left out where it has no row

    def dense(self) -> Grid:
        """Without the columns that say nothing in any row."""
        kept = [
            i
            for i in range(len(self.columns))
            if any(span.text not in ("", NONE) for row in self.rows for span in row.cells[i])
        ]
        rows = [GridRow(tuple(row.cells[i] for i in kept), row.continued) for row in self.rows]
        columns = tuple(self.columns[i] for i in kept)
        return Grid(self.key, self.title, columns, rows, self.reasons, self.empty, self.optional)

    def without_constants(self) -> tuple[Grid, str]:
        """For narrow screens: text columns with one value in all rows become words beside it."""
        told = [i for i, column in enumerate(self.columns) if not column.numeric]
        told = [i for i in told if len({row.cells[i] for row in self.rows}) == 1]
        told = [i for i in told if [s.verdict for s in self.rows[0].cells[i]] == [None]]
        said = [f"{self.columns[i].title}: {self.rows[0].cells[i][0].text}" for i in told]
        kept = [i for i in range(len(self.columns)) if i not in told]
        rows = [GridRow(tuple(row.cells[i] for i in kept), row.continued) for row in self.rows]
        columns = tuple(self.columns[i] for i in kept)
        grid = Grid(self.key, self.title, columns, rows, self.reasons, self.empty, self.optional)
        return grid, " · ".join(said)


def cell(text: object, sources: tuple[str, ...] = (), why: str = "") -> Cell:
    return (Span(clean(text), sources=sources, why=why),)


def precision(row: Row) -> str:
    """`AMP bf16`: what mixed precision was on this device."""
    short = (row.amp_dtype or "").replace("bfloat", "bf").replace("float", "fp")
    return f"{row.precision} {short}".strip()


def conditions(row: Row) -> str:
    """A row in a few words, for reasons and cards."""
    words = [row.model, row.data, precision(row)]
    if isinstance(row, AccuracyRow):
        cards = cards_text(row.cards, row.device, row.nodes)
        words += [f"{row.epochs} epochs", cards, row.protocol]
    elif isinstance(row, ThroughputRow):
        words += [row.device]
        if row.many_nodes > 1:
            words += [nodes_text(row.many_nodes, row.many_cards)]
    elif isinstance(row, MarkRow) and row.target_s is not None:
        return clean(f"{run_text(row)}, mark at {units.seconds(row.target_s)}")
    return clean(", ".join(word for word in words if word))


def claim_name(judgement: Judgement) -> str:
    """`8 cards`, `scaling on 8`, `top1`, `top1_acc`."""
    claim = judgement.claim
    if claim.metric == "throughput":
        return f"{claim.cards} card{'s' * (claim.cards != 1)}"
    name = units.title(claim.metric)
    return f"{name} on {claim.cards}" if claim.metric == "scaling" else name


def cards_text(cards: int | None, device: str, nodes: int = 1) -> str:
    """`8 GPU`; on several machines `2 nodes × 8 GPU`. `cards` are those of all nodes."""
    if cards is None:
        return "any cards" if device else "n/a"
    return f"{nodes_text(nodes, cards) if nodes > 1 else cards} {device}".strip()


def nodes_text(nodes: int, cards: int | None) -> str:
    return f"{nodes} nodes × {(cards or 0) // nodes}"


def run_text(row: MarkRow) -> str:
    """The run's name, and on how many machines where they are several."""
    return f"{row.run} on {row.nodes} nodes" if row.nodes > 1 else row.run


def value_cell(metric: str, measured: Measure | None) -> Cell:
    if measured is None or measured.value is None:
        return cell("n/a")
    text = units.number(metric, measured.value)
    if measured.spread is not None:
        text += f" ± {units.number(metric, measured.spread)}"
    return cell(text, measured.sources)


def bound_text(judgement: Judgement) -> str:
    claim = judgement.claim
    return units.bound(claim.metric, claim.direction, claim.value)


def verdict_span(judgement: Judgement, prefix: str = "") -> Span:
    text = f"{prefix}{SYMBOL[judgement.verdict]} {judgement.verdict}"
    if judgement.verdict == Verdict.DIFFERENT_HARDWARE and judgement.ratio is not None:
        text += f" ({units.ratio(judgement.ratio)})"
    why = clean(judgement.reason)
    return Span(text, judgement.verdict, judgement.estimate.sources, why)


def claim_cells(row: Row) -> tuple[Cell, Cell]:
    """The claim and verdict cells: one line for each claim that was judged."""
    if not row.judgements:
        return cell("no claim applies"), cell(NONE)
    claims = [Span(f"{claim_name(j)} {bound_text(j)}") for j in row.judgements]
    labels = dict.fromkeys(clean(j.claim.label) for j in row.judgements)
    labels.pop("published", None)
    several = len(row.judgements) > 1
    return (
        (*claims, *(Span(label, muted=True) for label in labels)),
        tuple(verdict_span(j, f"{claim_name(j)}: " if several else "") for j in row.judgements),
    )


def reasons(rows: Sequence[Row]) -> list[tuple[str, Verdict | None, str]]:
    found: list[tuple[str, Verdict | None, str]] = []
    for row in rows:
        what = conditions(row)
        for j in row.judgements:
            note = f" (claim: {clean(j.claim.note)})" if j.claim.note else ""
            found.append((f"{what}: {claim_name(j)}", j.verdict, clean(j.reason) + note))
        found += [(what, None, clean(note)) for note in row.notes]
    return found
