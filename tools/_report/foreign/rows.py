"""Foreign runs as rows of the three tables: marked foreign, and never judged.

No published claim is held against them: such logs do not state the evaluation protocol, and seldom
the data. What a log does not state is empty here.
"""

from __future__ import annotations

import math

from ..measure import MARK_METRICS, Accuracy, Measure, Sample, State, Throughput
from ..rows import AccuracyRow, MarkRow, ThroughputRow
from .figures import Rate, at_mark, figures, off_the_end
from .logs import ForeignLog
from .run import EvalPoint, Scope

_GOOD = ("", "success", "finished")  # of a run's status
MARK_S = 3600.0  # the mark of published one-hour states


def _identity(log: ForeignLog) -> dict[str, object]:
    return {
        "model": log.fact("model") or log.name,
        "data": log.fact("data"),
        "precision": log.fact("precision"),
        "device": "",
        "device_name": log.fact("device"),
        "flags": [_origin(log), *_state(log), *log.run.remarks],
        "runs": [log.name],
    }


def _origin(log: ForeignLog) -> str:
    return "re-exported" if log.format.reexported else f"foreign: {log.format.title}"


def _state(log: ForeignLog) -> list[str]:
    """What a reader must know before comparing: cut short, aborted, resumed, diverged."""
    found = figures(log.run)
    planned = log.run.facts.get("epochs")
    flags = []
    last = max(found.epochs_trained, math.ceil(log.run.epochs[-1].epoch) if log.run.epochs else 0)
    if planned and isinstance(planned.value, int) and 0 < last < planned.value:
        flags.append(f"{last} of {planned.value} epochs")
    if log.run.status.lower() not in _GOOD:
        flags.append(log.run.status)
    if not log.run.epochs:
        flags.append("evaluation only")
    started = log.run.epochs[0].epoch > 1.001 if log.run.epochs else False
    if "resumed_from" in log.run.facts or started:
        flags.append("resumed")
    loss = found.last_train_loss
    if loss is not None and not math.isfinite(loss.value):
        flags.append("loss is not finite")
    return flags


def _one(value: float | None, source: str) -> Measure:
    return Measure() if value is None else Measure((Sample(value, source),))


def accuracy_rows(log: ForeignLog) -> list[AccuracyRow]:
    """The last evaluation of each series that has an accuracy: plain, EMA, …"""
    rows = []
    for series in log.run.evals:
        found = figures(log.run, series)
        last, best = found.final, found.best
        if last is None or best is None:
            continue
        row = AccuracyRow(
            **_identity(log),  # type: ignore[arg-type]
            epochs=found.epochs_trained,
            cards=log.run.cards,
            protocol=series or "not stated",
            accuracy=Accuracy(
                _one(last.top1, log.at(last.line)),
                _one(last.top5, log.at(last.line)),
                last.images,
                last.images or 0,
            ),
        )
        if off := off_the_end(log.run, found):
            row.flags.append(off)
        row.notes.append(f"best top1 {best.top1:.3f} % {after(best)} ({log.at(best.line)})")
        rows.append(row)
    return rows


def after(point: EvalPoint) -> str:
    """`after epoch 99` (counted from 1), and what the log calls it where that differs."""
    if point.epoch is None:
        return "at an epoch that is not stated"
    called = f", there called {point.label}" if point.label not in (None, point.epoch) else ""
    return f"after epoch {point.epoch:g}{called}"


def throughput_rows(log: ForeignLog) -> list[ThroughputRow]:
    """images/s of all cards where they are known, else as the log states them."""
    rate = figures(log.run).rate
    if rate is None:
        return []
    scale = rate.all_cards / rate.median if rate.all_cards is not None else 1.0
    cell = Throughput(
        rate=_one(rate.median * scale, log.name),
        as_source=Measure(),
        q25=rate.q25 * scale,
        q75=rate.q75 * scale,
        windows=rate.n,
        wait_share=None,
        cards=log.run.cards,
        nodes=1,
        per_card_batch=None,
        steps_limit=None,
    )
    row = ThroughputRow(**_identity(log))  # type: ignore[arg-type]
    if log.run.cards == 1:
        row.one = cell
    elif rate.scope != "per card" or rate.all_cards is not None:
        row.many = cell
    row.notes.append(
        f"{log.name}: median of {rate.n} values {rate.median:.2f} img/s, mean {rate.mean:.2f}, "
        f"{scope_text(rate.scope, log.run.cards)}"
    )
    row.notes += _whole_time(log, rate)
    return [row]


def _whole_time(log: ForeignLog, rate: Rate) -> list[str]:
    """The rate against epochs x images / time, where the log states all of them."""
    images = log.run.facts.get("train_images")
    found = figures(log.run)
    if images is None or not found.span_s or rate.all_cards is None or not found.epochs_trained:
        return []
    over_all = found.epochs_trained * float(images.value) / found.span_s
    return [
        f"{log.name}: {found.epochs_trained} epochs x {int(images.value):,} images in "
        f"{found.span_s:,.1f} s, evaluations included, are {over_all:,.0f} img/s: "
        f"{100 * over_all / rate.all_cards:.1f} % of the rate above"
    ]


def scope_text(scope: Scope, cards: int | None) -> str:
    """What the number is of."""
    if scope == "per card" and not cards:
        return "per card as stated; number of cards not stated"
    if scope == "per card":
        return f"per card as stated; times {cards} card{'s' * (cards != 1)} in the table"
    return "all cards" if scope == "all cards" else "of how many cards is not stated"


def mark_rows(log: ForeignLog) -> list[MarkRow]:
    """The newest evaluation at one hour, for logs with time stamps that go so far."""
    state = at_mark(log.run, MARK_S)
    if state.eval is None:
        return []
    e = state.eval
    metrics = {name: Measure() for name in MARK_METRICS}
    source = log.at(e.line)
    metrics |= {"epoch": _one(e.epoch, source), "loss": Measure()}
    metrics |= {"top1": _one(e.top1, source), "top5": _one(e.top5, source)}
    row = MarkRow(
        **_identity(log),  # type: ignore[arg-type]
        run=log.name,
        target_s=MARK_S,
        n=1,
        at_mark=State(metrics, e.images, None),
    )
    origin = log.run.origin_s or 0.0
    row.notes.append(
        f"newest evaluation before {MARK_S:g} s, at {(e.elapsed_s or 0.0) - origin:.1f} s; best "
        f"top1 until then {state.best_top1:.3f} %"
    )
    return [row]
