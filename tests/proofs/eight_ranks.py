"""Run by torchrun in test_ranks.py: `eight_ranks.py OUT DIGITS`. Each rank writes what it saw.

Real ranks over gloo: three steps and an evaluation with each loader, then DDP's gradient.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch.nn.parallel import DistributedDataParallel

from proofrun import data, scoring, session, train
from proofrun.data import Batch
from proofrun.evaluate import averaged_model
from proofrun.optim import losses
from tests.plans import plan


class Recorded:
    """A loader that notes the ids it hands out."""

    def __init__(self, loader: Any, ids: list[int]) -> None:
        self.loader, self.ids = loader, ids
        self.steps = getattr(loader, "steps", 0)

    def epoch(self) -> Iterator[Batch]:
        return self.noted(self.loader.epoch())

    def __iter__(self) -> Iterator[Batch]:
        return self.noted(iter(self.loader))

    def noted(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        for batch in batches:
            self.ids.extend(batch.ids.tolist())
            yield batch

    def state(self) -> Any:
        return self.loader.state()

    def close(self) -> None:
        self.loader.close()


def three_steps(out: Path, loader: str, digits: str) -> train.Job:
    run_dir = out / loader / "001"
    run_dir.mkdir(parents=True, exist_ok=True)
    job = session.open_job(plan(loader, digits, 8), run_dir, [])
    trained: list[int] = []
    scored: list[int] = []
    job.state.loader = Recorded(job.state.loader, trained)
    opened = data.open_eval
    scoring.open_eval = lambda *a: Recorded(opened(*a), scored)
    train.train(job)
    scoring.open_eval = opened
    seen = {
        "trained": trained,
        "scored": scored,
        "steps": job.steps_per_epoch,
        "batch": job.plan.per_card_batch,
        "lr": job.plan.lr,
        "hash": train.checkpoint.state_hash(dict(job.state.model.named_parameters())),
    }
    (out / f"{loader}.rank{job.device.rank}.json").write_text(json.dumps(seen))
    return job


def gradients(job: train.Job) -> float:
    """Largest relative difference of DDP's gradient from rank 0's alone on the same global batch.

    nan on the other ranks: the averaged gradient is the same everywhere, one comparison is enough.
    """
    rank, world = job.device.rank, job.device.world
    torch.manual_seed(0)  # the same batch on every rank
    images = torch.randint(0, 256, (2 * world, 64, 64, 3), dtype=torch.uint8)
    labels = torch.randint(10, (2 * world,))
    # BN uses one set of statistics on all ranks: those of a batch would differ by design
    model = averaged_model(job.state.model, job.device)

    def backward(net: Any, part: slice) -> list[torch.Tensor]:
        model.zero_grad(set_to_none=True)
        losses(net(job.inputs(images[part])), labels[part], 0.1)[0].backward()
        return [p.grad.clone() for p in model.parameters() if p.grad is not None]

    alone = backward(model, slice(None)) if rank == 0 else []
    together = backward(
        DistributedDataParallel(model, broadcast_buffers=False),
        slice(2 * rank, 2 * rank + 2),
    )
    if rank != 0:
        return float("nan")
    scale = max(float(g.abs().max()) for g in alone)
    pairs = zip(alone, together, strict=True)
    return max(float((a - b).abs().max()) for a, b in pairs) / scale


def main(out: Path, digits: str) -> None:
    torch.set_num_threads(1)
    job = three_steps(out, "dali", digits)
    (out / f"gradient.rank{job.device.rank}.json").write_text(json.dumps(gradients(job)))
    three_steps(out, "synthetic", digits).device.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
