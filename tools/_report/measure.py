"""Measures of runs, each number with the log lines it comes from.

Accuracy is correct/count of the last epoch's evaluation. Throughput is the median over the windows
not marked as warm-up, data wait included. Means over repeats are made last.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from proofrun.events import Eval, Mark, Resume

from . import standing
from .read import Run

EPOCH_SLACK = 1e-3  # epochs are logged with six digits


class Sample(NamedTuple):
    """One number of one run and where it stands ("file:line")."""

    value: float
    source: str


@dataclass(frozen=True)
class Measure:
    """One number over the repeats of a run. `identical` repeats were left out as bit-equal."""

    samples: tuple[Sample, ...] = ()
    identical: int = 0

    @property
    def n(self) -> int:
        return len(self.samples)

    @property
    def value(self) -> float | None:
        """Mean over repeats; None without any."""
        return statistics.fmean(s.value for s in self.samples) if self.samples else None

    @property
    def spread(self) -> float | None:
        """Sample standard deviation between repeats (n - 1); None for fewer than two."""
        finite = self.n >= 2 and all(math.isfinite(s.value) for s in self.samples)
        return statistics.stdev(s.value for s in self.samples) if finite else None

    @property
    def sources(self) -> tuple[str, ...]:
        return tuple(s.source for s in self.samples)


@dataclass(frozen=True)
class SourceScore:
    """Percent as a source scores that drops images: lowest and highest of all runs and rules."""

    top1: tuple[float, float]
    top5: tuple[float, float]
    count: int
    sources: tuple[str, ...]


@dataclass(frozen=True)
class Accuracy:
    """Percent of `count` images; `listed` is how many the data set has."""

    top1: Measure
    top5: Measure
    count: int | None
    listed: int
    as_source: SourceScore | None = None

    @property
    def complete(self) -> bool:
        return self.count == self.listed


@dataclass(frozen=True)
class Throughput:
    """images/s of all cards. The rate has one sample a run; quartiles are over all windows.

    None: not stated in a foreign log. `as_source`: what the published system would print, by its
    own rule, rounded as it rounds.
    """

    rate: Measure
    as_source: Measure
    q25: float
    q75: float
    windows: int
    wait_share: float | None
    cards: int | None
    nodes: int
    per_card_batch: int | None
    steps_limit: int | None


@dataclass(frozen=True)
class State:
    """A run's state at one moment: epoch, loss, ce, top1, top5 (percent), each over repeats."""

    metrics: dict[str, Measure]
    count: int | None
    protocol: str | None


MARK_METRICS = ("epoch", "loss", "ce", "top1", "top5")


@dataclass(frozen=True)
class Group:
    """Repeats: runs of one name, one configuration and one device, in order of their number."""

    runs: tuple[Run, ...]

    @property
    def last(self) -> Run:
        return self.runs[-1]


def groups(runs: Sequence[Run]) -> list[Group]:
    """Repeats put together, in the order of first appearance."""
    found: dict[tuple[object, ...], list[Run]] = {}
    for run in runs:
        same = (run.plan.run, run.config_hash, run.device_name, run.cards, run.nodes)
        key = (*same, *standing.flags(run))
        found.setdefault(key, []).append(run)
    return [Group(tuple(members)) for members in found.values()]


def reached_end(run: Run) -> bool:
    return run.epochs_done >= run.plan.recipe.schedule.epochs - EPOCH_SLACK


def own_recipe(run: Run) -> bool:
    """As the recipe says: no override, its own loader."""
    return not run.plan.overrides and run.plan.loader == "dali"


def counts_for_accuracy(run: Run) -> bool:
    """Whether the run may enter the accuracy and mark tables."""
    full = run.name.task == "Train" and run.plan.purpose == "full" and run.plan.max_steps is None
    return run.status == "finished" and full and own_recipe(run) and reached_end(run)


def counts_for_throughput(run: Run) -> bool:
    """Whether the run may enter the throughput table: also short runs made for it."""
    short = run.status == "finished" and run.plan.purpose == "throughput" and own_recipe(run)
    return counts_for_accuracy(run) or short


def flags(run: Run) -> list[str]:
    """What a reader must know about one run before comparing it."""
    plan = run.plan
    found = []
    if run.name.task == "Infer":
        pass  # trains nothing
    elif plan.max_steps is not None:
        found.append(f"{plan.max_steps} steps")
    elif run.status == "finished" and reached_end(run):
        found.append("complete")
    else:
        found.append("partial")
    if run.of(Resume):
        found.append("resumed")
    if plan.overrides:
        found.append("overridden")
    if plan.loader != "dali":
        found.append("synthetic" if plan.loader == "synthetic" else f"{plan.loader} loader")
    found += standing.flags(run)
    labels = [claim.label for claim in plan.recipe.claims]
    if plan.recipe.data.name == "Digits" or any(x.startswith("rehearsal") for x in labels):
        found.append("rehearsal")
    return found


def accuracy(group: Group, protocol: str) -> Accuracy:
    """The last epoch's accuracy under one evaluation protocol, over all repeats that have it."""
    last: list[tuple[Eval, str]] = []
    for run in group.runs:
        evals = [
            (e, source)
            for e, source in run.of(Eval)
            if e.protocol == protocol and e.why in ("epoch", "final") and e.count
            if e.epoch >= run.plan.recipe.schedule.epochs - EPOCH_SLACK
        ]
        last += evals[-1:]
    # Equal predictions on every image are one result computed twice: they show no spread.
    found = {e.prediction_hash or source: (e, source) for e, source in reversed(last)}
    identical = len(last) - len(found)
    counts = [e.count for e, _ in found.values()]
    return Accuracy(
        Measure(tuple(Sample(100 * e.correct1 / e.count, s) for e, s in found.values()), identical),
        Measure(tuple(Sample(100 * e.correct5 / e.count, s) for e, s in found.values()), identical),
        min(counts, default=None),
        max([group.last.plan.recipe.data.val_images, *(e.expected for e, _ in found.values())]),
        _as_source([*found.values()]),
    )


def _as_source(evals: Sequence[tuple[Eval, str]]) -> SourceScore | None:
    parts = [part for e, _ in evals for part in e.parts if part.count]
    if not parts:
        return None
    top1 = [100 * part.correct1 / part.count for part in parts]
    top5 = [100 * part.correct5 / part.count for part in parts]
    count = min(part.count for part in parts)
    sources = tuple(source for _, source in evals)
    return SourceScore((min(top1), max(top1)), (min(top5), max(top5)), count, sources)


def steady(run: Run) -> npt.NDArray[np.bool_]:
    """Which windows count for throughput: after warm-up, of a finite and positive time."""
    w = run.windows
    timed = np.isfinite(w.window_s) & (w.window_s > 0) & np.isfinite(w.rate)
    return np.asarray(timed & (w.warmup == 0) & (w.images > 0))


def throughput(runs: Sequence[Run]) -> Throughput | None:
    """Throughput over repeats on equal cards; None where no run has a window after warm-up.

    A run whose world changed has no one speed.
    """
    one_world = [run for run in runs if standing.WORLD not in standing.flags(run)]
    measured = [(run, kept) for run in one_world if (kept := steady(run)).any()]
    if not measured:
        return None
    samples, rates, waits, times = [], [], 0.0, 0.0
    for run, kept in measured:
        rate, lines = run.windows.rate[kept], run.windows.line[kept]
        samples.append(Sample(float(np.median(rate)), run.between(int(lines[0]), int(lines[-1]))))
        rates.append(rate)
        waits += float(run.windows.data_wait_s[kept].sum())
        times += float(run.windows.window_s[kept].sum())
    every = np.concatenate(rates)
    q25, q75 = np.percentile(every, [25, 75])
    run = measured[-1][0]
    return Throughput(
        rate=Measure(tuple(samples)),
        as_source=Measure(tuple(s for run, _ in measured if (s := _source_rate(run)))),
        q25=float(q25),
        q75=float(q75),
        windows=len(every),
        wait_share=waits / times,
        cards=run.cards,
        nodes=run.nodes,
        per_card_batch=run.start.per_card_batch if run.start else run.plan.per_card_batch,
        steps_limit=run.plan.max_steps,
    )


def _source_rate(run: Run) -> Sample | None:
    """Mean over the run of what the published system prints, or None for too short a run."""
    rule = run.plan.recipe.source_rate
    w = run.windows
    if rule is None or not len(w):
        return None
    if rule.over == "step":
        kept = np.flatnonzero((w.step - w.steps >= rule.skip) & np.isfinite(w.window_s))
        seconds = float(w.window_s[kept].sum())
        rates = [float(w.images[kept].sum()) / seconds] if seconds > 0 else []
    else:
        rates, kept = _epoch_rates(run, rule.skip)
    if not rates:
        return None
    value = round(statistics.fmean(round(rate, rule.decimals) for rate in rates), rule.decimals)
    return Sample(value, run.between(int(w.line[kept[0]]), int(w.line[kept[-1]])))


def _epoch_rates(run: Run, skip: int) -> tuple[list[float], npt.NDArray[np.intp]]:
    """images/s of each whole epoch after `skip`, on the clock that leaves out evaluation.

    Also the first and the last window that they are made of.
    """
    w = run.windows
    epoch = np.round(w.epoch)
    ends = np.flatnonzero((np.abs(w.epoch - epoch) < EPOCH_SLACK) & (epoch > 0))
    images = np.concatenate([[0.0], np.cumsum(w.images)])
    rates, members = [], []
    for before, end in itertools.pairwise([-1, *ends]):
        began = float(w.mark_s[before]) if before >= 0 else 0.0
        seconds = float(w.mark_s[end]) - began
        if epoch[end] > skip and seconds > 0:
            rates.append(float(images[end + 1] - images[before + 1]) / seconds)
            members += [before + 1, end]
    return rates, np.array(members, dtype=np.intp)


def at_mark(group: Group, target_s: float) -> State:
    """The state at one mark; without the mark, every measure is empty."""
    of_runs = [
        [each for each in run.of(Mark) if each[0].target_s == target_s] for run in group.runs
    ]
    marks = [found[-1] for found in of_runs if found]
    metrics = {
        name: Measure(tuple(Sample(getattr(mark, name), source) for mark, source in marks))
        for name in MARK_METRICS
    }
    protocols = {mark.protocol for mark, _ in marks}
    counts = [mark.count for mark, _ in marks]
    protocol = protocols.pop() if len(protocols) == 1 else None
    return State(metrics, min(counts, default=None), protocol)


def at_epoch(group: Group, epoch: float, protocol: str) -> State:
    """The state after `epoch` epochs: its evaluation, and the losses of the window before it."""
    samples: dict[str, list[Sample]] = {name: [] for name in MARK_METRICS}
    counts = []
    for run in group.runs:
        evals = [
            (e, source)
            for e, source in run.of(Eval)
            if e.protocol == protocol and abs(e.epoch - epoch) < EPOCH_SLACK and e.count
        ]
        if not evals:
            continue
        e, at_eval = evals[-1]
        samples["epoch"].append(Sample(e.epoch, at_eval))
        samples["top1"].append(Sample(100 * e.correct1 / e.count, at_eval))
        samples["top5"].append(Sample(100 * e.correct5 / e.count, at_eval))
        counts.append(e.count)
        at = run.windows.epoch
        before = np.flatnonzero((at > epoch - 1) & (at <= epoch + EPOCH_SLACK))
        if len(before):
            window = run.windows[int(before[-1])]
            samples["loss"].append(Sample(window.loss, run.at(window.line)))
            samples["ce"].append(Sample(window.ce, run.at(window.line)))
    metrics = {name: Measure(tuple(found)) for name, found in samples.items()}
    return State(metrics, min(counts, default=None), protocol)


def so_far(run: Run) -> dict[str, Sample]:
    """The newest ce, top1 (its own protocol) and img/s of a run that enters no table."""
    found = {}
    if len(run.windows):
        last = run.windows[len(run.windows) - 1]
        found["ce"] = Sample(last.ce, run.at(last.line))
    own = run.plan.recipe.data.eval[0].name
    evals = [(e, source) for e, source in run.of(Eval) if e.protocol == own and e.count]
    if evals:
        e, source = evals[-1]
        found["top1"] = Sample(100 * e.correct1 / e.count, source)
    speed = throughput([run])
    if speed:
        found["images_per_s"] = speed.rate.samples[0]
    return found
