"""Stops at odd moments and other numbers of ranks: what is saved, and what it leads to."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest
import torch
from plans import plan

from proofrun import events, session, train
from proofrun.errors import Exit, ResumeError
from proofrun.faultpoints import InjectedFault
from proofrun.job import Job
from proofrun.saved import meta_hash, read_meta


@pytest.fixture
def signals(monkeypatch):
    """What arrives as SIGTERM, as a worker notes it."""
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    found: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: found.append(number))
    yield found
    signal.signal(signal.SIGTERM, before)
    torch.set_num_threads(threads)


@pytest.fixture
def run_dir(tmp_path) -> Path:
    (tmp_path / "001").mkdir()
    return tmp_path / "001"


def small(digits, epochs: int = 2, **update):
    """An epoch of 3 steps."""
    three = plan("synthetic", str(digits), 1)
    recipe = three.recipe
    changes = {
        "data": {"train_images": 7, "val_images": 6},
        "batch": {"per_card": 2},
        "schedule": {"epochs": epochs},
    }
    parts = {n: getattr(recipe, n).model_copy(update=u) for n, u in changes.items()}
    recipe = recipe.model_copy(update=parts)
    update = {"recipe": recipe, "max_steps": None, "log_interval": 1} | update
    return three.model_copy(update=update)


def go(plan, run_dir: Path, signals: list[int]) -> tuple[Exit, Job]:
    signals.clear()
    job = session.open_job(plan, run_dir, signals)
    try:
        return train.train(job), job
    finally:
        job.lock.close()


def counted(run_dir: Path) -> list[events.AnyEvent]:
    found = [e for _, e in events.read_events(run_dir / "events.jsonl")]
    return events.effective([e for e in found if not isinstance(e, str)])


def evaluations(run_dir: Path) -> list[tuple[str, int]]:
    return [(e.why, e.step) for e in counted(run_dir) if isinstance(e, events.Eval)]


@pytest.mark.parametrize("step", [3, 6])
def test_an_evaluation_is_left_at_once_and_done_anew(run_dir, digits, signals, monkeypatch, step):
    """Saved as it was before: the accuracy of the epoch still has to become the best one."""
    monkeypatch.setenv("PROOFRUN_TEST_FAULT", f"evaluation,step={step},batch=1:sigterm")
    code, job = go(small(digits), run_dir, signals)
    assert code is Exit.INTERRUPTED and job.state.step == step
    meta = read_meta(run_dir / "checkpoints" / "latest")
    assert (meta["why"], meta["step"], meta["epoch_ended"]) == ("signal", step, False)
    monkeypatch.delenv("PROOFRUN_TEST_FAULT")
    code, job = go(small(digits), run_dir, signals)
    assert code is Exit.OK
    assert evaluations(run_dir) == [("epoch", 3), ("final", 6)]
    assert [e.step for e in counted(run_dir) if isinstance(e, events.Train)] == [1, 2, 3, 4, 5, 6]
    assert (run_dir / "checkpoints" / "best").exists()


def test_a_signal_in_an_epochs_save_owes_nothing(run_dir, digits, signals, monkeypatch):
    monkeypatch.setenv("PROOFRUN_TEST_FAULT", "save,step=3:sigterm")
    code, _ = go(small(digits), run_dir, signals)
    assert code is Exit.INTERRUPTED
    meta = read_meta(run_dir / "checkpoints" / "latest")
    assert (meta["why"], meta["step"], meta["epoch_ended"]) == ("epoch", 3, True)
    monkeypatch.delenv("PROOFRUN_TEST_FAULT")
    assert go(small(digits), run_dir, signals)[0] is Exit.OK
    assert evaluations(run_dir) == [("epoch", 3), ("final", 6)]


def test_a_signal_before_the_first_step_saves_nothing_and_loses_nothing(
    run_dir, digits, signals, monkeypatch
):
    monkeypatch.setenv("PROOFRUN_TEST_FAULT", "start:sigterm")
    code, job = go(small(digits), run_dir, signals)
    assert code is Exit.INTERRUPTED and job.state.step == 0
    assert not (run_dir / "checkpoints").exists()
    monkeypatch.delenv("PROOFRUN_TEST_FAULT")
    assert go(small(digits), run_dir, signals)[0] is Exit.OK


def test_a_mark_due_after_an_epochs_end_does_not_owe_it_again(run_dir, digits, signals):
    """The mark's save replaces the epoch's at the same step, and must say that it was evaluated."""
    marked = small(digits, 1)
    marked = marked.model_copy(
        update={"recipe": marked.recipe.model_copy(update={"marks_s": (1e-6,)})}
    )
    code, job = go(marked, run_dir, signals)
    assert code is Exit.OK
    job.ended_step = job.state.step
    train._save(job, "mark")
    assert read_meta(run_dir / "checkpoints" / "latest")["epoch_ended"]


def test_a_thread_that_dies_ends_the_run(run_dir, digits, signals):
    job = session.open_job(small(digits), run_dir, signals, failures=[InjectedFault("in a thread")])
    with pytest.raises(InjectedFault, match="in a thread"):
        train.train(job)
    job.lock.close()


def say_two_ranks(run_dir: Path) -> None:
    """Let the newest checkpoint say that two ranks wrote it."""
    path = (run_dir / "checkpoints" / "latest").resolve()
    meta = read_meta(path) | {"world": 2}
    (path / "meta.json").write_text(json.dumps(meta | {"meta_sha256": meta_hash(meta)}))


def test_stop_at_epoch_end_then_another_number_of_ranks(run_dir, digits, signals):
    """As if two ranks had trained the first epoch: their number of steps, their statistics."""
    pause = small(digits, 3, stop_at_epoch_end=True)
    assert go(pause, run_dir, signals)[0] is Exit.INTERRUPTED
    meta = read_meta(run_dir / "checkpoints" / "latest")
    assert (meta["step"], meta["leg"]) == (3, [0, 0, 3])
    say_two_ranks(run_dir)

    code, job = go(small(digits, 3, stop_at_epoch_end=True), run_dir, signals)
    assert code is Exit.INTERRUPTED and job.state.step == 6 and job.epoch == 2
    leg = job.state.leg
    assert leg[:2] == (3, 1) and leg.seed != 3  # a data stream of its own
    (resume,) = [e for e in counted(run_dir) if isinstance(e, events.Resume)]
    assert (resume.world_before, resume.world_after) == (2, 1)
    assert any("2 ranks before, 1 from epoch 1 on" in remark for remark in resume.remarks)

    code, job = go(small(digits, 3), run_dir, signals)  # the same number: an exact resume
    assert code is Exit.OK and job.state.leg == leg
    assert (job.state.step, job.epoch) == (9, 3)
    lrs = [e.lr for e in counted(run_dir) if isinstance(e, events.Train)]
    assert lrs[0] == lrs[2] > lrs[3] == lrs[5] > lrs[6] == lrs[8]  # by epochs, as before


def test_within_an_epoch_the_number_of_ranks_is_fixed(run_dir, digits, signals, monkeypatch):
    monkeypatch.setenv("PROOFRUN_TEST_FAULT", "step,step=1:sigterm")
    assert go(small(digits), run_dir, signals)[0] is Exit.INTERRUPTED
    monkeypatch.delenv("PROOFRUN_TEST_FAULT")
    say_two_ranks(run_dir)
    with pytest.raises(ResumeError, match=r"within an epoch, this run has 1.*--stop-at-epoch-end"):
        session.open_job(small(digits), run_dir, signals)


@pytest.mark.parametrize(
    "change",
    [
        {"precision": "AMP"},
        {"max_steps": 4},
        {"overrides": {"optimizer.lr.base": 1.0}},
        {"data_hash": "other"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_another_recipe_precision_or_data_is_refused(run_dir, digits, signals, change):
    assert go(small(digits, stop_at_epoch_end=True), run_dir, signals)[0] is Exit.INTERRUPTED
    with pytest.raises(ResumeError, match="belongs to another recipe, override or data"):
        session.open_job(small(digits, **change), run_dir, signals)


@pytest.mark.parametrize("key", ["classes", "graph"])
def test_another_class_count_or_graph_is_refused(run_dir, digits, signals, key):
    assert go(small(digits, stop_at_epoch_end=True), run_dir, signals)[0] is Exit.INTERRUPTED
    other = small(digits)
    recipe = other.recipe
    part, update = {
        "classes": ("data", {"classes": 11}),
        "graph": ("model", {"parameters": 1}),  # of another graph; its name is the next one's
    }[key]
    recipe = recipe.model_copy(update={part: getattr(recipe, part).model_copy(update=update)})
    with pytest.raises(ResumeError, match="belongs to another recipe"):
        session.open_job(other.model_copy(update={"recipe": recipe}), run_dir, signals)
