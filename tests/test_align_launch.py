"""The check of a card before a full training: when it is made, what it says, what it leaves."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from plans import plan

from proofrun import alignment, cardcheck, launch
from proofrun.errors import Exit, UsageError
from proofrun.runs import Plan

ROOT = Path(__file__).resolve().parent.parent
RUN = "GoogLeNet-Digits_FP32_10E_1CPU_Train"
SHORT = ["--loader", "synthetic", "--max-steps", "1"]

#: Every ReLU of this interpreter gives 1 % more: what a broken card is to torch.
BROKEN = """
import torch
right = torch.nn.ReLU.forward
torch.nn.ReLU.forward = lambda self, x: right(self, x) * 1.01
"""


def on(device: str, **changes: object) -> Plan:
    full = {"max_steps": None, "purpose": "full", "device": device}
    return plan("dali", "data", 1).model_copy(update=full | changes)


@pytest.mark.parametrize(
    ("plan", "asked", "due"),
    [
        (on("NPU"), None, True),
        (on("NPU"), False, False),  # --no-align
        (on("CPU"), None, False),  # the trusted trace comes from one
        (on("CPU"), True, True),
        (on("GPU", max_steps=3), None, False),
        (on("GPU", max_steps=3), True, True),
        (on("GPU", purpose="throughput"), None, False),
        (on("GPU", run="GoogLeNet_FP16_1NPU_Infer"), None, False),
    ],
)
def test_when_a_run_begins_with_the_check(plan, asked, due, tmp_path):
    assert cardcheck.is_due(plan, asked, tmp_path) is due
    (tmp_path / "events.jsonl").touch()
    assert not cardcheck.is_due(plan, asked, tmp_path)  # it goes on


def test_the_flags():
    assert launch.parse([RUN]).align is None
    assert launch.parse([RUN, "--no-align"]).align is False
    options = launch.parse(["GoogLeNet-Digits_FP32_1CPU_Infer", "--align"])
    with pytest.raises(UsageError, match="--align means nothing in GoogLeNet-Digits_FP32_1CPU_I"):
        launch.make_plan(options, launch.Nodes(), Path("logs"))
    line, own = cardcheck.command("GoogLeNet_AMP_300E_8NPUs_Train", Path("x"))
    assert line[-3:] == ["replay", "GoogLeNet_AMP_300E_8NPUs_Train", "--quick"]
    assert own["PROOFRUN_LOGS"] == "x"


def started(root: Path, logs: Path, environment: dict[str, str], **extra: str) -> tuple[str, str]:
    """A short training with the check before it: (what launch printed, its stdout.log)."""
    line = [sys.executable, str(root / "proofrun" / "launch.py"), RUN, "--logs", str(logs)]
    done = subprocess.run(
        [*line, "--align", *SHORT], env={**environment, **extra}, capture_output=True, text=True
    )
    assert done.returncode == Exit.OK, done.stderr
    return done.stdout, (logs / RUN / "001" / "stdout.log").read_text()


def test_launch_checks_and_leaves_the_verdict(environment, tmp_path):
    said, log = started(ROOT, tmp_path, environment, WORLD_SIZE="2", RANK="1")
    assert "alignment: device aligned over 3 steps of GoogLeNet in FP32" in said
    assert said.index("alignment: device aligned") < said.index("torch.distributed.run")
    assert "alignment: device aligned" in log and "compared: FP32 on CPU" in log
    (verdict,), _ = alignment.read_all(tmp_path)
    assert verdict.aligned and verdict.steps == 3 and verdict.ranks == 1
    assert (tmp_path / "align" / "GoogLeNet-Digits_FP32_1CPU_quick.npz").exists()


def test_a_card_that_is_off_is_a_warning_and_the_run_goes_on(environment, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(BROKEN)
    said, _ = started(ROOT, tmp_path, environment, PYTHONPATH=str(tmp_path))
    (line,) = [line for line in said.splitlines() if "WARNING" in line]
    assert "device misaligned in 3 steps of GoogLeNet" in line and "step 0, forward" in line
    assert "points to the card; the run goes on" in line
    (verdict,), _ = alignment.read_all(tmp_path)
    assert not verdict.aligned


def test_a_check_that_cannot_be_made_is_a_line_and_the_run_goes_on(checkout, environment, tmp_path):
    """A checkout without the committed traces."""
    said, log = started(checkout, tmp_path / "logs", environment)
    (line,) = [line for line in said.splitlines() if "not checked" in line]
    assert "there is no trusted trace" in line and "(code 2); the run goes on" in line
    assert line in log and "Traceback" not in said + log
    assert alignment.read_all(tmp_path / "logs") == ([], [])


def test_stopped_amid_the_check_it_is_made_the_next_time(environment, tmp_path):
    line = [sys.executable, str(ROOT / "proofrun" / "launch.py"), RUN, "--logs", str(tmp_path)]
    process = subprocess.Popen(
        [*line, "--align", *SHORT], env=environment, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    while not process.stdout.readline().startswith("alignment: a few steps"):
        pass
    own = psutil.Process(process.pid)
    while not (children := own.children()):
        time.sleep(0.1)
    process.terminate()
    assert process.wait(timeout=20) == Exit.INTERRUPTED
    assert not psutil.wait_procs(children, timeout=20)[1]
    assert alignment.read_all(tmp_path) == ([], [])
    said, _ = started(ROOT, tmp_path, environment)
    assert f"{RUN}: resumed in" in said and "alignment: device aligned" in said


def test_a_named_run_gives_its_own_name(tmp_path):
    """The form that launch uses: model, precision and device stand in the run's name."""
    other = tmp_path / "align" / "GoogLeNet-Digits_FP32_1CPU.npz"
    other.parent.mkdir()
    other.write_bytes(b"of another replay")
    line, own = cardcheck.command("GoogLeNet-Digits_AMP_10E_1CPU_Train", tmp_path)
    done = subprocess.run(line, env={**os.environ, **own}, capture_output=True, text=True)
    assert done.returncode == Exit.OK, done.stderr
    assert other.read_bytes() == b"of another replay"
    (verdict,), _ = alignment.read_all(tmp_path)
    names = {path.name for path in other.parent.iterdir()} - {other.name}
    stem = "GoogLeNet-Digits_AMP_1CPU_quick"
    assert verdict.precision == "AMP" and names == {f"{stem}.npz", f"{stem}.json"}
