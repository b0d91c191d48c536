"""Several machines: where the place of a node comes from, and what ends a run that cannot begin.

Trainings on several nodes are in proofs/.
"""

from __future__ import annotations

import socket
import time

import pytest

from proofrun import cluster
from proofrun.cluster import Nodes, disagreement, nodes_of, take_place
from proofrun.errors import Exit, UsageError
from proofrun.status import Status

RUN = "Inceptionv2-Digits_FP32_6E_1CPU_Train"
TWO = {"NNODES": "2", "NODE_RANK": "1", "RDZV_ENDPOINT": "node0:29500"}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.mark.parametrize(
    ("environment", "nodes"),
    [
        ({}, Nodes()),
        ({"NNODES": "1", "NODE_RANK": "0", "RDZV_ENDPOINT": "node0:1"}, Nodes()),
        (TWO, Nodes(2, 1, "node0:29500")),
        ({**TWO, "NODES_TIMEOUT": "7"}, Nodes(2, 1, "node0:29500", 7)),
        ({**TWO, "RDZV_ENDPOINT": "10.0.0.1"}, Nodes(2, 1, "10.0.0.1:29400")),
        ({**TWO, "RDZV_ENDPOINT": "[fe80::1]:29500"}, Nodes(2, 1, "[fe80::1]:29500")),
        # Kubeflow's torch runtime
        (
            {"PET_NNODES": "4", "PET_NODE_RANK": "3", "PET_MASTER_ADDR": "job-node-0-0.job",
             "PET_MASTER_PORT": "29400"},
            Nodes(4, 3, "job-node-0-0.job:29400"),
        ),
        ({"PET_NNODES": "1", "PET_NODE_RANK": "0", "PET_MASTER_ADDR": "x"}, Nodes()),
        # a batch script on two nodes is no task of a step
        ({"SLURM_JOB_ID": "7", "SLURM_NNODES": "2", "SLURM_PROCID": "0"}, Nodes()),
    ],
)  # fmt: skip
def test_where_the_place_comes_from(environment, nodes):
    assert nodes_of(environment) == nodes


def test_a_task_of_a_slurm_step_is_a_node():
    """The endpoint is slurm.sbatch's; one that srun is called for by hand is asked for it."""
    step = {"SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "1", "SLURM_JOB_ID": "70001"}
    assert nodes_of({**step, "RDZV_ENDPOINT": "gpu03:5"}) == Nodes(2, 1, "gpu03:5")
    assert nodes_of({**step, "NNODES": "1"}) == Nodes()
    with pytest.raises(UsageError, match="RDZV_ENDPOINT is not set"):
        nodes_of(step)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"NNODES": "two"}, "NNODES=two is no whole number from 1 up"),
        ({"NNODES": "0"}, "NNODES=0 is no whole number"),
        ({"NNODES": "-2"}, "NNODES=-2 is no whole number"),
        ({"NODE_RANK": ""}, "NODE_RANK is not set: 0 to 1"),
        ({"NODE_RANK": "-1"}, "NODE_RANK=-1 is no whole number"),
        ({"NODE_RANK": "2"}, "NODE_RANK=2 with NNODES=2: 0 to 1"),
        ({"RDZV_ENDPOINT": ""}, "RDZV_ENDPOINT is not set"),
        ({"RDZV_ENDPOINT": "node0:port"}, "write it as HOST:PORT"),
        ({"RDZV_ENDPOINT": "node0:70000"}, "write it as HOST:PORT"),
        ({"RDZV_ENDPOINT": "http://node0:1"}, "write it as HOST:PORT"),
        ({"NODES_TIMEOUT": "0"}, "NODES_TIMEOUT=0 is no whole number from 1 up"),
    ],
)
def test_contradictions_are_named(change, said):
    with pytest.raises(UsageError, match=said):
        nodes_of({**TWO, **change})


def said(rank: int, **other) -> dict:
    same = {"NNODES": 3, "run": RUN, "config": "c" * 64, "seed": -1}
    return {"NODE_RANK": rank, **same, **other}


@pytest.mark.parametrize(
    ("every", "words"),
    [
        ([said(2), said(0), said(1)], None),
        ([said(0), said(1), said(1)], "NODE_RANK 0, 1, 1: give them 0 to 2"),
        ([said(0), said(1)], "NODE_RANK 0, 1: give them 0 to 2"),
        ([said(1, NNODES=2), said(0), said(2)], "NNODES is 3 on node 0, 2 on node 1, 3 on node 2"),
        ([said(0), said(1, run="X"), said(2)], f"the run is {RUN} on node 0, X on node 1"),
        ([said(0), said(1), said(2, config="d" * 64)], "cccccccc on node 1, dddddddd on node 2"),
        ([said(0, seed=4), said(1), said(2)], None),
    ],
)
def test_nodes_that_disagree(every, words):
    found = disagreement(every)
    assert (found is None) if words is None else (found is not None and words in found)


def test_ranks_follow_node_rank_whatever_the_order_of_arrival():
    environment = {"PROOFRUN_NODE_RANK": "2", "LOCAL_WORLD_SIZE": "8", "LOCAL_RANK": "3"}
    take_place({**environment, "RANK": "5"})
    environment["RANK"] = "5"
    take_place(environment)
    assert environment["RANK"] == "19"


def test_the_way_to_the_others():
    assert cluster.own_address(Nodes(2, 1, "127.0.0.1:29400")) == "127.0.0.1"
    assert cluster.interface_of("127.0.0.1") == "lo"
    assert cluster.own_address(Nodes(2, 1, "localhost:29400")) is None  # a name says nothing
    assert cluster.own_address(Nodes(2, 1, "no-such-host.invalid:29400")) is None


def test_a_node_that_never_arrives_is_named_after_the_stated_time(script, tmp_path):
    place = {**TWO, "NODE_RANK": "0", "RDZV_ENDPOINT": f"127.0.0.1:{free_port()}"}
    began = time.monotonic()
    process = script(RUN, "--loader", "synthetic", NODES_TIMEOUT="3", **place)
    out, err = process.communicate(timeout=60)
    assert process.returncode == Exit.NO_RENDEZVOUS, out + err
    assert "waiting 3 s at most" in out
    assert "the 2 nodes did not meet" in err and "within 3 s" in err and "Traceback" not in err
    assert time.monotonic() - began < 30
    status = Status.read(tmp_path / RUN / "001" / "status.json")
    assert status is not None and status.code == Exit.NO_RENDEZVOUS
    assert status.status == "interrupted"  # it goes on when the other node is there


def test_a_taken_port_is_named(script):
    with socket.socket() as taken:
        taken.bind(("0.0.0.0", 0))
        taken.listen()
        place = {**TWO, "NODE_RANK": "0", "RDZV_ENDPOINT": f"127.0.0.1:{taken.getsockname()[1]}"}
        process = script(RUN, "--loader", "synthetic", **place)
        out, err = process.communicate(timeout=60)
    assert process.returncode == Exit.NO_RENDEZVOUS, out + err
    assert "cannot be used here: Address already in use" in err


def test_a_first_node_that_never_comes_is_named_too(script, tmp_path):
    place = {**TWO, "RDZV_ENDPOINT": f"127.0.0.1:{free_port()}"}
    process = script(RUN, "--loader", "synthetic", NODES_TIMEOUT="3", **place)
    out, err = process.communicate(timeout=60)
    assert process.returncode == Exit.NO_RENDEZVOUS, out + err
    assert "node 1: the 2 nodes did not meet" in err
    assert (tmp_path / RUN / "node1" / "stdout.log").exists()
