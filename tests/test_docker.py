"""docker/run.sh and slurm.sbatch without their engines: what they would run, and refuse."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from proofrun.errors import Exit

ROOT = Path(__file__).resolve().parent.parent
RUN = "Inceptionv2-Digits_FP32_6E_1CPU_Train"
#: Device files of a host with two cards of each vendor.
NODES = (
    "davinci0 davinci1 davinci_manager devmm_svm hisi_hdc "
    "cambricon_dev0 cambricon_dev1 cambricon_ctl cambricon_ipcm0 cambricon_ipcm1"
)


def run_sh(tmp_path: Path, *words: str, devices: str = "", **extra: str):
    """Exit code, the command as a list, and what was said besides.

    `devices`: names in a /dev of the test's own; plain files, which is all that a listing sees.
    """
    line = ["bash", str(ROOT / "docker/run.sh"), "--dry-run", *words]
    if devices:
        made = f"cd /dev && touch null {devices} && chmod 660 {devices} && chmod 666 null"
        script = f"mount -t tmpfs tmpfs /dev && {made} && exec {shlex.join(line)}"
        line = ["unshare", "--user", "--map-root-user", "--mount", "bash", "-c", script]
    environment = {"PATH": os.environ["PATH"], "PROOFRUN_LOGS": str(tmp_path / "logs"), **extra}
    done = subprocess.run(line, env=environment, capture_output=True, text=True, timeout=30)
    *said, last = done.stderr.strip().splitlines() or [""]
    if done.returncode != 0:
        return done.returncode, [], done.stderr
    return 0, shlex.split(last), "\n".join(said)


def options(command: list[str], name: str) -> list[str]:
    return [command[at + 1] for at, word in enumerate(command) if word == name]


def test_no_more_rights_than_a_run_needs(tmp_path):
    code, command, said = run_sh(tmp_path, RUN, "--max-steps", "3")
    assert code == 0 and not said
    assert command[:4] == ["docker", "run", "--rm", "--init"]
    assert command[-4:] == ["proofrun:cpu", RUN, "--max-steps", "3"]
    assert "--read-only" in command
    assert options(command, "--cap-drop") == ["ALL"]
    assert options(command, "--security-opt") == ["no-new-privileges"]
    assert options(command, "--network") == ["none"]
    assert options(command, "--user") == [f"{os.getuid()}:{os.getgid()}"]
    assert options(command, "--mount") == [f"type=bind,src={tmp_path}/logs,dst=/logs"]
    assert not {"--privileged", "--pid", "--ipc", "--device", "--gpus"} & set(command)
    assert not (tmp_path / "logs").exists()  # a dry run changes nothing


def test_cifar10_has_a_place_of_its_own(tmp_path):
    run = "GoogLeNet-Cifar10_FP32_125E_1CPU_Train"
    for words, extra in (["--data", str(tmp_path)], {}), ([], {"CIFAR10_DATASET": str(tmp_path)}):
        _, command, _ = run_sh(tmp_path, *words, run, **extra)
        mount = f"type=bind,src={tmp_path},dst=/data/cifar10,readonly"
        assert options(command, "--mount")[1:] == [mount]
        assert "CIFAR10_DATASET=/data/cifar10" in options(command, "-e")
        assert not [word for word in options(command, "-e") if "IMAGENET" in word]


def test_data_is_read_only_and_odd_paths_survive(tmp_path):
    data = tmp_path / 'image net, "2012"'
    data.mkdir()
    logs = tmp_path / "my logs"
    _, command, _ = run_sh(tmp_path, "--data", str(data), "--logs", str(logs), "--shm", "32g", RUN)
    assert options(command, "--mount") == [
        f"type=bind,src={logs},dst=/logs",
        f'type=bind,"src={tmp_path}/image net, ""2012""",dst=/data/imagenet,readonly',
    ]
    assert "IMAGENET_TRAIN_DATASET=/data/imagenet" in options(command, "-e")
    assert options(command, "--shm-size") == ["32g"]


def test_the_checkout_can_be_mounted_over_any_image(tmp_path):
    _, command, _ = run_sh(tmp_path, "--mount", "--image", "vendor:1", RUN)
    assert any(word.startswith("PROOFRUN_COMMIT=") for word in options(command, "-e"))
    assert f"type=bind,src={ROOT},dst=/workspace/proofrun,readonly" in options(command, "--mount")
    assert options(command, "--entrypoint") == ["docker/entrypoint.sh"]
    assert command[-2:] == ["vendor:1", RUN]


def test_nodes_and_names_go_along(tmp_path):
    place = {"NNODES": "2", "NODE_RANK": "1", "RDZV_ENDPOINT": "a:1", "NODES_TIMEOUT": "9"}
    _, command, _ = run_sh(tmp_path, "--name", "n1", "--env", "NCCL_DEBUG=INFO", RUN, **place)
    assert options(command, "--network") == ["host"]
    assert {f"{k}={v}" for k, v in place.items()} < set(options(command, "-e"))
    assert "NCCL_DEBUG=INFO" in options(command, "-e")
    assert options(command, "--name") == options(command, "--hostname") == ["n1"]
    _, command, _ = run_sh(tmp_path, "--network", "mine", RUN, **place)
    assert options(command, "--network") == ["mine"]


@pytest.mark.parametrize(
    ("run", "words", "nodes"),
    [
        ("GoogLeNet_AMP_300E_1NPU_Train", [],
         ["davinci0", "davinci1", "davinci_manager", "devmm_svm", "hisi_hdc"]),
        ("GoogLeNet_AMP_300E_1NPU_Train", ["--cards", "1"],
         ["davinci1", "davinci_manager", "devmm_svm", "hisi_hdc"]),
        ("Inceptionv2_AMP_100E_1MLU_Train", ["--cards", "0"],
         ["cambricon_dev0", "cambricon_ctl", "cambricon_ipcm0", "cambricon_ipcm1"]),
        (RUN, [], []),
    ],
)  # fmt: skip
def test_the_device_nodes_of_a_backend_and_nothing_more(tmp_path, run, words, nodes):
    code, command, said = run_sh(tmp_path, *words, run, devices=NODES)
    assert code == 0, said
    assert options(command, "--device") == [f"/dev/{name}" for name in nodes]
    assert set(options(command, "--group-add")) == ({"0"} if nodes else set())  # of mode 660


@pytest.mark.parametrize(("words", "gpus"), [([], "all"), (["--cards", "0,2"], '"device=0,2"')])
def test_nvidia_cards_by_the_toolkit(tmp_path, words, gpus):
    _, command, _ = run_sh(tmp_path, *words, "GoogLeNet_AMP_300E_1GPU_Train")
    assert options(command, "--gpus") == [gpus] and "--device" not in command
    assert "proofrun:cuda" in command


def test_what_a_driver_needs_is_asked_for_and_explained(tmp_path):
    run = "Inceptionv2_AMP_100E_1MLU_Train"
    _, command, said = run_sh(tmp_path, run, devices=NODES)
    assert "cnmon" not in " ".join(command) and not said
    code, command, said = run_sh(tmp_path, "--driver", RUN)
    assert code == Exit.USAGE and "the CPU needs no driver" in said


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ([], 2, "which run?"),
        (["--no-such", RUN], 2, "unknown option --no-such"),
        (["--image"], 2, "--image needs a value"),
        (["--backend", "tpu", RUN], 2, "unknown backend 'tpu': cpu, cuda, npu or mlu"),
        (["GoogLeNet_AMP_300E_8NPUs_Train"], 13, "this host has no /dev/davinci*"),
        (["--cards", "7", "GoogLeNet_AMP_300E_8NPUs_Train"], 13, "this host has no /dev/davinci7"),
        (["--data", "/no/such", RUN], 20, "the data folder /no/such does not exist"),
        (["--data", "/etc/passwd", RUN], 20, "/etc/passwd does not exist, or is no folder"),
        (["--logs", "/etc/passwd", RUN], 33, "the log folder /etc/passwd cannot be written"),
        (["--logs", "--mount", RUN], 2, "--logs needs a value"),
        ([RUN, "--logs", "/tmp/x"], 2, "--logs goes before the run's name"),
        ([RUN, "--data=/tmp/x"], 2, "--data goes before the run's name"),
        (["--cards", "0", RUN], 2, "this run is on the CPU"),
        (["--cards", "0,,1", "GoogLeNet_AMP_300E_1GPU_Train"], 2, "write it as all, or as 0,1"),
    ],
)
def test_bad_input_is_one_line(tmp_path, words, code, said):
    found, _, printed = run_sh(tmp_path, *words)
    assert found == code, printed
    assert said in printed and len(printed.strip().splitlines()) == 1


def test_a_log_folder_of_somebody_else(tmp_path):
    """Called by a plain user: root could write anywhere."""
    for part in (tmp_path, tmp_path.parent, tmp_path.parent.parent):
        part.chmod(0o755)  # the user must come to this copy
    (tmp_path / "docker").mkdir()
    shutil.copy(ROOT / "docker/run.sh", tmp_path / "docker")
    shutil.copy(ROOT / "env.sh", tmp_path)
    line = ["bash", str(tmp_path / "docker/run.sh"), "--dry-run", "--logs", "/usr/lib", RUN]
    plain = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    line = line if os.getuid() else [*plain, *line]
    done = subprocess.run(line, capture_output=True, text=True, timeout=30)
    assert done.returncode == Exit.CANNOT_WRITE, done.stderr
    assert "the log folder /usr/lib cannot be written by" in done.stderr


@pytest.mark.parametrize("container", [True, False])
def test_slurm_starts_a_run_in_pyxis_where_it_is_asked_to(tmp_path, container):
    """No pyxis can be had here: a stand-in for srun notes how it is called."""
    fake = tmp_path / "srun"
    fake.write_text(
        '#!/bin/sh\n[ "$1" = --help ] && echo --container-image && exit\nprintf "%s\\n" "$@"\n'
    )
    fake.chmod(0o755)
    environment = {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "SLURM_JOB_ID": "1",
        "SLURM_SUBMIT_DIR": str(ROOT),
        "RDZV_ENDPOINT": "10.0.0.1:20001",
        "PROOFRUN_LOGS": str(tmp_path),
    } | ({"IMAGE": "registry#proofrun:cuda"} if container else {})
    line = ["bash", str(ROOT / "run_scripts/slurm.sbatch"), RUN, "--max-steps", "3"]
    done = subprocess.run(line, env=environment, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    words = done.stdout.splitlines()
    assert words[0] == "--kill-on-bad-exit=0"
    start = (
        ["bash", "docker/entrypoint.sh", RUN] if container else ["bash", f"run_scripts/{RUN}.sh"]
    )
    assert words[-len(start) - 2 :] == [*start, "--max-steps", "3"]
    if container:
        assert options(words, "--container-image") == ["registry#proofrun:cuda"]
        (mounts,) = options(words, "--container-mounts")
        assert mounts.split(",") == [f"{ROOT}:{ROOT}", f"{tmp_path}:{tmp_path}"]
        (kept,) = options(words, "--container-env")
        assert "PROOFRUN_LOGS" in kept.split(",")  # the image's own value would win


@pytest.mark.parametrize("model", ["googlenet", "inceptionv2"])
def test_a_recipes_image_runs_its_rehearsal(model):
    lines = (ROOT / f"recipes/{model}/Dockerfile").read_text().splitlines()
    (command,) = [line for line in lines if line.startswith("CMD")]
    run = command.split('"')[1]
    assert run in (ROOT / f"recipes/{model}/recipe.yaml").read_text()
    assert (ROOT / f"run_scripts/{run}.sh").is_file()
    assert len(lines) < 10
