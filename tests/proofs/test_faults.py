"""The faults of a process, one by one, in a run of two ranks that starts again by itself."""

from __future__ import annotations

import re
import signal
import time
from pathlib import Path

import psutil
import pytest

from proofrun import events
from proofrun.errors import Exit

from . import tiny
from .helpers import read, wait_for

RUN = "GoogLeNet-Digits_FP32_10E_2CPUs_Train"
STEP = 5  # the second of the second epoch
RANK_TIMEOUT_S = 30

#: name: (what happens at STEP on rank 1, what launch then says)
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
    "slow rank, 10 s a step": ("sleep=10", None),
}


@pytest.fixture(scope="module")
def data(host, work) -> dict[str, str]:
    folder = tiny.tiny_digits(Path(host["DIGITS_DATASET"]), work / "tiny_faults")
    return {**host, "DIGITS_DATASET": str(folder), "RANK_TIMEOUT": str(RANK_TIMEOUT_S)}


@pytest.fixture(scope="module")
def table(evidence) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    evidence.figure("a rank is taken for hung after (RANK_TIMEOUT)", f"{RANK_TIMEOUT_S} s")
    evidence.table(("fault", "found after", "how", "then", "end"), rows)
    return rows


@pytest.fixture(scope="module")
def clean(data, work) -> dict[str, Path]:
    """Undisturbed runs, by loader."""
    found = {}
    for loader in ("dali", "torchvision"):
        logs = work / f"faults_clean_{loader}"
        tiny.finish(tiny.start(data, RUN, logs, *tiny.flags(), "--loader", loader))
        found[loader] = logs / RUN / "001"
    return found


def found_after(folder: Path, once: Path) -> float:
    """Seconds from the fault to the first word about it: of a rank, or of launch."""
    ends = [e.t_wall for e in read(folder) if isinstance(e, events.RunEnd)]
    return ends[0] - once.stat().st_mtime


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_of_a_rank(data, clean, table, tmp_path, name):
    action, said = FAULTS[name]
    once = tmp_path / "once"
    asked = f"step,step={STEP},rank=1:{action}"
    variables = {"PROOFRUN_TEST_FAULT": asked}
    if said is not None:
        variables["PROOFRUN_TEST_FAULT_ONCE"] = str(once)
    out = tiny.finish(tiny.start(data, RUN, tmp_path, *tiny.flags(), **variables))
    folder = tmp_path / RUN / "001"
    assert tiny.differences(clean["dali"], folder) == []
    if said is None:
        assert "restart" not in out
        table.append((name, "-", "it beats: no hang", "goes on", "bit-equal"))
        return
    how = re.search(r"proofrun: (.+); restart 1 of 3", out)
    assert how and said in how[1], out
    assert tiny.restarts(folder) == 1
    spent = found_after(folder, once)
    if action in ("gil", "stop"):
        assert RANK_TIMEOUT_S <= spent < RANK_TIMEOUT_S + 20
        stacks = (folder / "stdout.log").read_text()
        assert "in _timed" in stacks or action == "stop"
    table.append((name, f"{spent:.1f} s", how[1].split("; ")[0][:90], "restarted", "bit-equal"))


def test_a_killed_loader_process(data, clean, table, tmp_path):
    flags = [*tiny.flags(), "--loader", "torchvision"]
    once = tmp_path / "once"
    # long enough for us to find the process
    process = tiny.start(
        data, RUN, tmp_path, *flags, PROOFRUN_TEST_FAULT=f"step,step={STEP},rank=1:sleep=3",
        PROOFRUN_TEST_FAULT_ONCE=str(once),
    )  # fmt: skip
    wait_for(once.exists, 300, process)
    victims = [
        child
        for rank in workers(process.pid)
        for child in rank.children()
        if "proofrun.worker" in child.cmdline()
    ]
    began = time.time()
    victims[-1].kill()
    out = tiny.finish(process)
    folder = tmp_path / RUN / "001"
    how = re.search(r"proofrun: (a loader process of rank . died.+); restart 1 of 3", out)
    assert how, out
    assert tiny.differences(clean["torchvision"], folder) == []
    ends = [e.t_wall for e in read(folder) if isinstance(e, events.RunEnd)]
    table.append(
        ("loader process killed", f"{ends[0] - began:.1f} s", how[1], "restarted", "bit-equal")
    )


def workers(launch: int) -> list[psutil.Process]:
    """The ranks of a launch, by rank."""
    (torchrun,) = psutil.Process(launch).children()
    return torchrun.children()


@pytest.mark.parametrize(
    "place", ["start", "epoch,step=4", "evaluation,step=4", "save,step=4", "step,step=5"]
)
def test_sigterm_to_launch_at_odd_moments(data, clean, table, tmp_path, place):
    """Wherever the ranks are, and twice: saved within 30 s, and the same command goes on."""
    once = tmp_path / "once"
    process = tiny.start(
        data, RUN, tmp_path, *tiny.flags(), PROOFRUN_TEST_FAULT=f"{place},rank=0:sleep=2",
        PROOFRUN_TEST_FAULT_ONCE=str(once),
    )  # fmt: skip
    wait_for(once.exists, 300, process)
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    time.sleep(0.5)
    process.send_signal(signal.SIGTERM)
    out = tiny.finish(process, Exit.INTERRUPTED)
    spent = time.monotonic() - began
    assert "Traceback" not in out and "restart" not in out
    tiny.finish(tiny.start(data, RUN, tmp_path, *tiny.flags()))
    folder = tmp_path / RUN / "001"
    assert tiny.differences(clean["dali"], folder) == []
    assert tiny.lost_steps(folder) == 0
    assert spent < 30
    where = f"SIGTERM to launch, twice, in `{place}`"
    table.append((where, f"{spent:.1f} s", "saved, code 75", "same command", "bit-equal"))


def test_a_defect_that_comes_again_at_the_same_step_is_not_tried_for_ever(data, table, tmp_path):
    asked = f"step,step={STEP},rank=1:exception"
    out = tiny.finish(
        tiny.start(data, RUN, tmp_path, *tiny.flags(), PROOFRUN_TEST_FAULT=asked), Exit.INTERNAL
    )
    assert "restart 1 of 3" in out and "restart 2 of 3" not in out
    assert tiny.status(tmp_path / RUN / "001")["step"] == STEP
    how = "the same words at the same step"
    table.append(("exception at the same step, always", "-", how, "stops after 2", "code 70"))


def test_a_rank_that_hangs_always_is_named(data, table, tmp_path):
    asked = f"step,step={STEP},rank=1:stop"
    out = tiny.finish(
        tiny.start(
            data, RUN, tmp_path, *tiny.flags(), "--max-restarts", "0", PROOFRUN_TEST_FAULT=asked
        ),
        Exit.HUNG,
    )
    said = out.strip().splitlines()[-1]
    assert f"rank 1 hung at step {STEP}, stopped by SIGSTOP" in said
    fault = next(e for e in read(tmp_path / RUN / "001") if isinstance(e, events.Fault))
    assert (fault.code, fault.rank, fault.step) == (Exit.HUNG, 1, STEP)
    assert tiny.status(tmp_path / RUN / "001")["status"] == "interrupted"
    table.append(("SIGSTOP, no restarts left", "-", said[:90], "stops", "code 43"))


def test_killed_launch_and_killed_torchrun_lose_nothing(data, clean, table, tmp_path):
    """The ranks of a killed launch save and go, while the next command waits for them."""
    asked = {"PROOFRUN_TEST_FAULT": f"step,step={STEP},rank=0:sleep=2"}
    first = tiny.start(
        data, RUN, tmp_path, *tiny.flags(), **asked,
        PROOFRUN_TEST_FAULT_ONCE=str(tmp_path / "once"),
    )  # fmt: skip
    wait_for((tmp_path / "once").exists, 300, first)
    first.kill()
    again = tmp_path / "again"
    second = tiny.start(
        data, RUN, tmp_path, *tiny.flags(), PROOFRUN_TEST_FAULT="step,step=7,rank=0:sleep=2",
        PROOFRUN_TEST_FAULT_ONCE=str(again),
    )  # fmt: skip
    wait_for(again.exists, 300, second)
    folder = tmp_path / RUN / "001"
    resumes = [e.from_step for e in read(folder) if isinstance(e, events.Resume)]
    assert resumes == [STEP + 1]
    (torchrun,) = psutil.Process(second.pid).children()
    torchrun.kill()
    out = tiny.finish(second)
    assert "torchrun was killed" in out and "restart 1 of 3" in out
    assert tiny.differences(clean["dali"], folder) == []
    assert tiny.lost_steps(folder) == 0
    how = "the ranks save and go"
    table.append(("launch killed", "at once", how, "same command", "bit-equal"))
    table.append(("torchrun killed", "at once", how, "restarted", "bit-equal"))
