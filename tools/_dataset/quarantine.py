"""Moving bad files out of a data set, and back: nothing is deleted, and a kill loses nothing.

The quarantine folder has `journal.json` (what moves, what the lists were), `files/` and `lists/`.
The journal is on the disk before anything moves, each step can be repeated, and a step that was
done is recognised: so an interrupted move is finished, or undone, by reading the journal again. It
has a hash of each file that is to move: a file that was repaired meanwhile stays. No move ever goes
over a file that is there.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from proofrun.errors import DataError, Exit, UsageError, WriteError
from proofrun.faultpoints import fault_point
from proofrun.saved import sync

from .findings import IN_FILE, Finding
from .journal import Journal, content_hash, file_hash, read_journal, write_journal
from .relist import relisted
from .survey import SPLITS


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
    if (journal := read_journal(folder)) is not None and journal.state == "restored":
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
        for name, after in relisted(root, bad.entries).items():
            before = (root / name).read_bytes()
            shutil.copy2(root / name, folder / "lists" / name)
            (folder / "lists" / f"{name}.after").write_bytes(after)
            for kept in (name, f"{name}.after"):
                sync(folder / "lists" / kept)
            lists[name] = {"before": content_hash(before), "after": content_hash(after)}
        files = {name: file_hash(root / name) for name in bad.files}
        journal = Journal("moving", str(root), files, lists)
        write_journal(folder, journal)
        return _forward(folder, root, journal)
    except OSError as error:
        raise _cannot(error, folder) from None


def finish(folder: Path, root: Path) -> str | None:
    """Go on with a move that was interrupted; None where there is none.

    Raises UsageError for one of another data set, or of files that are others now; WriteError.
    """
    folder = folder.absolute()
    journal = read_journal(folder)
    if journal is None or journal.state != "moving":
        return None
    _check_root(folder, root, journal, "--quarantine")
    for name, digest in journal.files.items():
        here, away = root / name, folder / "files" / name
        if os.path.lexists(here) and not os.path.lexists(away) and file_hash(here) != digest:
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
    journal = read_journal(folder)
    if journal is None:
        raise UsageError(f"--restore {folder}: holds no quarantine (no journal.json)")
    _check_root(folder, root, journal, "--restore")
    for name, hashes in journal.lists.items():
        now = content_hash((root / name).read_bytes()) if (root / name).is_file() else None
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
        write_journal(folder, replace(journal, state="restoring"))
        for number, name in enumerate(journal.files):
            _carry(folder / "files" / name, root / name)
            fault_point("quarantine_restored", file=number)
        for name in journal.lists:
            _replace(root / name, (folder / "lists" / name).read_bytes(), folder / "lists" / name)
        write_journal(folder, replace(journal, state="restored"))
    except OSError as error:
        raise _cannot(error, folder) from None
    gone = [name for name in journal.files if not os.path.lexists(root / name)]
    put = len(journal.files) - len(gone)
    said = f"{root}: restored {put} files and {_lists(journal)} lists"
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
        if content_hash((root / name).read_bytes()) == hashes["before"]:
            after = (folder / "lists" / f"{name}.after").read_bytes()
            _replace(root / name, after, root / name)
        fault_point("quarantine_listed", list=number)
    write_journal(folder, replace(journal, state="moved"))
    return (
        f"moved {len(journal.files)} files to {folder} and rewrote {_lists(journal)} "
        f"lists; --restore {folder} puts all back"
    )


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
            sync(temporary)
        temporary.rename(target)
        sync(target.parent)
        source.unlink()


def _replace(path: Path, content: bytes, like: Path) -> None:
    """Write a list in one step, with the times and the mode of `like`."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_bytes(content)
    shutil.copystat(like, temporary)
    sync(temporary)
    temporary.rename(path)


def _lists(journal: Journal) -> int:
    return sum(name.endswith(".txt") for name in journal.lists)


def _check_root(folder: Path, root: Path, journal: Journal, flag: str) -> None:
    try:
        same = root.samefile(journal.root)
    except OSError:
        same = False
    if not same:
        raise UsageError(f"{flag} {folder}: came from {journal.root}, not from {root}")


def _same(one: Path, other: Path) -> bool:
    """Of two paths that are there: links to the same, or files of the same content."""
    if one.is_symlink() or other.is_symlink():
        return one.is_symlink() and other.is_symlink() and one.readlink() == other.readlink()
    return file_hash(one) == file_hash(other)


def _cannot(error: OSError, folder: Path) -> WriteError:
    return WriteError(
        f"{error.filename or folder}: {error.strerror}; mend it, then give the same command again, "
        f"or --restore {folder}"
    )
