"""Moving bad files out of a data set, and back: nothing is deleted, and a kill loses nothing.

The quarantine folder has `journal.json` (what moves, what the lists were), `files/` and `lists/`.
The journal is on the disk before anything moves, each step can be repeated, and a step that was
done is recognised: so an interrupted move is finished, or undone, by reading the journal again.
"""

from __future__ import annotations

import codecs
import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from proofrun.data.entries import list_lines
from proofrun.data.lists import Split, rooted
from proofrun.errors import UsageError, WriteError
from proofrun.faultpoints import fault_point

from .findings import IN_FILE, Finding
from .survey import SPLITS

_SCHEMA = 1


class Bad(NamedTuple):
    """Paths relative to the data folder: files to move, and list entries to drop."""

    files: list[str]
    entries: set[str]


def plan(findings: Iterable[Finding]) -> Bad | None:
    """What a quarantine takes out: bad images, and the entries of those and of missing ones."""
    found = list(findings)
    files = sorted({finding.path for finding in found if finding.kind in IN_FILE})
    absent = {finding.path for finding in found if finding.kind == "missing"}
    return Bad(files, absent | set(files)) if files or absent else None


def move(folder: Path, root: Path, bad: Bad) -> str:
    """Take `bad` out of the data set `root` into `folder`; returns what was done, in a line.

    Raises UsageError when `folder` is in use or lies among the images, WriteError.
    """
    folder = folder.absolute()
    if any(folder.is_relative_to(root / split) for split in SPLITS):
        raise UsageError(f"--quarantine {folder}: lies among the images; give another folder")
    if (folder / "journal.json").exists() or (folder.exists() and any(folder.iterdir())):
        raise UsageError(
            f"--quarantine {folder}: is not empty; restore it with --restore, or give another one"
        )
    try:
        (folder / "lists").mkdir(parents=True, exist_ok=True)
        lists: dict[str, dict[str, str]] = {}
        for split in SPLITS:
            name = f"{split}.txt"
            if not (root / name).is_file():
                continue
            before, after = (root / name).read_bytes(), _without(root, split, bad.entries)
            if after != before:
                shutil.copy2(root / name, folder / "lists" / name)
                (folder / "lists" / f"{name}.after").write_bytes(after)
                for kept in (name, f"{name}.after"):
                    _sync(folder / "lists" / kept)
                lists[name] = {"before": _hash(before), "after": _hash(after)}
        journal = {"schema": _SCHEMA, "state": "moving", "root": str(root)}
        journal |= {"files": bad.files, "lists": lists}
        _write_journal(folder, journal)
        return _forward(folder, root, journal)
    except OSError as error:
        raise _cannot(error, folder) from None


def finish(folder: Path, root: Path) -> str | None:
    """Go on with a move that was interrupted; None where there is none. Raises WriteError."""
    folder = folder.absolute()
    journal = _read_journal(folder)
    if journal is None or journal["state"] != "moving":
        return None
    try:
        return f"finished what was interrupted: {_forward(folder, root, journal)}"
    except OSError as error:
        raise _cannot(error, folder) from None


def restore(folder: Path, root: Path) -> str:
    """Put everything back where it was, byte for byte. Raises UsageError, WriteError."""
    journal = _read_journal(folder)
    if journal is None:
        raise UsageError(f"--restore {folder}: holds no quarantine (no journal.json)")
    if not Path(journal["root"]).exists() or not root.samefile(journal["root"]):
        raise UsageError(f"--restore {folder}: came from {journal['root']}, not from {root}")
    for name, hashes in journal["lists"].items():
        now = _hash((root / name).read_bytes()) if (root / name).is_file() else None
        if now not in (hashes["before"], hashes["after"]):
            raise UsageError(
                f"{root / name}: was edited since the quarantine; put {folder / 'lists' / name} in "
                "its place by hand, or undo the edit"
            )
    for name in journal["files"]:
        here, away = root / name, folder / "files" / name
        both = away.exists() and os.path.lexists(here)
        if both and _hash(away.read_bytes()) != _hash(here.read_bytes()):
            raise UsageError(f"{here}: is there again; move it away, then restore")
    try:
        _write_journal(folder, {**journal, "state": "restoring"})
        for number, name in enumerate(journal["files"]):
            _carry(folder / "files" / name, root / name)
            fault_point("quarantine_restored", file=number)
        for name in journal["lists"]:
            _replace(root / name, (folder / "lists" / name).read_bytes(), folder / "lists" / name)
        _write_journal(folder, {**journal, "state": "restored"})
    except OSError as error:
        raise _cannot(error, folder) from None
    return f"{root}: restored {len(journal['files'])} files and {len(journal['lists'])} lists"


def _forward(folder: Path, root: Path, journal: dict[str, Any]) -> str:
    for number, name in enumerate(journal["files"]):
        _carry(root / name, folder / "files" / name)
        fault_point("quarantine_moved", file=number)
    for number, (name, hashes) in enumerate(journal["lists"].items()):
        if _hash((root / name).read_bytes()) == hashes["before"]:
            after = (folder / "lists" / f"{name}.after").read_bytes()
            _replace(root / name, after, root / name)
        fault_point("quarantine_listed", list=number)
    _write_journal(folder, {**journal, "state": "moved"})
    return (
        f"moved {len(journal['files'])} files to {folder} and rewrote {len(journal['lists'])} "
        f"lists; --restore {folder} puts all back"
    )


def _without(root: Path, split: Split, entries: set[str]) -> bytes:
    """The list's bytes without the lines of these entries; every other byte as it is."""
    path = root / f"{split}.txt"
    lines = list(list_lines(path, None))
    files = rooted(root, split, [line.name for line in lines])
    drop = {line.number for line, file in zip(lines, files, strict=True) if file in entries}
    content = path.read_bytes()
    mark = codecs.BOM_UTF8 if content.startswith(codecs.BOM_UTF8) else b""
    every = re.findall(rb"[^\n]*\n|[^\n]+", content.removeprefix(mark))
    return mark + b"".join(line for at, line in enumerate(every, start=1) if at not in drop)


def _carry(source: Path, target: Path) -> None:
    """Move a file so that at any moment it is whole in one of the places; done before: nothing."""
    if not os.path.lexists(source):
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        source.rename(target)
    except OSError as error:
        if error.errno != errno.EXDEV:  # another disk
            raise
        temporary = target.with_name(f".{target.name}.moving")
        shutil.copy2(source, temporary, follow_symlinks=False)
        if not temporary.is_symlink():
            _sync(temporary)
        temporary.rename(target)
        _sync(target.parent)
        source.unlink()


def _replace(path: Path, content: bytes, like: Path) -> None:
    """Write a list in one step, with the times and the mode of `like`."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_bytes(content)
    shutil.copystat(like, temporary)
    _sync(temporary)
    temporary.rename(path)


def _write_journal(folder: Path, journal: dict[str, Any]) -> None:
    temporary = folder / ".journal.json.new"
    temporary.write_text(json.dumps(journal, indent=1) + "\n", encoding="utf-8")
    _sync(temporary)
    temporary.rename(folder / "journal.json")
    _sync(folder)


def _read_journal(folder: Path) -> dict[str, Any] | None:
    """Raises UsageError for a file of that name that is no journal of ours."""
    path = folder / "journal.json"
    if not path.exists():
        return None
    try:
        journal = dict(json.loads(path.read_text(encoding="utf-8")))
        names = [*journal["files"], *journal["lists"]]
        inside = not any(name.startswith("/") or ".." in name.split("/") for name in names)
        if journal["schema"] == _SCHEMA and inside:
            return journal
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        pass
    raise UsageError(f"{path}: is no journal of a quarantine; give another folder")


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _cannot(error: OSError, folder: Path) -> WriteError:
    return WriteError(
        f"{error.filename or folder}: {error.strerror}; mend it, then give the same command again, "
        f"or --restore {folder}"
    )
