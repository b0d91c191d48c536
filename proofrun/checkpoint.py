"""Atomic checkpoints: save, find, verify, load. Only rank 0 reads and writes.

One folder a checkpoint, `checkpoints/step-<10 digits>/`; the same step saved again stands beside
the first as `step-<10 digits>.1`. In it:

- `model.safetensors`: parameters and BatchNorm buffers averaged over ranks, ready to evaluate;
- `train.pt`: optimizer, scaler, and of every rank its BN buffers, RNG and loader position
  (tensors and plain values: loads with `weights_only=True`);
- `meta.json`: step, epoch, clocks, hashes of the files and of itself; readable without torch.

The links `latest` and `best` are for people: `newest` trusts names and hashes alone.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import io
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import save as to_safetensors
from torch import Tensor

from proofrun.errors import CheckpointError, LockedError, WriteError
from proofrun.faultpoints import fault_point
from proofrun.saved import SCHEMA, all_in, meta_hash, read_meta, reason, sync, verify
from proofrun.weights import read_plain, read_weights

KEEP = 2  # newest checkpoints kept besides best, marks and the end
_TEMPORARY = ".tmp-"
Content = bytes | memoryview


class Checkpoint(NamedTuple):
    """One that was verified and loaded; tensors are on the CPU."""

    path: Path
    model: dict[str, Tensor]
    train: dict[str, Any]
    meta: dict[str, Any]


def save(
    folder: Path,
    step: int,
    model: Mapping[str, Tensor],
    train: dict[str, Any],
    meta: dict[str, Any],
    best: bool = False,
) -> tuple[Path, int]:
    """Write a new `folder/step-…` so that it is either whole or not there; (path, bytes).

    Look for space, write into a temporary in the same folder, flush, fsync, re-open and verify,
    rename, fsync the folder, move `latest` (and `best`), prune. A kill at any moment leaves every
    checkpoint that was there. Raises WriteError, LockedError.
    """
    contents = _pack(step, model, train, {**meta, "best": best})
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _only_writer(folder):
            final = _put(folder, step, contents, best)
    except (OSError, CheckpointError) as error:
        raise WriteError(
            f"{folder}: cannot save a checkpoint: {reason(error)}; what was saved before is "
            "untouched, mend this and run the same again"
        ) from None
    return final, _size(contents)


def mend(folder: Path) -> None:
    """Finish what a process killed in `save` left: temporaries go, `best` is what it should be.

    Raises WriteError, LockedError.
    """
    if not folder.is_dir():
        return
    try:
        with _only_writer(folder):
            _tidy(folder)
    except OSError as error:
        raise WriteError(f"{folder}: {reason(error)}; mend this and run the same again") from None


def newest(folder: Path, warn: list[str]) -> Checkpoint | None:
    """The newest checkpoint that verifies and loads, or None. Others are named in `warn`."""
    for path in reversed(all_in(folder)):
        try:
            return load(path)
        except CheckpointError as error:
            warn.append(str(error))
    return None


def load(path: Path) -> Checkpoint:
    """All of a checkpoint. No code that a foreign file may hold is run. Raises CheckpointError."""
    meta = verify(path)
    model = read_weights(path / "model.safetensors")
    train = read_plain(path / "train.pt")
    return Checkpoint(path, model, train, meta)


def state_hash(state: Mapping[str, Tensor]) -> str:
    """sha256 over names, shapes, types and bytes of a state dict, in name order."""
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _pack(
    step: int, model: Mapping[str, Tensor], train: dict[str, Any], meta: dict[str, Any]
) -> dict[str, Content]:
    """The bytes of each file: their size and hash are known before anything is written."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.items()}
    buffer = io.BytesIO()
    torch.save(train, buffer)
    contents: dict[str, Content] = {
        "model.safetensors": to_safetensors(tensors),
        "train.pt": buffer.getbuffer(),
    }
    files = {
        name: {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        for name, content in contents.items()
    }
    whole = json.loads(json.dumps({"schema": SCHEMA, "step": step, **meta, "files": files}))
    text = json.dumps({**whole, "meta_sha256": meta_hash(whole)}, indent=1)
    return {**contents, "meta.json": text.encode()}


def _size(contents: Mapping[str, Content]) -> int:
    return sum(len(content) for content in contents.values())


def _put(folder: Path, step: int, contents: dict[str, Content], best: bool) -> Path:
    temporary = folder / f"{_TEMPORARY}step-{step:010d}"
    fault_point("save_begun", step=step)
    _tidy(folder)
    _need_space(folder, _size(contents))
    try:
        temporary.mkdir()
        for number, (name, content) in enumerate(contents.items()):
            _write(temporary / name, content, step, number)
        fault_point("save_written", step=step)
        sync(temporary)
        fault_point("save_synced", step=step)
        verify(temporary)
        fault_point("save_verified", step=step)
        final = _free_name(folder, step)
        temporary.rename(final)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    fault_point("save_renamed", step=step)
    sync(folder)
    fault_point("save_settled", step=step)
    _point(folder, "latest", final.name)
    fault_point("save_latest", step=step)
    if best:
        _point(folder, "best", final.name)
    sync(folder)
    fault_point("save_linked", step=step)
    _prune(folder, step)
    fault_point("save_pruned", step=step)
    return final


@contextmanager
def _only_writer(folder: Path) -> Iterator[None]:
    """Whoever is in here is alone: a temporary in the folder is then a dead process's.

    A lock tells the living from the dead where process ids cannot: in containers, on other hosts.
    """
    with (folder / ".lock").open("w", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LockedError(
                f"{folder}: another process is saving in here; stop it, then run the same again"
            ) from None
        try:
            yield
        finally:
            fcntl.flock(file, fcntl.LOCK_UN)  # a forked loader may hold the file open


def _tidy(folder: Path) -> None:
    for path in folder.glob(f"{_TEMPORARY}*"):
        if path.is_dir() and not path.is_symlink():
            try:
                shutil.rmtree(path)
            except OSError as error:  # NFS keeps what somebody still reads
                if error.errno not in (errno.ENOTEMPTY, errno.EBUSY):
                    raise
        else:
            path.unlink()
    for path in all_in(folder)[-1:]:
        try:
            best = read_meta(path).get("best", False)
        except CheckpointError:  # `newest` names it
            continue
        if best and (folder / "best").resolve() != path.resolve():
            _point(folder, "best", path.name)


def _free_name(folder: Path, step: int) -> Path:
    """A new name: the same step comes again after a resume, and nothing is ever replaced."""
    path, number = folder / f"step-{step:010d}", 0
    while path.exists() or path.is_symlink():
        number += 1
        path = folder / f"step-{step:010d}.{number}"
    return path


def _point(folder: Path, name: str, target: str) -> None:
    """Move the link `folder/name` to `target` in one step."""
    temporary = folder / f"{_TEMPORARY}{name}"
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(target)
    temporary.rename(folder / name)


def _prune(folder: Path, step: int) -> None:
    """Delete older checkpoints: all but the newest `KEEP`, `best`, and those that say `keep`.

    Of those of one step that say so only the newest stays: a mark that was left is saved again.
    """
    best = (folder / "best").resolve()
    there = all_in(folder)
    said = {path: _says_keep(path) for path in there}
    marks = {path.name.partition(".")[0]: path for path in there if said[path]}
    for path in there[:-KEEP]:
        # damaged: evidence, not ours to delete
        kept = said[path] is None or path in marks.values()
        if path.resolve() != best and not kept:
            going = folder / f"{_TEMPORARY}{path.name}"  # half deleted, it must not look damaged
            path.rename(going)
            fault_point("save_pruning", step=step)
            shutil.rmtree(going, ignore_errors=True)


def _says_keep(path: Path) -> bool | None:
    """None: it cannot be read."""
    try:
        return bool(read_meta(path).get("keep", False))
    except CheckpointError:
        return None


def _need_space(folder: Path, need: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < need + (1 << 20):  # blocks, the folder, and lines of the log in the meantime
        raise OSError(
            errno.ENOSPC,
            f"the disk is full: it takes {need / 1e6:.1f} MB, {free / 1e6:.1f} are free",
        )


def _write(path: Path, content: Content, step: int, number: int) -> None:
    half = len(content) // 2
    with path.open("wb") as file:
        file.write(content[:half])
        fault_point("save_writing", step=step, file=number)
        file.write(content[half:])
        file.flush()
        os.fsync(file.fileno())
        # what is verified next shall come from the disk
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
