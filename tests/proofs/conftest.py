"""Fixtures of the long proofs. One that cannot run fails: a skip counts as a failure."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from .engine import base, docker, image  # noqa: F401
from .helpers import ROOT, Evidence, shell

_open: dict[str, Evidence] = {}


@pytest.fixture(scope="module")
def evidence(request) -> Iterator[Evidence]:
    yield _of(request.node.nodeid)


def _of(nodeid: str) -> Evidence:
    name = Path(nodeid.partition("::")[0]).stem.removeprefix("test_")
    if name not in _open:
        _open[name] = Evidence(name)
    return _open[name]


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    report = (yield).get_result()
    if report.skipped:
        report.outcome = "failed"
        report.longrepr = f"not run, which a proof counts as failed: {report.longrepr}"
    if report.when == "setup":
        item.setup_s = call.duration
    if report.when == "call" or report.failed:
        name = item.name if report.when == "call" else f"{item.name} ({report.when})"
        spent = call.duration + (item.setup_s if report.when == "call" else 0.0)
        _of(item.nodeid).outcomes.append((name, report.outcome, spent))


def pytest_sessionfinish():
    for found in _open.values():
        found.write()


@pytest.fixture(scope="session")
def work(request) -> Iterator[Path]:
    """Room for engines and logs; any user may pass through, none of it is this user's home.

    Not among pytest's folders: it closes those to other users whenever a session begins.
    """
    folder = Path(tempfile.mkdtemp(prefix="proofs-"))
    folder.chmod(0o755)
    yield folder
    if not request.session.testsfailed:
        shutil.rmtree(folder)


@pytest.fixture(scope="session")
def host(work) -> dict[str, str]:
    """Environment of a run on this host: one thread a rank, so that sums have one order."""
    digits = work / "digits"
    shell([sys.executable, ROOT / "tools/dataset.py", "prepare", "digits", "--dst", digits])
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(work),
        "PYTHON": sys.executable,
        "DIGITS_DATASET": str(digits),
        "OMP_NUM_THREADS": "1",
        "PROOFRUN_LOADER_THREADS": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
