"""Saves that are killed or find no room, and numbers that are not finite, in whole runs."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from proofrun import checkpoint, events
from proofrun.errors import Exit

from .helpers import ROOT, Evidence, last, on_host, read, shell, wait_for

RUN = "Inceptionv2-Digits_FP32_6E_1CPU_Train"
TWO = "Inceptionv2-Digits_FP32_6E_2CPUs_Train"
#: Three epochs of 8 steps on tiny random pictures, saved after each; the network is the real one.
TINY = [
    "--loader", "synthetic", "--seed", "7", "--log-interval", "1",
    "--set", "data.train_images=32", "--set", "data.val_images=16", "--set", "schedule.epochs=3",
    "--set", "batch.per_card=4", "--set", "data.train.image_size=32", "--set", "marks_s=[]",
]  # fmt: skip
TINY_TWO = [*TINY, "--set", "batch.per_card=2", "--log-interval", "5"]


@pytest.fixture(scope="module")
def undisturbed(host, work) -> str:
    """Hash of the final weights of the run that met nothing."""
    weights = last(on_host(host, RUN, work / "undisturbed", *TINY)).weights_hash
    assert weights is not None
    return weights


@pytest.fixture
def disk(tmp_path) -> Iterator[Path]:
    """A disk of its own, large enough for all that a run saves."""
    folder = tmp_path / "disk"
    folder.mkdir()
    shell(["mount", "-t", "tmpfs", "-o", "size=900m", "tmpfs", folder])
    yield folder
    shell(["umount", folder])


def fill(disk: Path, leave: int) -> None:
    """Write until no more than `leave` bytes are free."""
    with (disk / "filler").open("wb", buffering=0) as filler:
        while (free := shutil.disk_usage(disk).free) > leave:
            filler.write(bytes(min(free - leave, 1 << 20)))


def run(
    host: dict[str, str], logs: Path, expect: Exit, *flags: str, name: str = RUN, fault: str = "",
    root: Path = ROOT,
) -> tuple[str, str]:  # fmt: skip
    """Run the script to its end: (stdout, stderr). It must end as expected, without a traceback."""
    faults = {"PROOFRUN_TEST_FAULT": fault, "PROOFRUN_TEST_FAULT_ONCE": str(logs) + ".once"}
    done = subprocess.run(
        ["bash", str(root / f"run_scripts/{name}.sh"), "--logs", str(logs), *flags],
        env={**host, **(faults if fault else {})},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == expect, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    if expect not in (Exit.OK, Exit.INTERRUPTED):
        assert done.stderr.count("\n") == 1, done.stderr
    return done.stdout, done.stderr.strip()


def saved_steps(folder: Path) -> list[int]:
    """Of every checkpoint that is there; each must be good, and nothing else may be left."""
    steps = []
    for path in sorted((folder / "checkpoints").glob("step-*")):
        steps.append(checkpoint.load(path).meta["step"])
    assert not list((folder / "checkpoints").glob(".tmp-*"))
    return steps


@pytest.mark.parametrize(
    ("point", "goes_on_from"),
    [("save_writing,file=0,step=16", 8), ("save_renamed,step=16", 16), ("save_linked,step=16", 16)],
)
def test_a_rank_killed_in_a_save(host, tmp_path, undisturbed, evidence, point, goes_on_from):
    """kill -9 there: launch goes on by itself, from the right checkpoint, to the same weights."""
    out, _ = run(host, tmp_path, Exit.OK, *TINY, fault=f"{point}:kill")
    assert "restart 1 of 3" in out
    folder = tmp_path / RUN / "001"
    (resume,) = [e for e in read(folder) if isinstance(e, events.Resume)]
    assert resume.from_step == goes_on_from
    same = last(folder).weights_hash == undisturbed
    assert same and saved_steps(folder)[-1] == 24
    evidence.figure(f"kill -9 at {point}", f"went on from step {goes_on_from}, weights equal")


@pytest.mark.parametrize("leave", [20 << 20, 0], ids=["20 MB left", "not a byte left"])
def test_a_disk_that_fills_while_a_run_trains(host, disk, undisturbed, evidence, leave):
    """33 and one line, from a save or from a line of the log; with room again, the same weights."""
    folder = disk / RUN / "001"
    process = subprocess.Popen(
        ["bash", str(ROOT / f"run_scripts/{RUN}.sh"), "--logs", str(disk), *TINY],
        env=host, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    wait_for(lambda: (folder / "checkpoints" / "latest").exists(), 900, process)
    fill(disk, leave)
    start = time.monotonic()
    out, err = process.communicate(timeout=600)
    spent = time.monotonic() - start
    assert process.returncode == Exit.CANNOT_WRITE, out + err
    assert err.count("\n") == 1 and "; restart " not in out, out + err
    if leave:
        assert "cannot save a checkpoint: the disk is full: it takes" in err
    assert json.loads((folder / "status.json").read_text())["code"] == Exit.CANNOT_WRITE
    assert set(saved_steps(folder)) in ({8}, {8, 16})
    (disk / "filler").unlink()
    out, _ = run(host, disk, Exit.OK, *TINY)
    assert "resumed" in out and last(folder).weights_hash == undisturbed
    assert saved_steps(folder)[-1] == 24
    what = f"{leave >> 20} MB left on the disk"
    evidence.figure(what, f"33 after {spent:.1f} s, then on: weights equal")
    evidence.transcript(f"{leave >> 20} MB left", err)


def test_a_folder_that_cannot_be_written(host, tmp_path, undisturbed, evidence):
    """Read-only from the start; and a checkpoint folder that nobody may change, half way."""
    logs = tmp_path / "logs"
    logs.mkdir()
    shell(["mount", "--bind", logs, logs])
    shell(["mount", "-o", "remount,ro,bind", logs])
    try:
        _, said = run(host, logs, Exit.CANNOT_WRITE, *TINY)
    finally:
        shell(["umount", logs])
    assert "Read-only file system" in said
    run(host, logs, Exit.WORKER_DIED, "--max-restarts", "0", *TINY,
        fault="save_verified,step=16:kill")  # fmt: skip
    folder = logs / RUN / "001"
    shell(["chattr", "+i", folder / "checkpoints"])
    try:
        _, refused = run(host, logs, Exit.CANNOT_WRITE, *TINY)
    finally:
        shell(["chattr", "-i", folder / "checkpoints"])
    assert "checkpoints: Operation not permitted" in refused
    run(host, logs, Exit.OK, *TINY)
    assert last(folder).weights_hash == undisturbed and saved_steps(folder)[-1] == 24
    evidence.figure("read-only folders", "exit 33, then on: weights equal")
    evidence.transcript("read-only folders", f"{said}\n{refused}")


def failed(folder: Path, step: int) -> None:
    """The run of TWO ended as failed; its last good checkpoint is of `step` (0: none)."""
    assert json.loads((folder / "status.json").read_text())["status"] == "failed"
    found = checkpoint.newest(folder / "checkpoints", [])
    if step == 0:
        assert found is None
        return
    assert found is not None and found.meta["step"] == step
    for link in ("latest", "best"):
        assert (folder / "checkpoints" / link).resolve() == found.path
    assert all(bool(t.isfinite().all()) for t in found.model.values())


@pytest.mark.parametrize(
    ("point", "named", "good"),
    [
        ("loss,step=0,rank=1", "loss is not finite at step 1 on rank 1", 0),
        ("loss,step=10,rank=1", "loss is not finite at step 11 on rank 1", 8),
        ("gradient,step=15,rank=1", "weight is not finite at step 16 on rank 1", 8),
        ("gradient,step=9,rank=0", "loss is not finite at step 11 on rank 0", 8),
    ],
)
def test_numbers_of_one_rank_that_are_not_finite(host, tmp_path, evidence, point, named, good):
    """Two ranks, FP32: stopped at the next look, with step and rank, and what was good stays."""
    _, said = run(host, tmp_path, Exit.NON_FINITE, *TINY_TWO, name=TWO, fault=f"{point}:nan")
    assert named in said
    failed(tmp_path / TWO / "001", good)
    evidence.figure(f"{point}: nan", said, "")


@pytest.fixture(scope="module")
def half_checkout(tmp_path_factory) -> Path:
    """A checkout that declares the rehearsal in fp16 as well, which no recipe does for a CPU."""
    root = tmp_path_factory.mktemp("half") / "checkout"
    for name in ("proofrun", "recipes", "run_scripts"):
        shutil.copytree(ROOT / name, root / name)
    shutil.copy(ROOT / "env.sh", root)
    recipe = root / "recipes/inceptionv2/recipe.yaml"
    text = recipe.read_text()
    recipe.write_text(text.replace(f"    - {TWO}\n", f"    - {TWO}\n    - {half()}\n"))
    shutil.copy(root / f"run_scripts/{TWO}.sh", root / f"run_scripts/{half()}.sh")
    return root


def half() -> str:
    return TWO.replace("FP32", "FP16")


def test_half_precision_skips_a_step_of_one_rank(host, tmp_path, half_checkout, evidence):
    """The scaler leaves the step out on both ranks, counts it, and the run ends well."""
    flags = [*TINY_TWO, "--set", "schedule.epochs=1"]
    run(host, tmp_path, Exit.OK, *flags, name=half(), root=half_checkout,
        fault="loss,step=5,rank=1:nan")  # fmt: skip
    log = read(tmp_path / half() / "001")
    skipped = [e.skipped for e in log if isinstance(e, events.Train)][-1]
    assert skipped >= 1 and last(tmp_path / half() / "001").status == "finished"
    evidence.figure("fp16, a loss of rank 1 is nan once", f"{skipped} steps skipped, finished")


def test_half_precision_gives_up(host, tmp_path, half_checkout, evidence):
    """Without ONCE the fault comes at every step: the scale falls under 1."""
    env = {**host, "PROOFRUN_TEST_FAULT": "loss,rank=1:nan"}
    _, said = run(env, tmp_path, Exit.NON_FINITE, *TINY_TWO, name=half(), root=half_checkout)
    assert re.search(r"2\d steps in a row were skipped .*first bad loss at step 1 on rank 1", said)
    evidence.figure("fp16, the losses of rank 1 are nan", said)


def test_every_save_says_how_long_it_took(undisturbed, work, evidence: Evidence):
    """What that is of the published runs, `benchmarks/saving.py` measures on a quiet machine."""
    log = read(work / "undisturbed" / RUN / "001")
    saves = [e for e in log if isinstance(e, events.Checkpoint)]
    assert len(saves) == 3 and all(e.save_s > 0 and e.bytes > 1e6 for e in saves)
    longest, size = max(e.save_s for e in saves), saves[0].bytes / 1e6
    evidence.figure("a save of the rehearsal", f"{longest:.2f} s at most, {size:.1f} MB")
