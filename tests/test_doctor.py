"""The doctor says what is missing and what to do, also where torch and DALI cannot be imported."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from proofrun.bootstrap import ROOT
from proofrun.errors import Exit
from proofrun.runs import RunName, find_recipe
from tools._doctor import host, page, software
from tools._doctor.page import Line

RUN = "GoogLeNet-Digits_FP32_10E_1CPU_Train"


def doctor(*flags: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "tools/doctor.py"), *flags],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.fixture
def broken(tmp_path) -> str:
    """A folder whose torch and DALI fail to import, to be found first."""
    for name in ("torch", "nvidia/dali"):
        folder = tmp_path / "broken" / name
        folder.mkdir(parents=True)
        (folder / "__init__.py").write_text("raise ImportError('libsomething.so: not found')\n")
    return str(tmp_path / "broken")


def by_name(lines: list[Line]) -> dict[str, Line]:
    return {line.what: line for line in lines if line.what}


def test_this_machine_is_fit_for_the_rehearsal(digits, tmp_path, monkeypatch):
    monkeypatch.setenv("DIGITS_DATASET", str(digits))
    monkeypatch.delenv("IMAGENET_TRAIN_DATASET", raising=False)
    name, _, recipe = find_recipe(RUN, ROOT / "recipes")
    lines = [
        *software.check(name),
        *host.check(name, recipe, tmp_path / "logs"),
        *host.check_data(name, tmp_path / "logs", None),
        *host.check_runs(),
    ]
    assert [line for line in lines if line.state == "bad"] == []
    found = by_name(lines)
    assert "1437 train, 360 val images" in found["Digits"].found
    assert found["ImageNet"].state == "absent"
    assert found["import torch"].state == found["simplejpeg"].state == "good"
    runs = [line.found for line in lines if line.group == "Can run here"]
    assert f"bash run_scripts/{RUN}.sh" in runs


def test_a_run_on_cards_that_are_not_there(digits, tmp_path):
    name, _, recipe = find_recipe("Inceptionv2_AMP_100E_8MLUs_Train", ROOT / "recipes")
    found = by_name(list(host.check(name, recipe, tmp_path)))
    assert found["MLU cards"].state == "bad" and "0 by /dev/cambricon" in found["MLU cards"].found
    assert found["NPU cards"].state == "absent"
    wrong = {line.what: line for line in host.check_data(name, tmp_path, digits)}["ImageNet"]
    assert wrong.state == "bad" and "1000" in wrong.found and wrong.todo


def test_without_torch_and_dali(broken, digits, tmp_path):
    call = ["--data", str(digits), "--logs", str(tmp_path)]
    done = doctor(*call, PYTHONPATH=broken)
    assert done.returncode == Exit.NOT_INSTALLED and done.stderr == ""
    lines = done.stdout.splitlines()
    (torch,) = [line for line in lines if "import torch" in line]
    assert torch.split()[0] == "BAD" and "libsomething.so" in torch
    (dali,) = [i for i, line in enumerate(lines) if "import DALI" in line]
    assert "--loader torchvision" in lines[dali + 1]
    assert "1437 train, 360 val" in done.stdout and "\x1b" not in done.stdout
    read = json.loads(doctor(*call, "--json", PYTHONPATH=broken).stdout)
    assert read["run"] == RUN and read["fit"] is False
    bad = {line["what"] for line in read["lines"] if line["state"] == "bad"}
    assert bad == {"import torch", "import DALI"}


def test_the_command_line(tmp_path):
    done = doctor("GoogLeNet-Digits_FP32_11E_1CPU_Train")
    assert done.returncode == Exit.NO_SUCH_RUN
    assert done.stderr.count("\n") == 1 and RUN in done.stderr
    done = doctor("nonsense", "--json")
    assert done.returncode == Exit.NO_SUCH_RUN and done.stderr.count("\n") == 1
    read = json.loads(done.stdout)
    assert read["run"] == "nonsense" and read["fit"] is False
    assert [line["state"] for line in read["lines"]] == ["bad"]


def test_data_states(digits, tmp_path, monkeypatch):
    """No folder, no variable, and files touched since the fingerprint."""
    name = RunName.parse(RUN)

    def digits_line() -> Line:
        return by_name(list(host.check_data(name, tmp_path, None)))["Digits"]

    monkeypatch.delenv("DIGITS_DATASET", raising=False)
    assert str(ROOT / "data" / "digits") in digits_line().found
    monkeypatch.setenv("DIGITS_DATASET", str(tmp_path / "nowhere"))
    assert "there is no such data folder" in digits_line().found
    copy = tmp_path / "digits"
    subprocess.run(["cp", "-r", digits, copy], check=True)
    for hidden in copy.glob(".*"):
        hidden.unlink()
    monkeypatch.setenv("DIGITS_DATASET", str(copy))
    assert "no fingerprint yet" in digits_line().found
    subprocess.run(
        [sys.executable, str(ROOT / "tools/dataset.py"), "verify", str(copy)],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    assert "(Digits)" in digits_line().found and "; untouched since" in digits_line().found
    first, second = sorted((copy / "val/digit_0").iterdir())[:2]
    os.utime(first)
    assert "; 1 files were touched since, and are the same" in digits_line().found
    whole = first.read_bytes()
    first.write_bytes(second.read_bytes())
    assert digits_line().state == "bad" and "has other content since" in digits_line().found
    first.write_bytes(whole[:100])
    assert digits_line().state == "bad" and f"{first.name}: is cut off" in digits_line().found
    first.write_bytes(whole)
    (copy / "val.txt").write_text("")
    assert digits_line().state == "bad" and "the list is empty" in digits_line().found


def test_a_page_in_colours():
    lines = [
        Line("A", "one", "good", "here"),
        Line("A", "three", "bad", "gone", "bring it back"),
        Line("B", "x", "absent", "none", "not said"),
    ]
    assert page.text(lines, colour=False) == (
        "A\n  ok  one    here\n  BAD three  gone\n             -> bring it back\n\nB\n"
        "  -   x      none"
    )
    coloured = page.text(lines, colour=True)
    assert "\x1b[32mok  \x1b[0m" in coloured and "\x1b[31mBAD \x1b[0m" in coloured
