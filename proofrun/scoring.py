"""One evaluation within a run, of training or of inference: watched, and written as an event."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import Any, Literal, Protocol

from torch import nn

from proofrun import events
from proofrun.data import Batch, Shard, open_eval
from proofrun.data.lists import ImageList
from proofrun.device import Device
from proofrun.evaluate import Inputs, Score, evaluate
from proofrun.faultpoints import fault_point
from proofrun.heartbeat import Heart
from proofrun.recipe import EvalProtocol
from proofrun.runs import Plan
from proofrun.writer import EventWriter


class EvaluationLeft(Exception):
    """A signal came amid an evaluation, which may take long: all ranks leave it together."""


class Scoring(Protocol):
    """What an evaluation needs of the process that it runs in."""

    plan: Plan
    device: Device
    val: ImageList
    shard: Shard
    heart: Heart
    signals: list[int]
    writer: EventWriter | None

    @property
    def step(self) -> int: ...

    @property
    def epoch(self) -> float: ...


def told(job: Scoring) -> bool:
    """Whether any rank has got a signal; the same answer on all."""
    return bool(job.device.sum([len(job.signals)])[0])


def emit(job: Scoring, kind: type[events.Event], **fields: Any) -> None:
    """Write an event at the job's place, on rank 0."""
    if job.writer is not None:
        job.writer.write(kind, step=job.step, epoch=job.epoch, **fields)


def score_list(
    job: Scoring,
    net: nn.Module,
    inputs: Inputs,
    protocol: EvalProtocol,
    why: Literal["epoch", "final", "mark", "infer"],
    **more: Any,
) -> Score:
    """Score the validation list by one protocol, and write it as an Eval with `more` fields.

    Raises EvaluationLeft, CountError, DataError, WriteError.
    """
    start = time.monotonic()
    share = -(-len(job.val.files) // job.shard.world)
    batch = min(job.plan.per_card_batch, share)
    source = open_eval(job.plan.loader, job.val, protocol, batch, job.shard)
    try:
        score = evaluate(
            net,
            _watched(job, source),
            len(job.val.files),
            protocol.name,
            inputs,
            job.device,
            protocol.drops,
        )
    finally:
        source.close()
    emit(
        job,
        events.Eval,
        why=why,
        protocol=score.protocol,
        top1=score.top1,
        top5=score.top5,
        loss=score.loss,
        correct1=score.correct1,
        correct5=score.correct5,
        count=score.count,
        expected=len(job.val.files),
        prediction_hash=score.prediction_hash,
        eval_s=time.monotonic() - start,
        parts=[vars(part) for part in score.parts],
        **more,
    )
    return score


def _watched(job: Scoring, batches: Iterable[Batch]) -> Iterator[Batch]:
    """The batches of an evaluation, as many on every rank. Raises EvaluationLeft on a signal."""
    for number, batch in enumerate(batches):
        job.heart.beat("evaluate", job.step)
        fault_point("evaluation", step=job.step, batch=number, rank=job.device.rank)
        if told(job):
            raise EvaluationLeft
        yield batch
