"""Where align.py may write, looked at before anything is computed: what is not its own stays."""

from __future__ import annotations

import os
from pathlib import Path

from proofrun import alignment
from proofrun.errors import UsageError

from .trace import TraceError, load

#: In every trace that `record` makes: a replay never takes its place.
RECORDED = "recorded as trusted"

#: In the head of every picture, by which it is known as ours.
MARK = "proofrun align.py"
_HEAD = 4096  # bytes

#: The entry of a picture's metadata that holds the mark, as matplotlib calls it.
_ENTRY = {".png": "Software", ".svg": "Creator"}


def check_replay(path: Path, trusted: Path) -> None:
    """Raises UsageError where a replay and the verdict beside it cannot be written to --out."""
    _check_name(path)
    verdict = path.with_suffix(".json")
    if path.exists() and (path.samefile(trusted) or not _is_replay(path)):
        raise _taken("--out", path, "a replay of align.py")
    if os.path.lexists(verdict) and alignment.read(verdict) is None:
        raise _taken("--out", verdict, "a verdict of align.py")


def check_record(path: Path, force: bool) -> None:
    """Raises UsageError where a trace to trust cannot be written, or would take another's place."""
    _check_name(path)
    if not os.path.lexists(path):
        return
    if _note(path) is None:
        raise _taken("--out", path, "a trace of align.py")
    if not force:
        raise UsageError(
            f"{path}: is there already, and replays are held against it; name another with --out, "
            "or replace it with --force"
        )


def check_picture(flag: str, path: Path | None) -> None:
    """Raises UsageError where a picture cannot be written."""
    if path is None:
        return
    if path.suffix.lower() not in _ENTRY:
        raise UsageError(f"{flag} {path}: name it .png or .svg")
    if os.path.lexists(path) and not _is_picture(path):
        raise _taken(flag, path, "a picture of align.py")


def metadata(path: Path) -> dict[str, str]:
    """What matplotlib is to write into a picture, so that it is known as ours."""
    return {_ENTRY[path.suffix.lower()]: MARK}


def _check_name(path: Path) -> None:
    if path.suffix != ".npz":
        raise UsageError(f"--out {path}: a trace is an .npz file, and a verdict .json; name it so")


def _taken(flag: str, path: Path, ours: str) -> UsageError:
    return UsageError(
        f"{path}: is there already, is not {ours}, and is not overwritten; give another {flag}"
    )


def _is_replay(path: Path) -> bool:
    return _note(path) not in (None, RECORDED)


def _note(path: Path) -> str | None:
    """Of a trace; None where there is none."""
    try:
        return load(path).header.made.note
    except TraceError:
        return None


def _is_picture(path: Path) -> bool:
    try:
        if not path.is_file():
            return False
        with path.open("rb") as file:
            return MARK.encode() in file.read(_HEAD)
    except OSError:
        return False
