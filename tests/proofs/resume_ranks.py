"""A rank of test_resume.py: `resume_ranks.py OUT DIGITS WORLD CASES`, started by torchrun.

Trains each case to its end, then again with all six stops, and compares. A stop ends the job, and a
new one is opened from what lies on the disk: in this process, as starting one takes far longer than
such a training. SIGTERM is a real one; a kill is an exception that nothing catches before the job
is gone. Real processes, killed and started again, are the other tests' matter.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import NamedTuple

import torch

from proofrun import events, launch, session, train
from proofrun.cluster import Nodes
from proofrun.errors import Exit
from proofrun.faultpoints import InjectedFault
from proofrun.job import Job
from proofrun.runs import Plan, RunName

from . import tiny
from .helpers import read

#: As they follow one another in one run.
STOPS = ("middle step", "last step", "evaluation", "save", "epoch start", "first step")


class Case(NamedTuple):
    precision: str
    world: int
    recipe: str
    loader: str

    @property
    def run(self) -> str:
        epochs = {"GoogLeNet": 10, "Inceptionv2": 6}[self.recipe]
        device = "1CPU" if self.world == 1 else f"{self.world}CPUs"
        return f"{self.recipe}-Digits_{self.precision}_{epochs}E_{device}_Train"

    @property
    def folder(self) -> str:
        return "-".join(map(str, self))

    def plan(self, digits: str) -> Plan:
        """As launch makes it. No recipe declares FP16 on a CPU: there it is AMP's, but for that."""
        declared = self._replace(precision="AMP") if self.precision == "FP16" else self
        options = launch.parse(
            [declared.run, *tiny.flags(), "--loader", self.loader, "--data", digits]
        )
        plan, _ = launch.make_plan(options, Nodes(), Path(digits).parent / "logs")
        name = RunName.parse(self.run)
        return plan.model_copy(update={"run": str(name), "precision": name.precision})


def stop(name: str, world: int, kill: str = "kill") -> tuple[str, int]:
    """(the fault, the step from which the run then goes on).

    SIGTERM saves at that very step; `kill` loses what no checkpoint had. Faults that follow one
    another at one step are one rank's: another would be hit while the first one dies.
    """
    steps, last = tiny.steps_per_epoch(world), world - 1
    everywhere = kill == "exception"
    return {
        "middle step": (f"step,step={steps // 2},rank=0:sigterm", steps // 2 + 1),
        "last step": (f"step,step={steps - 1},rank={last}:sigterm", steps),
        "evaluation": (f"evaluation,step={steps},batch=1,rank=0:sigterm", steps),
        "save": (f"save,step={steps},epoch_ended=1{'' if everywhere else ',rank=0'}:{kill}", steps),
        "epoch start": (f"epoch,step={steps}{'' if everywhere else f',rank={last}'}:{kill}", steps),
        "first step": (f"step,step={steps},rank={last}:sigterm", steps + 1),
    }[name]


def train_to_the_end(plan: Plan, run_dir: Path, signals: list[int]) -> None:
    """One job after another, until one has finished."""
    while True:
        signals.clear()
        job: Job | None = None
        try:
            job = session.open_job(plan, run_dir, signals)
            code = train.train(job)
        except InjectedFault:
            code = Exit.INTERRUPTED
        assert job is not None
        job.state.loader.close()
        if job.writer is not None:
            job.writer.close()
        if job.lock is not None:
            job.lock.close()  # type: ignore[attr-defined]
        if code is Exit.OK:
            return


def main(out: Path, digits: str, world: int, wanted: list[Case]) -> None:
    rank = int(os.environ.get("RANK", "0"))
    torch.set_num_threads(1)
    signals: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: signals.append(number))
    asked = [stop(name, world, "exception") for name in STOPS]
    for case in wanted:
        began = time.monotonic()
        folders = []
        for name in ("clean", "stopped"):
            folder = out / case.folder / name / "001"
            folder.mkdir(parents=True, exist_ok=True)
            folders.append(folder)
            os.environ["PROOFRUN_TEST_FAULT_ONCE"] = str(out / case.folder / f"once-{rank}")
            os.environ.pop("PROOFRUN_TEST_FAULT", None)
            if name == "stopped":
                os.environ["PROOFRUN_TEST_FAULT"] = ";".join(fault for fault, _ in asked)
            train_to_the_end(case.plan(digits), folder, signals)
        if rank == 0:
            log = read(folders[1])
            found = {
                "went_on_from": [e.from_step for e in log if isinstance(e, events.Resume)],
                "differences": tiny.differences(*folders),
                "scaler": any(isinstance(e, events.Train) and e.scale for e in log),
                "seconds": time.monotonic() - began,
            }
            (out / f"{case.folder}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    cases = [Case(c[0], int(c[1]), c[2], c[3]) for c in (t.split("-") for t in sys.argv[4:])]
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), cases)
