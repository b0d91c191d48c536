"""The image: built from a bare Debian, run without network, root or a writable file system."""

from __future__ import annotations

import json
import os
import pwd
import shlex
import shutil
import signal
import subprocess
import time

import pytest

from proofrun import events
from proofrun.errors import Exit

from .engine import BASE, build
from .helpers import ROOT, digest, last, on_host, read, shell, wait_for

RUN = "Inceptionv2-Digits_FP32_6E_1CPU_Train"
OTHER = "GoogLeNet-Digits_FP32_10E_1CPU_Train"
PINNED = {"OMP_NUM_THREADS": "2", "PROOFRUN_LOADER_THREADS": "1"}
GIB = 1e9  # image sizes are counted as Docker prints them


@pytest.fixture(scope="module")
def caller(docker, work):
    """A plain user of this machine who may use the engine: runs a command as that user."""
    name = "proofrun-proof"
    subprocess.run(["userdel", name], capture_output=True)
    shell(["useradd", "--no-create-home", "--gid", "nogroup", name])
    user = pwd.getpwnam(name)
    home = work / "caller"
    home.mkdir()
    os.chown(home, user.pw_uid, user.pw_gid)

    def run(*line: object, expect: int = 0, **extra: str) -> str:
        words = ["setpriv", f"--reuid={name}", "--regid=nogroup", "--clear-groups", *map(str, line)]
        return shell(words, expect, env={**docker, "HOME": str(home), **PINNED, **extra}, cwd=home)

    run.home = home
    run.uid = user.pw_uid
    yield run
    shell(["userdel", name])


@pytest.fixture(scope="module")
def copy(work):
    """The files of this checkout as git has them, to change one."""
    folder = work / "copy"
    folder.mkdir()
    listed = shell(["git", "-C", ROOT, "ls-files", "-co", "--exclude-standard", "-z"])
    for name in listed.split("\0"):
        if name and (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    return folder


def inspect(docker, image: str) -> dict:
    return json.loads(shell(["docker", "image", "inspect", image], env=docker))[0]


def test_it_builds_on_a_plain_machine(docker, base, copy, evidence):
    began = time.monotonic()
    commit = shell(["git", "-C", ROOT, "rev-parse", "HEAD"]).strip()
    flags = ["--build-arg", f"BASE_IMAGE={base}", "--build-arg", f"GIT_COMMIT={commit}"]
    build(docker, "proofrun:built", *flags, context=copy)
    evidence.figure("build of the cpu image, base at hand", f"{time.monotonic() - began:.0f} s")
    found = inspect(docker, "proofrun:built")
    size = found["Size"] / GIB
    evidence.figure("size of the cpu image", f"{size:.2f} GB", "under 3 GB")
    evidence.figure("of that, the Debian base", f"{inspect(docker, base)['Size'] / GIB:.2f} GB")
    assert size < 3
    assert found["Config"]["User"] == "1000:1000"
    labels = found["Config"]["Labels"]
    assert labels["org.opencontainers.image.revision"] == commit
    assert labels["org.opencontainers.image.title"] == "proofrun"

    (copy / "proofrun" / "train.py").open("a").write("# changed\n")
    began = time.monotonic()
    said = build(docker, "proofrun:changed", *flags, context=copy)
    spent = time.monotonic() - began
    evidence.figure("rebuild after a change of code", f"{spent:.1f} s", "under 15 s")
    assert said.count("CACHED") >= 3, said  # the dependencies above all
    line = ["docker", "run", "--rm", "proofrun:changed", "tail", "-1", "proofrun/train.py"]
    assert shell(line, env=docker) == "# changed\n"


@pytest.fixture(scope="module")
def children(docker, image):
    """The recipes' own images, by run name."""
    made = {}
    for model, run in (("inceptionv2", RUN), ("googlenet", OTHER)):
        made[run] = f"proofrun:{model}"
        line = [
            "docker",
            "build",
            "-f",
            ROOT / f"recipes/{model}/Dockerfile",
            "-t",
            made[run],
            ROOT,
        ]
        shell(line, env=docker)
    return made


def test_a_rehearsal_inside_equals_the_same_one_outside(children, caller, host, work, evidence):
    """No network, read-only root, a plain user; `docker run IMAGE` without a name."""
    logs = caller.home / "logs of mine"
    logs.mkdir()
    os.chown(logs, caller.uid, -1)
    said = caller(
        "docker", "run", "--rm", "--init", "--network=none", "--read-only", "--cap-drop=ALL",
        "--tmpfs=/tmp:rw,exec,mode=1777", "--user", f"{caller.uid}:65534",
        "--mount", f"type=bind,src={logs},dst=/logs", "-e", "OMP_NUM_THREADS",
        "-e", "PROOFRUN_LOADER_THREADS", children[RUN],
    )  # fmt: skip
    evidence.transcript("rehearsal_in_the_container", said)
    inside = logs / RUN / "001"
    assert inside.stat().st_uid == caller.uid
    outside = on_host({**host, **PINNED}, RUN, work / "outside")
    rows = []
    for folder in (inside, outside):
        evals = [e for e in read(folder) if isinstance(e, events.Eval)]
        trains = [e for e in read(folder) if isinstance(e, events.Train)]
        rate = sum(e.images for e in trains) / sum(e.window_s for e in trains)
        rows.append((evals[-1].correct1, evals[-1].count, evals[-1].loss, trains[-1].loss, rate))
    for name, (right, count, loss, train_loss, rate) in zip(
        ("inside", "outside"), rows, strict=True
    ):
        evidence.figure(
            f"{RUN}, {name} the container",
            f"top-1 {100 * right / count:.2f} % of {count}, validation loss {loss:.6f}, last "
            f"training loss {train_loss:.6f}, {rate:.0f} img/s",
        )
    assert rows[0][:4] == rows[1][:4]
    assert last(inside).weights_hash == last(outside).weights_hash
    evidence.figure("final weights, inside and outside", "bit-equal", "bit-equal")
    first = next(e for e in read(inside) if isinstance(e, events.RunStart))
    evidence.figure("without network, from launch to the ready rank", f"{first.wall_s:.1f} s")
    assert first.provenance["commit"] == "unknown"  # this image was built without GIT_COMMIT


def test_two_ranks_start_without_network(image, caller, evidence):
    """torchrun and gloo would look the host's name up for minutes."""
    run = "GoogLeNet-Digits_FP32_10E_2CPUs_Train"
    logs = caller.home / "two"
    caller("bash", ROOT / "docker/run.sh", "--logs", logs, run, "--max-steps", "2")
    first = next(e for e in read(logs / run / "001") if isinstance(e, events.RunStart))
    evidence.figure("2 ranks, from launch to the ready ranks", f"{first.wall_s:.1f} s")
    assert first.wall_s < 60


def test_the_other_child_is_stopped_and_goes_on(docker, children, work, evidence):
    """`docker stop` reaches the ranks: saved, exit 75, and the same command goes on."""
    logs = work / "stopped"
    logs.mkdir(mode=0o777)
    logs.chmod(0o777)
    line = [
        "docker", "run", "--rm", "--init", "--name", "stopped", "--stop-timeout", "60",
        "--mount", f"type=bind,src={logs},dst=/logs", children[OTHER],
    ]  # fmt: skip
    process = subprocess.Popen(line, env=docker, stdout=subprocess.DEVNULL)
    folder = logs / OTHER / "001"
    wait_for(lambda: (folder / "iters.jsonl").exists() and steps(folder) >= 3, 120, process)
    shell(["docker", "stop", "stopped"], env=docker)
    assert process.wait(90) == Exit.INTERRUPTED
    saved = last(folder).step
    assert saved >= 3 and list((folder / "checkpoints").glob("step-*"))
    # with a run's name and flags of its own
    shell([*line, OTHER, "--max-steps", "4", "--new"], env=docker)
    assert last(logs / OTHER / "002").step == 4
    process = subprocess.Popen(line, env=docker, stdout=subprocess.PIPE, text=True)
    evidence.figure("docker stop", f"saved at step {saved}, exit {int(Exit.INTERRUPTED)}")
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=90)


def steps(folder) -> int:
    return sum(isinstance(e, events.Train) for e in read(folder)) * 10 or len(
        (folder / "iters.jsonl").read_text().splitlines()
    )


def test_run_sh_runs_the_built_image_and_the_mounted_checkout(
    docker, image, caller, copy, host, evidence
):
    logs = caller.home / 'with a space, a comma and a "quote"'
    build(docker, "proofrun-deps:cpu", "--target", "deps", "--build-arg", f"BASE_IMAGE={BASE}")
    shutil.copytree(host["DIGITS_DATASET"], copy / "data" / "digits")
    shown = []
    for flags in ([], ["--mount", "--image", "proofrun-deps:cpu"]):
        line = ["bash", copy / "docker/run.sh", "--logs", logs, *flags, RUN, "--max-steps", "3"]
        shown.append("$ " + shlex.join(map(str, line[1:])) + "\n" + caller(*line))
    evidence.transcript("run_sh", "\n".join(shown))
    for number in ("001", "002"):
        folder = logs / RUN / number
        assert last(folder).step == 3
        assert {path.stat().st_uid for path in folder.rglob("*")} == {caller.uid}
    hashes = {last(logs / RUN / number).weights_hash for number in ("001", "002")}
    assert len(hashes) == 2  # two numbers are two seeds


def test_mounting_into_an_image_without_the_packages_says_so(base, caller):
    line = ["bash", ROOT / "docker/run.sh", "--mount", "--image", base]
    said = caller(*line, "--logs", caller.home / "none", RUN, expect=Exit.NOT_INSTALLED)
    assert "lacks" in said.splitlines()[-1] and "Traceback" not in said


def test_an_image_that_is_not_there(docker, caller):
    line = ["bash", ROOT / "docker/run.sh", "--image", "nowhere.invalid/x:1"]
    said = caller(*line, "--logs", caller.home / "none", RUN, expect=125)
    assert "nowhere.invalid/x:1" in said


FAKE = """
import pathlib, sys
site = pathlib.Path("/usr/lib/python3/dist-packages")
for spec in sys.argv[1:]:
    name, version = spec.split("==")
    module = site / name.split("-")[0].replace(".", "/")
    module.mkdir(parents=True, exist_ok=True)
    (module / "__init__.py").write_text(f"__version__ = {version!r}\\n")
    info = site / f"{name.replace('.', '_').replace('-', '_')}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\\nName: {name}\\nVersion: {version}\\n")
    (info / "RECORD").write_text("")
    (info / "INSTALLER").write_text("vendor\\n")
"""
CUDA = ["torch==2.9.0a0+nv25.10", "torchvision==0.24.0a0", "apex==0.1"]


@pytest.mark.parametrize(
    ("backend", "brings"),
    [
        ("cuda", [*CUDA, "nvidia.dali-cuda130==1.51.2"]),
        ("npu", ["torch==2.6.0", "torchvision==0.21.0", "torch_npu==2.6.0"]),
        ("mlu", ["torch==2.7.1", "torchvision==0.22.1", "torch_mlu==1.26.0"]),
    ],
)
def test_a_vendor_base_keeps_its_own_packages(docker, base, work, backend, brings, evidence):
    """Stand-ins for the vendors' images, which cannot be had here: names and versions only."""
    folder = work / backend
    folder.mkdir()
    (folder / "fake.py").write_text(FAKE)
    (folder / "Dockerfile").write_text(
        f"FROM {base}\nCOPY fake.py /\nRUN python3 /fake.py {' '.join(brings)}\n"
        "ENV PIP_CONSTRAINT=/etc/vendor-constraint.txt\nRUN touch $PIP_CONSTRAINT\nUSER 4711\n"
    )
    shell(["docker", "build", "-t", f"vendor-{backend}", folder], env=docker)
    flags = ["--build-arg", f"BACKEND={backend}", "--build-arg", f"BASE_IMAGE=vendor-{backend}"]
    began = time.monotonic()
    build(docker, f"proofrun:{backend}", *flags)
    evidence.figure(f"build over a {backend} stand-in", f"{time.monotonic() - began:.0f} s")
    inside = (
        "import importlib.metadata as m, importlib.util as u, json; print(json.dumps({n: "
        "[m.version(n), u.find_spec(n.split('-')[0]).origin] for n in %r}))"
    )
    names = [spec.partition("==")[0] for spec in brings]
    line = [
        "docker",
        "run",
        "--rm",
        f"proofrun:{backend}",
        "/opt/venv/bin/python",
        "-c",
        inside % names,
    ]
    found = json.loads(shell(line, env=docker).splitlines()[-1])
    for spec in brings:
        name, version = spec.split("==")
        assert found[name][0] == version
        assert found[name][1].startswith("/usr/lib/python3/dist-packages/"), found
    lacks = "import pydantic, pandas, psutil, safetensors, matplotlib"
    shell([*line[:-2], "-c", lacks], env=docker)


@pytest.mark.parametrize(
    ("backend", "said"),
    [
        ("tpu", "BACKEND=tpu is unknown: cpu, cuda, npu or mlu"),
        ("npu", "BACKEND=npu, but the base image has no torch_npu: set BASE_IMAGE"),
        ("cuda", "BACKEND=cuda, but the base image has no torch: set BASE_IMAGE"),
    ],
)
def test_a_wrong_backend_or_base_is_named(docker, base, backend, said):
    flags = ["--build-arg", f"BACKEND={backend}", "--build-arg", f"BASE_IMAGE={base}"]
    printed = build(docker, "proofrun:wrong", *flags, expect=1)
    assert said in printed
    assert "Traceback" not in printed


def test_a_base_image_that_is_not_there(docker):
    printed = build(
        docker, "proofrun:wrong", "--build-arg", "BASE_IMAGE=nowhere.invalid/x:1", expect=1
    )
    assert "nowhere.invalid/x:1" in printed


def test_the_image_carries_no_secret_and_no_litter(docker, image):
    """Of the checkout only what git would take: no .git, environments, logs or data of the user."""
    listed = shell(["docker", "run", "--rm", image, "find", ".", "-maxdepth", "1"], env=docker)
    names = {line.removeprefix("./") for line in listed.split()}
    assert not names & {".git", ".venv", "logs", "data"}
    assert {"proofrun", "recipes", "run_scripts", "tools", "env.sh", "README.md"} <= names
    history = shell(["docker", "history", "--no-trunc", image], env=docker)
    assert "TOKEN" not in history.upper() and "PASSWORD" not in history.upper()
    assert (
        digest(ROOT / "env.sh")
        == shell(["docker", "run", "--rm", image, "sha256sum", "env.sh"], env=docker).split()[0]
    )
