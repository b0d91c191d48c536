"""How an attempt ended: whose word counts, what is tried again, and output that nobody can keep."""

from __future__ import annotations

import os
import tempfile
import threading
import time

import pytest
from plans import plan

from proofrun import events, launch
from proofrun.cluster import Nodes
from proofrun.errors import Exit, WriteError
from proofrun.folders import RANK0, RunFolder, open_folder
from proofrun.heartbeat import Hang, Heart
from proofrun.session import hold
from proofrun.status import Status
from proofrun.torchrun import Signals, pass_through, torchrun
from proofrun.writer import Clock, EventWriter


@pytest.fixture
def folder(tmp_path, digits) -> RunFolder:
    """Of a run of two ranks, with an event in its log."""
    found = open_folder(tmp_path, plan("synthetic", str(digits), 2), new=False)
    found.attempt = "this"
    writer = EventWriter(found.path / "events.jsonl", Clock())
    writer.write(
        events.Checkpoint, step=4, epoch=1, why="epoch", path="checkpoints/x", bytes=1, save_s=0.1
    )
    writer.close()
    return found


def say(folder: RunFolder, rank: int, code: Exit, message: str = "", **more) -> None:
    more = {"attempt": "this", "t_wall": time.time()} | more
    Status(int(code), message, rank, **more).write(folder.path)


def log(folder: RunFolder) -> list[events.AnyEvent]:
    found = [e for _, e in events.read_events(folder.path / "events.jsonl")]
    return [e for e in found if not isinstance(e, str)]


def test_the_first_cause_counts_and_not_the_ranks_that_it_took_along(folder):
    say(folder, 0, Exit.WORKER_DIED, "rank 0 lost another rank", lost_peer=True)
    say(folder, 1, Exit.WORKER_DIED, "a loader process of rank 1 died", step=7)
    found = folder.outcome(stopped=False)
    assert (found.code, found.rank, found.step) == (Exit.WORKER_DIED, 1, 7)
    assert found.message == "a loader process of rank 1 died"
    kept = Status.read(folder.path / "status.json")
    assert kept.message == found.message and kept.status == "interrupted"


def test_a_silent_rank_died_where_its_last_beat_was(folder):
    say(folder, 0, Exit.WORKER_DIED, "rank 0 lost another rank", lost_peer=True)
    Heart(folder.path, 1).beat("step", 5)
    found = folder.outcome(stopped=False)
    assert "rank 1 died without a word" in found.message and found.step == 5
    assert not list(folder.path.glob(".beat*"))


def test_a_hang_is_named_and_ends_the_log_of_a_killed_rank_0(folder):
    found = folder.outcome(stopped=False, killed=True, hang=Hang(1, 6, "data", 31.0, False))
    assert found.code == Exit.HUNG and "rank 1 hung at step 6, in phase `data`" in found.message
    fault, end = log(folder)[-2:]
    assert (fault.kind, fault.name, fault.rank) == ("fault", "HUNG", 1)
    assert (end.kind, end.status) == ("run_end", "interrupted")


def test_told_to_stop_a_hang_is_still_a_stop(folder):
    found = folder.outcome(stopped=True, hang=Hang(1, 6, "data", 31.0, False))
    assert found.code == Exit.INTERRUPTED and "rank 1 hung" in found.message


def test_words_of_an_earlier_attempt_are_not_this_ones(folder):
    """Ranks of a killed launch may save, and say so, while the next attempt runs."""
    say(folder, 0, Exit.INTERRUPTED, "stopped by a signal", attempt="earlier")
    say(folder, 1, Exit.INTERRUPTED, "stopped by a signal", attempt="earlier")
    found = folder.outcome(stopped=False)
    assert found.code == Exit.WORKER_DIED and "rank 0, 1 died" in found.message


def test_a_log_that_earlier_ranks_still_write_is_left_to_them(folder):
    lock = hold(folder.path)
    before = log(folder)
    folder.outcome(stopped=True)
    assert log(folder) == before
    lock.close()
    folder.outcome(stopped=True)
    assert [e.kind for e in log(folder)[-2:]] == ["fault", "run_end"]
    assert (folder.path / RANK0).exists()


def test_what_is_tried_again():
    one = plan("synthetic", "none", 2)
    defect = Status(int(Exit.INTERNAL), "KeyError: 'x'", 1, 0.0, step=5)
    assert launch._again(one, defect, None)
    assert not launch._again(one, defect, defect)
    later = Status(int(Exit.INTERNAL), "KeyError: 'x'", 1, 0.0, step=6)
    assert launch._again(one, later, defect)
    for code in (Exit.WORKER_DIED, Exit.HUNG):
        same = Status(int(code), "again", 1, 0.0, step=5)
        assert launch._again(one, same, same)
    bad_input = [code for code in Exit if 1 <= code < 40] + [Exit.NON_FINITE, Exit.BAD_COUNT]
    for code in [*bad_input, Exit.OK]:
        assert not launch._again(one, Status(int(code), "bad", 0, 0.0), None)
    saved = Status(int(Exit.INTERRUPTED), "stopped", 0, 0.0)
    assert launch._again(one, saved, None)
    assert not launch._again(one.model_copy(update={"stop_at_epoch_end": True}), saved, None)
    two = one.model_copy(update={"world": one.world.model_copy(update={"nodes": 2})})
    assert not launch._again(two, saved, None)


def test_a_full_disk_takes_words_and_never_blocks_the_ranks(capfdbinary):
    """More than a pipe holds: whoever writes would wait for ever if nobody read on."""
    source, ours = os.pipe()
    text = b"step 1/2\n" * 40_000
    with open("/dev/full", "wb", buffering=0) as full, open(source, "rb", buffering=0) as reader:
        relay = threading.Thread(target=pass_through, args=(reader, full))
        relay.start()
        with open(ours, "wb", buffering=0) as pipe:
            assert sum(pipe.write(text[i : i + 9000]) for i in range(0, len(text), 9000)) == len(
                text
            )
        relay.join(timeout=60)
    assert not relay.is_alive()
    assert capfdbinary.readouterr().out == text


def test_no_room_for_temporary_files_is_said(folder, tmp_path, digits, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    with pytest.raises(WriteError, match="set TMPDIR"):
        torchrun(plan("synthetic", str(digits), 2), Nodes(), folder, Signals())
