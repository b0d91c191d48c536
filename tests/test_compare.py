"""--compare: what was set, what was measured, and the step from which two losses part."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from fake_logs import FakeRun
from report_tool import report
from test_report import DIGITS

from proofrun.errors import Exit
from tools._report.compare import parting

GOOGLENET = "GoogLeNet-Digits_FP32_10E_1CPU_Train"


def iterations(folder: Path, losses: list[float]) -> None:
    lines = [json.dumps({"step": i, "loss": loss}) for i, loss in enumerate(losses, 1)]
    (folder / "iters.jsonl").write_text("\n".join([*lines, "[1", '{"step": 9}', "\x00"]))


def test_a_copy_is_bit_equal(tmp_path):
    folder = FakeRun(DIGITS).write(tmp_path)
    iterations(folder, [2.5, 2.25])
    shutil.copytree(folder, tmp_path / DIGITS / "002")
    done = report(tmp_path, "--compare", f"{DIGITS}/001", f"{DIGITS}/002")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n  nothing") == 2
    assert "(iters.jsonl): bit-equal at all 2 steps" in done.stdout
    assert "(events.jsonl): bit-equal at all 30 steps" in done.stdout
    assert not (tmp_path / "report").exists()


def test_two_recipes_side_by_side(tmp_path):
    one = FakeRun(DIGITS, overrides=["optimizer.lr.base=0.5"], images_per_s=200).write(tmp_path)
    two = FakeRun(GOOGLENET, seed=3, device_name="Other CPU", top1=97.0).write(tmp_path)
    iterations(one, [2.5, 2.25, 2.125, 2.0])
    iterations(two, [2.5, 2.25, 2.126, 2.2])
    (tmp_path / "elsewhere").mkdir()
    done = report("--compare", one, two, cwd=tmp_path / "elsewhere")
    assert done.returncode == 0, done.stderr
    rows = {line.split()[0]: line.split() for line in done.stdout.splitlines() if line.split()}
    assert rows["recipe.optimizer.lr.base"][1:] == ["0.5", "0.02"]
    assert rows["recipe.schedule.epochs"][1:] == ["6", "10"]
    assert rows["seed"] == ["seed", "0", "3"]
    assert "Other CPU" in done.stdout and "device_name" in rows
    assert rows["6"][0] == "6" and len(rows["6"]) == 7
    assert "first differ at step 3 (A 2.125, B 2.126, B - A +0.001)" in done.stdout
    assert "part by more than 1 % from step 4 (A 2.0, B 2.2, B - A +0.2)" in done.stdout


def test_hostile_logs_in_progress_and_without_events(tmp_path):
    one = FakeRun(DIGITS, status=None, stop_epoch=1, device_name="\x1b[31m[bold]x").write(tmp_path)
    two = FakeRun(DIGITS, number=2).write(tmp_path)
    (one / "events.jsonl").open("a").write('{"kind":')
    (two / "events.jsonl").write_text("")
    done = report("--compare", one, two)
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stdout and "[31m[bold]x" in done.stdout
    assert "no step that both have" in done.stdout


def test_parting():
    nan = float("nan")
    assert parting({1: 1.0}, {2: 1.0}) == (0, None, None)
    assert parting({1: 1.0, 2: nan}, {1: 1.0, 2: nan}) == (2, None, None)
    assert parting({1: 1.0, 2: 1.0, 3: nan}, {1: 1.0, 2: 1.005, 3: 2.0}) == (3, 2, 3)
    assert parting({1: 0.0, 2: 1.0}, {1: 0.0, 2: float("inf")}) == (2, 2, 2)


@pytest.mark.parametrize("names", [("none", "none"), (DIGITS, DIGITS)])
def test_wrong_names_are_one_line(tmp_path, names):
    for number in (1, 2):
        FakeRun(DIGITS, number=number).write(tmp_path)
    done = report(tmp_path, "--compare", *names)
    assert done.returncode == Exit.USAGE and done.stderr.count("\n") == 1
