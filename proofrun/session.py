"""One rank's life: plan, device, last checkpoint, training, and how it ended."""

from __future__ import annotations

import fcntl
import os
import time
import traceback
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from proofrun import checkpoint, events
from proofrun.bootstrap import ROOT
from proofrun.cluster import roll_call
from proofrun.data import Shard, lost_a_worker, open_train
from proofrun.data.lists import ImageList, read_split
from proofrun.data.synthetic import synthetic_list
from proofrun.device import Device, lost_a_peer
from proofrun.errors import (
    Exit,
    LockedError,
    OverrideError,
    ProofrunError,
    RecipeError,
    one_line,
    out_of_memory,
)
from proofrun.evaluate import Inputs
from proofrun.faultpoints import fault_point
from proofrun.folders import RANK0
from proofrun.heartbeat import Heart
from proofrun.infer import InferJob, Place, infer
from proofrun.job import Job, Leg, TrainState
from proofrun.models import build_model
from proofrun.optim import Stepper, build_optimizer, build_scaler
from proofrun.progress import Progress
from proofrun.resume import newest_state
from proofrun.runs import Plan
from proofrun.status import Status, read_provenance, reserve
from proofrun.train import train
from proofrun.window import Window
from proofrun.writer import Clock, EventWriter


def run_rank(
    run_dir: Path,
    signals: list[int],
    heart: Heart | None = None,
    failures: list[BaseException] | None = None,
) -> Exit:
    """Do one rank of the run in `run_dir`; errors become a status and an exit code.

    `signals` is filled by the handler of SIGTERM and SIGINT, `failures` by threads that died.
    """
    rank = int(os.environ.get("RANK", "0"))
    job: Job | InferJob | None = None
    reserve(run_dir, rank)
    try:
        plan = Plan.load(run_dir / "recipe.yaml")
        if plan.name.task == "Infer":
            job = open_infer(plan, run_dir, signals, heart)
            code = infer(job)
        else:
            job = open_job(plan, run_dir, signals, heart, failures)
            code = train(job)
        message = "finished" if code is Exit.OK else "stopped by a signal; the same command goes on"
        if code is Exit.INTERRUPTED and plan.stop_at_epoch_end and not signals:
            message = "stopped at an epoch's end as asked; without the flag it goes on"
        weights = checkpoint.state_hash(job.state.model.state_dict())
        _leave(job, run_dir, rank, code, message, weights)
        job.heart.beat("end")
        job.device.close()
        return code
    except ProofrunError as error:
        code, message = error.exit_code, one_line(error)
    except Exception as error:
        with suppress(OSError):  # stderr is a file in the run folder, whose disk may be full
            traceback.print_exc()
        if lost_a_peer(error):
            message = f"rank {rank} lost another rank"
            _leave(job, run_dir, rank, Exit.WORKER_DIED, message, lost_peer=True)
            return Exit.WORKER_DIED
        code, message = Exit.INTERNAL, f"{type(error).__name__}: {one_line(error)}"
        if out_of_memory(error):
            code = Exit.OUT_OF_MEMORY
            message = f"out of memory: use a smaller --set batch.per_card ({one_line(error)[:200]})"
        elif lost_a_worker(error):
            code = Exit.WORKER_DIED
            message = f"a loader process of rank {rank} died (killed, or out of memory)"
    _leave(job, run_dir, rank, code, message)
    return code


def _leave(
    job: Job | InferJob | None,
    run_dir: Path,
    rank: int,
    code: Exit,
    message: str,
    weights: str | None = None,
    lost_peer: bool = False,
) -> None:
    """Write this rank's status, and on rank 0 the last events."""
    status = Status(
        code=int(code),
        message=message,
        rank=rank,
        t_wall=time.time(),
        step=job.state.step if job else 0,
        lost_peer=lost_peer,
        attempt=os.environ.get("PROOFRUN_STARTED", ""),
    )
    if job is not None:
        job.progress.close()
        if job.writer is not None:
            place: dict[str, Any] = {"step": job.state.step, "epoch": job.epoch}
            try:
                if status.status == "failed" or code not in (Exit.OK, Exit.INTERRUPTED):
                    job.writer.write(
                        events.Fault, **place, code=code, name=code.name, message=message, rank=rank
                    )
                job.writer.write(
                    events.RunEnd,
                    **place,
                    status=status.status,
                    code=code,
                    message=message,
                    weights_hash=weights,
                )
            except ProofrunError:  # a full disk: the status has its room
                pass
    status.write(run_dir)


def open_job(
    plan: Plan,
    run_dir: Path,
    signals: list[int],
    heart: Heart | None = None,
    failures: list[BaseException] | None = None,
) -> Job:
    """Everything a rank needs before its first step, at the state of the newest checkpoint.

    Raises DeviceError, DataError, CheckpointError, ResumeError.
    """
    heart = heart or Heart(run_dir, int(os.environ.get("RANK", "0")))
    clock, plan, device, shard = _begin(plan, heart)
    data = plan.recipe.data
    train_list, val_list = open_lists(plan)
    held = hold(run_dir) if device.rank == 0 else None
    torch.manual_seed(plan.seed)
    try:
        model = build_model(ROOT / plan.recipe_dir, plan.recipe.model, data.classes)
    except RecipeError as error:
        if any(key.split(".")[0] == "model" for key in plan.overrides):
            raise OverrideError(f"--set: {error}") from None
        raise
    model = model.to(device.torch_device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    parameters = sum(p.numel() for p in model.parameters())
    optimizer = build_optimizer(model, plan.recipe.optimizer)
    stepper = Stepper(optimizer, build_scaler(device.amp, device), device)

    saved = newest_state(run_dir, device, plan)
    leg = saved["leg"] if saved else Leg(0, 0, plan.seed)
    own = saved["ranks"][device.rank] if saved and saved["same_world"] else None
    torch.manual_seed(leg.seed * 10_007 + device.rank)  # dropout differs between ranks
    loader = open_train(
        plan.loader,
        train_list,
        data.train,
        plan.per_card_batch,
        shard,
        leg.seed,
        state=own["loader"] if own else None,
    )
    state = TrainState(model=model, stepper=stepper, loader=loader, leg=leg)
    if saved:
        buffers = own["buffers"] if own else {}  # of other ranks: the average serves all
        model.load_state_dict(saved["model"] | buffers, strict=True)
        stepper.load_state(saved["stepper"])
        state.step = saved["meta"]["step"]
        state.best_top1 = saved["meta"]["best_top1"]
        state.marks_done = saved["meta"]["marks_done"]
    if own:
        device.set_rng_state(own["rng"])
    writer = EventWriter(run_dir / "events.jsonl", clock) if device.rank == 0 else None
    job = Job(
        plan=plan,
        run_dir=run_dir,
        device=device,
        state=state,
        net=wrap(model, device),
        inputs=Inputs(data.normalize, device.torch_device),
        val=val_list,
        shard=shard,
        clock=clock,
        writer=writer,
        progress=_progress(device),
        window=Window(
            plan.log_interval,
            device.torch_device,
            run_dir / "iters.jsonl" if device.rank == 0 else None,
        ),
        signals=signals,
        heart=heart,
        lock=held,
        commit=read_provenance(run_dir).get("commit"),
        first_step=state.step,
        saved=(state.step, state.marks_done),
        failures=[] if failures is None else failures,
    )
    if saved and saved["meta"]["epoch_ended"]:
        job.ended_step = state.step
    elif saved and plan.purpose == "full":
        job.owes_epoch_end = job.at_epoch_end or state.step == job.total_steps
    if writer is not None:
        _announce(job, writer, parameters, saved)
    return job


def open_infer(
    plan: Plan, run_dir: Path, signals: list[int], heart: Heart | None = None
) -> InferJob:
    """Everything a rank needs before it reads the first weights. Raises DeviceError, DataError."""
    heart = heart or Heart(run_dir, int(os.environ.get("RANK", "0")))
    clock, plan, device, shard = _begin(plan, heart)
    held = hold(run_dir) if device.rank == 0 else None
    writer = EventWriter(run_dir / "events.jsonl", clock) if device.rank == 0 else None
    model = build_model(ROOT / plan.recipe_dir, plan.recipe.model, plan.recipe.data.classes)
    job = InferJob(
        plan=plan,
        run_dir=run_dir,
        device=device,
        val=open_lists(plan)[1],
        shard=shard,
        clock=clock,
        writer=writer,
        progress=_progress(device),
        signals=signals,
        lock=held,
        heart=heart,
        state=Place(model),
    )
    if writer is not None:
        _announce(job, writer, sum(p.numel() for p in model.parameters()), None)
    return job


def _begin(plan: Plan, heart: Heart) -> tuple[Clock, Plan, Device, Shard]:
    """What every rank opens first; with several nodes they meet here."""
    start = os.environ.get("PROOFRUN_STARTED")
    clock = Clock(float(start) if start else None)
    plan = roll_call(plan)
    device = Device(plan.device, plan.precision, plan.recipe.precision, heart)
    fault_point("start", rank=device.rank)
    shard = Shard(
        rank=device.rank,
        world=device.world,
        threads=int(os.environ.get("PROOFRUN_LOADER_THREADS", "1")),
        device_id=device.dali_device_id,
    )
    return clock, plan, device, shard


def _progress(device: Device) -> Progress:
    columns = os.environ.get("COLUMNS", "")
    return Progress(
        show=device.rank == 0,
        bar=os.environ.get("PROOFRUN_PROGRESS") == "bar",
        columns=int(columns) if columns.isdecimal() else 100,
    )


def hold(run_dir: Path) -> IO[str]:
    """Rank 0's lock on the run folder: launch may be killed while its ranks still save.

    Raises LockedError when earlier ranks do not leave within a minute.
    """
    file = (run_dir / RANK0).open("w", encoding="utf-8")
    for _ in range(600):
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return file
        except BlockingIOError:
            time.sleep(0.1)
    raise LockedError(f"{run_dir}: ranks of an earlier start still run; stop them, then try again")


def open_lists(plan: Plan) -> tuple[ImageList, ImageList]:
    """The train and the validation list of a run. Raises DataError."""
    data = plan.recipe.data
    if plan.loader == "synthetic":
        return (
            synthetic_list(data.train_images, data.classes),
            synthetic_list(data.val_images, data.classes),
        )
    root = ROOT / plan.data_dir  # an absolute path stays what it is
    return read_split(root, "train", data.classes), read_split(root, "val", data.classes)


def wrap(model: nn.Module, device: Device) -> nn.Module:
    """DDP where there are several ranks. Each rank keeps its own BN statistics."""
    if device.world == 1:
        return model
    ids = None if device.kind == "CPU" else [device.local_rank]
    return DistributedDataParallel(
        model, device_ids=ids, broadcast_buffers=False, gradient_as_bucket_view=True
    )


def _announce(
    job: Job | InferJob, writer: EventWriter, parameters: int, saved: dict[str, Any] | None
) -> None:
    """The first events of a process: what it runs, and from where it goes on."""
    plan, device = job.plan, job.device
    place: dict[str, Any] = {"step": job.state.step, "epoch": job.epoch}
    before = writer.last
    if before is not None:  # what earlier processes spent, lost steps included
        job.clock.go_on_from(before.wall_s, before.mark_s, before.train_s)
    writer.write(
        events.RunStart,
        **place,
        run=plan.run,
        number=int(job.run_dir.name),
        plan=plan.model_dump(mode="json", by_alias=True),
        overrides=plan.overrides,
        config_hash=plan.config_hash(),
        provenance=read_provenance(job.run_dir),
        world_size=device.world,
        nodes=plan.world.nodes,
        device=device.kind,
        device_name=device.name,
        per_card_batch=plan.per_card_batch,
        global_batch=plan.global_batch,
        lr=plan.lr,
        steps_per_epoch=job.steps_per_epoch,
        parameters=parameters,
        amp_dtype=device.amp.dtype if device.amp else None,
    )
    if before is not None:
        writer.write(
            events.Resume,
            **place,
            from_seq=saved["meta"]["seq"] if saved else -1,
            from_step=job.state.step,
            path=str(saved["path"].relative_to(job.run_dir)) if saved else "",
            remarks=saved["remarks"] if saved else ["no checkpoint yet: from the start"],
            **(
                {}
                if saved is None or saved["same_world"]
                else {"world_before": saved["meta"]["world"], "world_after": device.world}
            ),
        )
