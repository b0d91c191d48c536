"""Python, the packages against their pins, torch, DALI."""

from __future__ import annotations

import importlib
import importlib.metadata
import platform
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from proofrun import device
from proofrun.bootstrap import ROOT
from proofrun.errors import ProofrunError, one_line
from proofrun.runs import RunName

from .page import Line

_GROUP = "Software"
_INSTALL = "run `bash tools/setup.sh`"
_LEAST_PYTHON = (3, 11)
_DALI = ("nvidia-dali-cuda130", "nvidia-dali-cuda120")


def check(run: RunName) -> Iterator[Line]:
    """Lines on what is installed."""
    python = f"{platform.python_version()} in {sys.prefix}"
    state: bool = sys.version_info >= _LEAST_PYTHON
    yield Line(_GROUP, "python", "good" if state else "bad", python, "install Python 3.11 or newer")
    pins = _pins(ROOT / "requirements" / "constraints.txt")
    for name in ["torch", *_names(ROOT / "requirements" / "run.txt")]:
        yield _package(name, pins.get(name.lower(), ""))
    yield _torch(run)
    yield _dali(pins)


def _package(name: str, pin: str) -> Line:
    try:
        version = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return Line(_GROUP, name, "bad", "not installed", _INSTALL)
    if version.partition("+")[0] == pin:
        return Line(_GROUP, name, "good", version)
    return Line(_GROUP, name, "odd", f"{version}, tested with {pin}", f"if a run fails, {_INSTALL}")


def _torch(run: RunName) -> Line:
    """Whether this torch can open the cards of the run."""
    try:
        build = device.torch_build()
        if run.device == "CPU":
            return Line(_GROUP, "import torch", "good", build)
        seen = device.cards_in_torch(run.device)
    except (Exception, SystemExit) as error:  # a broken torch raises anything
        advice = "" if isinstance(error, ProofrunError) else _INSTALL
        return Line(_GROUP, "import torch", "bad", one_line(error), advice)
    found = f"{build}; sees {seen} {run.device}"
    return Line(
        _GROUP,
        "import torch",
        "good" if seen >= run.cards else "bad",
        found,
        f"install the driver, and a torch that is built for {run.device}",
    )


def _dali(pins: dict[str, str]) -> Line:
    try:
        importlib.import_module("proofrun.data.dali")
    except Exception as error:
        return Line(
            _GROUP,
            "import DALI",
            "bad",
            one_line(error),
            f"{_INSTALL}; or train with --loader torchvision, which marks the row overridden",
        )
    found = []
    for name in _DALI:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    tested = any(pins[name] in line for name in _DALI for line in found)
    return Line(_GROUP, "import DALI", "good" if tested else "odd", ", ".join(found))


def _names(path: Path) -> list[str]:
    lines = path.read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def _pins(path: Path) -> dict[str, str]:
    found = re.findall(r"^([\w.-]+)==(\S+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {name.lower().replace("_", "-"): version for name, version in found}
