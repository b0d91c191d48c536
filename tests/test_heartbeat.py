"""The beat of a rank, and whom the watch blames: real files and real processes."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import psutil
import pytest

from proofrun import heartbeat
from proofrun.errors import UsageError
from proofrun.heartbeat import Heart, Watch, clear_beats, read_beat, timeout_of


class Time:
    """A clock that stands until it is told."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch) -> Time:
    found = Time()
    monkeypatch.setattr(heartbeat, "time", found)
    return found


@pytest.fixture
def process() -> Iterator[subprocess.Popen]:
    found = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    yield found
    found.kill()
    found.wait()


def looks(watch: Watch, clock: Time, seconds: int, every: int = 1) -> heartbeat.Hang | None:
    """Look every second for so long."""
    for _ in range(0, seconds, every):
        clock.now += every
        if (hang := watch.look()) is not None:
            return hang
    return None


def test_a_beat_is_read_as_it_was_written(tmp_path):
    assert read_beat(tmp_path, 3) is None
    heart = Heart(tmp_path, 3)
    heart.beat("step", 7)
    heart.beat("exchange")
    beat = read_beat(tmp_path, 3)
    assert (beat.step, beat.phase, beat.beats) == (7, "exchange", 3)
    with heart.waiting():
        assert read_beat(tmp_path, 3).phase == "wait"
    assert read_beat(tmp_path, 3).phase == "exchange"
    later = Heart(tmp_path, 3)  # while the earlier one still beats
    heart.beat("save", 9)
    assert read_beat(tmp_path, 3).phase == "start"
    later.beat("data", 0)
    (tmp_path / ".beat.rank3").write_bytes(b"torn")
    assert read_beat(tmp_path, 3) is None
    clear_beats(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_beat_costs_next_to_nothing(tmp_path):
    heart = Heart(tmp_path, 0)
    began = time.perf_counter()
    for step in range(10_000):
        heart.beat("step", step)
    assert (time.perf_counter() - began) / 10_000 < 1e-4


def test_a_slow_rank_is_not_hung_and_a_silent_one_is(tmp_path, clock):
    heart = Heart(tmp_path, 0)
    heart.beat("step", 0)
    watch = Watch(tmp_path, [0], 30, alone=True)
    for step in range(1, 6):
        assert looks(watch, clock, 29) is None
        heart.beat("step", step)
    hang = looks(watch, clock, 60)
    assert hang is not None and (hang.rank, hang.step, hang.phase) == (0, 5, "step")
    assert 30 < hang.idle_s <= 32
    assert "rank 0 hung at step 5, in phase `step`" in hang.message


def test_the_start_has_longer(tmp_path, clock):
    """Imports may lie on a slow disk. Until a rank lives it is torchrun that waits, for nodes."""
    watch = Watch(tmp_path, [0, 1], 30, alone=True)
    assert looks(watch, clock, 3600) is None
    Heart(tmp_path, 0)
    assert looks(watch, clock, 625) is None
    hang = looks(watch, clock, 60)
    assert hang is not None and hang.phase == "start"


def test_of_several_the_one_at_work_or_behind_is_blamed(tmp_path, clock):
    hearts = [Heart(tmp_path, rank) for rank in range(3)]
    for heart in hearts:
        heart.beat("exchange", 8)
    hearts[1].beat("step", 8)  # the others wait for its gradients
    hang = looks(Watch(tmp_path, range(3), 30, alone=True), clock, 60)
    assert hang is not None and (hang.rank, hang.phase) == (1, "step")
    hearts[1].beat("wait", 9)
    hearts[2].beat("wait", 9)  # rank 0 is a step behind
    hang = looks(Watch(tmp_path, range(3), 30, alone=True), clock, 60)
    assert hang is not None and (hang.rank, hang.step) == (0, 8)


def test_a_stopped_process_is_blamed_first(tmp_path, clock, process):
    hearts = [Heart(tmp_path, rank) for rank in range(2)]
    hearts[0].beat("step", 4)
    hearts[1]._pid = process.pid
    hearts[1].beat("exchange", 4)
    process.send_signal(signal.SIGSTOP)
    while psutil.Process(process.pid).status() != psutil.STATUS_STOPPED:
        time.sleep(0.01)
    hang = looks(Watch(tmp_path, range(2), 30, alone=True), clock, 60)
    assert hang is not None and hang.stopped and hang.rank == 1
    assert "stopped by SIGSTOP" in hang.message


def test_ranks_that_have_left_are_torchruns_matter_for_a_while(tmp_path, clock, process):
    heart = Heart(tmp_path, 0)
    heart._pid = process.pid
    heart.beat("end", 4)
    process.kill()
    process.wait()
    watch = Watch(tmp_path, [0], 30, alone=True)
    assert looks(watch, clock, 85) is None
    assert looks(watch, clock, 30) is not None


def test_ranks_that_only_wait_leave_another_nodes_launch_the_first_word(tmp_path, clock):
    heart = Heart(tmp_path, 2)
    heart.beat("wait", 4)
    watch = Watch(tmp_path, [2], 30, alone=False)
    assert looks(watch, clock, 59) is None
    assert looks(watch, clock, 10) is not None


def test_a_launch_that_stood_still_itself_blames_nobody(tmp_path, clock):
    """A paused container, a suspended machine: all stood still together."""
    heart = Heart(tmp_path, 0)
    heart.beat("step", 4)
    watch = Watch(tmp_path, [0], 30, alone=True)
    assert looks(watch, clock, 20) is None
    clock.now += 3600
    assert watch.look() is None
    heart.beat("step", 5)
    assert looks(watch, clock, 29) is None


def test_the_timeout_is_a_whole_number():
    assert timeout_of({}) == 600 and timeout_of({"RANK_TIMEOUT": "45"}) == 45
    for wrong in ("0", "-1", "1.5", "ten"):
        with pytest.raises(UsageError, match="RANK_TIMEOUT"):
            timeout_of({"RANK_TIMEOUT": wrong})
