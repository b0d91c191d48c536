"""Two machines: containers on a network of their own train one run over gloo, or refuse to."""

from __future__ import annotations

import re
import subprocess
import time

import pytest

from proofrun import events
from proofrun.errors import Exit

from .helpers import ROOT, last, on_host, read, shell, wait_for

RUN = "GoogLeNet-Digits_FP32_10E_1CPU_Train"  # dropout and jitter: every source of chance
SAME = "GoogLeNet-Digits_FP32_10E_2CPUs_Train"  # two ranks on one host: the same world
FLAGS = ["--max-steps", "44", "--log-interval", "2"]
PORT = 29400


@pytest.fixture(scope="module")
def network(docker):
    shell(["docker", "network", "create", "proofrun"], env=docker)
    yield "proofrun"
    shell(["docker", "network", "rm", "proofrun"], env=docker)


@pytest.fixture
def node(docker, image, network, tmp_path, host):
    """Starts node `rank` in a container that knows the others by name alone."""
    started: list[subprocess.Popen] = []

    def start(rank: int, *flags: str, run: str = RUN, count: int = 2, timeout: int = 120):
        logs = tmp_path / f"node{rank}"
        place = {
            "NNODES": str(count), "NODE_RANK": str(rank), "RDZV_ENDPOINT": f"node0:{PORT}",
            "NODES_TIMEOUT": str(timeout), "OMP_NUM_THREADS": "1", "PROOFRUN_LOADER_THREADS": "1",
        }  # fmt: skip
        process = subprocess.Popen(
            ["bash", ROOT / "docker/run.sh", "--network", network, "--name", f"node{rank}",
             "--logs", logs, run, *flags],
            env={**docker, **place}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        process.folder = logs / run / ("001" if rank == 0 else f"node{rank}")
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.terminate()
            process.communicate(timeout=90)


def ends(process: subprocess.Popen, code: int, timeout: float = 300) -> str:
    out, _ = process.communicate(timeout=timeout)
    assert process.returncode == code, out
    assert "Traceback" not in out
    return out


@pytest.fixture(scope="module")
def undisturbed(host, work, evidence) -> str:
    """Hash of the final weights of two processes on this host."""
    folder = on_host(host, SAME, work / "one_host", *FLAGS)
    return last(folder).weights_hash


def trained(folder, step: int) -> bool:
    if not (folder / "events.jsonl").exists():
        return False
    return any(e.step >= step for e in read(folder) if isinstance(e, events.Train))


def test_two_machines_end_as_one_does(node, undisturbed, evidence):
    second, first = node(1, *FLAGS), node(0, *FLAGS)
    said = ends(first, 0)
    evidence.transcript("two_machines", f"--- node 0\n{said}\n--- node 1\n{ends(second, 0)}")
    start = next(e for e in read(first.folder) if isinstance(e, events.RunStart))
    assert (start.world_size, start.nodes) == (2, 2)
    assert last(first.folder).weights_hash == undisturbed
    assert not (second.folder / "events.jsonl").exists()  # node 0 keeps the run
    evidence.figure(
        "2 containers x 1 rank against 2 processes on one host, 44 steps over gloo",
        "final weights bit-equal", "bit-equal",
    )  # fmt: skip


@pytest.mark.parametrize("victim", [1, 0])
def test_a_machine_killed_midway_comes_back(node, docker, undisturbed, evidence, victim):
    """The container is killed after the first epoch; the same command is started again."""
    nodes = [node(0, *FLAGS), node(1, *FLAGS)]
    folder = nodes[0].folder
    wait_for(lambda: trained(folder, 26), 240, nodes[0])
    shell(["docker", "kill", f"node{victim}"], env=docker)
    killed = nodes[victim].communicate(timeout=60)[0]
    began = time.monotonic()
    nodes[victim] = node(victim, *FLAGS)
    said = [ends(process, 0) for process in nodes]
    parts = (f"{victim}, until docker kill", killed), ("0", said[0]), ("1", said[1])
    text = "\n".join(f"--- node {name}\n{printed}" for name, printed in parts)
    evidence.transcript(f"node{victim}_killed", text)
    resumes = [e for e in read(folder) if isinstance(e, events.Resume)]
    starts = [e for e in read(folder) if isinstance(e, events.RunStart)]
    assert last(folder).weights_hash == undisturbed
    evidence.figure(
        f"node {victim} killed midway and started again",
        f"went on from step {resumes[-1].from_step} of 44 after "
        f"{starts[-1].t_wall - starts[0].t_wall:.0f} s, final weights bit-equal",
        "bit-equal",
    )
    assert time.monotonic() - began < 240


def test_a_killed_launch_is_a_dead_machine(host, work, undisturbed):
    """kill -9 of launch alone, on this host: its ranks die with it, the other machine waits."""
    logs = work / "killed_launch"

    def start(rank: int) -> subprocess.Popen:
        place = {"NNODES": "2", "NODE_RANK": str(rank), "RDZV_ENDPOINT": f"127.0.0.1:{PORT + 1}"}
        line = ["bash", ROOT / f"run_scripts/{RUN}.sh", "--logs", logs, *FLAGS]
        return subprocess.Popen(
            line, env={**host, **place, "NODES_TIMEOUT": "120"}, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    nodes = [start(0), start(1)]
    wait_for(lambda: trained(logs / RUN / "001", 24), 240, nodes[0])
    nodes[1].kill()  # the script became launch
    nodes[1].communicate(timeout=60)
    nodes[1] = start(1)
    for process in nodes:
        ends(process, 0)
    assert last(logs / RUN / "001").weights_hash == undisturbed


def test_one_told_to_stop_saves_all(node, docker, undisturbed):
    """SIGTERM to one machine: both save at one step and end with 75; both go on."""
    nodes = [node(0, *FLAGS), node(1, *FLAGS)]
    wait_for(lambda: trained(nodes[0].folder, 4), 240, nodes[0])
    shell(["docker", "stop", "node1"], env=docker)
    for process in nodes:
        ends(process, Exit.INTERRUPTED)
    nodes = [node(1, *FLAGS), node(0, *FLAGS)]
    for process in nodes:
        ends(process, 0)
    assert last(nodes[1].folder).weights_hash == undisturbed


def test_nodes_that_run_different_things_are_told_at_once(node, evidence):
    first, second = node(0, *FLAGS), node(1, *FLAGS, "--set", "batch.per_card=16")
    said = [ends(process, Exit.USAGE) for process in (first, second)]
    lines = [text.strip().splitlines()[-1] for text in said]
    assert all("recipe, overrides or data differ" in line for line in lines), lines
    evidence.transcript("different_commands", "\n".join(lines))


@pytest.mark.parametrize(
    ("ranks", "count"),
    [((0, 2), (2, 3)), ((0, 1), (2, 3))],
    ids=["NODE_RANK 2 of 3 and 0 of 2", "NODE_RANK 1 of 3 and 0 of 2"],
)
def test_a_wrong_nnodes_is_told_at_once_or_after_the_stated_time(node, ranks, count):
    """torchrun may bring together what was told different numbers: then the nodes compare them."""
    began = time.monotonic()
    pair = [node(r, *FLAGS, count=c, timeout=15) for r, c in zip(ranks, count, strict=True)]
    for process in pair:
        said = process.communicate(timeout=90)[0].strip().splitlines()[-1]
        words = {
            Exit.USAGE: r"NNODES is 2 on node 0, 3 on node \d: give every node the same",
            Exit.NO_RENDEZVOUS: r"the \d nodes did not meet at node0:29400 within 15 s",
        }
        assert re.search(words[process.returncode], said), said
    assert time.monotonic() - began < 60


def test_a_machine_that_does_not_come_back_is_named(node, docker, evidence):
    nodes = [node(0, *FLAGS, timeout=20), node(1, *FLAGS, timeout=20)]
    wait_for(lambda: trained(nodes[0].folder, 4), 240, nodes[0])
    shell(["docker", "kill", "node1"], env=docker)
    began = time.monotonic()
    said = ends(nodes[0], Exit.NO_RENDEZVOUS)
    assert "the 2 nodes did not meet" in said.strip().splitlines()[-1]
    spent = time.monotonic() - began
    evidence.figure(
        "node 1 killed for good, NODES_TIMEOUT 20 s: node 0 ends after", f"{spent:.0f} s"
    )
    assert spent < 60
