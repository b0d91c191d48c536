"""Small checkpoints that differ in every step, and processes that save them and may die of it."""

from __future__ import annotations

import multiprocessing
import os
import resource
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT)]

import torch  # noqa: E402

from proofrun import checkpoint  # noqa: E402
from proofrun.errors import main_exit  # noqa: E402
from proofrun.faultpoints import VARIABLE  # noqa: E402

_processes = multiprocessing.get_context("forkserver")  # torch is imported once for all of them
_processes.set_forkserver_preload(["torch", "safetensors.torch"])


def contents(step: int) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """(model, train state) of a step."""
    model = {"weight": torch.full((64, 32), float(step)), "count": torch.tensor(step)}
    return model, {"stepper": {"momentum": torch.full((64, 32), -float(step))}, "ranks": [step]}


def save(folder: Path, step: int, best: bool = False, **meta: Any) -> Path:
    return checkpoint.save(folder, step, *contents(step), {"seq": step, **meta}, best)[0]


def holds(found: checkpoint.Checkpoint | None, step: int) -> bool:
    """Whether the checkpoint is, byte for byte, what `save` wrote at the step."""
    if found is None or found.meta["step"] != step:
        return False
    model, train = contents(step)
    return (
        checkpoint.state_hash(found.model) == checkpoint.state_hash(model)
        and torch.equal(found.train["stepper"]["momentum"], train["stepper"]["momentum"])
        and found.train["ranks"] == train["ranks"]
    )


def start(
    folder: Path, steps: Sequence[int], fault: str = "", user: int = 0, file_limit: int = 0
) -> multiprocessing.process.BaseProcess:
    """A process that saves these steps, each as the best, and says so in `<folder>.saved`."""
    process = _processes.Process(target=_run, args=(folder, steps, fault, user, file_limit))
    process.start()
    return process


def _run(folder: Path, steps: Sequence[int], fault: str, user: int, file_limit: int) -> None:
    os.environ[VARIABLE] = fault
    said = Path(f"{folder}.saved").open("a")  # noqa: SIM115
    sys.stderr = Path(f"{folder}.stderr").open("w", buffering=1)  # noqa: SIM115
    if user:
        os.setegid(user)
        os.seteuid(user)
    if file_limit:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit, file_limit))

    def main() -> None:
        for step in steps:
            save(folder, step, best=True)
            print(step, file=said, flush=True)

    main_exit(main, "saver")


if __name__ == "__main__":  # for a disk that only this process sees
    _run(Path(sys.argv[1]), [int(step) for step in sys.argv[2:]], "", 0, 0)
