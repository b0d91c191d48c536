"""Checkpoints are whole or not there, whatever kills the process that saves them."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from saver import ROOT, holds, save, start
from small_disk import small_disk

from proofrun import checkpoint
from proofrun.errors import Exit, LockedError, WriteError

#: Every fault point in a save, in order, and whether the new checkpoint counts after a kill there.
POINTS = {
    "save_begun": False,
    "save_writing,file=0": False,
    "save_writing,file=1": False,
    "save_writing,file=2": False,
    "save_written": False,
    "save_synced": False,
    "save_verified": False,
    "save_renamed": True,
    "save_settled": True,
    "save_latest": True,
    "save_linked": True,
    "save_pruning": True,
    "save_pruned": True,
}


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith(".lock"))


def stopped(pid: int) -> bool:
    return " T " in Path(f"/proc/{pid}/stat").read_text()


def wait(what, process) -> None:
    deadline = time.monotonic() + 60
    while not what():
        assert time.monotonic() < deadline and process.is_alive()
        time.sleep(0.01)


def test_every_fault_point_of_a_save_is_in_the_table():
    source = (ROOT / "proofrun" / "checkpoint.py").read_text()
    named = set(re.findall(r'fault_point\("(\w+)"', source))
    assert named == {point.partition(",")[0] for point in POINTS}


@pytest.mark.parametrize("again", [False, True], ids=["next step", "same step again"])
@pytest.mark.parametrize("point", POINTS)
def test_killed_at_each_step_of_a_save(tmp_path, point, again):
    """One good checkpoint at every moment, and the right one: 10 after 9, not before 2."""
    folder = tmp_path / "checkpoints"
    before = [10] if again else [2, 3, 9]
    for step in before:
        save(folder, step, best=step != 3)
    if again and point == "save_pruning":
        save(folder, 8)  # something to prune: not `best`
        save(folder, 9)
    process = start(folder, [10], f"{point}:kill")
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    expected = 10 if again or POINTS[point] else 9

    remarks: list[str] = []
    found = checkpoint.newest(folder, remarks)
    assert holds(found, expected) and remarks == []
    assert (folder / "latest").exists() and (folder / "best").exists()

    checkpoint.mend(folder)
    assert not [name for name in names(folder) if name.startswith(".")]
    found = checkpoint.newest(folder, remarks)
    assert holds(found, expected) and remarks == []
    assert (folder / "best").resolve() == found.path.resolve()  # both were saved as the best
    save(folder, 11)
    assert holds(checkpoint.newest(folder, remarks), 11) and remarks == []
    assert (folder / "latest").resolve().name == "step-0000000011"


def test_killed_at_random_moments(tmp_path):
    """Whatever was reported as saved is there, and nothing is found damaged."""
    folder, chance = tmp_path / "checkpoints", random.Random(5)
    said = Path(f"{folder}.saved")
    said.touch()
    step, kills = 1, 0
    while kills < 25:
        process = start(folder, range(step, step + 500))
        wait(lambda since=step: str(since) in said.read_text().split(), process)
        time.sleep(chance.uniform(0, 0.05))
        process.kill()
        process.join(60)
        kills += process.exitcode == -signal.SIGKILL
        last = int(said.read_text().split()[-1])
        remarks: list[str] = []
        found = checkpoint.newest(folder, remarks)
        assert found is not None and remarks == []
        assert found.meta["step"] in (last, last + 1) and holds(found, found.meta["step"])
        step = found.meta["step"] + 1


def test_what_is_written_is_on_the_disk_before_it_counts(tmp_path, monkeypatch):
    """Files, their folder, the rename, the folder above, the links, the folder again."""
    done: list[str] = []
    fsync, rename = os.fsync, Path.rename

    def watched_fsync(descriptor: int) -> None:
        done.append(f"fsync {Path(os.readlink(f'/proc/self/fd/{descriptor}')).name}")
        fsync(descriptor)

    def watched_rename(path: Path, target: Path) -> Path:
        done.append(f"rename {Path(target).name}")
        return rename(path, target)

    save(tmp_path / "checkpoints", 1)
    monkeypatch.setattr(os, "fsync", watched_fsync)
    monkeypatch.setattr(Path, "rename", watched_rename)
    save(tmp_path / "checkpoints", 2, best=True)
    assert done == [
        "fsync model.safetensors", "fsync train.pt", "fsync meta.json",
        "fsync .tmp-step-0000000002", "rename step-0000000002", "fsync checkpoints",
        "rename latest", "rename best", "fsync checkpoints",
    ]  # fmt: skip


def test_what_is_kept(tmp_path):
    """The newest two, the best, marks; and the same step twice, with a mark among them."""
    for step in range(1, 7):
        save(tmp_path, step, best=step == 2, keep=step == 3)
    assert names(tmp_path) == [
        "best", "latest", "step-0000000002", "step-0000000003", "step-0000000005",
        "step-0000000006",
    ]  # fmt: skip
    save(tmp_path, 6, keep=True)
    save(tmp_path, 6)
    save(tmp_path, 10)
    found = checkpoint.newest(tmp_path, [])
    assert holds(found, 10)
    assert [name for name in names(tmp_path) if "06" in name] == [
        "step-0000000006.1", "step-0000000006.2"
    ]  # fmt: skip
    assert (tmp_path / "latest").resolve() == found.path
    assert (tmp_path / "best").resolve().name == "step-0000000002"


def test_a_mark_that_is_saved_again_is_kept_once(tmp_path):
    for _ in range(3):
        save(tmp_path, 6, keep=True)
    for step in (7, 8, 9):
        save(tmp_path, step)
    assert [name for name in names(tmp_path) if "06" in name] == ["step-0000000006.2"]


def test_steps_are_numbers_not_names(tmp_path):
    for step in (2, 9, 10, 100):
        save(tmp_path, step)
    for suffix in (9, 10):
        (tmp_path / f"step-0000000100.{suffix}").mkdir()
    remarks: list[str] = []
    assert holds(checkpoint.newest(tmp_path, remarks), 100)
    assert [re.search(r"step-\S+(?=:)", remark)[0] for remark in remarks] == [
        "step-0000000100.10", "step-0000000100.9"
    ]  # fmt: skip


def test_foreign_files_are_left_alone(tmp_path):
    foreign = [
        "notes.txt",
        "step-0000000099",
        "step-foo/x",
        "step-0000000098.bak/x",
        "lost+found/x",
    ]
    for name in foreign:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("mine")
    for step in range(1, 6):
        save(tmp_path, step)
    remarks: list[str] = []
    assert holds(checkpoint.newest(tmp_path, remarks), 5) and remarks == []
    assert all((tmp_path / name).read_text() == "mine" for name in foreign)


def test_a_dangling_latest_misleads_nobody(tmp_path):
    save(tmp_path, 1)
    (tmp_path / "latest").unlink()
    (tmp_path / "latest").symlink_to("step-0000000077")
    assert holds(checkpoint.newest(tmp_path, []), 1)
    save(tmp_path, 2)
    assert (tmp_path / "latest").resolve().name == "step-0000000002"


def test_two_jobs_in_one_folder(tmp_path):
    """The temporary of a living process stays, even of one that is stopped; a dead one's goes."""
    folder = tmp_path / "checkpoints"
    save(folder, 1)
    process = start(folder, [2], "save_written:stop")
    wait(lambda: stopped(process.pid), process)
    for attempt in (lambda: save(folder, 3), lambda: checkpoint.mend(folder)):
        with pytest.raises(LockedError, match="another process is saving"):
            attempt()
    assert ".tmp-step-0000000002" in names(folder)
    os.kill(process.pid, signal.SIGCONT)
    process.join(60)
    assert process.exitcode == 0 and holds(checkpoint.newest(folder, []), 2)

    process = start(folder, [3], "save_written:kill")
    process.join(60)
    assert ".tmp-step-0000000003" in names(folder)
    save(folder, 4)
    assert not [name for name in names(folder) if name.startswith(".")]


def test_a_file_that_cannot_grow(tmp_path):
    """A real failed write in the middle of train.pt: one line, nothing left, nothing lost."""
    folder = tmp_path / "checkpoints"
    save(folder, 1)
    process = start(folder, [2], file_limit=9000)  # the model fits, train.pt does not
    process.join(60)
    said = Path(f"{folder}.stderr").read_text()
    assert process.exitcode == Exit.CANNOT_WRITE, said
    assert said.count("\n") == 1 and "File too large" in said and "untouched" in said
    assert names(folder) == ["latest", "step-0000000001"]
    assert holds(checkpoint.newest(folder, []), 1)


def test_a_full_disk(tmp_path):
    """A real one: seen before anything is written; with room again, the next save is as ever."""
    with small_disk(tmp_path / "disk", "size=1200k") as disk:
        folder = disk.folder / "checkpoints"

        def saver(*steps: int) -> subprocess.CompletedProcess[bytes]:
            words = [sys.executable, ROOT / "tests" / "saver.py", folder, *map(str, steps)]
            return subprocess.run(disk.command(*words), capture_output=True)

        assert saver(1).returncode == 0  # 1 MiB of margin and 22 kB of checkpoint
        filler = disk.outside / "filler"
        filler.write_bytes(bytes(150_000))
        assert saver(2).returncode == Exit.CANNOT_WRITE
        said = (disk.outside / "checkpoints.stderr").read_text()
        assert said.count("\n") == 1 and "the disk is full: it takes 0.0 MB, 1.0 are free" in said
        assert names(disk.outside / "checkpoints") == ["best", "latest", "step-0000000001"]
        filler.unlink()
        assert saver(2, 3).returncode == 0
        assert holds(checkpoint.newest(disk.outside / "checkpoints", []), 3)


def test_a_folder_of_another_user(tmp_path):
    folder = tmp_path / "checkpoints"
    save(folder, 1)
    for part in (folder, *tmp_path.parents[:2], tmp_path):
        part.chmod(0o755 if os.geteuid() == 0 else 0o555)
    process = start(folder, [2], user=65534 if os.geteuid() == 0 else 0)
    process.join(60)
    for part in (folder, tmp_path):
        part.chmod(0o755)
    said = Path(f"{folder}.stderr").read_text()
    assert process.exitcode == Exit.CANNOT_WRITE, said
    assert said.count("\n") == 1 and "Permission denied" in said and str(folder) in said
    assert holds(checkpoint.newest(folder, []), 1)


@pytest.mark.parametrize("point", ["save_written", "save_renamed", "save_linked"])
@pytest.mark.parametrize("action", ["enospc", "eacces"])
def test_an_error_at_any_step_is_one_line(tmp_path, monkeypatch, point, action):
    save(tmp_path, 1)
    monkeypatch.setenv("PROOFRUN_TEST_FAULT", f"{point}:{action}")
    with pytest.raises(WriteError, match=r"the disk is full|Permission denied") as caught:
        save(tmp_path, 2)
    assert "\n" not in str(caught.value)
    monkeypatch.delenv("PROOFRUN_TEST_FAULT")
    assert holds(checkpoint.newest(tmp_path, []), 1 if point == "save_written" else 2)
    assert not [name for name in names(tmp_path) if name.startswith(".")]


def test_a_disk_that_returns_something_else_is_found_before_the_rename(tmp_path, monkeypatch):
    save(tmp_path, 1)
    read = checkpoint.verify

    def after_damage(path: Path):
        file = path / "train.pt"
        raw = bytearray(file.read_bytes())
        raw[len(raw) // 2] ^= 1
        file.write_bytes(raw)
        return read(path)

    monkeypatch.setattr(checkpoint, "verify", after_damage)
    with pytest.raises(WriteError, match=r"reads back as something else .*train\.pt differs"):
        save(tmp_path, 2)
    assert names(tmp_path) == ["latest", "step-0000000001"]
