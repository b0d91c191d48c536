"""Cards that are not here: a stand-in takes an MLU's code path, and what a user gets wrong is told.

The stand-in (tests/standin) is a `privateuse1` device, built in C++ against PyTorch's own extension
API. It shows that nothing but the device table knows the card; it says nothing about Cambricon's.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from proofrun import events
from proofrun.errors import Exit
from tests.plans import plan

from .helpers import ROOT, read, shell

MLU_RUN = "Inceptionv2_FP32_100E_1MLU_Train"
SMALL = [
    "--loader", "synthetic", "--throughput", "3", "--set", "batch.per_card=4",
    "--set", "data.classes=10", "--set", "data.train.image_size=64",
]  # fmt: skip


@pytest.fixture(scope="module")
def standin(work, host) -> dict[str, str]:
    """The environment in which `import torch_mlu` brings the stand-in; builds it."""
    found = {
        **host,
        "PYTHONPATH": f"{ROOT}:{ROOT / 'tests' / 'standin'}",
        "TORCH_EXTENSIONS_DIR": str(work / "extensions"),
        "TORCH_DEVICE_BACKEND_AUTOLOAD": "0",
    }
    shell([sys.executable, "-c", "import torch_mlu"], env=found)
    return found


def with_nodes(line: list[str], *nodes: str) -> list[str]:
    """The command in a mount namespace whose /dev has these files, as a driver would make them."""
    make = " ".join(f'"$d/{node}"' for node in nodes)
    script = (
        "set -e; d=$(mktemp -d); mount -t tmpfs none $d; "
        "for n in null zero random urandom; do cp -a /dev/$n $d; done; "
        f"mkdir $d/shm; mount --bind /dev/shm $d/shm; touch {make}; mount --move $d /dev; "
        f"exec {shlex.join(line)}"
    )
    return ["unshare", "--mount", "--propagation", "private", "bash", "-c", script]


def script(run: str, logs: Path, *flags: str) -> list[str]:
    return ["bash", str(ROOT / f"run_scripts/{run}.sh"), "--logs", str(logs), *flags]


def worker(folder: Path, kind: str, environment: dict[str, str], digits: str, fault: str = ""):
    """Train six steps of the rehearsal on one rank; its exit code."""
    folder.mkdir(parents=True, exist_ok=True)
    small = plan("dali", digits, 1).model_copy(
        update={"device": kind, "max_steps": 6, "log_interval": 1}
    )
    (folder / "recipe.yaml").write_text(small.to_yaml())
    done = subprocess.run(
        [sys.executable, "-m", "proofrun.worker", str(folder)],
        env={**environment, "PROOFRUN_TEST_FAULT": fault, "PYTHONPATH": environment["PYTHONPATH"]},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode


def losses(folder: Path) -> list[float]:
    return [e.loss for e in read(folder) if isinstance(e, events.Train)]


def test_the_rehearsal_trains_evaluates_and_saves_there(standin, host, work, evidence):
    folders = {kind: work / "cards" / kind / "001" for kind in ("MLU", "CPU")}
    for kind, folder in folders.items():
        assert worker(folder, kind, standin, host["DIGITS_DATASET"]) == Exit.OK
    start = read(folders["MLU"])[0]
    assert isinstance(start, events.RunStart)
    assert (start.device, start.device_name) == ("MLU", "stand-in over host memory")
    (score,) = [e for e in read(folders["MLU"]) if isinstance(e, events.Eval)]
    assert score.count == score.expected == 360
    ours, cpu = losses(folders["MLU"]), losses(folders["CPU"])
    assert len(ours) == len(cpu) == 6
    # later steps tell nothing: at eight images a batch another order of sums moves them by percents
    for step, bound in ((1, 1e-6), (2, 1e-4)):
        apart = abs(ours[step - 1] - cpu[step - 1]) / cpu[step - 1]
        evidence.figure(f"loss of step {step} there, against the CPU", f"{apart:.1e}", f"{bound}")
        assert apart < bound
    assert (folders["MLU"] / "checkpoints" / "latest" / "model.safetensors").exists()


def test_a_checkpoint_goes_back_onto_the_card(standin, host, work, evidence):
    """The step after a resume has the loss that it has without one; the stand-in's is not exact."""
    digits = host["DIGITS_DATASET"]
    whole = losses(work / "cards" / "MLU" / "001")
    folder = work / "cards" / "stopped" / "001"
    assert worker(folder, "MLU", standin, digits, "step,step=3:sigterm") == Exit.INTERRUPTED
    done = len(losses(folder))
    assert worker(folder, "MLU", standin, digits) == Exit.OK
    apart = abs(losses(folder)[done] - whole[done]) / whole[done]
    evidence.figure(f"loss of step {done + 1} there, after a resume", f"{apart:.1e}", "0.0001")
    assert apart < 1e-4


def test_the_published_script_on_a_host_with_the_cards_node(standin, work, evidence):
    line = with_nodes(script(MLU_RUN, work / "cards", *SMALL), "cambricon_dev0")
    said = shell(line, env=standin)
    evidence.transcript("published_script", said)
    start = read(work / "cards" / MLU_RUN / "001")[0]
    assert isinstance(start, events.RunStart) and start.device == "MLU"


def test_fewer_cards_than_asked(standin, work, evidence):
    run = MLU_RUN.replace("1MLU", "8MLUs")
    line = with_nodes(script(run, work / "cards", *SMALL), "cambricon_dev0")
    said = shell(line, Exit.NO_DEVICE, env=standin)
    assert "this host has 1 MLU" in said and MLU_RUN in said and said.count("\n") == 1
    evidence.transcript("fewer_cards", said)
    # the driver shows a card that torch does not see
    line = with_nodes(script(MLU_RUN, work / "cards", *SMALL), "cambricon_dev0")
    said = shell(line, Exit.NO_DEVICE, env={**standin, "STANDIN_CARDS": "0"})
    assert "sees no MLU" in said
    evidence.transcript("no_card_for_torch", said)


def test_two_vendors_at_once(standin, evidence):
    code = (
        "import torch_mlu; from pathlib import Path; from proofrun.device import Device\n"
        "from proofrun.errors import main_exit; from proofrun.recipe_yaml import load_recipe\n"
        "rules = load_recipe(Path('recipes/googlenet/recipe.yaml'))['ImageNet'].precision\n"
        "main_exit(lambda: Device('GPU', 'FP32', rules), 'proofrun')"
    )
    said = shell([sys.executable, "-c", code], Exit.NO_DEVICE, env=standin, cwd=ROOT)
    assert "sees mlu and no GPU" in said and said.count("\n") == 1
    evidence.transcript("two_vendors", said)


def test_huaweis_plugin_without_its_driver(host, work, evidence):
    """The real package: it stops an NPU run with one line, and a CPU run does not notice it."""
    folder = work / "torch_npu"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", folder]
    shell([*pip, "torch-npu==2.13.0"], env={**os.environ})
    environment = {**host, "PYTHONPATH": str(folder)}
    run = "GoogLeNet_FP32_300E_1NPU_Train"
    line = with_nodes(script(run, work / "cards", *SMALL), "davinci0")
    said = shell(line, Exit.NO_DEVICE, env=environment)
    assert "`import torch_npu` failed" in said and "Traceback" not in said
    evidence.transcript("torch_npu_without_driver", said)
    cpu = "GoogLeNet-Digits_FP32_10E_1CPU_Train"
    shell(script(cpu, work / "cards", "--throughput", "1"), env=environment)
