"""Numbers that are not finite: found wherever they arise, named, and never saved."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from plans import plan

from proofrun import checkpoint, events, session, train
from proofrun.errors import Exit, NonFiniteError
from proofrun.faultpoints import VARIABLE
from proofrun.runs import Plan


@pytest.fixture
def run_dir(tmp_path, monkeypatch) -> Iterator[Path]:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # on pictures this small more of them only wait for each other
    (tmp_path / "001").mkdir()
    yield tmp_path / "001"
    torch.set_num_threads(threads)


@pytest.fixture
def small() -> Plan:
    """Three steps on tiny pictures, all in one window: none but the last is a log point."""
    whole = plan("synthetic", "", 1)
    data, batch = whole.recipe.data, whole.recipe.batch
    protocol = data.eval[0].model_copy(update={"crop": 32})
    tiny = data.model_copy(
        update={
            "val_images": 8,
            "train": data.train.model_copy(update={"image_size": 32}),
            "eval": (protocol,),
        }
    )
    recipe = whole.recipe.model_copy(
        update={"data": tiny, "batch": batch.model_copy(update={"per_card": 4})}
    )
    return whole.model_copy(update={"recipe": recipe})


def saved_at_step_1(small: Plan, run_dir: Path) -> str:
    """Train one step, stop, save; the hash of the weights."""
    signals: list[int] = []
    job = session.open_job(small, run_dir, signals)
    apply = job.state.stepper.apply

    def then_stop(*arguments) -> None:
        apply(*arguments)
        signals.append(15)

    job.state.stepper.apply = then_stop
    assert train.train(job) is Exit.INTERRUPTED
    job.lock.close()
    found = checkpoint.newest(run_dir / "checkpoints", [])
    assert found is not None and found.meta["step"] == 1
    return checkpoint.state_hash(found.model)


def untouched(run_dir: Path, weights: str) -> bool:
    """Whether the checkpoint of step 1 is still the only one, and neither link left it."""
    folder = run_dir / "checkpoints"
    found = checkpoint.newest(folder, [])
    return (
        found is not None
        and checkpoint.state_hash(found.model) == weights
        and [path.name for path in folder.glob("step-*")] == [found.path.name]
        and (folder / "latest").resolve() == found.path
        and not (folder / "best").exists()
    )


def fails(job: train.Job, match: str) -> None:
    with pytest.raises(NonFiniteError, match=match) as caught:
        train.train(job)
    job.lock.close()
    assert "\n" not in str(caught.value)


def test_a_loss_at_an_unlogged_step(small, run_dir, monkeypatch):
    weights = saved_at_step_1(small, run_dir)
    monkeypatch.setenv(VARIABLE, "loss,step=1,rank=0:nan")
    fails(session.open_job(small, run_dir, []), "loss is not finite at step 2 on rank 0")
    assert untouched(run_dir, weights)
    log = [event for _, event in events.read_events(run_dir / "events.jsonl")]
    assert [e for e in log if isinstance(e, events.Train)][-1].loss != 0  # nan, as it was
    assert not [e for e in log if isinstance(e, events.Eval)]


def test_a_loss_at_the_first_step(small, run_dir, monkeypatch):
    monkeypatch.setenv(VARIABLE, "loss,step=0:nan")
    fails(session.open_job(small, run_dir, []), "loss is not finite at step 1 on rank 0")
    assert not (run_dir / "checkpoints").exists()


@pytest.mark.parametrize("step", [1, 2])
def test_gradients_that_overflow_under_a_finite_loss(small, run_dir, monkeypatch, step):
    """FP32 looks at losses: the next one is bad, or the state is seen before it is saved."""
    weights = saved_at_step_1(small, run_dir)
    monkeypatch.setenv(VARIABLE, f"gradient,step={step}:nan")
    said = "loss is not finite at step 3" if step == 1 else "conv.weight is not finite at step 3"
    fails(session.open_job(small, run_dir, []), f"{said} on rank 0")
    assert untouched(run_dir, weights)


def test_only_batch_norm_statistics(small, run_dir):
    """Training does not read them, evaluation does: no loss of a step would ever tell."""
    weights = saved_at_step_1(small, run_dir)
    job = session.open_job(small, run_dir, [])
    name, buffer = next(
        (n, b) for n, b in job.state.model.named_buffers() if n.endswith("running_var")
    )
    buffer[0] = math.nan
    fails(job, rf"{name} is not finite at step 3 on rank 0; this state is not saved")
    assert untouched(run_dir, weights)


def test_only_the_evaluation(small, run_dir):
    """Finite weights whose logits overflow: no best, no latest, and the event tells."""
    weights = saved_at_step_1(small, run_dir)
    job = session.open_job(small, run_dir, [])
    job.state.step = job.total_steps
    with torch.no_grad():
        job.state.model.fc.weight.fill_(3e38)
    with pytest.raises(NonFiniteError, match="the loss of the evaluation is not finite at step 3"):
        train._end_of_epoch(job)
    job.lock.close()
    assert untouched(run_dir, weights)
    assert job.writer is not None
    assert isinstance(job.writer.last, events.Eval) and not math.isfinite(job.writer.last.loss)


def test_half_precision_counts_skips_and_gives_up(small, run_dir, monkeypatch):
    """One skip is counted and saved; so many that the scale falls under 1 end the run."""
    half = small.model_copy(update={"precision": "FP16", "log_interval": 30})
    monkeypatch.setenv(VARIABLE, "loss,step=0:nan")
    job = session.open_job(half.model_copy(update={"max_steps": 2}), run_dir, [])
    assert train.train(job) is Exit.OK
    job.lock.close()
    log = [event for _, event in events.read_events(run_dir / "events.jsonl")]
    last = [event for event in log if isinstance(event, events.Train)][-1]
    skipped = last.skipped  # by the scale's own search perhaps one more
    assert skipped >= 1 and last.scale == 65536 / 2**skipped
    good = checkpoint.newest(run_dir / "checkpoints", [])
    assert good is not None and (run_dir / "checkpoints" / "best").resolve() == good.path

    monkeypatch.setenv(VARIABLE, "loss:nan")
    other = run_dir.parent / "002"
    other.mkdir()
    job = session.open_job(half.model_copy(update={"max_steps": 18}), other, [])
    fails(job, r"18 steps in a row were skipped .*\(loss scale 0.25, first bad loss at step 1 on")
    assert not (other / "checkpoints").exists()
