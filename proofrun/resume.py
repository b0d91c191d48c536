"""What a run goes on from: the newest good checkpoint, if this run may go on from it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from proofrun import checkpoint
from proofrun.device import Device
from proofrun.errors import CheckpointError, ProofrunError, ResumeError
from proofrun.job import Leg
from proofrun.runs import Plan
from proofrun.status import read_provenance


def newest_state(run_dir: Path, device: Device, plan: Plan) -> dict[str, Any] | None:
    """The newest good checkpoint, read by rank 0 and handed to all; None for a fresh start.

    Keys: model, stepper, ranks (each one's buffers, rng, loader), meta, path, remarks, leg, and
    same_world: whether as many ranks wrote it as go on. Raises CheckpointError, ResumeError.
    """
    found: dict[str, Any] | ProofrunError | None = None
    if device.rank == 0:
        try:
            found = _read_newest(run_dir, device.world, plan)
        except ProofrunError as error:
            found = error
    found = device.from_rank0(found)
    if isinstance(found, ProofrunError):
        raise found
    return found


def _read_newest(run_dir: Path, world: int, plan: Plan) -> dict[str, Any] | None:
    remarks: list[str] = []
    folder = run_dir / "checkpoints"
    checkpoint.mend(folder)
    found = checkpoint.newest(folder, remarks)
    if found is None:
        if remarks:
            raise CheckpointError(f"{'; '.join(remarks)}: nothing to go on from; start with --new")
        return None
    for remark in remarks:
        print(f"proofrun: {remark}: skipped", flush=True)
    path, model, train_state, meta = found
    if meta["config_hash"] != plan.config_hash():
        raise ResumeError(f"{path} belongs to another recipe, override or data; use --new")
    leg = Leg(*meta.get("leg", (0, 0, plan.seed)))
    if meta["world"] != world:
        if not meta["epoch_ended"]:
            raise ResumeError(
                f"{path} was saved by {meta['world']} ranks within an epoch, this run has {world}: "
                f"give the NNODES it had and --stop-at-epoch-end, then go on with {world} ranks; "
                "or start beside it with --new"
            )
        done = round(meta["epoch"])
        leg = Leg(meta["step"], done, _leg_seed(plan.seed, done, world))
        remarks.append(f"{meta['world']} ranks before, {world} from epoch {done} on")
    commit = read_provenance(run_dir).get("commit")
    if meta.get("commit") != commit:
        remarks.append(f"saved by commit {meta.get('commit')}, goes on with {commit}")
    return {
        "model": model,
        **train_state,
        "meta": meta,
        "path": path,
        "remarks": remarks,
        "leg": leg,
        "same_world": meta["world"] == world,
    }


def _leg_seed(seed: int, epoch: int, world: int) -> int:
    """Of the data and the dropout from `epoch` on: other ranks cannot go on with a stream."""
    return int(np.random.SeedSequence([seed, epoch, world]).generate_state(1)[0] >> 1)
