"""Before a full training on a card: a few steps of it by `align.py`, held against a trusted trace.

Whatever comes of it, the run goes on: a card that computes otherwise is said here, and the report
shows it beside the run's verdicts.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from pathlib import Path

from proofrun import alignment, device
from proofrun.bootstrap import ROOT
from proofrun.cluster import Nodes
from proofrun.errors import printable
from proofrun.folders import RunFolder
from proofrun.process import stop_with_parent
from proofrun.runs import Plan, RunName

#: Seconds; three steps take far less, but a card may compile its kernels first.
LIMIT_S = 300

#: What torchrun tells a rank: the check is one process, whoever started launch.
_RANKS = ("RANK", "LOCAL_RANK", "WORLD_SIZE")


def is_due(plan: Plan, asked: bool | None, run_dir: Path) -> bool:
    """Whether a run begins with the check. `asked`: --align, --no-align, or neither.

    The trusted trace comes from a CPU, so there it is made only on demand. A run that has begun
    was checked then.
    """
    if plan.name.task != "Train" or (run_dir / "events.jsonl").exists():
        return False
    if asked is not None:
        return asked
    return plan.device != "CPU" and plan.purpose == "full" and plan.max_steps is None


def check(plan: Plan, nodes: Nodes, folder: RunFolder, logs: Path) -> None:
    """Replay on one card and say in a line what was found; the rest goes to stdout.log.

    Raises WriteError when stdout.log cannot be opened.
    """
    limit_s = LIMIT_S if nodes.count == 1 else min(LIMIT_S, max(1, nodes.timeout_s // 2))
    shown = f"alignment: a few steps on one {plan.device}, {limit_s} s at most (--no-align: none)"
    print(shown, flush=True)
    with folder.open_log() as log:
        said = printable(f"alignment: {_replay(plan.name, logs, limit_s, log.fileno())}")
        with contextlib.suppress(OSError):  # a full disk takes words away, never the run
            log.write(f"{said}\n".encode())
    print(said, flush=True)


def _replay(run: RunName, logs: Path, limit_s: int, log: int) -> str:
    start = time.time()
    line, own = command(str(run), logs)
    environment = {k: v for k, v in os.environ.items() if k not in _RANKS} | own
    process = subprocess.Popen(
        line,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.PIPE,
        start_new_session=True,  # Ctrl-C reaches launch alone, and ends this with it
        preexec_fn=stop_with_parent,
    )
    try:
        _, errors = process.communicate(timeout=limit_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return f"not checked: it took more than {limit_s} s; the run goes on"
    with contextlib.suppress(OSError):
        os.write(log, errors)
    name = alignment.trace_name(run.model, alignment.DATA, run.precision, run.device, 1, True)
    found = alignment.read((logs / alignment.FOLDER / name).with_suffix(".json"))
    if process.returncode in (0, 1) and found is not None and found.t_wall >= start:
        return found.line() if found.aligned else f"WARNING: {found.line()}; the run goes on"
    last = errors.decode(errors="replace").strip().rpartition("\n")[2] or "it said nothing"
    return f"not checked: {last} (code {process.returncode}); the run goes on"


def command(run: str, logs: Path) -> tuple[list[str], dict[str, str]]:
    """The command of the check before `run`, and what it adds to the environment.

    Its exit code is 0 where the device is aligned, 1 where it is not; any other says why the check
    could not be made.
    """
    line = [sys.executable, str(ROOT / "tools" / "align.py"), "replay", run, "--quick"]
    return line, {"PROOFRUN_LOGS": str(logs), **device.RANK_ENVIRONMENT}
