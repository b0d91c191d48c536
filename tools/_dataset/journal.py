"""The journal of a quarantine: what moves, and what the lists were, by hashes."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from proofrun import saved
from proofrun.errors import UsageError
from proofrun.saved import sync

_SCHEMA = 2  # 1 had a list of files, without hashes
_STATES = ("moving", "moved", "restoring", "restored")


@dataclass(frozen=True)
class Journal:
    """`files`: the hash of each, "" where it is not known; `lists`: hashes before and after."""

    state: str
    root: str
    files: dict[str, str]
    lists: dict[str, dict[str, str]]


def read_journal(folder: Path) -> Journal | None:
    """Raises UsageError for a file of that name that is no journal of ours."""
    path = folder / "journal.json"
    if not os.path.lexists(path):
        return None
    try:
        if path.is_file():
            return _journal(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        pass
    raise UsageError(f"{path}: is no journal of a quarantine, or damaged; give another folder")


def _journal(content: dict[str, Any]) -> Journal:
    """Raises ValueError, KeyError, TypeError or AttributeError for anything that is none."""
    files = content["files"]
    if content["schema"] == 1:
        files = dict.fromkeys(files, "")
    journal = Journal(content["state"], content["root"], dict(files), dict(content["lists"]))
    names = [*journal.files, *journal.lists]
    words = [journal.root, *names, *journal.files.values()]
    words += [hashes[moment] for hashes in journal.lists.values() for moment in ("before", "after")]
    inside = not any(
        name.startswith("/") or "\0" in name or ".." in name.split("/") for name in names
    )
    known = content["schema"] in (1, _SCHEMA) and journal.state in _STATES
    if not (inside and known and all(isinstance(word, str) for word in words)):
        raise ValueError
    return journal


def write_journal(folder: Path, journal: Journal) -> None:
    temporary = folder / ".journal.json.new"
    content = {"schema": _SCHEMA, **asdict(journal)}
    temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    sync(temporary)
    temporary.rename(folder / "journal.json")
    sync(folder)


def file_hash(path: Path) -> str:
    """Of its content, or of its size and times where that cannot be read."""
    try:
        return saved.file_hash(path)
    except OSError:
        stat = path.lstat()
        return f"unread {stat.st_size} {stat.st_mtime_ns}"


def content_hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
