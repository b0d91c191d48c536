"""predict.py and export.py in this process: what they print and write, and what they refuse."""

from __future__ import annotations

import csv
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from networks import build_network
from safetensors.torch import load_file, save_file

from proofrun.errors import Exit, ProofrunError

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))  # as for a script in there

from tools import export, predict  # noqa: E402


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    """An untrained GoogLeNet for ten classes, with logits of a usual size."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "mine.safetensors"
    model = build_network("googlenet")
    model.fc.weight.data *= 20
    save_file(model.state_dict(), path)
    return path


def call(monkeypatch, capsys, tool, *words: object) -> str:
    """What `python tools/<tool>.py words…` prints."""
    monkeypatch.setattr(sys, "argv", [f"{tool.__name__}.py", *map(str, words)])
    tool.main()
    return capsys.readouterr().out


def refused(monkeypatch, capsys, tool, *words: object) -> ProofrunError:
    with pytest.raises(ProofrunError) as caught:
        call(monkeypatch, capsys, tool, *words)
    assert "\n" not in str(caught.value)
    return caught.value


def test_predict_names_the_likeliest_classes(monkeypatch, capsys, digits, weights, tmp_path):
    folder = Path(shutil.copytree(digits / "val" / "digit_3", tmp_path / "some pictures"))
    (folder / "notes.txt").write_text("no image")
    one = next((digits / "val" / "digit_7").iterdir())
    given = ["--weights", weights, "--dataset", "Digits", "--data", digits, "--batch", 16]
    out = call(monkeypatch, capsys, predict, folder, one, *given, "--csv", tmp_path / "p.csv")
    lines = out.splitlines()
    images = [*sorted(folder.glob("*.JPEG")), one]
    assert [line.split(": ")[0] for line in lines[:-1]] == list(map(str, images))
    rows = list(csv.DictReader((tmp_path / "p.csv").open()))
    assert len(rows) == 5 * len(images)
    for start in range(0, len(rows), 5):
        chances = [float(row["probability"]) for row in rows[start : start + 5]]
        assert chances == sorted(chances, reverse=True) and 0 < sum(chances) <= 1 + 1e-6
        assert all(row["name"] == f"digit_{row['class']}" for row in rows[start : start + 5])
        first = rows[start]
        assert f"{first['name']} {100 * float(first['probability']):.2f} %" in lines[start // 5]

    error = refused(monkeypatch, capsys, predict, one, *given, "--csv", tmp_path / "p.csv")
    assert error.exit_code is Exit.USAGE and "not overwritten" in str(error)


def test_predict_takes_class_names_from_what_there_is(digits, tmp_path, monkeypatch, capsys):
    assert predict.class_names("Digits", str(digits), 10)[3] == "digit_3"
    (tmp_path / "classes.txt").write_text("n01440764 tench, Tinca tinca\nn01443537 goldfish\n")
    assert predict.class_names("Digits", str(tmp_path), 2) == ["tench, Tinca tinca", "goldfish"]
    for folder, code in ((tmp_path, Exit.CLASS_COUNT), (tmp_path / "no", Exit.NO_DATA)):
        with pytest.raises(ProofrunError, match="give --data DIR") as caught:
            predict.class_names("Digits", str(folder), 3)
        assert caught.value.exit_code is code
    monkeypatch.setenv("DIGITS_DATASET", str(tmp_path / "no"))
    assert predict.class_names("Digits", None, 3) == ["0", "1", "2"]
    said = capsys.readouterr().err
    assert str(tmp_path / "no") in said and "give --data DIR" in said and said.count("\n") == 1


def test_the_data_of_env_sh_needs_no_sourcing(digits, weights, checkout):
    """As a fresh shell has it: nothing is set, and data/digits lies in the checkout."""
    (checkout / "data").mkdir()
    (checkout / "data" / "digits").symlink_to(digits)
    shell = {"PATH": "/usr/bin:/bin", "HOME": "/", "OMP_NUM_THREADS": "1"}
    given = ["--weights", weights, "--dataset", "Digits"]
    image = next((digits / "val" / "digit_7").iterdir())
    out = checkout / "model.safetensors"
    for words in (
        ["predict.py", image, *given],
        ["export.py", *given, "--to", "safetensors", "--out", out],
    ):
        done = subprocess.run(
            [sys.executable, checkout / "tools" / words[0], *words[1:]],
            env=shell, cwd="/", capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (0, "")
        assert ": digit_" in done.stdout or "on 64 images the same" in done.stdout


@pytest.mark.parametrize(
    ("given", "code", "words"),
    [
        ("no such.jpg", Exit.NO_DATA, "no such.jpg"),
        ("empty", Exit.NO_DATA, "no image in this folder"),
        ("text.jpg", Exit.IMAGE_INVALID, "text.jpg"),
    ],
)
def test_predict_refuses(monkeypatch, capsys, weights, tmp_path, given, code, words):
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.jpg").write_text("no image, whatever its name says" * 9)
    error = refused(
        monkeypatch, capsys, predict, tmp_path / given, "--weights", weights, "--dataset", "Digits"
    )
    assert error.exit_code is code and words in str(error)


@pytest.mark.parametrize("to", ["safetensors", "onnx"])
def test_export_computes_the_same(monkeypatch, capsys, digits, weights, tmp_path, to):
    """torch.export: in the proof, it takes longest."""
    out = tmp_path / f"model.{to}"
    given = ["--weights", weights, "--dataset", "Digits", "--data", digits, "--to", to]
    said = call(monkeypatch, capsys, export, *given, "--out", out)
    assert "on 64 images the same top-1 as torch" in said
    card = (tmp_path / f"model.{to}.md").read_text()
    assert "same top-1 on 64 of 64" in card and "resize both sides to 73" in card
    assert sorted(path.name for path in tmp_path.iterdir()) == [out.name, f"{out.name}.md"]
    images = torch.randn(3, 3, 64, 64)
    model = build_network("googlenet")
    model.load_state_dict(load_file(weights))
    with torch.no_grad():
        expected = model.eval()(images).numpy()
    if to == "onnx":
        import onnxruntime

        (found,) = onnxruntime.InferenceSession(out).run(None, {"images": images.numpy()})
        assert np.abs(found - expected).max() < 1e-3 * np.abs(expected).max()
    else:
        again = load_file(out)
        assert all(torch.equal(again[k], v) for k, v in load_file(weights).items())

    before = out.read_bytes()
    error = refused(monkeypatch, capsys, export, *given, "--out", out)
    assert error.exit_code is Exit.USAGE and "not overwritten" in str(error)
    assert out.read_bytes() == before


def test_export_refuses(monkeypatch, capsys, digits, weights, tmp_path):
    given = ["--data", digits, "--dataset", "Digits", "--to", "safetensors"]
    out = ["--out", tmp_path / "a.safetensors"]
    error = refused(monkeypatch, capsys, export, "--weights", tmp_path / "no", *given, *out)
    assert error.exit_code is Exit.NO_WEIGHTS
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(weights.read_bytes()[:1000])
    error = refused(monkeypatch, capsys, export, "--weights", cut, *given, *out)
    assert error.exit_code is Exit.BAD_CHECKPOINT
    given[-1] = "torch.export"
    error = refused(monkeypatch, capsys, export, "--weights", weights, *given, *out)
    assert error.exit_code is Exit.USAGE and "*.pt2" in str(error)
    wide = tmp_path / "wide.safetensors"
    save_file(build_network("googlenet", num_classes=17).state_dict(), wide)
    given[-1] = "safetensors"
    error = refused(monkeypatch, capsys, export, "--weights", wide, *given, *out)
    assert error.exit_code is Exit.WEIGHTS_CLASSES
    assert not (tmp_path / "a.safetensors").exists()


def test_without_onnx_one_line_says_what_to_install(tmp_path):
    """An interpreter that has everything but the three packages."""
    hidden = (
        "import sys, importlib.util as u; find = u.find_spec\n"
        "u.find_spec = lambda name, *rest: None if 'onnx' in name else find(name, *rest)\n"
        "sys.path.insert(0, 'tools'); from _export.formats import check_installed\n"
        "from proofrun.errors import main_exit\n"
        "main_exit(lambda: check_installed('onnx'), 'export.py')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", hidden], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == Exit.NOT_INSTALLED
    assert done.stderr.count("\n") == 1 and "requirements/export.txt" in done.stderr
