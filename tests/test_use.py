"""predict.py and export.py in this process: what they print and write, and what they refuse."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from networks import build_network
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from proofrun.errors import CheckpointError, DataError, Exit, ProofrunError
from proofrun.pretrained import load, recipe_of
from proofrun.recipe_yaml import load_recipe
from proofrun.vision import import_torchvision

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


def test_predict_goes_on_past_what_cannot_be_read(monkeypatch, capsys, digits, weights, tmp_path):
    folder = Path(shutil.copytree(digits / "val" / "digit_3", tmp_path / "3"))
    good = sorted(folder.iterdir())
    cut, empty = folder / "a cut.JPEG", folder / "x.JPEG"
    cut.write_bytes(good[0].read_bytes()[:400])
    empty.touch()
    link, pipe = folder / "link.JPEG", tmp_path / "pipe.JPEG"
    link.symlink_to("nowhere")
    os.mkfifo(pipe)
    given = ["--weights", weights, "--dataset", "Digits", "--data", digits, "--batch", 16]
    whole = call(monkeypatch, capsys, predict, *good, *given)
    assert refused(monkeypatch, capsys, predict, pipe, *given).exit_code is Exit.IMAGE_INVALID
    table = tmp_path / "p.csv"
    for images, left in (([folder], "the others are named"), ([pipe, cut, empty], "none is left")):
        words = map(str, ["predict.py", *images, *given, "--csv", table])
        monkeypatch.setattr(sys, "argv", [*words])
        with pytest.raises(
            ProofrunError, match=f"3 of the images cannot be read, {left}"
        ) as caught:
            predict.main()
        assert caught.value.exit_code is Exit.IMAGE_INVALID
        said = capsys.readouterr()
        named = [line.split(": ")[1] for line in said.err.splitlines()]
        assert named == [str(link if images == [folder] else pipe), str(cut), str(empty)]
        assert said.out == (f"{whole}{table}\n" if images == [folder] else "")
        if images == [folder]:
            assert len(table.read_text().splitlines()) == 1 + 5 * len(good)
            table.unlink()
    assert not table.exists()


def test_a_loader_that_refuses_what_can_be_decoded_is_no_endless_loop(monkeypatch, digits):
    def refuses(*_: object):
        raise DataError("no reason")

    monkeypatch.setattr("proofrun.data.open_eval", refuses)
    files = [str(path) for path in sorted((digits / "val" / "digit_3").iterdir())[:3]]
    protocol = load_recipe(ROOT / "recipes/googlenet/recipe.yaml")["Digits"].data.eval[0]
    with pytest.raises(DataError, match="no reason"):
        list(predict._batches(files, protocol, 2))


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

        session = onnxruntime.InferenceSession(out)
        (found,) = session.run(None, {"images": images.numpy()})
        facts = session.get_modelmeta().custom_metadata_map
        assert facts["sha256_of_source"] == hashlib.sha256(weights.read_bytes()).hexdigest()
        assert json.loads(facts["protocol"])["resize_to"] == 73
        assert np.abs(found - expected).max() < 1e-3 * np.abs(expected).max()
    else:
        again = load_file(out)
        assert all(torch.equal(again[k], v) for k, v in load_file(weights).items())

    before = out.read_bytes()
    error = refused(monkeypatch, capsys, export, *given, "--out", out)
    assert error.exit_code is Exit.USAGE and "not overwritten" in str(error)
    assert out.read_bytes() == before


@pytest.mark.parametrize("network", ["googlenet", "inceptionv2"])
def test_an_export_of_published_weights_is_read_back_as_what_it_is(
    monkeypatch, capsys, digits, tmp_path, network
):
    """torchvision's and Cadene's: with their pooling, eps, normalisation and order of channels."""
    models = import_torchvision().models
    with warnings.catch_warnings():  # the package is from 2019
        warnings.simplefilter("ignore")
        import pretrainedmodels
    torch.manual_seed(0)
    made = {
        "googlenet": lambda: models.googlenet(aux_logits=False, init_weights=False, num_classes=10),
        "inceptionv2": lambda: pretrainedmodels.bninception(num_classes=10, pretrained=None),
    }[network]()
    path, out = tmp_path / "theirs.pth", tmp_path / "again.safetensors"
    torch.save(made.state_dict(), path)
    given = ["--weights", path, "--dataset", "Digits", "--data", digits, "--to", "safetensors"]
    call(monkeypatch, capsys, export, *given, "--out", out)
    folder, own = recipe_of(out, "Digits")
    assert own == recipe_of(path, "Digits")[1]
    first, again = load(path, own), load(out, own)
    assert again.origin == first.origin and not first.origin.startswith("our ")
    assert (again.recipe, again.bgr) == (first.recipe, first.bgr)
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(first.build(folder)(images), again.build(folder)(images))

    # one of before, which has the origin alone; then one whose words mean nothing
    with safe_open(out, "pt") as file:
        facts = file.metadata()
    old = {key: value for key, value in facts.items() if key != "use"}
    save_file(load_file(out), out, old)
    assert (load(out, own).recipe, load(out, own).bgr) == (first.recipe, first.bgr)
    for words in (old | {"origin": "somebody"}, facts | {"use": "{}"}):
        save_file(load_file(out), out, words)
        with pytest.raises(CheckpointError, match="whose weights") as caught:
            load(out, own)
        assert caught.value.exit_code is Exit.FOREIGN_WEIGHTS


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("fc.weight", float("nan"), "fc.weight holds a NaN"),
        ("features.conv2.bn.running_var", -1.0, "its logits are not finite"),
    ],
)
@pytest.mark.parametrize("to", ["safetensors", "onnx"])
def test_what_is_not_finite_is_not_exported(
    monkeypatch, capsys, digits, weights, tmp_path, to, key, value, said
):
    state = load_file(weights)
    state[key].fill_(value)
    path, out = tmp_path / "nan.safetensors", tmp_path / "out" / f"model.{to}"
    save_file(state, path)
    given = ["--weights", path, "--dataset", "Digits", "--data", digits]
    error = refused(monkeypatch, capsys, export, *given, "--to", to, "--out", out)
    assert error.exit_code is Exit.BAD_CHECKPOINT and said in str(error)
    assert not out.parent.exists()


@pytest.mark.parametrize("to", ["safetensors", "torch.export", "onnx"])
def test_export_to_where_nothing_can_be_written(monkeypatch, capsys, digits, weights, tmp_path, to):
    """Also as root: a folder of the kernel, a file for a folder, a disk without room."""
    (tmp_path / "file").touch()
    suffix = {"torch.export": "pt2"}.get(to, to)
    given = ["--weights", weights, "--dataset", "Digits", "--data", digits, "--to", to]
    for folder in (Path("/proc"), tmp_path / "file", tmp_path / "file" / "deeper"):
        out = folder / f"model.{suffix}"
        error = refused(monkeypatch, capsys, export, *given, "--out", out)
        assert error.exit_code is Exit.CANNOT_WRITE and str(out) in str(error)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


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
    given[-1] = "safetensors"
    out[-1] = tmp_path / "a.bin"
    error = refused(monkeypatch, capsys, export, "--weights", weights, *given, *out)
    assert error.exit_code is Exit.USAGE and "*.safetensors" in str(error)
    out[-1] = tmp_path / "a.safetensors"
    wide = tmp_path / "wide.safetensors"
    save_file(build_network("googlenet", num_classes=17).state_dict(), wide)
    error = refused(monkeypatch, capsys, export, "--weights", wide, *given, *out)
    assert error.exit_code is Exit.WEIGHTS_CLASSES
    assert not (tmp_path / "a.safetensors").exists()


@pytest.mark.parametrize("absent", ["onnx", "onnxscript", "onnxruntime", "onnx_ir"])
def test_without_onnx_one_line_says_what_to_install(absent):
    """An interpreter that has everything but one package, of the three or of what they need."""
    hidden = (
        "import sys\n"
        f"sys.modules[{absent!r}] = None\n"
        "sys.path.insert(0, 'tools'); from _export.formats import check_installed\n"
        "from proofrun.errors import main_exit\n"
        "main_exit(lambda: check_installed('onnx'), 'export.py')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", hidden], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == Exit.NOT_INSTALLED
    assert done.stderr.count("\n") == 1 and absent in done.stderr
    advice = shlex.split(done.stderr.split("`")[1])
    assert advice[:4] == [sys.executable, "-m", "pip", "install"]
    files = [Path(word) for word in advice if word.endswith(".txt")]
    assert [file.name for file in files] == ["export.txt", "constraints.txt"]
    assert all(file.is_file() for file in files)


#: Starts a tool in a process that may not grow by more than so many bytes once torch is there.
LITTLE = """
import resource, runpy, sys
from proofrun.vision import import_torchvision
import_torchvision()
taken = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
limit = taken + int(sys.argv.pop(1))
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.parametrize("more", [16 << 20, 100 << 20])
def test_too_little_memory_is_one_line(digits, weights, more):
    """For the network, or for a batch: then the line names predict.py's own flag."""
    words = [ROOT / "tools" / "predict.py", digits / "val", "--weights", weights, "--batch", 360]
    done = subprocess.run(
        [sys.executable, "-c", LITTLE, str(more), *map(str, words), "--dataset", "Digits"],
        capture_output=True, text=True, timeout=120, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == Exit.OUT_OF_MEMORY, done.stderr
    said = done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr and "--set" not in said
    assert "ulimit -v" in said or "fit: --batch " in said or "not even one fits" in said


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_export_leaves_nothing(digits, weights, tmp_path, number):
    words = ["--weights", weights, "--dataset", "Digits", "--data", digits, "--to", "onnx"]
    with subprocess.Popen(
        [sys.executable, ROOT / "tools" / "export.py", *words, "--out", tmp_path / "a.onnx"],
        stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        while not list(tmp_path.iterdir()) and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(number)
        _, said = process.communicate(timeout=60)
    assert said == "export.py: stopped; give the same command again\n"
    assert process.returncode == Exit.INTERRUPTED and not list(tmp_path.iterdir())


@pytest.mark.parametrize("tool", ["test.py", "train.py", "launch.py", "predict.py", "export.py"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_amid_the_imports_is_one_line(weights, tool, number, tmp_path):
    """Waits until the handler is there, not for a time: imports take what they take."""
    words = {
        "predict.py": [ROOT, "--weights", weights],
        "export.py": ["--weights", weights, "--to", "onnx", "--out", tmp_path / "a.onnx"],
        "test.py": [weights],
    }.get(tool, [])
    with subprocess.Popen(
        [sys.executable, "-X", "importtime", ROOT / "tools" / tool, *words],
        stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stderr is not None
        for line in process.stderr:
            if line.endswith(" proofrun.process\n"):  # behind early, before all that is large
                break
        process.send_signal(number)
        rest = process.stderr.read()
    said = [line for line in rest.splitlines() if not line.startswith("import time:")]
    assert said == [f"{tool}: stopped; give the same command again"]
    assert process.returncode == Exit.INTERRUPTED
