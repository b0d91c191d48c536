"""Atomic checkpoints: save, find, verify, load. Only rank 0 reads and writes.

One folder a checkpoint, `checkpoints/step-<10 digits>/`:

- `model.safetensors`: parameters and BatchNorm buffers averaged over ranks, ready to evaluate;
- `train.pt`: optimizer, scaler, and of every rank its BN buffers, RNG and loader position
  (tensors and plain values: loads with `weights_only=True`);
- `meta.json`: step, epoch, clocks, hashes; readable without torch.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from proofrun.errors import CheckpointError, WriteError, disk_is_full

SCHEMA = 1
KEEP = 2  # newest checkpoints kept besides best, marks and the end


def save(
    folder: Path,
    step: int,
    model: dict[str, Tensor],
    train: dict[str, Any],
    meta: dict[str, Any],
) -> tuple[Path, int]:
    """Write `folder/step-…` so that it is either whole or not there; (path, bytes).

    Temporary in the same folder, write, fsync, re-open and verify, rename, fsync the folder, move
    `latest`. Raises WriteError.
    """
    final = folder / f"step-{step:010d}"
    temporary = folder / f".tmp-{final.name}-{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _need_space(folder, sum(t.numel() * t.element_size() for t in model.values()) * 2)
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.items()}
        save_file(tensors, temporary / "model.safetensors")
        torch.save(train, temporary / "train.pt")
        # safetensors makes its file for the owner alone; who may read the log may read the weights
        shutil.copymode(temporary / "train.pt", temporary / "model.safetensors")
        files: dict[str, dict[str, int | str]] = {}
        for name in ("model.safetensors", "train.pt"):
            _fsync(temporary / name)
            files[name] = {
                "bytes": (temporary / name).stat().st_size,
                "sha256": file_hash(temporary / name),
            }
        text = json.dumps({"schema": SCHEMA, "step": step, **meta, "files": files}, indent=1)
        (temporary / "meta.json").write_text(text, encoding="utf-8")
        _fsync(temporary / "meta.json")
        verify(temporary)
        replaced = folder / f".old-{final.name}"
        if final.exists():  # the same step again, after a resume from before it
            shutil.rmtree(replaced, ignore_errors=True)
            final.rename(replaced)
        temporary.rename(final)
        _fsync(folder)
        point(folder, "latest", final.name)
        shutil.rmtree(replaced, ignore_errors=True)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        reason = "the disk is full" if disk_is_full(error) else str(error.strerror or error)
        raise WriteError(
            f"{folder}: cannot save a checkpoint: {reason}; what was saved before is "
            "untouched, mend this and run the same again"
        ) from None
    return final, sum((final / name).stat().st_size for name in files)


def point(folder: Path, name: str, target: str) -> None:
    """Move the link `folder/name` to `target` in one step."""
    temporary = folder / f".tmp-{name}-{os.getpid()}"
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(target)
    temporary.rename(folder / name)


def prune(folder: Path) -> None:
    """Delete older checkpoints: all but the newest `KEEP`, `best`, and those that say `keep`."""
    best = (folder / "best").resolve()
    for path in sorted(folder.glob("step-*"))[:-KEEP]:
        try:
            keep = read_meta(path).get("keep", False)
        except CheckpointError:
            keep = True  # damaged: evidence, not ours to delete
        if path.resolve() != best and not keep:
            shutil.rmtree(path, ignore_errors=True)
    for path in folder.glob(".tmp-step-*"):
        shutil.rmtree(path, ignore_errors=True)


def newest(folder: Path, warn: list[str]) -> Path | None:
    """The newest checkpoint that verifies, or None. Damaged ones are named in `warn`."""
    for path in sorted(folder.glob("step-*"), reverse=True):
        try:
            verify(path)
            return path
        except CheckpointError as error:
            warn.append(str(error))
    return None


def read_meta(path: Path) -> dict[str, Any]:
    """`meta.json` of a checkpoint. Raises CheckpointError."""
    try:
        meta = json.loads((path / "meta.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: damaged checkpoint: meta.json: {error}") from None
    if not isinstance(meta, dict) or meta.get("schema") != SCHEMA or "files" not in meta:
        raise CheckpointError(f"{path}: meta.json is not a proofrun checkpoint's")
    return meta


def verify(path: Path) -> dict[str, Any]:
    """Read every byte against its hash; the metadata. Raises CheckpointError."""
    meta = read_meta(path)
    for name, entry in meta["files"].items():
        file = path / name
        if not file.is_file() or file.stat().st_size != entry["bytes"]:
            raise CheckpointError(f"{path}: damaged checkpoint: {name} is cut short or missing")
        if file_hash(file) != entry["sha256"]:
            raise CheckpointError(f"{path}: damaged checkpoint: {name} differs from its hash")
    return meta


def load(path: Path) -> tuple[dict[str, Tensor], dict[str, Any], dict[str, Any]]:
    """(model, train state, metadata), all on the CPU. Raises CheckpointError."""
    meta = verify(path)
    try:
        model = load_file(path / "model.safetensors")
        train = torch.load(path / "train.pt", map_location="cpu", weights_only=True)
    except Exception as error:
        raise CheckpointError(f"{path}: cannot be loaded: {error}") from None
    return model, train, meta


def state_hash(state: dict[str, Tensor]) -> str:
    """sha256 over names, shapes, types and bytes of a state dict, in name order."""
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def file_hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _need_space(folder: Path, need: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < need * 1.05 + (1 << 20):
        raise OSError(errno.ENOSPC, f"{need >> 20} MiB needed, {free >> 20} MiB free")


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
