"""Several machines: which one this is, where they meet, and whether all run the same thing.

One launch runs on each node and starts that node's ranks; torchrun's c10d rendezvous brings them
together at the endpoint, which lies on node 0. Only `roll_call` needs torch.
"""

from __future__ import annotations

import json
import os
import re
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import psutil

from proofrun.errors import RendezvousError, UsageError
from proofrun.runs import Plan

PORT = 29400  # torchrun's own default
#: Seconds that a node waits for the others: NODES_TIMEOUT overrules it.
TIMEOUT_S = 300


@dataclass(frozen=True)
class Nodes:
    """`count` machines, of which this is number `rank`; they meet at `endpoint` (host:port)."""

    count: int = 1
    rank: int = 0
    endpoint: str = "127.0.0.1:0"
    timeout_s: int = TIMEOUT_S

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    @property
    def host(self) -> str:
        return self.endpoint.rpartition(":")[0].strip("[]")

    @property
    def port(self) -> int:
        return int(self.endpoint.rpartition(":")[2])


def nodes_of(environment: Mapping[str, str]) -> Nodes:
    """The place of this machine, by NNODES, NODE_RANK and RDZV_ENDPOINT, or as a scheduler says it.

    Raises UsageError when the variables contradict each other.
    """
    given = _slurm(environment) or _kubeflow(environment)
    count = _whole(environment, "NNODES", 1, given.count if given else 1)
    if count == 1:
        return Nodes()
    rank = _whole(environment, "NODE_RANK", 0, given.rank if given else -1)
    if rank < 0:
        raise UsageError(
            f"NNODES={count}, but NODE_RANK is not set: 0 to {count - 1}, one a machine"
        )
    if rank >= count:
        raise UsageError(f"NODE_RANK={rank} with NNODES={count}: 0 to {count - 1}, one a machine")
    endpoint = environment.get("RDZV_ENDPOINT") or (given.endpoint if given else "")
    if not endpoint:
        raise UsageError(
            f"NNODES={count}, but RDZV_ENDPOINT is not set: HOST:PORT of node 0, the same on all"
        )
    found = re.fullmatch(r"(?P<host>\[[0-9a-fA-F:]+\]|[^\s:\[\]]+)(:(?P<port>\d{1,5}))?", endpoint)
    if not found or not 0 < int(found["port"] or PORT) < 65536:
        raise UsageError(f"RDZV_ENDPOINT={endpoint}: write it as HOST:PORT, of node 0")
    timeout = _whole(environment, "NODES_TIMEOUT", 1, TIMEOUT_S)
    return Nodes(count, rank, f"{found['host']}:{found['port'] or PORT}", timeout)


def _slurm(environment: Mapping[str, str]) -> Nodes | None:
    """One task of an srun step is one node; a batch script or an salloc shell is no such task.

    slurm.sbatch exports the endpoint: a container has none of Slurm's commands to ask.
    """
    tasks, rank = environment.get("SLURM_STEP_NUM_TASKS", "1"), environment.get("SLURM_PROCID", "")
    if not tasks.isdigit() or int(tasks) < 2 or not rank.isdigit():
        return None
    return Nodes(int(tasks), int(rank), "")


def _kubeflow(environment: Mapping[str, str]) -> Nodes | None:
    """Kubeflow Trainer's torch runtime tells each pod its place in torchrun's own variables."""
    count, rank = environment.get("PET_NNODES", "1"), environment.get("PET_NODE_RANK", "")
    host = environment.get("PET_MASTER_ADDR", "")
    if not count.isdigit() or int(count) < 2 or not rank.isdigit() or not host:
        return None
    return Nodes(int(count), int(rank), f"{host}:{environment.get('PET_MASTER_PORT', PORT)}")


def _whole(environment: Mapping[str, str], name: str, least: int, default: int) -> int:
    text = environment.get(name) or str(default)
    if environment.get(name) and (not re.fullmatch(r"\d{1,6}", text) or int(text) < least):
        raise UsageError(f"{name}={text} is no whole number from {least} up")
    return int(text)


def check_port(nodes: Nodes) -> None:
    """Raises RendezvousError when the port that other nodes will call is not free on node 0."""
    if nodes.count == 1 or not nodes.is_first:
        return
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", nodes.port))
        except OSError as error:
            raise RendezvousError(
                f"port {nodes.port} of RDZV_ENDPOINT cannot be used here: {error.strerror}; choose "
                "another one, the same on every node"
            ) from None


def own_address(nodes: Nodes) -> str | None:
    """This node's address on the way to the endpoint: what the other nodes can call it by.

    None where the way stays inside this machine though the endpoint is a host name (node 0 itself,
    with its name at 127.0.1.1 in /etc/hosts) or where the name is not known yet.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            nodes.host, nodes.port, type=socket.SOCK_DGRAM
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.connect(address)  # sends nothing: it only picks the way
            own = str(probe.getsockname()[0])
    except OSError:
        return None
    inside = own.startswith("127.") or own == "::1"
    return None if inside and nodes.host != own else own


def interface_of(address: str) -> str | None:
    """The network interface that has this address."""
    for name, addresses in psutil.net_if_addrs().items():
        if any(entry.address.partition("%")[0] == address for entry in addresses):
            return name
    return None


def take_place(environment: dict[str, str] | os._Environ[str]) -> None:
    """Rank by NODE_RANK: torchrun numbers the nodes as they arrive, but node 0 has the folder."""
    node, cards = environment.get("PROOFRUN_NODE_RANK"), environment.get("LOCAL_WORLD_SIZE")
    if node and cards:
        rank = int(node) * int(cards) + int(environment["LOCAL_RANK"])
        environment["RANK"] = str(rank)


def roll_call(plan: Plan) -> Plan:
    """The plan with node 0's seed, once every node has said the same.

    Goes through torchrun's store, before the ranks form a group: two nodes with one NODE_RANK would
    hang there. Raises UsageError on every node alike.
    """
    if plan.world.nodes == 1:
        return plan
    import torch

    wait = timedelta(seconds=int(os.environ.get("PROOFRUN_NODES_TIMEOUT", TIMEOUT_S)))
    # torchrun's own numbers, by arrival: unlike NODE_RANK they are never given twice
    number, count = int(os.environ["GROUP_RANK"]), int(os.environ["GROUP_WORLD_SIZE"])
    store, _, _ = next(torch.distributed.rendezvous("env://", timeout=wait))
    store = torch.distributed.PrefixStore("proofrun", store)
    store.set_timeout(wait)
    if os.environ["LOCAL_RANK"] == "0":
        said: dict[str, Any] = {
            "NODE_RANK": int(os.environ["PROOFRUN_NODE_RANK"]),
            "NNODES": plan.world.nodes,
            "run": plan.run,
            "config": plan.config_hash(),
            "seed": plan.seed,
        }
        store.set(str(number), json.dumps(said))
    every = [json.loads(store.get(str(k))) for k in range(count)]
    refusal = disagreement(every)
    if refusal:
        raise UsageError(refusal)
    first = next(node for node in every if node["NODE_RANK"] == 0)
    return plan.model_copy(update={"seed": first["seed"]})


def disagreement(every: list[dict[str, Any]]) -> str | None:
    """Why these nodes cannot train together, in words for all of them; None when they can."""
    every = sorted(every, key=lambda node: node["NODE_RANK"])
    ranks = [node["NODE_RANK"] for node in every]

    def differ(key: str, show: Callable[[Any], str] = str) -> str:
        return ", ".join(f"{show(node[key])} on node {node['NODE_RANK']}" for node in every)

    if len({node["NNODES"] for node in every}) > 1:
        return f"NNODES is {differ('NNODES')}: give every node the same"
    if ranks != list(range(every[0]["NNODES"])):
        return (
            f"the nodes that met have NODE_RANK {', '.join(map(str, ranks))}: give them 0 to "
            f"{every[0]['NNODES'] - 1}, one a machine"
        )
    if len({node["run"] for node in every}) > 1:
        return f"the run is {differ('run')}: give every node the same"
    if len({node["config"] for node in every}) > 1:
        return (
            f"recipe, overrides or data differ ({differ('config', lambda text: str(text)[:8])}): "
            "give every node the same command, checkout and data"
        )
    return None
