"""The faults of a process, one by one, in a run of two ranks that starts again by itself."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from proofrun import events
from proofrun.errors import Exit

from . import tiny
from .helpers import read, wait_for

RUN = "GoogLeNet-Digits_FP32_10E_2CPUs_Train"
STEP = 5  # the second of the second epoch
RANK_TIMEOUT_S = int(os.environ.get("RANK_TIMEOUT", "30"))

#: name: (what happens at STEP on rank 1, what launch then says; None: nothing, it goes on)
FAULTS = {
    "exception in the step": ("exception", "InjectedFault: at step"),
    "exception in a thread": ("thread", "InjectedFault: at step"),
    "exception in a signal handler": ("handler", "InjectedFault: at step"),
    "abort": ("abort", "rank 1 died without a word"),
    "segfault": ("segfault", "rank 1 died without a word"),
    "holding the GIL": ("gil", f"rank 1 hung at step {STEP}, in phase `step`"),
    "SIGINT to a rank": ("sigint", "a rank was told to stop, and launch was not"),
    "SIGTERM to a rank": ("sigterm", "a rank was told to stop, and launch was not"),
    "SIGKILL": ("kill", "rank 1 died without a word"),
    "SIGSTOP": ("stop", f"rank 1 hung at step {STEP}, stopped by SIGSTOP"),
    "slow rank": ("sleep=5", None),
    "loader process killed": ("sleep=5", "a loader process of rank 1 died"),
}
PLACES = ("start", "epoch,step=4", "evaluation,step=4", "save,step=4", "step,step=5")


class Fire:
    """Starts runs of RUN, each in a folder of its own, with faults asked for."""

    def __init__(self, data: dict[str, str], work: Path) -> None:
        self.data, self.work = data, work

    def once(self, name: str, number: int = 0) -> Path:
        return self.folder(name).parents[1] / f"once-{number}"

    def folder(self, name: str) -> Path:
        return self.work / re.sub(r"\W+", "-", name) / RUN / "001"

    def start(self, name: str, fault: str = "", *more: str, number: int = 0, always: bool = False):
        logs = self.folder(name).parents[1]
        logs.mkdir(parents=True, exist_ok=True)
        asked = {"PROOFRUN_TEST_FAULT": fault} if fault else {}
        if not always:
            asked["PROOFRUN_TEST_FAULT_ONCE"] = str(self.once(name, number))
        return tiny.start(self.data, RUN, logs, *tiny.flags(), *more, **asked)

    def undisturbed(self, loader: str) -> None:
        tiny.finish(self.start(loader, "", "--loader", loader), seconds=LONG)

    def fault(self, name: str) -> tuple[str, float]:
        """(what launch printed, when the fault came)."""
        action, _ = FAULTS[name]
        loader = "torchvision" if name.startswith("loader") else "dali"
        fault = f"step,step={STEP},rank=1:{action}"
        process = self.start(name, fault, "--loader", loader, always=name == "slow rank")
        at = 0.0
        if name.startswith("loader"):
            wait_for(self.once(name).exists, LONG, process)
            (torchrun,) = psutil.Process(process.pid).children()
            loaders = [
                child
                for child in torchrun.children()[1].children()
                if "proofrun.worker" in child.cmdline()
            ]
            at = time.time()
            loaders[-1].kill()
        out = tiny.finish(process, seconds=LONG)
        return out, at or (self.once(name).stat().st_mtime if self.once(name).exists() else 0)

    def told(self, place: str) -> float:
        """SIGTERM to launch, twice, while rank 0 is at `place`; seconds until it has ended."""
        process = self.start(place, f"{place},rank=0:sleep=2")
        wait_for(self.once(place).exists, LONG, process)
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        process.send_signal(signal.SIGTERM)
        out = tiny.finish(process, Exit.INTERRUPTED)
        spent = time.monotonic() - began
        assert "Traceback" not in out and "restart 1 of" not in out
        tiny.finish(self.start(place), seconds=LONG)
        return spent

    def always(self, action: str, code: Exit, *more: str) -> str:
        fault = f"step,step={STEP},rank=1:{action}"
        return tiny.finish(self.start(action, fault, *more, always=True), code, LONG)

    def killed_above(self) -> tuple[list[int], str]:
        """Launch is killed, then torchrun: (steps that runs went on from by then, the end)."""
        name = "killed above"
        first = self.start(name, f"step,step={STEP},rank=0:sleep=2")
        wait_for(self.once(name).exists, LONG, first)
        first.kill()  # its ranks save and go, while the next command waits for them
        second = self.start(name, "step,step=7,rank=0:sleep=2", number=1)
        wait_for(self.once(name, 1).exists, LONG, second)
        log = read(self.folder(name))
        (torchrun,) = psutil.Process(second.pid).children()
        torchrun.kill()
        resumed = [e.from_step for e in log if isinstance(e, events.Resume)]
        return resumed, tiny.finish(second, seconds=LONG)


LONG = 1500.0


@pytest.fixture(scope="module")
def fire(host, work) -> Fire:
    digits = tiny.tiny_digits(Path(host["DIGITS_DATASET"]), work / "tiny_faults")
    data = {**host, "DIGITS_DATASET": str(digits), "RANK_TIMEOUT": str(RANK_TIMEOUT_S)}
    return Fire(data, work / "faults")


@pytest.fixture(scope="module")
def ended(fire) -> dict[str, Future]:
    """Every run of this proof, some side by side."""
    jobs: dict[str, tuple[Callable, ...]] = {
        "dali": (fire.undisturbed, "dali"),
        "torchvision": (fire.undisturbed, "torchvision"),
        **{name: (fire.fault, name) for name in FAULTS},
        **{place: (fire.told, place) for place in PLACES},
        "exception": (fire.always, "exception", Exit.INTERNAL),
        "stop": (fire.always, "stop", Exit.HUNG, "--max-restarts", "0"),
        "killed above": (fire.killed_above,),
    }
    with ThreadPoolExecutor(int(os.environ.get("PROOFS_AT_ONCE", "2"))) as pool:
        return {name: pool.submit(*job) for name, job in jobs.items()}


@pytest.fixture(scope="module")
def table(evidence) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    evidence.figure("a rank is taken for hung after (RANK_TIMEOUT)", f"{RANK_TIMEOUT_S} s")
    evidence.table(("fault", "found after", "how", "then", "end"), rows)
    return rows


def equal_to(ended, fire, loader: str, name: str) -> None:
    ended[loader].result()
    assert tiny.differences(fire.folder(loader), fire.folder(name)) == []


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_of_a_rank(fire, ended, table, name):
    _, said = FAULTS[name]
    out, at = ended[name].result()
    folder = fire.folder(name)
    equal_to(ended, fire, "torchvision" if name.startswith("loader") else "dali", name)
    if said is None:
        assert "restart 1 of" not in out
        table.append((f"{name}, 5 s a step", "-", "it beats: no hang", "goes on", "bit-equal"))
        return
    how = re.search(r"proofrun: (.+); restart 1 of 3", out)
    assert how and said in how[1], out
    assert tiny.restarts(folder) == 1 and "restart 2" not in out
    first = next(e for e in read(folder) if isinstance(e, events.RunEnd))
    spent = first.t_wall - at
    if "hung" in said:
        assert RANK_TIMEOUT_S <= spent < RANK_TIMEOUT_S + 30
    if name == "holding the GIL":
        assert " in _timed" in (folder / "stdout.log").read_text()  # its stack was asked for
    how_found = how[1].split("; ")[0].split(" (")[0]
    table.append((name, f"{spent:.1f} s", how_found, "restarted", "bit-equal"))


@pytest.mark.parametrize("place", PLACES)
def test_sigterm_to_launch_at_odd_moments(fire, ended, table, place):
    """Wherever the ranks are, and twice: saved within 30 s, and the same command goes on."""
    spent = ended[place].result()
    equal_to(ended, fire, "dali", place)
    assert tiny.lost_steps(fire.folder(place)) == 0
    where = f"SIGTERM to launch, twice, in `{place}`"
    table.append((where, f"{spent:.1f} s to the end", "code 75", "same command", "bit-equal"))
    assert spent < 30


def test_a_defect_that_comes_again_at_the_same_step_is_not_tried_for_ever(fire, ended, table):
    out = ended["exception"].result()
    assert "restart 1 of 3" in out and "restart 2 of 3" not in out
    assert tiny.status(fire.folder("exception"))["step"] == STEP
    how = "the same words at the same step"
    table.append(("exception at the same step, always", "-", how, "stops after 2", "code 70"))


def test_a_rank_that_hangs_always_is_named(fire, ended, table):
    said = ended["stop"].result().strip().splitlines()[-1]
    assert f"rank 1 hung at step {STEP}, stopped by SIGSTOP" in said
    fault = next(e for e in read(fire.folder("stop")) if isinstance(e, events.Fault))
    assert (fault.code, fault.rank, fault.step) == (Exit.HUNG, 1, STEP)
    assert tiny.status(fire.folder("stop"))["status"] == "interrupted"
    how = said.split(": ")[1].split(": ")[0]
    table.append(("SIGSTOP, no restarts left", "-", how, "stops", "code 43"))


def test_killed_launch_and_killed_torchrun_lose_nothing(fire, ended, table):
    """The ranks of a killed launch save and go, while the next command waits for them."""
    resumed, out = ended["killed above"].result()
    assert resumed == [STEP + 1]
    assert "torchrun was killed" in out and "restart 1 of 3" in out
    equal_to(ended, fire, "dali", "killed above")
    assert tiny.lost_steps(fire.folder("killed above")) == 0
    how = "the ranks save and go"
    table.append(("launch killed", "at once", how, "same command", "bit-equal"))
    table.append(("torchrun killed", "at once", how, "restarted", "bit-equal"))
