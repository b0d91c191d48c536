"""An Infer run of one rank in this process: scores, ranking, latency, stops, damage, memory."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from plans import plan
from report_tool import report
from safetensors.torch import save_file

from proofrun import checkpoint, events, latency, session
from proofrun.data import Shard, open_eval
from proofrun.data.lists import read_split
from proofrun.device import Device
from proofrun.errors import Exit
from proofrun.evaluate import Inputs, evaluate
from proofrun.models import build_model
from proofrun.runs import Plan

ROOT = Path(__file__).resolve().parent.parent
TASK = "Inceptionv2-Digits_FP32_1CPU_Infer"


@pytest.fixture(autouse=True)
def one_rank(monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(latency, "BATCHES", (1, 8))
    monkeypatch.setattr(latency, "SECONDS", 0.1)


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory) -> Path:
    """Two checkpoints of untrained networks; in the second, two ranks had their own statistics."""
    three = plan("dali", "", 1)
    folder = tmp_path_factory.mktemp("weights")
    for step in (1, 2):
        torch.manual_seed(step)
        model = build_model(ROOT / three.recipe_dir, three.recipe.model, 10)
        buffers = {k: b + 0.25 * (b.is_floating_point()) for k, b in model.named_buffers()}
        ranks = [{"buffers": buffers}] * step
        checkpoint.save(folder, step, model.state_dict(), {"ranks": ranks}, {"epoch": step / 4})
    return folder


def begin(tmp_path: Path, digits: Path, weights: list[Path], **changes) -> tuple[Path, Plan]:
    base = plan("dali", str(digits), 1).model_dump(mode="json", by_alias=True)
    given = {"run": TASK, "max_steps": None, "weights": list(map(str, weights)), **changes}
    made = Plan.model_validate_json(json.dumps(base | given))
    run_dir = tmp_path / TASK / "001"
    run_dir.mkdir(parents=True, exist_ok=True)
    (run_dir / "recipe.yaml").write_text(made.to_yaml(), encoding="utf-8")
    return run_dir, made


def log_of(run_dir: Path) -> list[events.AnyEvent]:
    found = [e for _, e in events.read_events(run_dir / "events.jsonl")]
    assert not [e for e in found if isinstance(e, str)]
    return found


def test_all_are_scored_ranked_and_timed(tmp_path, digits, checkpoints, capsys):
    run_dir, made = begin(tmp_path, digits, checkpoint.all_in(checkpoints))
    assert session.run_rank(run_dir, []) is Exit.OK
    log = log_of(run_dir)
    kinds = [e.kind for e in log]
    assert kinds == ["run_start", *["eval"] * 3, *["latency"] * 4, "run_end"]
    scores = [e for e in log if isinstance(e, events.Eval)]
    assert [(e.step, e.bn) for e in scores] == [(1, "averaged"), (2, "averaged"), (2, "rank 0")]
    assert {(e.why, e.count, e.expected) for e in scores} == {("infer", 360, 360)}
    assert scores[1].prediction_hash != scores[2].prediction_hash
    timed = [e for e in log if isinstance(e, events.Latency)]
    assert [(e.batch, e.pipeline) for e in timed] == [(1, False), (8, False), (1, True), (8, True)]
    for e in timed:
        assert e.batches >= latency.LEAST and 0 < e.p50_ms <= e.p95_ms <= e.p99_ms
        assert not e.model_copy(update={"p95_ms": 9 * e.p50_ms}).is_steady
    out = capsys.readouterr().out
    ranked = [line.split() for line in out.splitlines() if line[:3].strip().isdigit()]
    assert [words[2] for words in ranked] == [
        f"{top1:.2f}" for top1 in sorted((e.top1 for e in scores), reverse=True)
    ]

    # the same pictures through the unfused network, without the road of a run
    model = build_model(ROOT / made.recipe_dir, made.recipe.model, 10)
    model.load_state_dict(checkpoint.load(checkpoint.all_in(checkpoints)[1]).model)
    val = read_split(digits, "val", 10)
    protocol = made.recipe.data.eval[0]
    source = open_eval("dali", val, protocol, 64, Shard(0, 1, 1))
    inputs = Inputs(made.recipe.data.normalize, torch.device("cpu"))
    cpu = Device("CPU", "FP32", made.recipe.precision)
    direct = evaluate(model.eval(), source, 360, protocol.name, inputs, cpu)
    assert (direct.correct1, direct.correct5) == (scores[1].correct1, scores[1].correct5)
    assert direct.prediction_hash == scores[1].prediction_hash

    done = report(tmp_path, "--out", tmp_path / "report")
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "report" / "report.md").read_text()
    assert "Inference: accuracy" in page and "Inference: time of a batch" in page
    assert scores[0].prediction_hash[:12] in page and f"{timed[0].p50_ms:.2f}" in page
    assert (tmp_path / "report" / "latency.csv").read_text().count("\n") == 1 + len(timed)


def test_a_damaged_one_of_several_is_named_and_left_out(tmp_path, digits, checkpoints):
    copy = Path(shutil.copytree(checkpoints, tmp_path / "copy", symlinks=True))
    first, second = checkpoint.all_in(copy)
    file = second / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-5000])
    run_dir, _ = begin(tmp_path, digits, [first, second], latency=False)
    assert session.run_rank(run_dir, []) is Exit.OK
    log = log_of(run_dir)
    (fault,) = [e for e in log if isinstance(e, events.Fault)]
    assert fault.code == Exit.BAD_CHECKPOINT and "cut short" in fault.message
    assert [e.step for e in log if isinstance(e, events.Eval)] == [1]

    run_dir, _ = begin(tmp_path / "alone", digits, [second], latency=False)
    assert session.run_rank(run_dir, []) is Exit.BAD_CHECKPOINT
    assert json.loads((run_dir / "status.json").read_text())["code"] == Exit.BAD_CHECKPOINT
    assert log_of(run_dir)[-1].code == Exit.BAD_CHECKPOINT


def test_one_whose_logits_are_no_numbers_is_left_out_too(tmp_path, digits, checkpoints):
    first, second = checkpoint.all_in(checkpoints)
    state = checkpoint.load(second).model
    # finite, and too large for a sum of them
    state["fc.weight"] = torch.full_like(state["fc.weight"], 3e38)
    bad = tmp_path / "bad.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, bad)
    run_dir, _ = begin(tmp_path, digits, [bad, first], latency=False)
    assert session.run_rank(run_dir, []) is Exit.OK
    log = log_of(run_dir)
    (fault,) = [e for e in log if isinstance(e, events.Fault)]
    assert "bad.safetensors" in fault.message
    assert len([e for e in log if isinstance(e, events.Eval)]) >= 1


def test_a_signal_ends_it_and_the_same_command_begins_again(tmp_path, digits, checkpoints):
    run_dir, _ = begin(tmp_path, digits, checkpoint.all_in(checkpoints)[:1], latency=False)
    assert session.run_rank(run_dir, [15]) is Exit.INTERRUPTED
    assert json.loads((run_dir / "status.json").read_text())["status"] == "interrupted"
    assert session.run_rank(run_dir, []) is Exit.OK
    log = log_of(run_dir)
    assert [e.kind for e in log].count("resume") == 1
    counted = [e.kind for e in events.effective(log)]
    assert counted.count("eval") == 1 and counted[-1] == "run_end"


ALLOCATE = """
import resource, sys
import torch
from proofrun import device, memory
from proofrun.errors import ProofrunError
from proofrun.evaluate import Inputs
from proofrun.recipe_yaml import load_recipe
from proofrun.models import build_model
from pathlib import Path
recipe = load_recipe(Path("recipes/googlenet/recipe.yaml"))["Digits"]
net = build_model(Path("recipes/googlenet"), recipe.model, 10).eval()
here = device.Device("CPU", "FP32", recipe.precision)
if sys.argv[1] == "blind":  # a backend that cannot tell: only the allocator can
    device.Device.memory_left = lambda self: None
taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
limit = taken + (1 << 30)
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
inputs = Inputs(recipe.data.normalize, torch.device("cpu"))
memory.check_batch(net, inputs, 64, 8, here)
try:
    memory.check_batch(net, inputs, 64, 50_000, here, *sys.argv[2:])
except ProofrunError as error:
    print(int(error.exit_code), error)
"""


@pytest.mark.parametrize("how", ["told", "blind"])
@pytest.mark.parametrize("flag", ["--set batch.per_card=", "--batch "])
def test_a_batch_that_does_not_fit_names_one_that_does(how, flag):
    """With the flag of who asks, a run's or predict.py's.

    Under a limit of 1 GiB more than the process has; the allocator's own error, not ours.
    """
    done = subprocess.run(
        [sys.executable, "-c", ALLOCATE, how, flag],
        cwd=ROOT, capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    code, _, message = done.stdout.strip().partition(" ")
    assert int(code) == Exit.OUT_OF_MEMORY
    assert message.startswith("50000 images of 64 px") and f"fit: {flag}" in message
    assert "\n" not in message
