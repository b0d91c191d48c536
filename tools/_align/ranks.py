"""One command as several ranks: torchrun starts it again, once a rank."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator

from proofrun.bootstrap import ROOT
from proofrun.errors import Exit, ProofrunError, one_line
from proofrun.process import stop_with_parent


def fan_out(ranks: int, device: str) -> bool:
    """Start this command once a rank, if that is still to be done. Raises ProofrunError."""
    if ranks == 1 or "WORLD_SIZE" in os.environ:
        return False
    line = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    line += [f"--nproc-per-node={ranks}", *sys.argv]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    # whatever ends this process ends torchrun, and torchrun its ranks
    done = subprocess.run(line, env=environment, capture_output=True, preexec_fn=stop_with_parent)
    sys.stdout.write(done.stdout.decode(errors="replace"))
    if done.returncode:
        said = done.stderr.decode(errors="replace").splitlines()
        own = [line for line in said if line.startswith("align.py: ")] or said[-1:] or ["nothing"]
        raise ProofrunError(
            f"a rank of {ranks} on {device} failed: {one_line(Exception(own[0]))}",
            Exit.WORKER_DIED,
        )
    return True


@contextlib.contextmanager
def threads() -> Iterator[None]:
    """The threads that launch would give a rank."""
    import torch

    if "OMP_NUM_THREADS" not in os.environ:
        from proofrun.host import usable_cores

        torch.set_num_threads(max(1, usable_cores() // int(os.environ.get("WORLD_SIZE", "1"))))
    yield
