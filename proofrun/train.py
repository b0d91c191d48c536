"""The training loop: one for 1 and N cards, every precision, every loader."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from proofrun import checkpoint, events
from proofrun.data import Batch, Shard, TrainLoader, open_eval
from proofrun.data.lists import ImageList
from proofrun.device import Device
from proofrun.errors import Exit, NonFiniteError
from proofrun.evaluate import Inputs, Score, averaged_model, evaluate
from proofrun.optim import Stepper, learning_rate, losses
from proofrun.progress import Progress
from proofrun.recipe import EvalProtocol
from proofrun.runs import Plan
from proofrun.window import Window

#: Steps of a process whose windows stay out of throughput: caches, autotuning and thread pools.
WARMUP_STEPS = 10


@dataclass
class TrainState:
    """What changes while training, and all that a checkpoint has to hold."""

    model: nn.Module
    stepper: Stepper
    loader: TrainLoader
    step: int = 0
    best_top1: float = -1.0
    marks_done: int = 0


@dataclass
class Job:
    """One process of one run: what does not change, and how it speaks to the outside."""

    plan: Plan
    run_dir: Path
    device: Device
    state: TrainState
    net: nn.Module  # the model, wrapped for gradients over ranks
    inputs: Inputs
    val: ImageList
    shard: Shard
    clock: events.Clock
    writer: events.EventWriter | None  # rank 0
    progress: Progress
    window: Window
    signals: list[int]  # filled by the signal handler
    lock: object  # held as long as the job lives
    commit: str | None  # of the code that runs
    stop: tuple[int, str] | None = None  # (step, "mark" or "signal"), as announced by rank 0
    first_step: int = 0  # of this process
    owes_epoch_end: bool = False  # saved at an epoch's last step, before its evaluation
    averaged: nn.Module | None = field(default=None, repr=False)

    @property
    def steps_per_epoch(self) -> int:
        return self.state.loader.steps

    @property
    def total_steps(self) -> int:
        full = self.plan.recipe.schedule.epochs * self.steps_per_epoch
        return full if self.plan.max_steps is None else min(full, self.plan.max_steps)

    @property
    def epoch(self) -> float:
        """Epochs done, with fraction."""
        return self.state.step / self.steps_per_epoch


def train(job: Job) -> Exit:
    """Train to the end, or to a signal. Returns OK or INTERRUPTED.

    Raises NonFiniteError, CountError, WriteError, DataError.
    """
    state, plan = job.state, job.plan
    recipe = plan.recipe
    job.net.train()
    job.clock.start_mark()
    job.window.start()
    if job.owes_epoch_end:
        _end_of_epoch(job)
    _agree(job, False, None)  # a mark that fell due while a process was killed
    _settle(job)
    while state.step < job.total_steps:
        for batch, wait_s in _timed(state.loader.epoch()):
            lr = learning_rate(recipe.schedule, plan.lr, state.step, job.steps_per_epoch)
            labels = batch.labels.to(job.device.torch_device, non_blocking=True)
            with job.device.autocast():
                logits = job.net(job.inputs(batch.images))
            loss, ce = losses(logits, labels, recipe.loss.label_smoothing)
            state.stepper.apply(loss, state.step, lr)
            state.step += 1
            job.window.add(loss, ce, lr, len(labels), wait_s)
            if job.window.full or _stop_is_here(job) or state.step == job.total_steps:
                _log(job)
                if (stopped := _settle(job)) is not None:
                    return stopped
            if state.step == job.total_steps:
                break
        if plan.purpose == "full":
            _end_of_epoch(job)
            if (stopped := _settle(job)) is not None:
                return stopped
            job.window.start()
    return Exit.OK


def _timed(batches: Iterator[Batch]) -> Iterator[tuple[Batch, float]]:
    """Each batch with the seconds that the loop waited for it."""
    while True:
        start = time.monotonic()
        batch = next(batches, None)
        if batch is None:
            return
        yield batch, time.monotonic() - start


def _log(job: Job) -> None:
    """Read the window, write it, check that losses are finite, and agree on the next stop."""
    read = job.window.read()
    values = read.pop("values")
    job.clock.train_s += read["window_s"]
    world = job.device.world
    loss, ce, images, signals = job.device.sum(
        [read["loss"], read["ce"], read["images"], len(job.signals)]
    )
    read |= {"loss": loss / world, "ce": ce / world, "images": int(images)}
    if job.writer is not None:
        _emit(
            job,
            events.Train,
            **read,
            warmup=job.state.step - read["steps"] < job.first_step + WARMUP_STEPS,
            scale=job.state.stepper.scale(),
            skipped=int(job.state.stepper.counts[0]),
        )
        if job.epoch <= 1:
            job.window.write_iterations(values, job.state.step)
        shown = read | {
            "img_s": read["images"] / read["window_s"],
            "wait": read["data_wait_s"] / read["window_s"],
        }
        left = (job.total_steps - job.state.step) * read["window_s"] / read["steps"]
        job.progress.window(job.state.step, job.total_steps, job.epoch, shown, left)
    job.state.stepper.check()
    _agree(job, signals > 0, read["window_s"] / read["steps"])
    job.window.start()


def _next_mark(job: Job) -> float | None:
    """Seconds on the mark clock of the next mark, or None."""
    marks = sorted(job.plan.recipe.marks_s) if job.plan.purpose == "full" else []
    return marks[job.state.marks_done] if job.state.marks_done < len(marks) else None


def _agree(job: Job, signalled: bool, step_s: float | None) -> None:
    """Rank 0 announces "stop at step S": all ranks stop together, with no host sync in between.

    A mark that falls before the next log point is announced for the step in which it falls;
    `step_s` is the current duration of a step, None when there was none.
    """
    decision: tuple[int, str] | None = None
    if job.device.rank == 0:
        mark = _next_mark(job)
        if signalled:
            decision = (job.state.step, "signal")
        elif mark is not None:
            left = mark - job.clock.mark_s
            if left <= 0:
                decision = (job.state.step, "mark")
            elif step_s is not None and left <= step_s * job.plan.log_interval:
                decision = (job.state.step + math.ceil(left / step_s), "mark")
    job.stop = job.device.from_rank0(decision)


def _stop_is_here(job: Job) -> bool:
    if job.device.world == 1 and job.signals:  # nobody to agree with
        return True
    return job.stop is not None and job.state.step >= job.stop[0]


def _settle(job: Job) -> Exit | None:
    """Act on the stop announced for this step: a mark, or a signal that ends the process."""
    if job.stop is None or job.state.step < job.stop[0]:
        return None
    why = job.stop[1]
    job.stop = None
    if why == "signal":
        _save(job, "signal")
        return Exit.INTERRUPTED
    _mark(job)
    job.window.start()
    return None


def _mark(job: Job) -> None:
    """Save and evaluate the state at a time mark. Neither changes any training state."""
    target = _next_mark(job)
    if job.device.from_rank0(target) is None:
        return
    _save(job, "mark")
    job.state.marks_done += 1
    score = _score(job, job.plan.recipe.data.eval[0], "mark")
    last = job.writer.last_train if job.writer else None
    if last is not None:
        _emit(
            job,
            events.Mark,
            target_s=target,
            loss=last.loss,
            ce=last.ce,
            top1=score.top1,
            top5=score.top5,
            count=score.count,
            protocol=score.protocol,
        )
        job.progress.say(
            f"mark {target:g} s: epoch {job.epoch:.2f}  loss {last.loss:.4f}  "
            f"top1 {score.top1:.2f} %  top5 {score.top5:.2f} %"
        )


def _end_of_epoch(job: Job) -> None:
    """Log the rest of the window, evaluate, save; at the end by every protocol of the recipe."""
    if not job.window.empty:
        _log(job)
    last = job.state.step == job.total_steps
    protocols = job.plan.recipe.data.eval
    for protocol in protocols if last else protocols[:1]:
        score = _score(job, protocol, "final" if last else "epoch")
        if protocol is protocols[0]:
            best = score.top1 > job.state.best_top1
            job.state.best_top1 = max(score.top1, job.state.best_top1)
    _save(job, "final" if last else "epoch", best=best)
    (signals,) = job.device.sum([len(job.signals)])
    if signals and not last:
        _agree(job, True, None)


def _score(job: Job, protocol: EvalProtocol, why: str) -> Score:
    """Evaluate a copy of the model whose BN statistics are averaged over ranks.

    Raises NonFiniteError for a state, or a loss over the list, that is not finite.
    """
    job.state.stepper.check()
    job.state.stepper.check_state(job.state.model, job.state.step)
    job.clock.stop_mark()
    start = time.monotonic()
    batches = open_eval(job.plan.loader, job.val, protocol, job.plan.per_card_batch, job.shard)
    try:
        score = evaluate(
            averaged_model(job.state.model, job.device),
            batches,
            len(job.val.files),
            protocol.name,
            job.inputs,
            job.device,
            protocol.drops,
        )
    finally:
        batches.close()
    if job.writer is not None:
        _emit(
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
        )
        if why != "mark":
            job.progress.say(
                f"{why}: epoch {job.epoch:.2f}  top1 {score.top1:.2f} %  top5 {score.top5:.2f} %  "
                f"({score.correct1} of {score.count}, {protocol.name})"
            )
    if not math.isfinite(score.loss):
        raise NonFiniteError(
            f"{protocol.name}: the loss of the evaluation is not finite at step {job.state.step}; "
            "this state becomes no best: lower the learning rate, or try BF16 or FP32"
        )
    job.clock.start_mark()
    return score


def _save(job: Job, why: str, best: bool = False) -> None:
    """Write a checkpoint; every rank's own BN statistics, RNG and loader position go into it."""
    start = time.monotonic()
    state, device = job.state, job.device
    state.stepper.check()
    state.stepper.check_state(state.model, state.step)
    model = averaged_model(state.model, device).state_dict()
    own = {
        "buffers": {name: b.detach().cpu().clone() for name, b in state.model.named_buffers()},
        "rng": device.rng_state(),
        "loader": state.loader.state(),
    }
    ranks = device.gather(own)
    if job.writer is not None:
        path, size = checkpoint.save(
            job.run_dir / "checkpoints",
            state.step,
            model,
            {"stepper": state.stepper.state(), "ranks": ranks},
            {
                "run": job.plan.run,
                "why": why,
                "keep": why in ("mark", "final"),
                "epoch_ended": why in ("epoch", "final"),
                "epoch": job.epoch,
                "seq": job.writer.next_seq,
                "world": device.world,
                "config_hash": job.plan.config_hash(),
                "commit": job.commit,
                "best_top1": state.best_top1,
                "marks_done": state.marks_done,
                "clock": job.clock.readings(),
            },
            best=best,
        )
        _emit(
            job,
            events.Checkpoint,
            why=why,
            path=str(path.relative_to(job.run_dir)),
            bytes=size,
            save_s=time.monotonic() - start,
        )
    device.from_rank0(None)  # no rank goes on, or leaves, before the save is whole


def _emit(job: Job, kind: type[events.Event], **fields: Any) -> None:
    assert job.writer is not None
    job.writer.write(kind, step=job.state.step, epoch=job.epoch, **fields)
