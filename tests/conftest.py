"""Fixtures shared by tests that start real processes on the embedded digits."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def digits(tmp_path_factory) -> Path:
    """The embedded digits, written by the project's own tool."""
    folder = tmp_path_factory.mktemp("data") / "digits"
    subprocess.run(
        [sys.executable, str(ROOT / "tools" / "dataset.py"), "prepare", "digits", "--dst", folder],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    return folder


@pytest.fixture(scope="session")
def environment(digits) -> dict[str, str]:
    """What a run script sees on this machine, with our digits and interpreter."""
    own = {
        "PATH": os.environ["PATH"],
        "HOME": os.environ.get("HOME", "/"),
        "PYTHON": sys.executable,
        "DIGITS_DATASET": str(digits),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    return own


@pytest.fixture
def checkout(tmp_path) -> Path:
    """A copy of what launch and the tools need of the checkout, to damage."""
    copy = tmp_path / "checkout"
    for name in ("proofrun", "recipes", "run_scripts", "tools"):
        shutil.copytree(ROOT / name, copy / name)
    shutil.copy(ROOT / "env.sh", copy)
    return copy


@pytest.fixture
def script(environment, tmp_path) -> Callable[..., subprocess.Popen[str]]:
    """Start a run script with logs in the test's own folder; flags as given."""

    def start(run: str, *flags: str, **extra: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            ["bash", str(ROOT / "run_scripts" / f"{run}.sh"), "--logs", str(tmp_path), *flags],
            env={**environment, **extra},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=tmp_path,
        )

    return start
