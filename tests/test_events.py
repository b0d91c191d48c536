"""The event log: vocabulary, writer, clocks over restarts, superseded lines."""

from __future__ import annotations

import json
import os
import resource
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from proofrun import events
from proofrun.errors import WriteError
from proofrun.writer import Clock, EventWriter

ROOT = Path(__file__).resolve().parent.parent


def window(writer: EventWriter, step: int, loss: float = 1.0) -> events.Train:
    return writer.write(
        events.Train, step=step, epoch=step / 10, loss=loss, ce=loss, lr=0.1, steps=1, images=64,
        window_s=0.5, data_wait_s=0.1, warmup=False,
    )  # fmt: skip


def test_the_committed_schema_is_the_vocabulary():
    committed = json.loads((ROOT / "proofrun" / "events.schema.json").read_text())
    assert committed == events.json_schema()


def test_lines_are_numbered_and_read_back(tmp_path):
    path = tmp_path / "events.jsonl"
    writer = EventWriter(path, Clock())
    written = [window(writer, step) for step in range(3)]
    writer.close()
    read = [event for _, event in events.read_events(path)]
    assert read == written
    assert [event.seq for event in read] == [0, 1, 2]
    again = EventWriter(path, Clock())
    assert again.next_seq == 3 and again.last == written[-1]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_loss_that_is_not_finite_is_still_json(tmp_path, value):
    path = tmp_path / "events.jsonl"
    writer = EventWriter(path, Clock())
    window(writer, 1, value)
    json.loads(path.read_text(), parse_constant=lambda name: pytest.fail(name))
    ((_, event),) = events.read_events(path)
    assert isinstance(event, events.Train) and str(event.loss) == str(value)


def test_a_torn_line_costs_only_itself(tmp_path):
    path = tmp_path / "events.jsonl"
    writer = EventWriter(path, Clock())
    window(writer, 1)
    window(writer, 2)
    writer.close()
    path.write_bytes(path.read_bytes()[:-20])
    writer = EventWriter(path, Clock())
    window(writer, 3)
    kinds = [
        event if isinstance(event, str) else event.step for _, event in events.read_events(path)
    ]
    assert kinds[0] == 1 and isinstance(kinds[1], str) and kinds[2] == 3
    assert writer.next_seq == 2


@given(st.binary(max_size=300))
@settings(max_examples=200, deadline=None)
def test_any_bytes_are_read_line_by_line(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("e") / "events.jsonl"
    path.write_bytes(data)
    for number, event in events.read_events(path):
        assert number >= 1 and isinstance(event, str)


def test_unknown_fields_and_kinds_are_refused(tmp_path):
    writer = EventWriter(tmp_path / "events.jsonl", Clock())
    line = json.loads((tmp_path / "events.jsonl").read_text() or "null")
    assert line is None
    window(writer, 1)
    line = json.loads((tmp_path / "events.jsonl").read_text())
    for change in ({"kind": "trian"}, {"los": 1}, {"seq": -1}):
        with pytest.raises(ValidationError):
            events.parse_event(json.dumps(line | change))


def test_superseded_events_are_dropped(tmp_path):
    """Saved at seq 2, killed after seq 4: what came after the save was trained again."""
    writer = EventWriter(tmp_path / "events.jsonl", Clock())
    for step in (1, 2):
        window(writer, step)
    writer.write(
        events.Checkpoint, step=2, epoch=0.2, why="epoch", path="checkpoints/x", bytes=1, save_s=0.1
    )
    for step in (3, 4):
        window(writer, step)
    writer.write(events.Resume, step=2, epoch=0.2, from_seq=2, from_step=2, path="checkpoints/x")
    window(writer, 3)
    read = [e for _, e in events.read_events(tmp_path / "events.jsonl") if not isinstance(e, str)]
    assert len(read) == 7
    steps = [e.step for e in events.effective(read) if isinstance(e, events.Train)]
    assert steps == [1, 2, 3]


def test_clocks_go_on_and_leave_out_evaluation_and_down_time():
    first = Clock(time.monotonic() - 5)
    assert first.wall_s == pytest.approx(5, abs=0.5)
    assert first.mark_s == 0
    first.start_mark()
    time.sleep(0.05)
    first.stop_mark()
    stood = first.mark_s
    time.sleep(0.05)
    assert first.mark_s == stood >= 0.05
    first.train_s += 2
    time.sleep(0.02)  # down time: in no clock of the next process
    second = Clock()
    second.go_on_from(first.wall_s, first.mark_s, first.train_s)
    assert second.mark_s == stood and second.train_s == 2
    assert second.wall_s == pytest.approx(first.wall_s, abs=0.05)


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path):
    with pytest.raises(WriteError, match="cannot write"):
        EventWriter(tmp_path / "none" / "events.jsonl", Clock())


def test_a_full_disk_is_one_line(tmp_path):
    writer = EventWriter(tmp_path / "events.jsonl", Clock())
    full = os.open("/dev/full", os.O_WRONLY)  # answers every write with ENOSPC
    os.dup2(full, writer._fd)
    with pytest.raises(WriteError, match="No space left"):
        window(writer, 1)


def test_half_a_line_is_taken_back(tmp_path):
    """The last line that fits in part: what lies in the file are whole lines, and it goes on."""
    path = tmp_path / "events.jsonl"
    writer = EventWriter(path, Clock())
    window(writer, 1)
    whole = path.read_bytes()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(whole) + 100, before[1]))
    try:
        with pytest.raises(WriteError, match="the disk is full"):
            window(writer, 2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert path.read_bytes() == whole
    window(writer, 2)
    assert [event.seq for _, event in events.read_events(path)] == [0, 1]


def test_losses_are_those_of_the_last_window_that_counts(tmp_path):
    """A window that a kill threw away is no longer the last one, also for the next process."""
    path = tmp_path / "events.jsonl"
    writer = EventWriter(path, Clock())
    first, lost = window(writer, 1), window(writer, 2)
    assert first.seq < lost.seq
    for each in (writer, EventWriter(path, Clock())):
        assert each.losses.seq == lost.seq
    again = EventWriter(path, Clock())
    again.write(
        events.Resume, step=1, epoch=0.1, from_seq=first.seq, from_step=1, path="checkpoints/x"
    )
    for each in (again, EventWriter(path, Clock())):
        assert each.losses == (first.seq, first.loss, first.ce)
