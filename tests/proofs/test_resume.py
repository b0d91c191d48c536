"""Exact resume: wherever a run is stopped, it ends with the very state of one that met nothing.

Six stops x FP32, AMP bf16, FP16 with its scaler x 1 and 2 ranks x both recipes x both loaders: 144
combinations with `--all`, else 36, each resumed by a new job (resume_ranks.py). And 18 of them by
real processes that are killed or stopped and start again by themselves: there every two values of
different factors meet at least once. The stops of one row follow one another in one run.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import sys
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from proofrun import checkpoint, events
from proofrun.errors import Exit

from . import tiny
from .helpers import ROOT, read, shell, wait_for
from .resume_ranks import STOPS, Case, stop

HALVES = {
    "A": ("middle step", "evaluation", "epoch start"),
    "B": ("last step", "save", "first step"),
}

ALL = [
    Case(*case)
    for case in itertools.product(
        ("FP32", "AMP", "FP16"), (1, 2), ("GoogLeNet", "Inceptionv2"), ("dali", "torchvision")
    )
]
SAMPLE = [
    (Case("FP32", 1, "GoogLeNet", "dali"), HALVES["A"]),
    (Case("FP32", 2, "Inceptionv2", "torchvision"), HALVES["B"]),
    (Case("AMP", 1, "Inceptionv2", "dali"), HALVES["B"]),
    (Case("AMP", 2, "GoogLeNet", "torchvision"), HALVES["A"]),
    (Case("FP16", 1, "GoogLeNet", "torchvision"), HALVES["B"]),
    (Case("FP16", 2, "Inceptionv2", "dali"), HALVES["A"]),
]
#: What one process, or a pair of them, trains: (ranks, precision).
GROUPS = [(world, precision) for precision in ("FP16", "AMP", "FP32") for world in (1, 2)]
EVERY = bool(os.environ.get("PROOFS_ALL"))


@pytest.fixture(scope="module")
def data(host, work) -> dict[str, str]:
    folder = tiny.tiny_digits(Path(host["DIGITS_DATASET"]), work / "tiny")
    return {**host, "DIGITS_DATASET": str(folder)}


@pytest.fixture(scope="module")
def checkout(work) -> Path:
    """A copy in which FP16 runs on a CPU are declared, which no published recipe asks for."""
    copy = work / "checkout"
    for name in ("proofrun", "recipes", "run_scripts"):
        shutil.copytree(ROOT / name, copy / name)
    shutil.copy(ROOT / "env.sh", copy)
    for path in (copy / "recipes").glob("*/recipe.yaml"):
        lines = []
        for line in path.read_text().splitlines():
            lines.append(line)
            if "-Digits_AMP_" in line and "CPU" in line:
                lines.append(line.replace("_AMP_", "_FP16_"))
                amp = line.split()[-1]
                script = copy / "run_scripts" / f"{amp.replace('_AMP_', '_FP16_')}.sh"
                shutil.copy(copy / "run_scripts" / f"{amp}.sh", script)
        path.write_text("\n".join(lines) + "\n")
    return copy


@pytest.fixture(scope="module")
def table(evidence) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    size = "all 144" if EVERY else "36 of 144"
    evidence.figure("combinations", f"{size} by new jobs, 18 by new processes", "48")
    heads = ("resumed by", "precision", "ranks", "recipe", "loader", *STOPS)
    evidence.table(heads, rows)
    return rows


def row(by: str, case: Case, stops, resumed: list[int], found: list[str]) -> tuple[str, ...]:
    """Of the table: what came of each stop."""
    cells = {
        name: "bit-equal" if not found and came == stop(name, case.world)[1] else "DIFFERS"
        for name, came in zip(stops, resumed, strict=False)
    }
    return (by, *map(str, case), *(cells.get(name, "") for name in STOPS))


def by_jobs(data: dict[str, str], out: Path, cases: list[Case]) -> None:
    """Each case, stopped and undisturbed, by jobs in one process a rank."""
    out.mkdir(parents=True)
    world = cases[0].world
    line = [
        sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={world}",
        "--rdzv-backend=c10d", "--rdzv-endpoint=127.0.0.1:0", "--local-addr=127.0.0.1",
        "-m", "tests.proofs.resume_ranks", out, data["DIGITS_DATASET"], str(world),
    ]  # fmt: skip
    shell([*line, *(case.folder for case in cases)], env=data, cwd=ROOT, timeout=3000)


def by_processes(data: dict[str, str], logs: Path, root: Path, case: Case, stops) -> None:
    """The run script, undisturbed, and again stopped at all of `stops` in turn."""
    flags = [*tiny.flags(), "--loader", case.loader, "--max-restarts", str(len(stops))]
    tiny.finish(tiny.start(data, case.run, logs / "clean", *flags, root=root), seconds=3000)
    asked = ";".join(stop(name, case.world)[0] for name in stops)
    variables = {"PROOFRUN_TEST_FAULT": asked, "PROOFRUN_TEST_FAULT_ONCE": str(logs / "once")}
    stopped = tiny.start(data, case.run, logs / "stopped", *flags, root=root, **variables)
    tiny.finish(stopped, seconds=3000)


@pytest.fixture(scope="module")
def ended(data, checkout, work) -> dict[tuple, Future[None]]:
    """Every training of the table, some side by side."""
    chosen = ALL if EVERY else [case for case, _ in SAMPLE]
    with ThreadPoolExecutor(int(os.environ.get("PROOFS_AT_ONCE", "2"))) as pool:
        found: dict[tuple, Future[None]] = {}
        for group in GROUPS:
            cases = [case for case in chosen if (case.world, case.precision) == group]
            found[group] = pool.submit(by_jobs, data, jobs_of(work, *group), cases)
        for case, stops in SAMPLE:
            root = checkout if case.precision == "FP16" else ROOT
            logs = work / "processes" / case.folder
            found[case] = pool.submit(by_processes, data, logs, root, case, stops)
    return found


def jobs_of(work: Path, world: int, precision: str) -> Path:
    return work / "jobs" / f"{precision}-{world}"


@pytest.mark.parametrize(("world", "precision"), GROUPS)
def test_stopped_jobs_end_as_undisturbed_ones(ended, table, work, world, precision):
    ended[world, precision].result()
    files = sorted(jobs_of(work, world, precision).glob("*.json"))
    assert len(files) == (4 if EVERY else 1)
    for path in files:
        case = Case(precision, world, *path.stem.split("-")[2:])
        found = json.loads(path.read_text())
        table.append(row("job", case, STOPS, found["went_on_from"], found["differences"]))
        assert found["differences"] == []
        assert found["went_on_from"] == [stop(name, world)[1] for name in STOPS]
        assert found["scaler"] == (precision == "FP16")


@pytest.mark.parametrize(("case", "stops"), SAMPLE, ids=lambda value: "-".join(map(str, value)))
def test_stopped_runs_end_as_undisturbed_ones(ended, table, work, case, stops):
    ended[case].result()
    logs = work / "processes" / case.folder
    one, other = (logs / name / case.run / "001" for name in ("clean", "stopped"))
    resumed = [e.from_step for e in read(other) if isinstance(e, events.Resume)]
    found = tiny.differences(one, other)
    table.append(row("processes", case, stops, resumed, found))
    assert resumed == [stop(name, case.world)[1] for name in stops]
    assert len(list(logs.glob("once*"))) == len(stops)
    assert found == []
    scaler = checkpoint.load(other / "checkpoints" / "latest").train["stepper"]["scaler"]
    assert (scaler is not None) == (case.precision == "FP16")


def pair(data, run: str, logs: Path, *flags: str, **variables: str) -> list:
    """One machine of one rank each, twice on this host."""
    place = {"NNODES": "2", "RDZV_ENDPOINT": "127.0.0.1:29417", "NODES_TIMEOUT": "300"}
    return [
        tiny.start(data, run, logs, *flags, NODE_RANK=str(rank), **place, **variables)
        for rank in (0, 1)
    ]


def test_another_number_of_ranks_from_an_epochs_end(data, work, evidence):
    """One rank for an epoch, then two: recorded, and exact again when those are stopped."""
    run = Case("FP32", 1, "GoogLeNet", "dali").run
    one, two = tiny.steps_per_epoch(1), tiny.steps_per_epoch(2)
    ended: dict[str, Path] = {}
    for name in ("straight", "stopped"):
        logs = work / f"ranks-{name}"
        tiny.finish(
            tiny.start(data, run, logs, *tiny.flags(), "--stop-at-epoch-end"), Exit.INTERRUPTED
        )
        if name == "stopped":
            fault = f"step,step={one + 1},rank=1:sigterm"
            for process in pair(data, run, logs, *tiny.flags(), PROOFRUN_TEST_FAULT=fault):
                tiny.finish(process, Exit.INTERRUPTED)
            # within an epoch the number is fixed
            said = tiny.finish(tiny.start(data, run, logs, *tiny.flags()), Exit.RESUME_REFUSED)
            assert "saved by 2 ranks within an epoch" in said and "--stop-at-epoch-end" in said
        for process in pair(data, run, logs, *tiny.flags()):
            tiny.finish(process)
        ended[name] = logs / run / "001"
    log = read(ended["stopped"])
    resumes = [e for e in log if isinstance(e, events.Resume)]
    assert [(e.from_step, e.world_before, e.world_after) for e in resumes if e.world_after] == [
        (one, 1, 2)
    ]
    assert any("1 ranks before, 2 from epoch 1 on" in e.remarks for e in resumes)
    assert log[-1].step == one + two and log[-1].epoch == 2
    assert tiny.differences(ended["straight"], ended["stopped"]) == []
    evidence.figure(
        "1 rank for an epoch, then 2 machines of 1 rank, stopped once more",
        f"{one} + {two} steps, recorded at step {one}, bit-equal to the same without the stop",
    )


def test_a_killed_rank_of_two_machines(data, work, evidence):
    """Each launch watches its own; the other machine's restarts as well."""
    run = Case("FP32", 1, "GoogLeNet", "dali").run
    logs = work / "two_machines"
    fault = f"step,step={tiny.steps_per_epoch(2) + 1},rank=1:stop"
    both = pair(
        data, run, logs, *tiny.flags(), RANK_TIMEOUT="20", PROOFRUN_TEST_FAULT=fault,
        PROOFRUN_TEST_FAULT_ONCE=str(work / "stopped-once"),
    )  # fmt: skip
    wait_for(lambda: (work / "stopped-once").exists(), 300)
    said = [tiny.finish(process) for process in both]
    assert "rank 1 hung at step 5" in said[1] and "stopped by SIGSTOP" in said[1]
    assert "restart 1 of 3" in said[0] and "hung" not in said[0]
    straight = Case("FP32", 2, "GoogLeNet", "dali").run
    tiny.finish(tiny.start(data, straight, work / "one_machine", *tiny.flags()))
    ends = [
        read(folder)[-1] for folder in (logs / run / "001", work / "one_machine" / straight / "001")
    ]
    assert ends[0].weights_hash == ends[1].weights_hash
    evidence.figure(
        "2 machines, a rank of the second stopped by SIGSTOP", "its own launch names it, both "
        "go on, weights as of 2 ranks on one machine", "bit-equal",
    )  # fmt: skip
