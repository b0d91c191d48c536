#!/usr/bin/env python3
"""Writes a Kubeflow Trainer v2 TrainJob: `python tools/k8s.py RUN_NAME | kubectl apply -f -`.

The job takes a torch runtime of the cluster and an image of docker/Dockerfile, one pod a node.
Its volumes are PersistentVolumeClaims that exist: one for logs, and one with the data, which only
the digits do not need.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from proofrun import bootstrap  # noqa: E402

bootstrap.ensure("pydantic", "yaml", "numpy", "psutil")

import yaml  # noqa: E402

from proofrun.device import BACKENDS  # noqa: E402
from proofrun.errors import Exit, Parser, UsageError, main_exit  # noqa: E402
from proofrun.launch import parse, whole  # noqa: E402
from proofrun.preflight import DATA_VARIABLE  # noqa: E402
from proofrun.runs import RunName, apply_overrides, find_recipe  # noqa: E402

SOURCE = "/workspace/proofrun"  # of docker/Dockerfile
USER = 1000  # likewise
STOP_S = 120  # a run saves before it stops


def main() -> Exit:
    """Print the TrainJob."""
    args = parse_args(sys.argv[1:])
    name, _, recipe = find_recipe(args.run, ROOT / "recipes")
    flags = parse([args.run, *args.flags])  # refused here rather than there
    apply_overrides(recipe, flags.set)
    if flags.logs or flags.data:
        raise UsageError(
            "--logs and --data after -- name folders of the pod: give the claims instead"
        )
    if name.data != "Digits" and not args.data_claim:
        raise UsageError(f"{name} reads {name.data}: give its volume with --data-claim NAME")
    yaml.safe_dump(train_job(name, args), sys.stdout, sort_keys=False, allow_unicode=True)
    return Exit.OK


def parse_args(words: list[str]) -> argparse.Namespace:
    """The command line; flags of the run follow `--`."""
    at = words.index("--") if "--" in words else len(words)
    parser = Parser(prog="k8s.py", description=__doc__.splitlines()[0])
    parser.add_argument("run", metavar="RUN_NAME", help="flags of the run follow after --")
    parser.add_argument("--image", required=True, help="as the cluster pulls it")
    parser.add_argument("--logs-claim", required=True, metavar="PVC", help="mounted at /logs")
    parser.add_argument("--data-claim", metavar="PVC", help="the data set, mounted read-only")
    parser.add_argument("--nodes", type=whole(1), default=1, help="pods (default 1)")
    parser.add_argument("--name", help="of the job (default: the run's, in lower case)")
    parser.add_argument("--namespace")
    parser.add_argument(
        "--runtime",
        default="torch-distributed",
        help="ClusterTrainingRuntime (default: %(default)s)",
    )
    parser.add_argument("--cpus", default="8", help="requested a node (default 8)")
    parser.add_argument("--memory", default="32Gi", help="requested a node (default 32Gi)")
    parser.add_argument("--shm", default="8Gi", help="shared memory of a node (default 8Gi)")
    parser.add_argument("--resource", help="of one card (default: its vendor's device plugin's)")
    args = parser.parse_args(words[:at])
    args.flags = words[at + 1 :]
    args.name = args.name or re.sub(r"[^a-z0-9]+", "-", Path(args.run).stem.lower())
    if not re.fullmatch(r"[a-z]([-a-z0-9]{0,50}[a-z0-9])?", args.name):  # pods add `-node-0-0`
        raise UsageError(
            f"--name {args.name}: at most 52 of a-z, 0-9 and -, beginning with a letter"
        )
    for option in ("cpus", "memory", "shm"):
        text = getattr(args, option)
        if not re.fullmatch(r"(\d+(\.\d+)?)(m|k|[MGTPE]|[KMGTPE]i)?", text) or not float(
            re.match(r"[\d.]+", text)[0]  # type: ignore[index]
        ):
            raise UsageError(f"--{option} {text}: write it as Kubernetes does, such as 8 or 32Gi")
    if not re.fullmatch(r"[^\s-]\S*", args.image):
        raise UsageError(f"--image {args.image!r} is no name of an image")
    for option in ("logs_claim", "data_claim", "namespace", "runtime"):
        text = getattr(args, option)
        if text is not None and not re.fullmatch(r"[a-z0-9]([-.a-z0-9]{0,251}[a-z0-9])?", text):
            flag = f"--{option.replace('_', '-')}"
            raise UsageError(f"{flag} {text!r}: Kubernetes takes a-z, 0-9, - and . in names")
    if args.resource and not re.fullmatch(r"[a-z0-9.-]+/[A-Za-z0-9._-]+", args.resource):
        raise UsageError(f"--resource {args.resource}: write it as nvidia.com/gpu")
    return args


def train_job(name: RunName, args: argparse.Namespace) -> dict[str, Any]:
    """The TrainJob as plain data (API: trainer.kubeflow.org/v1alpha1, Kubeflow Trainer 2.3)."""
    metadata = {"name": args.name, "labels": {"app.kubernetes.io/part-of": "proofrun"}}
    if args.namespace:
        metadata["namespace"] = args.namespace
    resources: dict[str, Any] = {"requests": {"cpu": args.cpus, "memory": args.memory}}
    card = args.resource or BACKENDS[name.device].kubernetes_resource
    if card:
        resources["limits"] = {card: str(name.cards)}
        resources["requests"][card] = str(name.cards)
    env = {"PROOFRUN_LOGS": "/logs"}
    if args.data_claim:
        env[DATA_VARIABLE[name.data]] = data_path(name)
    patch = {
        "name": "node",
        "template": {"spec": {"template": {"spec": pod(name, args)}}},
    }
    return {
        "apiVersion": "trainer.kubeflow.org/v1alpha1",
        "kind": "TrainJob",
        "metadata": metadata,
        "spec": {
            "runtimeRef": {"name": args.runtime},
            "trainer": {
                "image": args.image,
                "command": [f"{SOURCE}/docker/entrypoint.sh"],
                "args": [str(name), *args.flags],
                "env": [{"name": key, "value": value} for key, value in env.items()],
                "numNodes": args.nodes,
                "numProcPerNode": name.cards,
                "resourcesPerNode": resources,
            },
            "runtimePatches": [
                {
                    "manager": "proofrun/k8s",
                    "trainingRuntimeSpec": {"template": {"spec": {"replicatedJobs": [patch]}}},
                }
            ],
        },
    }


def data_path(name: RunName) -> str:
    """Where the data set lies in the pod."""
    return f"/data/{name.data.lower()}"


def pod(name: RunName, args: argparse.Namespace) -> dict[str, Any]:
    """What the runtime's pod gets besides: volumes, and no more rights than it needs."""
    volumes: list[dict[str, Any]] = [
        {"name": "logs", "persistentVolumeClaim": {"claimName": args.logs_claim}},
        {"name": "tmp", "emptyDir": {}},
        {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": args.shm}},
    ]
    mounts: list[dict[str, Any]] = [
        {"name": "logs", "mountPath": "/logs"},
        {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108
        {"name": "shm", "mountPath": "/dev/shm"},  # noqa: S108
    ]
    if args.data_claim:
        claim = {"claimName": args.data_claim, "readOnly": True}
        volumes.append({"name": "data", "persistentVolumeClaim": claim})
        mounts.append({"name": "data", "mountPath": data_path(name), "readOnly": True})
    return {
        "terminationGracePeriodSeconds": STOP_S,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
        },
        "volumes": volumes,
        "containers": [
            {
                "name": "node",
                "volumeMounts": mounts,
                "securityContext": {
                    "allowPrivilegeEscalation": False,
                    "readOnlyRootFilesystem": True,
                    "capabilities": {"drop": ["ALL"]},
                },
            }
        ],
    }


if __name__ == "__main__":
    main_exit(main, "k8s.py")
