"""tools/k8s.py: what it writes, held to Kubeflow's published models and to Kubernetes' schemas."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import kubernetes_validate
import pytest
import yaml
from kubeflow_trainer_api.models import TrainerV1alpha1TrainJob

from proofrun.errors import Exit
from proofrun.recipe_yaml import load_recipe

ROOT = Path(__file__).resolve().parent.parent
RUN = "Inceptionv2_AMP_100E_8MLUs_Train"
DIGITS = "GoogLeNet-Digits_FP32_10E_2CPUs_Train"
PLACE = ["--image", "registry.example/proofrun:1", "--logs-claim", "logs"]


def k8s(*words: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, str(ROOT / "tools/k8s.py"), *words]
    return subprocess.run(line, capture_output=True, text=True, timeout=60)


def written(*words: str) -> dict:
    done = k8s(*words)
    assert done.returncode == 0, done.stderr
    return yaml.safe_load(done.stdout)


def check(job: dict) -> None:
    """Against the models, which drop what they do not know; the pod against Kubernetes 1.37."""
    model = TrainerV1alpha1TrainJob.from_dict(job)
    assert model is not None
    assert model.to_dict() == job
    (patch,) = job["spec"]["runtimePatches"]
    (node,) = patch["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]
    trainer = job["spec"]["trainer"]
    spec = node["template"]["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    # as the operator lays it over its runtime
    container = container | {name: trainer[name] for name in ("image", "command", "args", "env")}
    container["resources"] = trainer["resourcesPerNode"]
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": job["metadata"],
        "spec": spec | {"containers": [container], "restartPolicy": "OnFailure"},
    }
    kubernetes_validate.validate(pod, "1.37", strict=True)
    names = {volume["name"] for volume in spec["volumes"]}
    assert {mount["name"] for mount in container["volumeMounts"]} == names


def test_every_declared_run_of_both_recipes():
    """In one process, through the same functions as the command."""
    sys.path.insert(0, str(ROOT / "tools"))
    import k8s as tool

    from proofrun.runs import RunName

    count = 0
    for path in sorted((ROOT / "recipes").glob("*/recipe.yaml")):
        for recipe in load_recipe(path).values():
            for run in recipe.runs:
                name = RunName.parse(run)
                data = [] if name.data == "Digits" else ["--data-claim", "images"]
                args = tool.parse_args([run, *PLACE, *data, "--nodes", "2"])
                job = tool.train_job(name, args)
                check(job)
                assert job["spec"]["trainer"]["numNodes"] == 2
                assert job["spec"]["trainer"]["numProcPerNode"] == name.cards
                count += 1
    assert count == len(list((ROOT / "run_scripts").glob("*_*_*.sh")))


def test_a_run_with_everything():
    job = written(
        RUN, *PLACE, "--data-claim", "imagenet", "--nodes", "4", "--name", "bn", "--namespace",
        "team", "--runtime", "torch-mlu", "--cpus", "64", "--memory", "256Gi", "--shm", "64Gi",
        "--", "--throughput", "20",
    )  # fmt: skip
    check(job)
    assert job["metadata"] | {"name": "bn", "namespace": "team"} == job["metadata"]
    trainer = job["spec"]["trainer"]
    assert trainer["args"] == [RUN, "--throughput", "20"]
    assert trainer["resourcesPerNode"]["limits"] == {"cambricon.com/mlu": "8"}
    assert trainer["resourcesPerNode"]["requests"]["memory"] == "256Gi"
    assert {"name": "IMAGENET_TRAIN_DATASET", "value": "/data/imagenet"} in trainer["env"]
    assert job["spec"]["runtimeRef"] == {"name": "torch-mlu"}


def test_each_data_set_has_its_own_place():
    job = written("GoogLeNet-Cifar10_AMP_125E_8NPUs_Train", *PLACE, "--data-claim", "images")
    check(job)
    env = job["spec"]["trainer"]["env"]
    assert {"name": "CIFAR10_DATASET", "value": "/data/cifar10"} in env
    assert "IMAGENET_TRAIN_DATASET" not in str(job)
    assert "'mountPath': '/data/cifar10', 'readOnly': True" in str(job)


def test_a_rehearsal_needs_no_data_and_no_card():
    job = written(DIGITS, *PLACE)
    check(job)
    assert "limits" not in job["spec"]["trainer"]["resourcesPerNode"]
    assert job["metadata"]["name"] == "googlenet-digits-fp32-10e-2cpus-train"
    assert "imagenet" not in str(job)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ([RUN, *PLACE], Exit.USAGE, "give its volume with --data-claim"),
        (["Inception_AMP_100E_8MLUs_Train", *PLACE], Exit.NO_SUCH_RUN, "the nearest are"),
        ([DIGITS, "--logs-claim", "logs"], Exit.USAGE, "--image"),
        ([DIGITS, *PLACE, "--nodes", "0"], Exit.USAGE, "no whole number from 1 up"),
        ([DIGITS, *PLACE, "--name", "No_Name"], Exit.USAGE, "--name No_Name: at most 52"),
        ([DIGITS, *PLACE, "--memory", "much"], Exit.USAGE, "--memory much: write it as"),
        ([DIGITS, *PLACE, "--", "--set", "batch.size=1"], Exit.BAD_OVERRIDE, "batch"),
        ([DIGITS, *PLACE, "--", "--no-such-flag"], Exit.USAGE, "--no-such-flag"),
        ([DIGITS, *PLACE, "--", "--logs", "/x"], Exit.USAGE, "give the claims instead"),
        ([DIGITS, *PLACE, "--image", ""], Exit.USAGE, "--image '' is no name of an image"),
        ([DIGITS, *PLACE, "--logs-claim", "A B"], Exit.USAGE, "--logs-claim 'A B': Kubernetes"),
        ([DIGITS, *PLACE, "--namespace", "Foo!"], Exit.USAGE, "--namespace 'Foo!': Kubernetes"),
        ([DIGITS, *PLACE, "--resource", "nvidia gpu"], Exit.USAGE, "write it as nvidia.com/gpu"),
        ([DIGITS, *PLACE, "--cpus", "0.0"], Exit.USAGE, "--cpus 0.0: write it as"),
    ],
)
def test_what_cannot_run_is_refused_here(words, code, said):
    done = k8s(*words)
    assert done.returncode == code, done.stdout + done.stderr
    assert said in done.stderr and "Traceback" not in done.stderr and not done.stdout
