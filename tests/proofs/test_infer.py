"""Our own weights on the digits: by torch, ONNX and torch.export, on one rank and on two; speed."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from proofrun import events
from proofrun.data import Shard, open_eval
from proofrun.data.lists import read_split
from proofrun.errors import Exit
from proofrun.evaluate import Inputs
from proofrun.pretrained import load, recipe_of
from proofrun.status import read_provenance

from .helpers import ROOT, on_host, read, shell

TRAININGS = ["GoogLeNet-Digits_FP32_10E_1CPU_Train", "Inceptionv2-Digits_FP32_6E_2CPUs_Train"]


@pytest.fixture(scope="module")
def trained(host, work, evidence) -> dict[str, Path]:
    """The checkpoint folders of one training of each recipe, by model.

    PROOFRUN_TRAINED is a log folder that has both already: a copy of it is used.
    """
    logs = work / "logs"
    if before := os.environ.get("PROOFRUN_TRAINED"):
        shutil.copytree(before, logs, symlinks=True)
    found = {}
    for run in TRAININGS:
        folder = logs / run / "001"
        if not folder.exists():
            on_host(host, run, logs)
        facts = read_provenance(folder)
        evidence.figure(f"{run}: trained", f"{facts['started']}, commit {facts['commit']}")
        found[run.split("-")[0]] = folder / "checkpoints"
    return found


def scores(folder: Path) -> list[events.Eval]:
    return [e for e in read(folder) if isinstance(e, events.Eval)]


def test_the_default_weights_are_the_last_training(trained, host, work, evidence):
    """The run scripts without flags: accuracy, and the latency table."""
    for model, folder in trained.items():
        run = f"{model}-Digits_FP32_1CPU_Infer"
        found = on_host(host, run, work / "logs")
        first, *_ = scores(found)
        (final, *_) = [e for e in scores(folder.parent) if e.why == "final"]
        assert Path(first.weights).parent == folder
        assert (first.protocol, first.correct1) == (final.protocol, final.correct1)
        assert first.prediction_hash == final.prediction_hash  # as in training, unfused
        evidence.figure(
            f"{model}, torch, fused: top-1 of {first.count} images", f"{first.top1:.2f} %",
            f"{final.top1:.2f} % in training",
        )  # fmt: skip
        for e in read(found):
            if isinstance(e, events.Latency):
                evidence.figure(
                    f"{model}, batch {e.batch} from {'files' if e.pipeline else 'pixels'}: p50, "
                    "p95, p99, img/s",
                    f"{e.p50_ms:.2f}, {e.p95_ms:.2f}, {e.p99_ms:.2f} ms, {e.images_per_s:.1f}",
                )


def test_test_py_ranks_a_folder_and_two_ranks_score_as_one(trained, host, work, evidence):
    folder = trained["Inceptionv2"]
    hashes = []
    for ranks in (1, 2):
        logs = work / f"ranks{ranks}"
        said = shell(
            [sys.executable, ROOT / "tools/test.py", folder, "--nproc_per_node", ranks,
             "--no-latency", "--logs", logs],
            env=host,
        )  # fmt: skip
        evidence.transcript(f"test_py_{ranks}", said)
        (run,) = logs.glob("*_Infer/001")
        found = scores(run)
        assert len(found) == 2 * len(list(folder.glob("step-*")))  # averaged, and rank 0's
        assert {e.count for e in found} == {360}
        hashes.append([(e.weights, e.bn, e.correct1, e.prediction_hash) for e in found])
        ranked = [float(x) for x in re.findall(r"^ +\d+  top1 +([\d.]+) %", said, re.MULTILINE)]
        assert len(ranked) == len(found) and ranked == sorted(ranked, reverse=True)
    assert hashes[0] == hashes[1]
    evidence.figure("evaluations of 1 and of 2 ranks: predictions equal", f"{len(hashes[0])} of "
                    f"{len(hashes[0])}")  # fmt: skip


@pytest.mark.parametrize("to", ["safetensors", "torch.export", "onnx"])
def test_exported_accuracy(trained, host, work, evidence, to):
    """Every validation image through the exported file."""
    for model, folder in trained.items():
        out = work / f"{model}.{'pt2' if to == 'torch.export' else to}"
        line = [sys.executable, ROOT / "tools/export.py", "--weights", folder.parent, "--to", to]
        said = shell([*line, "--out", out], env=host)
        evidence.transcript(f"export_{model}_{to}", said)
        if model == "GoogLeNet" and to == "onnx":
            card = out.with_name(f"{out.name}.md").read_text()
            evidence.transcript("card", card)
            assert "| Claim | measured | verdict | why |" in card
        if to == "torch.export":
            told = {"proofrun.json": ""}
            torch.export.load(out, extra_files=told)
            assert json.loads(told["proofrun.json"])["data"] == "Digits"
        error = float(re.search(r"logit ([\d.e+-]+)", said)[1])
        right, count = accuracy(to, out, folder, Path(host["DIGITS_DATASET"]))
        evidence.figure(
            f"{model}, {to}: top-1 of {count} images; largest difference of a logit on 64",
            f"{100 * right / count:.2f} %; {error:.1e}",
        )
        (final, *_) = [e for e in scores(folder.parent) if e.why == "final"]
        assert right == final.correct1


def accuracy(to: str, out: Path, folder: Path, digits: Path) -> tuple[int, int]:
    """(correct, count) of the exported file over the whole list."""
    checkpoint = sorted(folder.glob("step-*"))[-1]
    recipe_dir, recipe = recipe_of(checkpoint)
    weights = load(checkpoint, recipe)
    images = read_split(digits, "val", recipe.data.classes)
    inputs = Inputs(weights.recipe.data.normalize, torch.device("cpu"))
    if to == "onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(out)

        def run(x):
            return session.run(None, {"images": x.contiguous().numpy()})[0]
    else:
        if to == "safetensors":
            net = load(out, recipe).build(recipe_dir)
        else:
            net = torch.export.load(out).module()

        def run(x):
            with torch.no_grad():
                return net(x).numpy()

    right = count = 0
    for batch in open_eval("dali", images, recipe.data.eval[0], 64, Shard(0, 1, 1)):
        right += int((run(inputs(batch.images)).argmax(1) == batch.labels.numpy()).sum())
        count += len(batch.labels)
    return right, count


def test_bad_input_ends_with_its_own_code_and_leaves_no_log(trained, host, work, evidence):
    checkpoint = sorted(trained["GoogLeNet"].glob("step-*"))[-1]
    damaged = Path(shutil.copytree(checkpoint, work / "bad" / checkpoint.name))
    file = damaged / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])
    other = sorted(trained["Inceptionv2"].glob("step-*"))[-1]
    script = ROOT / "run_scripts/GoogLeNet-Digits_FP32_1CPU_Infer.sh"
    cases = {
        "missing": (["--weights", work / "none"], Exit.NO_WEIGHTS),
        "damaged": (["--weights", damaged], Exit.BAD_CHECKPOINT),
        "foreign": (["--weights", other], Exit.FOREIGN_WEIGHTS),
        "a batch that does not fit": (
            ["--weights", checkpoint, "--set", "batch.per_card=100000000"], Exit.OUT_OF_MEMORY,
        ),
        "a flag of training": (["--weights", checkpoint, "--max-steps", "3"], Exit.USAGE),
    }  # fmt: skip
    lines = []
    for name, (flags, code) in cases.items():
        logs = work / "bad logs" / name
        said = shell(["bash", script, "--logs", logs, *flags], expect=int(code), env=host)
        last = said.strip().splitlines()[-1]
        assert last.startswith("proofrun: ") and "Traceback" not in said
        lines.append(f"{name}: exit {int(code)}\n{last}")
        if code in (Exit.NO_WEIGHTS, Exit.USAGE):
            assert not list(logs.glob("*/*"))
    evidence.transcript("bad_input", "\n\n".join(lines))
    evidence.figure("bad input: one line and its own exit code", f"{len(lines)} of {len(cases)}")


def test_predict(trained, host, work, evidence):
    folder = Path(host["DIGITS_DATASET"]) / "val" / "digit_3"
    out = work / "digit_3.csv"
    line = [sys.executable, ROOT / "tools/predict.py", folder, "--csv", out]
    said = shell([*line, "--weights", trained["GoogLeNet"].parent], env=host)
    evidence.transcript("predict", "\n".join(said.splitlines()[:5]))
    rows = [line.split(",") for line in out.read_text().splitlines()[1:]]
    firsts = [row for row in rows if row[1] == "1"]
    right = sum(row[3] == "digit_3" for row in firsts)
    evidence.figure("predict.py: images of a three that are called digit_3",
                    f"{right} of {len(firsts)}")  # fmt: skip
    assert right / len(firsts) > 0.9
    assert np.isclose(sum(float(row[4]) for row in rows[:5]), 1, atol=0.2)
