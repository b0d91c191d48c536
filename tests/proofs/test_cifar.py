"""CIFAR-10 from its archive to the report, on generated archives of its form and a small recipe."""

from __future__ import annotations

import csv
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from archives import cifar10

from proofrun import events
from proofrun.errors import Exit
from proofrun.runs import Plan

from .helpers import ROOT, digest, last, on_host, read, shell
from .test_launch import wait_for_step

RUN = "GoogLeNet-Cifar10_FP32_125E_1CPU_Train"
PER_BATCH = 20  # images; the archive has five batches for training and one to validate
STEPS, EPOCH = 17, 5 * PER_BATCH // 8

# the network and its evaluation stay as published: 224 px
SMALL = [
    "--set", f"data.train_images={5 * PER_BATCH}", "--set", f"data.val_images={PER_BATCH}",
    "--set", "data.train.image_size=64", "--set", "batch.per_card=8",
    "--set", "optimizer.lr.base=0.01", "--max-steps", str(STEPS), "--seed", "5",
    "--log-interval", "2",
]  # fmt: skip


@pytest.fixture(scope="module")
def data(work, host, evidence) -> Path:
    """The set as the tool makes it of the python archive; the binary one gives the same files."""
    cifar10(work / "archives", PER_BATCH)
    made = {}
    for kind in ("python", "binary"):
        src, dst = work / "archives" / f"cifar-10-{kind}.tar.gz", work / f"cifar10-{kind}"
        tool = [sys.executable, ROOT / "tools/dataset.py", "prepare", "cifar10"]
        start = time.monotonic()
        said = shell([*tool, "--src", src, "--dst", dst, "--any-archives"])
        evidence.figure(f"prepare, {kind} archive", f"{time.monotonic() - start:.1f} s")
        evidence.transcript(f"prepare_{kind}", said)
        images = [path for path in dst.rglob("*.png")]
        assert len(images) == 6 * PER_BATCH
        made[kind] = {path.relative_to(dst): digest(path) for path in images}
    assert made["python"] == made["binary"]
    host["CIFAR10_DATASET"] = str(work / "cifar10-python")
    return work / "cifar10-python"


@pytest.fixture(scope="module")
def trained(data, host, work, evidence) -> Path:
    """The log folder of a run that met nothing, under the declared name."""
    logs = work / "cifar-logs"
    start = time.monotonic()
    on_host(host, RUN, logs, *SMALL)
    evidence.figure(f"{STEPS} steps and two evaluations", f"{time.monotonic() - start:.0f} s")
    evidence.transcript("run", (logs / RUN / "001" / "stdout.log").read_text())
    return logs


def test_it_trains_and_scores_every_image(trained, data):
    folder = trained / RUN / "001"
    plan = Plan.load(folder / "recipe.yaml")
    assert (plan.recipe.data.name, plan.data_dir) == ("Cifar10", str(data))
    assert plan.recipe.data.train.crop.pixels == 4
    found = read(folder)
    assert last(folder).status == "finished" and last(folder).step == STEPS
    scored = {e.why: e for e in found if isinstance(e, events.Eval)}
    assert set(scored) == {"epoch", "final"} and scored["epoch"].step == EPOCH
    for score in scored.values():
        assert (score.protocol, score.count) == ("squash224", PER_BATCH)
        assert score.correct1 <= score.correct5 <= PER_BATCH
    assert all(e.lr == 0.01 for e in found if isinstance(e, events.Train))


def test_the_report_shows_it_and_judges_nothing(trained, work, evidence):
    out = work / "cifar-report"
    line = [sys.executable, ROOT / "tools/report.py", trained, "--out", out, "--all-claims"]
    evidence.transcript("report", shell(line))
    (row,) = table(out, "other_runs")
    assert (row["run"], row["status"]) == (RUN, "finished")
    assert {"overridden", f"{STEPS} steps"} <= set(row["flags"].split("; "))
    verdicts = [
        (row["data"], float(row[key]), row[key.replace("claim", "verdict")])
        for name in ("accuracy", "throughput", "mark")
        for row in table(out, name)
        for key in row
        if key.endswith("_claim") and row[key]
    ]
    assert {verdict for _, _, verdict in verdicts} == {"n/a"}
    assert [claim for data, claim, _ in verdicts if data == "Cifar10"] == [93.4, 92.17]
    assert {data for data, _, _ in verdicts} == {"Cifar10", "Digits", "ImageNet"}
    shell([*line, "--gate"], expect=Exit.VERDICT)


def test_stopped_amid_an_epoch_it_ends_with_the_same_weights(trained, data, host, work, evidence):
    logs = work / "cifar-stopped"
    command = ["bash", str(ROOT / f"run_scripts/{RUN}.sh"), "--logs", str(logs), *SMALL]
    process = subprocess.Popen(
        command, env=host, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    wait_for_step(process, EPOCH + 2)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=300)
    assert process.returncode == Exit.INTERRUPTED, out + err
    saved = last(logs / RUN / "001").step
    assert EPOCH < saved < STEPS
    shell(command, env=host)
    whole, resumed = (last(folder / RUN / "001").weights_hash for folder in (trained, logs))
    evidence.figure(
        f"stopped at step {saved} of {STEPS} (an epoch has {EPOCH}), resumed",
        "the same weights" if whole == resumed else f"{resumed} is not {whole}",
        "the same weights",
    )
    assert whole == resumed is not None


def table(out: Path, name: str) -> list[dict[str, str]]:
    with open(out / f"{name}.csv", encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))
