"""Moving bad files out of a data set, and back: nothing is deleted, and a kill loses nothing.

The quarantine folder has `journal.json` (what moves, what the lists were), `files/` and `lists/`.
The journal is on the disk before anything moves, each step can be repeated, and a step that was
done is recognised: so an interrupted move is finished, or undone, by reading the journal again. It
has a hash of each file that is to move: a file that was repaired meanwhile stays. No move ever goes
over a file that is there.
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
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from proofrun.data.entries import list_lines
from proofrun.data.lists import Split, rooted
from proofrun.errors import DataError, Exit, UsageError, WriteError
from proofrun.faultpoints import fault_point

from .findings import IN_FILE, Finding
from .survey import SPLITS

_SCHEMA = 2  # 1 had a list of files, without hashes
_STATES = ("moving", "moved", "restoring", "restored")


@dataclass(frozen=True)
class Journal:
    """`files`: the hash of each, "" where it is not known; `lists`: hashes before and after."""

    state: str
    root: str
    files: dict[str, str]
    lists: dict[str, dict[str, str]]


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
    if (journal := _read_journal(folder)) is not None and journal.state == "restored":
        raise UsageError(
            f"--quarantine {folder}: was used once and restored; give another folder, or remove it"
        )
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
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
        files = {name: _file_hash(root / name) for name in bad.files}
        journal = Journal("moving", str(root), files, lists)
        _write_journal(folder, journal)
        return _forward(folder, root, journal)
    except OSError as error:
        raise _cannot(error, folder) from None


def finish(folder: Path, root: Path) -> str | None:
    """Go on with a move that was interrupted; None where there is none.

    Raises UsageError for one of another data set, or of files that are others now; WriteError.
    """
    folder = folder.absolute()
    journal = _read_journal(folder)
    if journal is None or journal.state != "moving":
        return None
    _check_root(folder, root, journal, "--quarantine")
    for name, digest in journal.files.items():
        here, away = root / name, folder / "files" / name
        if os.path.lexists(here) and not os.path.lexists(away) and _file_hash(here) != digest:
            raise UsageError(
                f"{here}: is another file than when its quarantine was interrupted; put back what "
                f"was moved with --restore {folder}, then verify again"
            )
    try:
        return f"finished what was interrupted: {_forward(folder, root, journal)}"
    except OSError as error:
        raise _cannot(error, folder) from None


def restore(folder: Path, root: Path) -> str:
    """Put everything back where it was, byte for byte.

    Raises UsageError, WriteError; DataError LIST_MISSING_FILE for what is in neither place.
    """
    journal = _read_journal(folder)
    if journal is None:
        raise UsageError(f"--restore {folder}: holds no quarantine (no journal.json)")
    _check_root(folder, root, journal, "--restore")
    for name, hashes in journal.lists.items():
        now = _hash((root / name).read_bytes()) if (root / name).is_file() else None
        if now not in (hashes["before"], hashes["after"]):
            raise UsageError(
                f"{root / name}: was edited since the quarantine, or a later one took lines out of "
                "it: restore the later one first, or undo the edit, or put "
                f"{folder / 'lists' / name} in its place by hand"
            )
    for name in journal.files:
        here, away = root / name, folder / "files" / name
        if os.path.lexists(away) and os.path.lexists(here) and not _same(here, away):
            raise UsageError(f"{here}: is there again; move it away, then restore")
    try:
        _write_journal(folder, replace(journal, state="restoring"))
        for number, name in enumerate(journal.files):
            _carry(folder / "files" / name, root / name)
            fault_point("quarantine_restored", file=number)
        for name in journal.lists:
            _replace(root / name, (folder / "lists" / name).read_bytes(), folder / "lists" / name)
        _write_journal(folder, replace(journal, state="restored"))
    except OSError as error:
        raise _cannot(error, folder) from None
    gone = [name for name in journal.files if not os.path.lexists(root / name)]
    here = len(journal.files) - len(gone)
    said = f"{root}: restored {here} files and {len(journal.lists)} lists"
    if gone:
        more = f" (and {len(gone) - 1} more)" if len(gone) > 1 else ""
        raise DataError(
            f"{said}, but {gone[0]} is neither there nor in {folder / 'files'}{more}; bring it "
            "back, or take it out of the list",
            Exit.LIST_MISSING_FILE,
        )
    return said


def _forward(folder: Path, root: Path, journal: Journal) -> str:
    for number, name in enumerate(journal.files):
        _carry(root / name, folder / "files" / name)
        fault_point("quarantine_moved", file=number)
    for number, (name, hashes) in enumerate(journal.lists.items()):
        if _hash((root / name).read_bytes()) == hashes["before"]:
            after = (folder / "lists" / f"{name}.after").read_bytes()
            _replace(root / name, after, root / name)
        fault_point("quarantine_listed", list=number)
    _write_journal(folder, replace(journal, state="moved"))
    return (
        f"moved {len(journal.files)} files to {folder} and rewrote {len(journal.lists)} "
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
    """Move a file so that at any moment it is whole in one of the places; done before: nothing.

    Raises UsageError where another file is in the place it goes to.
    """
    if not os.path.lexists(source):
        return
    if os.path.lexists(target) and not _same(source, target):
        raise UsageError(f"{target}: another file is there; move it away, then go on")
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


def _check_root(folder: Path, root: Path, journal: Journal, flag: str) -> None:
    try:
        same = root.samefile(journal.root)
    except OSError:
        same = False
    if not same:
        raise UsageError(f"{flag} {folder}: came from {journal.root}, not from {root}")


def _write_journal(folder: Path, journal: Journal) -> None:
    temporary = folder / ".journal.json.new"
    content = {"schema": _SCHEMA, **asdict(journal)}
    temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    _sync(temporary)
    temporary.rename(folder / "journal.json")
    _sync(folder)


def _read_journal(folder: Path) -> Journal | None:
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


def _file_hash(path: Path) -> str:
    """Of its content, or of its size and times where that cannot be read."""
    try:
        with path.open("rb", buffering=0) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        stat = path.lstat()
        return f"unread {stat.st_size} {stat.st_mtime_ns}"


def _same(one: Path, other: Path) -> bool:
    """Of two paths that are there: links to the same, or files of the same content."""
    if one.is_symlink() or other.is_symlink():
        return one.is_symlink() and other.is_symlink() and one.readlink() == other.readlink()
    return _file_hash(one) == _file_hash(other)


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
