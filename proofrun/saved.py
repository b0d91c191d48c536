"""What lies in a folder of checkpoints: names, metadata, hashes. Torch-free."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
from pathlib import Path
from typing import Any

from proofrun.errors import CheckpointError, one_line

SCHEMA = 2
FILES = ("model.safetensors", "train.pt")
NAME = re.compile(r"step-([0-9]{10})(?:\.([0-9]{1,9}))?")


def all_in(folder: Path) -> list[Path]:
    """Checkpoint folders by step, then by age; whatever else lies in the folder is not ours."""
    found = []
    for path in folder.glob("step-*"):
        if (name := NAME.fullmatch(path.name)) and path.is_dir():
            found.append((int(name[1]), int(name[2] or 0), path))
    return [path for _, _, path in sorted(found)]


def read_meta(path: Path) -> dict[str, Any]:
    """`meta.json` of a checkpoint, held against its own hash. Raises CheckpointError."""
    try:
        meta = json.loads((path / "meta.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: damaged checkpoint: meta.json: {one_line(error)}") from None
    if not isinstance(meta, dict) or "schema" not in meta:
        raise CheckpointError(f"{path}: meta.json is not a proofrun checkpoint's")
    if (schema := meta["schema"]) != SCHEMA:
        raise CheckpointError(
            f"{path}: a checkpoint of schema {schema!r}, this proofrun reads {SCHEMA}"
        )
    if meta.pop("meta_sha256", None) != meta_hash(meta):
        raise CheckpointError(f"{path}: damaged checkpoint: meta.json differs from its hash")
    files = meta.get("files")
    if not isinstance(files, dict) or not all(isinstance(files.get(n), dict) for n in FILES):
        raise CheckpointError(f"{path}: meta.json is not a proofrun checkpoint's")
    named = NAME.search(path.name)
    if named and int(named[1]) != meta.get("step"):
        raise CheckpointError(f"{path}: a checkpoint of another step under this name")
    return meta


def verify(path: Path) -> dict[str, Any]:
    """Read every byte against its hash; the metadata. Raises CheckpointError."""
    meta = read_meta(path)
    for name in FILES:
        entry, file = meta["files"][name], path / name
        try:
            if not file.is_file() or file.stat().st_size != entry.get("bytes"):
                raise CheckpointError(f"{path}: damaged checkpoint: {name} is cut short or missing")
            same = file_hash(file) == entry.get("sha256")
        except OSError as error:
            raise CheckpointError(f"{path}: {name}: {reason(error)}") from None
        if not same:
            raise CheckpointError(f"{path}: damaged checkpoint: {name} differs from its hash")
    return meta


def meta_hash(meta: dict[str, Any]) -> str:
    """sha256 of `meta` without its own hash."""
    return hashlib.sha256(json.dumps(meta, sort_keys=True).encode()).hexdigest()


def sync(path: Path) -> None:
    """Put a file, or the names in a folder, onto the disk. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def file_hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def reason(error: OSError | CheckpointError) -> str:
    """Why something could not be read or written, for a line to the user."""
    if isinstance(error, CheckpointError):
        return f"what was written reads back as something else ({one_line(error)})"
    said = str(error.strerror or error)
    return "the disk is full" if said == os.strerror(errno.ENOSPC) else said
