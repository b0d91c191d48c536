"""A Docker engine of the proofs' own, and a base image made without any registry."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from .helpers import ROOT, shell, wait_for

BASE = "proofrun-test-base"
IMAGE = "proofrun:cpu"
#: What a fresh Debian needs of this machine to install packages: certificates, and wheels.
WHEELS, CERTIFICATES = "/wheels", "/etc/ssl/certs/ca-certificates.crt"


@pytest.fixture(scope="session")
def docker(work) -> Iterator[dict[str, str]]:
    """The environment in which `docker` reaches an engine that lives as long as the proofs."""
    command = shutil.which("dockerd")
    assert command, "not run: there is no dockerd; bash tests/prove.sh installs it"
    # the client that came with this engine, before any other
    own = work / "bin"
    own.mkdir()
    (own / "docker").symlink_to("/usr/bin/docker")
    socket = work / "docker.sock"
    with (work / "dockerd.log").open("wb") as log:
        daemon = subprocess.Popen(
            [
                command, "--host", f"unix://{socket}", "--group", "nogroup",
                "--data-root", work / "docker", "--exec-root", work / "docker.run",
                "--pidfile", work / "docker.pid",
            ],
            stdout=log, stderr=log,
        )  # fmt: skip
    environment = {
        **os.environ,
        "PATH": f"{own}:{os.environ['PATH']}",
        "DOCKER_HOST": f"unix://{socket}",
        "DOCKER_BUILDKIT": "1",
        "BUILDKIT_PROGRESS": "plain",
    }
    try:
        wait_for(lambda: _answers(environment), 60, daemon)
        yield environment
    finally:
        daemon.terminate()
        daemon.wait(60)
    shutil.rmtree(work / "docker")  # of 14 GB, none is evidence


def _answers(environment: dict[str, str]) -> bool:
    return subprocess.run(["docker", "info"], env=environment, capture_output=True).returncode == 0


@pytest.fixture(scope="session")
def base(docker, work) -> str:
    """A Debian with Python, where a plain machine would pull python:3.11-slim."""
    root = work / "rootfs"
    packages = "--include=python3,python3-venv,python3-pip,ca-certificates"
    shell(["debootstrap", "--variant=minbase", packages, "bookworm", root])
    changes = ["--change", f"ENV PIP_CERT={CERTIFICATES}"]
    if bundle := os.environ.get("SSL_CERT_FILE"):
        shutil.copy(bundle, root / CERTIFICATES.lstrip("/"))
    (root / WHEELS.lstrip("/")).mkdir()
    if links := os.environ.get("PIP_FIND_LINKS"):
        for wheel in Path(links).glob("*.whl"):
            shutil.copy(wheel, root / WHEELS.lstrip("/"))
        changes += ["--change", f"ENV PIP_FIND_LINKS={WHEELS}"]
    with subprocess.Popen(["tar", "-C", root, "-c", "."], stdout=subprocess.PIPE) as tar:
        shell(["docker", "import", *changes, "-", BASE], env=docker, stdin=tar.stdout)
    shutil.rmtree(root)
    return BASE


def build(
    docker: dict[str, str], tag: str, *flags: str, expect: int = 0, context: Path = ROOT
) -> str:
    """`docker build` of the Dockerfile; what it printed."""
    return shell(
        ["docker", "build", "-f", context / "docker/Dockerfile", "--network=host",
         "--build-arg", "TORCH_INDEX=", "-t", tag, *flags, context],
        env=docker, expect=expect,
    )  # fmt: skip


@pytest.fixture(scope="session")
def image(docker, base) -> str:
    """The cpu image, built from the files of this checkout."""
    build(docker, IMAGE, "--build-arg", f"BASE_IMAGE={base}")
    return IMAGE
