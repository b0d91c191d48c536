"""The figures of one foreign run: what its log states, and nothing that it does not."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import NamedTuple

from .run import EvalPoint, ForeignRun, Scope

_SLACK = 1e-3  # epochs; some forms keep few digits


class Figure(NamedTuple):
    """A number and the lines it comes from."""

    value: float
    lines: tuple[int, ...]


@dataclass(frozen=True)
class Rate:
    """images/s after the first epoch. `scope` is what the log states; `n` values behind it."""

    mean: float
    median: float
    q25: float
    q75: float
    n: int
    scope: Scope
    all_cards: float | None  # the median, for all cards; None where that is not known


@dataclass(frozen=True)
class MarkState:
    """The newest evaluation at `target_s` seconds of the run, or why there is none."""

    target_s: float
    eval: EvalPoint | None
    best_top1: float | None
    why: str = ""


@dataclass(frozen=True)
class Figures:
    """Accuracies in percent, times in seconds. None: the log does not say."""

    epochs_trained: int
    first_label: int | None
    last_label: int | None
    evals: int
    series: str
    final: EvalPoint | None
    best: EvalPoint | None
    best_top5: EvalPoint | None
    last_train_loss: Figure | None
    last_loss_is_mean: bool
    rate: Rate | None
    step_s: float | None
    mean_step_s: float | None
    span_s: float | None


def main_series(run: ForeignRun) -> str:
    """The plain evaluation if there is one, else the series with most evaluations."""
    if run.evals.get(""):
        return ""
    return max(run.evals, key=lambda name: len(run.evals[name]), default="")


def figures(run: ForeignRun, series: str | None = None) -> Figures:
    """All of them, for one series of evaluations."""
    series = main_series(run) if series is None else series
    evals = [e for e in run.evals.get(series, []) if e.top1 is not None or e.loss is not None]
    scored = [e for e in evals if e.top1 is not None]
    with5 = [e for e in evals if e.top5 is not None]
    losses = [point for point in run.epochs if point.loss is not None]
    labels = [point.label for point in run.epochs] or [
        e.label for e in evals if e.label is not None
    ]
    last = losses[-1] if losses else None
    steps = run.step_s
    return Figures(
        epochs_trained=len(run.epochs) or len({e.label for e in evals} - {None}),
        first_label=min(labels, default=None),
        last_label=max(labels, default=None),
        evals=len(evals),
        series=series,
        final=evals[-1] if evals else None,
        best=max(scored, key=lambda e: e.top1 or 0.0, default=None),
        best_top5=max(with5, key=lambda e: e.top5 or 0.0, default=None),
        last_train_loss=Figure(last.loss, (last.line,)) if last and last.loss is not None else None,
        last_loss_is_mean=bool(last and last.mean),
        rate=_rate(run),
        step_s=statistics.median(steps) if steps else None,
        mean_step_s=statistics.fmean(steps) if steps else None,
        span_s=_span(run),
    )


def off_the_end(run: ForeignRun, found: Figures) -> str:
    """What to know of evaluations that are not of the end of the training in the log, or ""."""
    done = [e.epoch for e in (found.best, found.final) if e is not None and e.epoch is not None]
    if not run.epochs or not done:
        return ""
    last = run.epochs[-1]
    number = last.label + 1 - run.base
    if max(done) > number + _SLACK:
        return f"evaluation of epoch {max(done):g} but training to {number}"
    final = found.final
    if final is None or final.epoch is None:
        return ""
    within = final.label is None and last.epoch > number - 1  # stated in parts of an epoch
    if final.epoch < (last.epoch if within else number) - _SLACK:
        return f"last evaluation: epoch {final.epoch:g} of {number}"
    return ""


def _rate(run: ForeignRun) -> Rate | None:
    values = run.rates
    if not values:
        return None
    median = statistics.median(values)
    q25, _, q75 = (
        statistics.quantiles(values, n=4, method="inclusive")
        if len(values) > 1
        else [values[0]] * 3
    )
    all_cards: float | None = median if run.scope == "all cards" else None
    if run.scope == "per card" and run.cards is not None:
        all_cards = median * run.cards
    mean = statistics.fmean(values)
    return Rate(mean, median, q25, q75, len(values), run.scope, all_cards)


def _span(run: ForeignRun) -> float | None:
    """From the stated start, else the first stamped line, to the stated end, else the last record.

    What is stamped after the last record is other work: saving, sending, a program run next.
    """
    if not run.timed:
        return None
    start = run.stated_start_s if run.stated_start_s is not None else run.first_stamp_s
    end = run.stated_end_s if run.stated_end_s is not None else run.last_record_s
    return end - start if start is not None and end is not None and end > start else None


def at_mark(run: ForeignRun, target_s: float, series: str | None = None) -> MarkState:
    """The state of a run after `target_s` seconds since its start."""
    series = main_series(run) if series is None else series
    evals = [e for e in run.evals.get(series, []) if e.top1 is not None]
    if not evals:
        return MarkState(target_s, None, None, "no evaluation in this log")
    origin = run.origin_s
    if origin is None or all(e.elapsed_s is None for e in evals):
        return MarkState(target_s, None, None, "no time stamps in this format")
    before = [e for e in evals if e.elapsed_s is not None and e.elapsed_s - origin <= target_s]
    ended = max([e.elapsed_s or 0.0 for e in evals] + [run.last_stamp_s or 0.0]) - origin
    if ended < target_s:
        return MarkState(target_s, None, None, f"the log ends after {ended:.1f} s")
    if not before:
        return MarkState(target_s, None, None, f"no evaluation within {target_s:g} s")
    return MarkState(target_s, before[-1], max(e.top1 or 0.0 for e in before))
