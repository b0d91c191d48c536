"""Inference, as one rank does it: score every checkpoint named, rank them, time batches."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from torch import nn

from proofrun import events, latency
from proofrun.bootstrap import ROOT, in_checkout
from proofrun.data import Shard
from proofrun.data.lists import ImageList
from proofrun.device import Device
from proofrun.errors import CheckpointError, Exit, ProofrunError, one_line
from proofrun.evaluate import Inputs, Score
from proofrun.fuse import ready
from proofrun.heartbeat import Heart
from proofrun.memory import check_batch, fits
from proofrun.pretrained import Loaded, load
from proofrun.progress import Progress
from proofrun.recipe import EvalProtocol
from proofrun.runs import Plan
from proofrun.scoring import EvaluationLeft, emit, score_list, told
from proofrun.writer import Clock, EventWriter

Statistics = Literal["averaged", "rank 0"]


class Scored(NamedTuple):
    """One set of weights after its evaluation: by the recipe's own protocol, the first."""

    weights: Loaded
    bn: Statistics
    model: nn.Module  # as loaded, on the CPU
    net: nn.Module  # as it runs
    inputs: Inputs
    score: Score


class Rank(NamedTuple):
    """A line of the ranking."""

    score: Score
    bn: Statistics
    epoch: float
    path: str


@dataclass
class Place:
    """Where the events of a run stand: at the step of the weights that are being scored."""

    model: nn.Module
    step: int = 0


@dataclass
class InferJob:
    """One process of one Infer run: what does not change, and how it speaks to the outside."""

    plan: Plan
    run_dir: Path
    device: Device
    val: ImageList
    shard: Shard
    clock: Clock
    writer: EventWriter | None  # rank 0
    progress: Progress
    signals: list[int]  # filled by the signal handler
    lock: object  # held as long as the job lives
    heart: Heart
    state: Place
    epoch: float = 0.0  # of the weights that are being scored

    @property
    def step(self) -> int:
        return self.state.step

    @property
    def steps_per_epoch(self) -> int:
        return -(-len(self.val.files) // self.plan.global_batch)


def infer(job: InferJob) -> Exit:
    """Score, rank and time. Returns OK, or INTERRUPTED after a signal.

    Raises CheckpointError, CountError, DataError, WriteError, ProofrunError OUT_OF_MEMORY.
    """
    best: Scored | None = None
    ranking: list[Rank] = []
    try:
        for path in job.plan.weights:
            try:
                weights = _read(job, Path(path))
                for bn, model in _variants(weights, ROOT / job.plan.recipe_dir):
                    if told(job):
                        return Exit.INTERRUPTED
                    scored = _score_all(job, weights, bn, model)
                    ranking.append(Rank(scored.score, bn, weights.epoch, in_checkout(weights.path)))
                    if best is None or _order(scored.score) < _order(best.score):
                        best = scored
            except CheckpointError as error:
                if best is None and path == job.plan.weights[-1]:
                    raise
                _leave_out(job, error)
        assert best is not None
        job.state = Place(best.model, best.weights.step)
        job.epoch = best.weights.epoch
        if len(ranking) > 1:
            _show(job, ranking)
        if job.plan.latency and not _time(job, best):
            return Exit.INTERRUPTED
    except EvaluationLeft:
        return Exit.INTERRUPTED
    return Exit.OK


def _order(score: Score) -> tuple[int, float]:
    """The better, the smaller."""
    return -score.correct1, score.loss_sum


def _read(job: InferJob, path: Path) -> Loaded:
    """Read by rank 0 and handed to all."""
    found: Loaded | ProofrunError | None = None
    if job.device.rank == 0:
        try:
            found = load(ROOT / path, job.plan.recipe)
        except ProofrunError as error:
            found = error
    found = job.device.from_rank0(found)
    if isinstance(found, ProofrunError):
        raise found
    assert found is not None
    return found


def _leave_out(job: InferJob, error: CheckpointError) -> None:
    """Of several, one that cannot be scored is named, and the others are."""
    job.progress.say(f"left out: {one_line(error)}")
    code = error.exit_code
    emit(job, events.Fault, code=code, name=code.name, message=one_line(error), rank=0)


def _variants(weights: Loaded, recipe_dir: Path) -> Iterator[tuple[Statistics, nn.Module]]:
    """The network with BN statistics averaged over ranks, and as rank 0 had them."""
    yield "averaged", weights.build(recipe_dir)
    if weights.rank0 is not None:
        model = weights.build(recipe_dir)
        model.load_state_dict(weights.state | weights.rank0, strict=True)
        yield "rank 0", model


def _score_all(job: InferJob, weights: Loaded, bn: Statistics, model: nn.Module) -> Scored:
    """By every protocol of the recipe; the first is the one that ranks."""
    job.heart.beat("evaluate", weights.step)
    job.state = Place(model, weights.step)
    job.epoch = weights.epoch
    data = weights.recipe.data
    net, apart = ready(weights, model, job.device)
    job.progress.say(
        f"{in_checkout(weights.path)}: {weights.origin}; conv+BN fused, logits apart by {apart:.1e}"
    )
    inputs = Inputs(data.normalize, job.device.torch_device, weights.bgr)
    check_batch(net, inputs, max(p.crop for p in data.eval), job.plan.per_card_batch, job.device)
    scores = [_score(job, weights, bn, net, inputs, protocol) for protocol in data.eval]
    return Scored(weights, bn, model, net, inputs, scores[0])


def _score(
    job: InferJob,
    weights: Loaded,
    bn: Statistics,
    net: nn.Module,
    inputs: Inputs,
    protocol: EvalProtocol,
) -> Score:
    start = time.monotonic()
    score = score_list(
        job,
        net,
        inputs,
        protocol,
        "infer",
        weights=in_checkout(weights.path),
        weights_sha256=weights.sha256,
        origin=weights.origin,
        bn=bn,
    )
    seconds = time.monotonic() - start
    job.progress.say(
        f"top1 {score.top1:.2f} %  top5 {score.top5:.2f} %  ({score.correct1} of {score.count}, "
        f"{protocol.name}, BN {bn}, {score.count / seconds:.0f} img/s, predictions "
        f"{score.prediction_hash[:12]})"
    )
    return score


def _show(job: InferJob, ranking: list[Rank]) -> None:
    job.progress.say(f"ranked by {ranking[0].score.protocol}:")
    for place, (score, bn, epoch, path) in enumerate(sorted(ranking, key=_by_score), 1):
        known = f"{epoch:6.2f}" if epoch else "     –"  # a bare file does not say
        job.progress.say(
            f"{place:3d}  top1 {score.top1:6.2f} %  loss {score.loss:.4f}  epoch {known}  "
            f"BN {bn:8}  {path}"
        )


def _by_score(rank: Rank) -> tuple[int, float]:
    return _order(rank.score)


def _time(job: InferJob, best: Scored) -> bool:
    """Latency and throughput at every batch size, on rank 0 as events; False after a signal."""
    protocol = best.weights.recipe.data.eval[0]
    net, inputs, device = best.net, best.inputs, job.device
    for pipeline in (False, True):
        for batch in latency.BATCHES:
            if told(job):
                return False
            job.heart.beat("evaluate", job.state.step)
            (short,) = device.sum([not fits(net, inputs, protocol.crop, batch, device)])
            if short:
                job.progress.say(f"latency at batch {batch}: not measured, it does not fit")
            elif pipeline:
                loader, images = job.plan.loader, job.val
                _tell(job, best, latency.from_files(
                    net, inputs, loader, images, protocol, batch, job.shard, device
                ))  # fmt: skip
            else:
                _tell(job, best, latency.from_pixels(net, inputs, protocol.crop, batch, device))
    return True


def _tell(job: InferJob, best: Scored, found: latency.Latency | None) -> None:
    if found is None:  # not rank 0
        return
    emit(job, events.Latency, **vars(found), weights=in_checkout(best.weights.path))
    job.progress.say(
        f"batch {found.batch:3d} {'files to' if found.pipeline else 'pixels to'} logits: "
        f"p50 {found.p50_ms:.2f}  p95 {found.p95_ms:.2f}  p99 {found.p99_ms:.2f} ms  "
        f"{found.images_per_s:.1f} img/s  ({found.batches} batches)"
    )
