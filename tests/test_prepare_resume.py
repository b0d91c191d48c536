"""A prepare that is killed, stopped or out of disk: the same command goes on to the same tree."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from archives import ilsvrc
from small_disk import SmallDisk, small_disk

from benchmarks.pictures import jpegs
from proofrun.errors import Exit
from tools._dataset import imagenet

ROOT = Path(__file__).resolve().parent.parent
CLASSES, PER_CLASS, VAL_PER_CLASS = 6, 220, 10


@pytest.fixture(scope="module")
def src(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("ilsvrc")
    pictures = jpegs(CLASSES * (PER_CLASS + VAL_PER_CLASS), 1, (160, 120))
    ilsvrc(folder, CLASSES, PER_CLASS, VAL_PER_CLASS, pictures)
    return folder


@pytest.fixture(scope="module")
def undisturbed(src, tmp_path_factory) -> Path:
    dst = tmp_path_factory.mktemp("undisturbed") / "set"
    imagenet.prepare(src, dst, any_archives=True)
    return dst


def command(src: Path, dst: Path) -> list[str | Path]:
    tool = ROOT / "tools" / "dataset.py"
    line = [sys.executable, tool, "prepare", "imagenet", "--any-archives"]
    return [*line, "--src", src, "--dst", dst]


def images(folder: Path) -> dict[Path, os.stat_result]:
    found = {}
    with suppress(FileNotFoundError):  # the folder just came to its place
        for path in folder.glob("*/*/*.JPEG"):
            found[path.relative_to(folder)] = path.stat()
    return found


def equal(one: Path, two: Path) -> bool:
    return subprocess.run(["diff", "-r", one, two]).returncode == 0


def until(process: subprocess.Popen, partial: Path, count: int) -> bool:
    """Wait until so many images are there; False where the process ended before."""
    while process.poll() is None:
        if len(images(partial)) >= count:
            return True
        time.sleep(0.001)
    return False


def killed_at_random(src: Path, dst: Path, undisturbed: Path, kills: int, seed: int) -> int:
    """Kill at random moments, then let it end. The kills that hit a half-made file."""
    rng = random.Random(seed)
    total = len(images(undisturbed))
    sizes = {path: stat.st_size for path, stat in images(undisturbed).items()}
    partial = dst.with_name(f".{dst.name}.partial")
    whole: dict[Path, os.stat_result] = {}
    hits = 0
    for place in sorted(rng.sample(range(1, total * 3 // 4), kills)):
        with subprocess.Popen(command(src, dst), stdout=subprocess.DEVNULL) as process:
            seen = until(process, partial, place)
            time.sleep(rng.random() / 100)
            process.kill()
        if not seen or dst.exists():  # it was done before this process could look: anew
            shutil.rmtree(dst)
            whole.clear()
            continue
        assert not dst.exists() and process.returncode == -signal.SIGKILL
        now = images(partial)
        hits += any(stat.st_size != sizes[path] for path, stat in now.items())
        whole |= {path: stat for path, stat in now.items() if stat.st_size == sizes[path]}
    done = subprocess.run(command(src, dst), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert equal(dst, undisturbed)
    after = images(dst)
    for path, stat in whole.items():  # what was whole has not been written again
        assert (after[path].st_ino, after[path].st_mtime_ns) == (stat.st_ino, stat.st_mtime_ns)
    assert sorted(os.listdir(dst.parent)) == [dst.name]
    return hits


def test_killed_at_random_moments(src, undisturbed, tmp_path):
    killed_at_random(src, tmp_path / "set", undisturbed, kills=3, seed=0)


def test_half_written_files_are_written_again(src, undisturbed, tmp_path):
    dst, partial = tmp_path / "set", tmp_path / ".set.partial"
    with subprocess.Popen(command(src, dst)) as process:
        assert until(process, partial, 200)
        process.kill()
    halves = sorted(images(partial))[::20]
    assert len(halves) >= 10
    for path in halves:
        os.truncate(partial / path, 1000)
    (partial / "dataset.json").write_text("{}")  # as if killed amid the last steps
    (partial / "train.txt").write_text("half a line")
    assert subprocess.run(command(src, dst)).returncode == 0
    assert equal(dst, undisturbed)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_by_a_signal(src, undisturbed, tmp_path, number):
    dst = tmp_path / "set"
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    # Python heeds no Ctrl-C that it was born ignoring, as whatever runs the tests may do
    pipes["preexec_fn"] = lambda: signal.signal(number, signal.SIG_DFL)
    with subprocess.Popen(command(src, dst), **pipes) as process:
        assert until(process, tmp_path / ".set.partial", 20)
        process.send_signal(number)
        out, err = process.communicate()
    assert process.returncode == Exit.INTERRUPTED and out == ""
    assert err == f"dataset.py: {dst}: stopped before it was whole; the same command goes on\n"
    assert subprocess.run(command(src, dst)).returncode == 0
    assert equal(dst, undisturbed)


def fails_then_goes_on(disk: SmallDisk, src: Path, undisturbed: Path, done: tuple[int, str]):
    code, err = done
    assert code == Exit.CANNOT_WRITE, err
    dst = disk.folder / "set"
    assert err == (
        f"dataset.py: {dst}: the disk is full; free space, then the same command goes on\n"
    )
    assert not (disk.outside / "set").exists()
    made = images(disk.outside / ".set.partial")
    assert len(made) > 50
    yield
    again = subprocess.run(disk.command(*command(src, dst)), capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert equal(disk.outside / "set", undisturbed)


def test_disk_full_midway(src, undisturbed, tmp_path):
    """Another program fills the disk while this one writes."""
    with small_disk(tmp_path / "disk", "size=64m") as disk:
        ballast, partial = disk.outside / "ballast", disk.outside / ".set.partial"
        line = disk.command(*command(src, disk.folder / "set"))
        with subprocess.Popen(line, stderr=subprocess.PIPE, text=True) as process:
            assert until(process, partial, 100)
            process.send_signal(signal.SIGSTOP)
            with ballast.open("wb") as file, pytest.raises(OSError, match="No space left"):
                while True:
                    os.write(file.fileno(), bytes(4096))
            process.send_signal(signal.SIGCONT)
            _, err = process.communicate()
        rest = fails_then_goes_on(disk, src, undisturbed, (process.returncode, err))
        next(rest)
        ballast.unlink()
        assert list(rest) == []


def test_out_of_inodes_midway(src, undisturbed, tmp_path):
    with small_disk(tmp_path / "disk", "size=64m,nr_inodes=300") as disk:
        line = disk.command(*command(src, disk.folder / "set"))
        done = subprocess.run(line, capture_output=True, text=True)
        rest = fails_then_goes_on(disk, src, undisturbed, (done.returncode, done.stderr))
        next(rest)
        disk.resize("size=64m,nr_inodes=9000")
        assert list(rest) == []
