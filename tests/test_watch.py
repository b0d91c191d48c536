"""--watch: follows a run that a real process writes, and ends by itself or by Ctrl-C."""

from __future__ import annotations

import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fake_logs import FakeRun
from report_tool import report
from test_report import DIGITS

from proofrun.errors import Exit
from proofrun.heartbeat import Heart
from tools._report.follow import Progress, Tail
from tools._report.watch import _cells

ROOT = Path(__file__).resolve().parent.parent

# A run as FakeRun writes it, in real time: half of it, then on a line on stdin the rest.
_WRITER = """
import sys, time
sys.path[:0] = [sys.argv[1] + "/tests", sys.argv[1]]
import fake_logs
class Slow(fake_logs._Writer):
    def emit(self, kind, **fields):
        if self.step == 3 * self.steps_per_epoch and kind.__name__ == "Eval":
            print("half", flush=True)
            sys.stdin.readline()
        return super().emit(kind, **fields)
fake_logs._Writer = Slow
fake_logs.FakeRun(sys.argv[3], number=2).write(fake_logs.Path(sys.argv[2]))
"""


def writer(logs: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", _WRITER, str(ROOT), str(logs), DIGITS],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None and process.stdout.readline() == "half\n"
    return process


def watching(logs: Path, **streams: object) -> subprocess.Popen[str]:
    tool = str(ROOT / "tools" / "report.py")
    command = [sys.executable, tool, str(logs), "--watch", "0.1"]
    return subprocess.Popen(command, text=True, **{"stderr": subprocess.PIPE, **streams})  # type: ignore[call-overload]


def test_a_run_is_followed_to_its_end(tmp_path):
    FakeRun(DIGITS).write(tmp_path)  # over before: not shown
    write = writer(tmp_path)
    watch = watching(tmp_path, stdout=subprocess.PIPE)
    first = watch.stdout.readline()
    assert first.startswith(f"{DIGITS}/002: status in progress, epoch 3.00 of 6, step 66, loss ")
    assert re.search(
        r"img/s \d+\.\d, data wait 2\.0 %, top1 \d+\.\d+ %, left \d+ s$", first.strip()
    )
    FakeRun(DIGITS, number=3, status="failed", stop_epoch=1, message="boom").write(tmp_path)
    write.communicate("go\n", timeout=20)
    out, err = watch.communicate(timeout=20)
    assert watch.returncode == 0 and err == ""
    *_, last, end = out.splitlines()
    assert (
        f"{DIGITS}/002: status finished, epoch 6.00 of 6" in out and end == "no run is in progress"
    )
    assert "/001" not in out and "status failed (boom)" in out and last.startswith(DIGITS)


def test_ctrl_c_ends_it_without_a_word_of_python(tmp_path):
    FakeRun(DIGITS, status=None, stop_epoch=2).write(tmp_path)
    watch = watching(tmp_path, stdout=subprocess.PIPE)
    assert "epoch 2.00 of 6" in watch.stdout.readline()
    watch.send_signal(signal.SIGINT)
    out, err = watch.communicate(timeout=20)
    assert watch.returncode == 0 and out == "stopped watching\n" and err == ""


def test_on_a_terminal_it_is_a_table(tmp_path):
    FakeRun(DIGITS, status=None, stop_epoch=2, device_name="[bold]").write(tmp_path)
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "140"}
    watch = watching(tmp_path, stdout=theirs, env=environment)
    os.close(theirs)
    seen = b""
    deadline = time.monotonic() + 20
    while b"2.00 of 6" not in seen and time.monotonic() < deadline:
        seen += os.read(ours, 4096)
    watch.send_signal(signal.SIGINT)
    assert watch.wait(timeout=20) == 0 and watch.stderr.read() == ""
    assert b"img/s" in seen and b"in progress" in seen
    os.close(ours)


def test_a_tail_reads_whole_lines_once(tmp_path):
    path = tmp_path / "file"
    tail = Tail(path)
    assert tail.read() == ([], False)
    path.write_bytes(b"one\ntw")
    assert tail.read() == ([b"one"], False)
    with path.open("ab") as file:
        file.write(b"o\n\nthree\n")
    assert tail.read() == ([b"two", b"", b"three"], False)
    assert tail.read() == ([], False)
    path.write_bytes(b"new\n")  # truncated
    assert tail.read() == ([b"new"], True)
    other = tmp_path / "other"
    other.write_bytes(b"replaced, and longer than before\n")
    os.replace(other, path)
    assert tail.read() == ([b"replaced, and longer than before"], True)


def test_what_a_kill_made_void_is_forgotten(tmp_path):
    whole = FakeRun(DIGITS, killed_at=2).write(tmp_path / "whole")
    folder = tmp_path / "logs" / DIGITS / "001"
    folder.mkdir(parents=True)
    shutil.copy(whole / "recipe.yaml", folder)
    run = Progress(folder)
    run.update()
    assert run.status == "running" and run.last is None and run.left_s is None
    steps = []
    lines = (whole / "events.jsonl").read_bytes().splitlines(keepends=True)
    for line in [*lines[:3], b"\x00\xff rubbish\n", *lines[3:]]:
        with (folder / "events.jsonl").open("ab") as file:
            file.write(line)
        run.update()
        steps.append(run.last.step)
        assert run.left_s is None or run.left_s >= 0
    assert steps != sorted(steps) and steps[-1] == 132  # it went back once
    assert run.status == "finished" and run.top1 == pytest.approx(98.61, abs=0.01)
    assert len([e for e in run.evals if e.why == "epoch"]) == 6


def test_a_writer_that_fell_silent_is_named(tmp_path):
    """No line for long: said with its age; no heartbeat either: said too; it looks on."""
    folder = FakeRun(DIGITS, status=None, stop_epoch=2).write(tmp_path)
    log = folder / "events.jsonl"

    def status(minutes: float) -> str:
        then = time.time() - 60 * minutes
        os.utime(log, (then, then))
        run.update()
        return _cells(run)[1]

    run = Progress(folder)
    assert status(0) == "in progress"
    assert status(3.2) == "in progress, last line 3 min ago"
    assert status(12.1) == "in progress, last line 12 min ago and no heartbeat: it may be dead"
    heart = Heart(folder, 0)
    assert status(12.1) == "in progress, last line 12 min ago"
    heart.beat("step", 7)
    assert status(12.1) == "in progress, last line 12 min ago" and run.status == "running"
    watch = watching(tmp_path, stdout=subprocess.PIPE)
    assert "last line 12 min ago" in watch.stdout.readline()
    watch.send_signal(signal.SIGINT)
    out, err = watch.communicate(timeout=20)
    assert out == "stopped watching\n" and err == ""


def test_nothing_to_watch(tmp_path):
    FakeRun(DIGITS).write(tmp_path / "logs")
    done = report(tmp_path / "logs", "--watch")
    assert done.returncode == 0 and done.stdout == "no run is in progress\n"
    for arguments in ([tmp_path / "none", "--watch"], [tmp_path / "logs", "--watch", "0"]):
        done = report(*arguments)
        assert done.returncode == Exit.USAGE and done.stderr.count("\n") == 1
