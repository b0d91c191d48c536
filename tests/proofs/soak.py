"""A soak: `python -m tests.proofs.soak --faults 200` (or --minutes M) [--seed S] [--at-once K].

Trains tiny rehearsals while random faults hit launch, torchrun, ranks and loader processes at
random moments, and starts the same command again whenever launch itself ends. Each training then
has to have left the very state of one that met nothing. Writes reports/proof/soak.md.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from proofrun.errors import Exit
from proofrun.heartbeat import Beat, read_beat

from . import tiny
from .helpers import ROOT, Evidence, shell

#: (run, loader): both recipes, both loaders, one and two ranks, FP32 and bf16.
TRAININGS = (
    ("GoogLeNet-Digits_FP32_10E_2CPUs_Train", "dali"),
    ("Inceptionv2-Digits_AMP_6E_1CPU_Train", "torchvision"),
    ("Inceptionv2-Digits_FP32_6E_2CPUs_Train", "torchvision"),
    ("GoogLeNet-Digits_AMP_10E_1CPU_Train", "dali"),
)
EPOCHS = 6
#: Faults of one training, which then ends in peace.
EACH = 25
RANK_TIMEOUT_S = 20
#: Faults in a row without a new step; then the next one waits for progress.
PATIENCE = 6


@dataclass
class Training:
    """One training under fire, from its first start to its end."""

    run: str
    loader: str
    folder: Path
    faults: Counter[str] = field(default_factory=Counter)
    starts: int = 0
    seconds: float = 0.0
    problems: list[str] = field(default_factory=list)

    @property
    def world(self) -> int:
        return 2 if "_2CPUs_" in self.run else 1

    def beats(self) -> list[Beat]:
        found = [read_beat(self.folder, rank) for rank in range(self.world)]
        return [beat for beat in found if beat is not None]

    def step(self) -> int:
        return max((beat.step for beat in self.beats()), default=0)

    def trains(self, pid: int) -> bool:
        """Whether the watch knows this rank: it has longer for its start."""
        return any(beat.pid == pid and beat.phase != "start" for beat in self.beats())


def draw(dice: random.Random, loader: str) -> tuple[str, str]:
    """(who, what) of the next fault."""
    kinds = {"rank": 12, "all ranks": 2, "torchrun": 2, "launch": 3, "slow rank": 1}
    kinds |= {"loader": 3} if loader == "torchvision" else {}
    who = dice.choices([*kinds], [*kinds.values()])[0]
    what = {
        "rank": ("SIGKILL", "SIGSEGV", "SIGABRT", "SIGTERM", "SIGINT", "SIGSTOP"),
        "all ranks": ("SIGKILL", "SIGTERM"),
        "torchrun": ("SIGKILL", "SIGTERM"),
        "launch": ("SIGKILL", "SIGTERM", "SIGINT", "SIGTERM, twice"),
        "slow rank": ("SIGSTOP, 2 s later SIGCONT",),
        "loader": ("SIGKILL",),
    }[who]
    return who, dice.choice(what)


def strike(training: Training, launch: subprocess.Popen[str], who: str, what: str) -> bool:
    """Do it; False where there is no such process at this moment."""
    number = getattr(signal, what.split(",")[0])
    try:
        tree = psutil.Process(launch.pid).children(recursive=True)
        torchrun = [p for p in tree if p.ppid() == launch.pid]
        workers = [p for p in tree if "proofrun.worker" in p.cmdline() and p not in torchrun]
        above = {p.pid for p in workers}
        ranks = [p for p in workers if p.ppid() not in above]
        victims = {
            "rank": ranks[-1:],
            "slow rank": ranks[-1:],
            "all ranks": ranks if len(ranks) == training.world else [],
            "loader": [p for p in workers if p.ppid() in above][-1:],
            "torchrun": torchrun,
            "launch": [launch] if tiny.catches(launch.pid, signal.SIGTERM) else [],
        }[who]
        if "SIGSTOP" in what and not all(training.trains(p.pid) for p in victims):
            return False
        for victim in victims:
            victim.send_signal(number)
        if what == "SIGTERM, twice":
            time.sleep(0.5)
            launch.send_signal(number)
        if what.endswith("SIGCONT"):
            time.sleep(2)
            victims[0].send_signal(signal.SIGCONT)
    except psutil.NoSuchProcess:
        return False
    return bool(victims)


def soak(
    training: Training, env: dict[str, str], dice: random.Random, left: int, until: float
) -> None:
    """Train under fire until the run has finished; at most `left` faults, none after `until`."""
    line = ["bash", str(ROOT / f"run_scripts/{training.run}.sh"), "--max-restarts", "1000000",
            "--logs", str(training.folder.parents[1]), *flags(training.loader)]  # fmt: skip
    began = time.monotonic()
    idle, reached = 0, 0
    who, what = draw(dice, training.loader)
    log = (training.folder.parent / "launch.txt").open("a+", encoding="utf-8")
    while True:
        launch = subprocess.Popen(line, env=env, stdout=log, stderr=log, text=True)
        training.starts += 1
        due = time.monotonic() + dice.expovariate(1 / 5)
        while launch.poll() is None:
            time.sleep(0.05)
            if training.step() > reached:
                if idle >= PATIENCE:  # let it come to a save now and then
                    due = time.monotonic() + dice.random() * 10
                reached, idle = training.step(), 0
            quiet = training.faults.total() >= left or time.monotonic() > until
            if quiet or time.monotonic() < due or idle >= PATIENCE:
                continue
            if strike(training, launch, who, what):
                training.faults[f"{who}: {what}"] += 1
                idle += 1
                due = time.monotonic() + dice.expovariate(1 / 5)
                who, what = draw(dice, training.loader)
        code = launch.returncode
        if code == Exit.OK:
            break
        if code not in (-signal.SIGKILL, Exit.INTERRUPTED):
            log.seek(0)
            tail = log.read()[-2000:]
            training.problems.append(f"{training.run}: launch ended with {code}:\n{tail}")
            break
    training.seconds = time.monotonic() - began


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--faults", type=int, help="end after so many")
    parser.add_argument("--minutes", type=float, help="no fault after so many minutes")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--at-once", type=int, default=1, help="trainings side by side")
    options = parser.parse_args()
    if options.faults is None and options.minutes is None:
        parser.error("give --faults N, --minutes M, or both")
    until = time.monotonic() + 60 * (options.minutes or 1e6)
    evidence = Evidence("soak", f"python -m tests.proofs.soak {' '.join(sys.argv[1:])}")
    work = Path(tempfile.mkdtemp(prefix="soak-"))
    digits = work / "digits"
    shell([sys.executable, ROOT / "tools/dataset.py", "prepare", "digits", "--dst", digits])
    env = {
        "PATH": os.environ["PATH"], "HOME": str(work), "PYTHON": sys.executable,
        "DIGITS_DATASET": str(tiny.tiny_digits(digits, work / "tiny")),
        "OMP_NUM_THREADS": "1", "PROOFRUN_LOADER_THREADS": "1", "RANK_TIMEOUT": str(RANK_TIMEOUT_S),
    }  # fmt: skip
    clean = {run: work / "clean" / run / "001" for run, _ in TRAININGS}
    done: list[Training] = []

    def one(number: int) -> None:
        """The training of this number: all its faults follow from the seed, but for their time."""
        left = min(EACH, (options.faults or 10**9) - number * EACH)
        if time.monotonic() > until or left <= 0 or any(t.problems for t in done):
            return
        run, loader = TRAININGS[number % len(TRAININGS)]
        training = Training(run, loader, work / f"{number:03d}" / run / "001")
        training.folder.parent.mkdir(parents=True)
        soak(training, env, random.Random(f"{options.seed} {number}"), left, until)
        if not training.problems:
            found = tiny.differences(clean[run], training.folder)
            training.problems += [f"{run}: {difference}" for difference in found]
        done.append(training)
        said = f"{number}: {run} {loader}: {training.faults.total()} faults, {training.starts} "
        said += f"starts, {training.seconds:.0f} s, {len(training.problems)} problems"
        print(said, flush=True)

    def undisturbed(run: str, loader: str) -> None:
        tiny.finish(tiny.start(env, run, work / "clean", *flags(loader)))

    with ThreadPoolExecutor(options.at_once) as lanes:
        list(lanes.map(undisturbed, *zip(*TRAININGS, strict=True)))
        trainings = -(-options.faults // EACH) if options.faults else 10_000
        list(lanes.map(one, range(trainings)))
    report(evidence, done)
    problems = [problem for training in done for problem in training.problems]
    print("\n".join(problems))
    if not problems:
        shutil.rmtree(work)
    return int(bool(problems))


def flags(loader: str) -> list[str]:
    return [*tiny.flags(EPOCHS), "--loader", loader]


def report(evidence: Evidence, done: list[Training]) -> None:
    faults = sum((t.faults for t in done), Counter())
    whole = [t for t in done if not t.problems]
    evidence.figure("faults", str(faults.total()), "200")
    evidence.figure("trainings", str(len(done)))
    evidence.figure(
        "new starts of the same command, where launch ended", str(sum(t.starts - 1 for t in done))
    )
    resumes = sum(tiny.restarts(t.folder) for t in done)
    evidence.figure("processes of a run that went on from a checkpoint", str(resumes))
    steps = sum(EPOCHS * tiny.steps_per_epoch(t.world) for t in whole)
    lost = sum(tiny.lost_steps(t.folder) for t in whole)
    evidence.figure("steps that count; trained again", f"{steps}; {lost}")
    evidence.figure("differences from an undisturbed run", str(len(done) - len(whole)), "0")
    evidence.figure("hours of training", f"{sum(t.seconds for t in done) / 3600:.2f}")
    evidence.table(("fault", "times"), [(k, str(n)) for k, n in sorted(faults.items())])
    rows = [
        (t.run, t.loader, str(t.faults.total()), str(tiny.restarts(t.folder)),
         str(tiny.lost_steps(t.folder)), "; ".join(t.problems)[:300] or "none")
        for t in done
    ]  # fmt: skip
    heads = ("training", "loader", "faults", "went on", "steps again", "differences")
    evidence.table(heads, rows)
    evidence.write()


if __name__ == "__main__":
    sys.exit(main())
