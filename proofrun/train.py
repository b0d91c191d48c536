"""The training loop: one for 1 and N cards, every precision, every loader."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from typing import Literal

from proofrun import checkpoint, events
from proofrun.data import Batch
from proofrun.errors import Exit, NonFiniteError
from proofrun.evaluate import Score, averaged_model
from proofrun.faultpoints import fault_point
from proofrun.job import Job
from proofrun.optim import learning_rate, losses
from proofrun.recipe import EvalProtocol
from proofrun.scoring import EvaluationLeft, emit, score_list, told

#: Steps of a process whose windows stay out of throughput: caches, autotuning and thread pools.
WARMUP_STEPS = 10
#: Seconds between two looks for a signal where steps are slow: it has to be saved within 30 s.
LOOK_S = 5.0


def train(job: Job) -> Exit:
    """Train to the end, or to a signal. Returns OK or INTERRUPTED.

    Raises NonFiniteError, CountError, WriteError, DataError.
    """
    state, plan = job.state, job.plan
    recipe = plan.recipe
    job.net.train()
    job.clock.start_mark()
    job.window.start()
    _agree(job, told(job), None)  # a signal in the start, or a mark due while a process was killed
    if (stopped := _settle(job)) is not None:
        return stopped
    if job.owes_epoch_end and (stopped := _end_of_epoch(job)) is not None:
        return stopped
    while state.step < job.total_steps:
        fault_point("epoch", step=state.step, rank=job.device.rank)
        for batch, wait_s in _timed(job, state.loader.epoch()):
            lr = learning_rate(recipe.schedule, plan.lr, job.schedule_step, job.steps_per_epoch)
            labels = batch.labels.to(job.device.torch_device, non_blocking=True)
            with job.device.autocast():
                logits = job.net(job.inputs(batch.images))
            loss, ce = losses(logits, labels, recipe.loss.label_smoothing)
            job.heart.beat("exchange")
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
            if (stopped := _end_of_epoch(job)) is not None:
                return stopped
            job.window.start()
    return Exit.OK


def _timed(job: Job, batches: Iterator[Batch]) -> Iterator[tuple[Batch, float]]:
    """Each batch with the seconds that the loop waited for it."""
    while True:
        job.heart.beat("data", job.state.step)
        start = time.monotonic()
        batch = next(batches, None)
        if batch is None:
            return
        waited = time.monotonic() - start
        job.heart.beat("step")
        fault_point("step", step=job.state.step, rank=job.device.rank)
        if job.failures:
            raise job.failures[0]
        yield batch, waited


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
        emit(
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
    every = 1 if step_s is None else max(1, min(job.plan.log_interval, int(LOOK_S / step_s)))
    job.stop, job.look_every = job.device.from_rank0((decision, every))


def _stop_is_here(job: Job) -> bool:
    if job.stop is not None and job.state.step >= job.stop[0]:
        return True
    # alone there is nobody to ask: look at every step
    look = job.device.world == 1 or job.window.steps % job.look_every == 0
    return look and told(job)


def _settle(job: Job) -> Exit | None:
    """Act on the stop announced for this step: a mark, or a signal that ends the process."""
    if job.stop is None or job.state.step < job.stop[0]:
        return None
    why = job.stop[1]
    job.stop = None
    if why == "mark":
        try:
            _mark(job)
        except EvaluationLeft:  # what the mark saved is this very state
            return Exit.INTERRUPTED
        job.window.start()
        return None
    if job.saved != (job.state.step, job.state.marks_done):
        _save(job, "signal")
    return Exit.INTERRUPTED


def _mark(job: Job) -> None:
    """Save and evaluate the state at a time mark. Neither changes any training state."""
    target = _next_mark(job)
    if job.device.from_rank0(target) is None:
        return
    _save(job, "mark")
    job.state.marks_done += 1
    score = _score(job, job.plan.recipe.data.eval[0], "mark")
    last = job.writer.losses if job.writer else None
    if last is not None:
        emit(
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


def _end_of_epoch(job: Job) -> Exit | None:
    """Log the rest of the window, evaluate, save; at the end by every protocol of the recipe.

    Returns INTERRUPTED when a signal came, or the plan ends here.
    """
    if job.window.steps:
        _log(job)
    state = job.state
    last = state.step == job.total_steps
    protocols = job.plan.recipe.data.eval
    counted = job.writer.next_seq - 1 if job.writer else 0
    try:
        scores = [
            _score(job, protocol, "final" if last else "epoch")
            for protocol in (protocols if last else protocols[:1])
        ]
    except EvaluationLeft:  # to be done anew: what is evaluated so far does not count
        if job.saved != (state.step, state.marks_done):
            _save(job, "signal", seq=counted)
        return Exit.INTERRUPTED
    best = scores[0].top1 > state.best_top1
    state.best_top1 = max(scores[0].top1, state.best_top1)
    job.ended_step = state.step
    job.owes_epoch_end = False
    _save(job, "final" if last else "epoch", best=best)
    if last:
        return None
    return Exit.INTERRUPTED if told(job) or job.plan.stop_at_epoch_end else None


def _score(job: Job, protocol: EvalProtocol, why: Literal["epoch", "final", "mark"]) -> Score:
    """Evaluate a copy of the model whose BN statistics are averaged over ranks.

    Raises NonFiniteError for a state, or a loss over the list, that is not finite.
    """
    job.state.stepper.check()
    job.state.stepper.check_state(job.state.model, job.state.step)
    job.clock.stop_mark()
    model = averaged_model(job.state.model, job.device)
    score = score_list(job, model, job.inputs, protocol, why)
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


def _save(job: Job, why: str, best: bool = False, seq: int | None = None) -> None:
    """Write a checkpoint; every rank's own BN statistics, RNG and loader position go into it.

    `seq`: the last event that counts when a run goes on from here; by default this save's own.
    """
    start = time.monotonic()
    job.heart.beat("save", job.state.step)
    ended = int(job.ended_step == job.state.step)
    fault_point("save", step=job.state.step, rank=job.device.rank, epoch_ended=ended)
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
                "epoch_ended": job.ended_step == state.step,
                "epoch": job.epoch,
                "seq": job.writer.next_seq if seq is None else seq,
                "world": device.world,
                "leg": list(state.leg),
                "config_hash": job.plan.config_hash(),
                "commit": job.commit,
                "best_top1": state.best_top1,
                "marks_done": state.marks_done,
                "clock": job.clock.readings(),
            },
            best=best,
        )
        emit(
            job,
            events.Checkpoint,
            why=why,
            path=str(path.relative_to(job.run_dir)),
            bytes=size,
            save_s=time.monotonic() - start,
        )
    job.saved = (state.step, state.marks_done)
    device.from_rank0(None)  # no rank goes on, or leaves, before the save is whole
