"""Which run folders and which foreign logs lie under the given paths."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from proofrun.errors import UsageError

# Files that are no training log whatever they hold: not opened when a folder is searched.
_NO_LOG = """
py sh md rst html css js ipynb yaml yml toml cfg ini lock png jpg jpeg gif svg pdf mp4 pt pth ckpt
onnx safetensors npy npz pkl bin so whl zip tar tgz xz bz2 rec idx h5 pdparams pdopt params
mindir air
"""
_EVENTS = {"events.jsonl", "events.jsonl.gz"}
_SUFFIXES = frozenset(f".{suffix}" for suffix in _NO_LOG.split())


@dataclass
class Found:
    """`files` are candidates for foreign logs; `named` those that the user gave by name."""

    folders: list[Path] = field(default_factory=list)
    files: list[Path] = field(default_factory=list)
    named: list[Path] = field(default_factory=list)
    closed: list[OSError] = field(default_factory=list)


def find(paths: Sequence[Path]) -> Found:
    """Look through log folders, run folders and single files. Raises UsageError."""
    found = Found()
    for path in paths:
        try:
            if path.is_dir():
                _walk(path, found)
            elif path.is_file() and path.name in _EVENTS:
                found.folders.append(path.parent)
            elif path.is_file():
                found.named.append(path)
            else:
                what = "neither a file nor a folder" if path.exists() else "no such file or folder"
                raise UsageError(
                    f"{path}: {what}; give a folder with logs, a run folder or "
                    "a log, or make one with `bash run_scripts/quickstart.sh`"
                )
        except OSError as error:
            raise UsageError(f"{path}: cannot be read ({error.strerror})") from None
    found.folders = list({path.resolve(): path for path in found.folders}.values())
    named = {path.resolve(): path for path in found.named}
    found.named = list(named.values())
    files = {path.resolve(): path for path in found.files}
    found.files = [path for real, path in files.items() if real not in named]
    return found


def _walk(path: Path, found: Found) -> None:
    for folder, below, files in os.walk(path, onerror=found.closed.append):
        here = Path(folder)
        numbered = re.fullmatch(r"\d{3,}", here.resolve().name)
        if _EVENTS & set(files) or (numbered and {"recipe.yaml", "status.json"} & set(files)):
            below.clear()  # checkpoints lie in there
            found.folders.append(here)
            continue
        if "report.html" in files and "accuracy.csv" in files:
            below[:] = [name for name in below if name != "report"]
            continue  # a report of ours
        below[:] = sorted(name for name in below if not name.startswith("."))
        for name in sorted(files):
            file = here / name
            if not name.startswith(".") and file.suffix.lower() not in _SUFFIXES and file.is_file():
                found.files.append(file)
