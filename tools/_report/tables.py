"""The rows as pandas frames: plain numbers in plain columns, for CSV and for other programs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from . import measure
from .build import Report
from .foreign.figures import at_mark, figures
from .foreign.logs import ForeignLog
from .foreign.rows import MARK_S
from .foreign.run import EvalPoint
from .inference import inference_rows, is_shown, latency_rows
from .measure import MARK_METRICS, Measure, State, Throughput
from .read import Rejected, Run
from .rows import AccuracyRow, MarkRow, Row, ThroughputRow


def frames(report: Report) -> dict[str, pd.DataFrame]:
    """{table name: frame}. Percent for accuracies, images/s, fractions for ratios and shares."""
    tables = {
        "accuracy": [_accuracy(row) for row in report.accuracy],
        "throughput": [_throughput(row) for row in report.throughput],
        "mark": [_mark(row) for row in report.mark],
        "other_runs": [_other(run, report.flags(run)) for run in report.others],
        "rejected_lines": [r._asdict() for r in report.logs.rejected],
    }
    if any(map(is_shown, report.logs.runs)):
        tables["inference"] = inference_rows(report.logs.runs)
        tables["latency"] = latency_rows(report.logs.runs)
    if report.logs.foreign:
        tables["foreign"] = [_foreign(log) for log in report.logs.foreign]
    return {name: _frame(rows, EMPTY.get(name, ())) for name, rows in tables.items()}


#: The columns of tables that may well have no row: a file without a header cannot be read again.
EMPTY: dict[str, Sequence[str]] = {
    "other_runs": ("run", "number", "status", "epochs_done", "epochs", "device_name", "flags",
                   "message"),
    "rejected_lines": Rejected._fields,
}  # fmt: skip


#: Columns of whole numbers that a row may lack.
WHOLE = frozenset(
    ["cards", "global_batch", "epochs", "first_label", "last_label", "final_label", "best_label"]
)


def _frame(rows: Sequence[dict[str, Any]], columns: Sequence[str]) -> pd.DataFrame:
    frame = pd.DataFrame(rows, columns=None if rows else list(columns))
    whole = [c for c in frame.columns if c in WHOLE or c.endswith(("count", "_steps_limit"))]
    return frame.astype(dict.fromkeys(whole, "Int64"))  # 20, not 20.0 where a row has none


def _start(row: Row) -> dict[str, Any]:
    return {
        "model": row.model,
        "data": row.data,
        "precision": row.precision,
        "amp_dtype": row.amp_dtype,
        "device": row.device,
        "device_name": row.device_name,
    }


def _end(row: Row) -> dict[str, Any]:
    return {
        "flags": "; ".join(row.flags),
        "notes": "; ".join(row.notes),
        "runs": "; ".join(row.runs),
    }


def _measure(name: str, measured: Measure | None) -> dict[str, Any]:
    measured = measured or Measure()
    return {
        name: measured.value,
        f"{name}_spread": measured.spread,
        f"{name}_source": "; ".join(measured.sources),
    }


def _claims(row: Row, suffix: str, metric: str, cards: int | None = None) -> dict[str, Any]:
    """The claim and verdict columns of one metric; empty where no claim applies."""
    found = [j for j in row.judgements if j.claim.metric == metric]
    found = [j for j in found if cards is None or (j.claim.cards or 1) == cards]
    judgement = found[0] if found else None
    claim = judgement.claim if judgement else None
    return {
        f"{suffix}_claim": claim.value if claim else None,
        f"{suffix}_direction": claim.direction if claim else None,
        f"{suffix}_claim_label": claim.label if claim else None,
        f"{suffix}_verdict": judgement.verdict.value if judgement else None,
        f"{suffix}_reason": judgement.reason if judgement else None,
    }


def _accuracy(row: AccuracyRow) -> dict[str, Any]:
    found = row.accuracy
    return {
        **_start(row),
        "epochs": row.epochs,
        "cards": row.cards,
        "nodes": row.nodes,
        "global_batch": row.global_batch,
        "protocol": row.protocol,
        "count": found.count if found else None,
        "listed": found.listed if found else None,
        "n": found.top1.n if found else 0,
        **_measure("top1", found.top1 if found else None),
        **_claims(row, "top1", "top1"),
        **_measure("top5", found.top5 if found else None),
        **_claims(row, "top5", "top5"),
        **_end(row),
    }


def _rate(name: str, cell: Throughput | None) -> dict[str, Any]:
    return {
        **_measure(f"{name}_images_per_s", cell.rate if cell else None),
        f"{name}_n": cell.rate.n if cell else 0,
        f"{name}_q25": cell.q25 if cell else None,
        f"{name}_q75": cell.q75 if cell else None,
        f"{name}_windows": cell.windows if cell else 0,
        f"{name}_data_wait_share": cell.wait_share if cell else None,
        f"{name}_per_card_batch": cell.per_card_batch if cell else None,
        f"{name}_steps_limit": cell.steps_limit if cell else None,
    }


def _throughput(row: ThroughputRow) -> dict[str, Any]:
    cards = row.many_cards
    return {
        **_start(row),
        **_rate("one", row.one),
        **_claims(row, "one", "throughput", 1),
        "cards": cards,
        "nodes": row.many_nodes,
        **_rate("many", row.many),
        **_claims(row, "many", "throughput", cards or 0),
        "scaling": row.scaling,
        **_claims(row, "scaling", "scaling"),
        "speedup_over_fp32_one": row.speedup_one,
        "speedup_over_fp32_many": row.speedup_many,
        **_end(row),
    }


def _state(prefix: str, state: State | None) -> dict[str, Any]:
    columns: dict[str, Any] = {}
    for name in MARK_METRICS:
        columns |= _measure(f"{prefix}_{name}", state.metrics[name] if state else None)
    return columns


def _mark(row: MarkRow) -> dict[str, Any]:
    columns: dict[str, Any] = {
        "run": row.run,
        "nodes": row.nodes,
        **_start(row),
        "target_s": row.target_s,
        "n": row.n,
        "protocol": row.at_mark.protocol if row.at_mark else None,
        "count": row.at_mark.count if row.at_mark else None,
        **_state("mark", row.at_mark),
        "claim_epoch": row.claim_epoch,
        **_state("at_claim_epoch", row.at_claim),
    }
    for metric in ("mark_epoch", "mark_loss", "mark_top1", "mark_top5"):
        columns |= _claims(row, metric, metric)
    return {**columns, **_end(row)}


def _foreign(log: ForeignLog) -> dict[str, Any]:
    """What the log states, each accuracy in percent, times in seconds."""
    f, mark = figures(log.run), at_mark(log.run, MARK_S)

    def point(name: str, found: EvalPoint | None) -> dict[str, Any]:
        return {
            f"{name}_top1": found.top1 if found else None,
            f"{name}_top5": found.top5 if found else None,
            f"{name}_eval_loss": found.loss if found else None,
            f"{name}_label": found.label if found else None,
            f"{name}_epoch": found.epoch if found else None,
            f"{name}_source": log.at(found.line) if found else None,
        }

    origin = log.run.origin_s or 0.0
    at = mark.eval.elapsed_s if mark.eval else None
    return {
        "log": log.file,
        "part": log.part,
        "parts": log.parts,
        "format": log.format.key,
        "epochs_trained": f.epochs_trained,
        "first_label": f.first_label,
        "last_label": f.last_label,
        "evals": f.evals,
        "series": f.series,
        **point("final", f.final),
        **point("best", f.best),
        "best_top5": f.best_top5.top5 if f.best_top5 else None,
        "last_train_loss": f.last_train_loss.value if f.last_train_loss else None,
        "last_train_loss_is_mean": f.last_loss_is_mean,
        "images_per_s_median": f.rate.median if f.rate else None,
        "images_per_s_mean": f.rate.mean if f.rate else None,
        "images_per_s_n": f.rate.n if f.rate else 0,
        "images_per_s_scope": f.rate.scope if f.rate else None,
        "images_per_s_all_cards": f.rate.all_cards if f.rate else None,
        "step_s_median": f.step_s,
        "step_s_mean": f.mean_step_s,
        "span_s": f.span_s,
        "mark_s": MARK_S,
        "mark_top1": mark.eval.top1 if mark.eval else None,
        "mark_eval_at_s": None if at is None else at - origin,
        "mark_best_top1": mark.best_top1,
        "mark_missing": mark.why,
        "status": log.run.status,
        "facts": "; ".join(f"{key}={found.value}" for key, found in log.run.facts.items()),
        "remarks": "; ".join(log.run.remarks),
        "cannot_tell": "; ".join(f"{what}: {why}" for what, why in log.format.lacks.items()),
    }


def _other(run: Run, flags: Sequence[str]) -> dict[str, Any]:
    return {
        "run": run.plan.run,
        "number": run.number,
        "status": run.status,
        "epochs_done": run.epochs_done,
        "epochs": run.plan.recipe.schedule.epochs,
        **{name: sample.value for name, sample in measure.so_far(run).items()},
        "device_name": run.device_name,
        "flags": "; ".join(flags),
        "message": run.message,
    }
