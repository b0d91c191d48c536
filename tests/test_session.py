"""A rank's life in this process: stops at an epoch's very end, marks, and the window."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from plans import plan

from proofrun import events, session, train
from proofrun.errors import Exit, WriteError


class StopsAt:
    """A loader that delivers a signal together with its n-th batch."""

    def __init__(self, loader, signals: list[int], number: int) -> None:
        self.loader, self.signals, self.number = loader, signals, number
        self.steps = loader.steps

    def epoch(self):
        for count, batch in enumerate(self.loader.epoch(), 1):
            if count == self.number:
                self.signals.append(15)
            yield batch

    def state(self):
        return self.loader.state()


def test_a_stop_at_the_last_step_still_owes_the_evaluation(tmp_path, digits, monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    run_dir = tmp_path / "001"
    run_dir.mkdir()
    three = plan("dali", str(digits), 1)
    job = session.open_job(three, run_dir, [])
    job.state.loader = StopsAt(job.state.loader, job.signals, 3)
    assert train.train(job) is Exit.INTERRUPTED
    assert job.state.step == job.total_steps == 3
    job.lock.close()

    again = session.open_job(three, run_dir, [])
    assert again.state.step == 3 and again.owes_epoch_end
    assert train.train(again) is Exit.OK
    again.lock.close()
    log = [e for _, e in events.read_events(run_dir / "events.jsonl") if not isinstance(e, str)]
    kinds = [e.kind for e in log]
    assert kinds.count("train") == 1 and kinds.count("eval") == 1
    saves = [e.why for e in log if isinstance(e, events.Checkpoint)]
    assert saves == ["signal", "final"]


def test_every_iteration_of_the_first_epoch_is_written(tmp_path, digits):
    run_dir = tmp_path / "001"
    run_dir.mkdir()
    job = session.open_job(plan("synthetic", str(digits), 1), run_dir, [])
    assert train.train(job) is Exit.OK
    lines = [json.loads(line) for line in (run_dir / "iters.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3]
    for line in lines:
        assert line["images"] == 8 and line["loss"] > 0 and line["data_wait_s"] >= 0
    assert Path(run_dir / "checkpoints" / "latest" / "model.safetensors").exists()


def test_iterations_that_find_no_room(tmp_path, digits):
    """A real full device: the run ends as with any file of it that cannot be written."""
    run_dir = tmp_path / "001"
    run_dir.mkdir()
    job = session.open_job(plan("synthetic", str(digits), 1), run_dir, [])
    (run_dir / "iters.jsonl").symlink_to("/dev/full")
    with pytest.raises(WriteError, match=r"iters\.jsonl: No space left on device; free space"):
        train.train(job)
    job.lock.close()
