"""A data set is built in a folder beside its place, and renamed when it is whole.

The folder beside (`.<name>.partial`) has a note of what it is made from. After a kill, a full disk
or Ctrl-C the same command goes on in there: a file that has its full size stays, since each is
written once from its start, and any other is written again.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from proofrun.data.lists import Split, list_hash, read_split
from proofrun.errors import ArchiveError, DataError, Exit, ProofrunError, WriteError, disk_is_full

from .existing import advice, bad_image, existing, is_free
from .record import RECORD, Note, Record
from .source import Archived, Source

#: One line for each label: the class folder, and behind a space what the class is called.
CLASSES = "classes.txt"

_NOTE = ".unfinished.json"


@dataclass(frozen=True)
class Contents:
    """What a maker has written: each image's path in the set, and its label."""

    classes: list[str]
    images: dict[Split, list[tuple[str, int]]]
    archives: dict[str, Archived] = field(default_factory=dict)


class Work:
    """The folder that is being filled."""

    def __init__(self, folder: Path, dst: Path, note: Note) -> None:
        self.folder = folder
        self._dst = dst
        self._note = note

    def known_md5(self, name: str) -> str | None:
        return self._note.md5.get(name)

    def remember(self, name: str, archived: Archived) -> None:
        """An archive is hashed: another attempt need not do it again."""
        self._note.md5[name] = archived.md5
        _write_whole(self.folder / _NOTE, self._note.model_dump_json())

    def need(self, total: int) -> None:
        """Raises WriteError where the disk has less room than `total` bytes, less what is here."""
        here = sum(
            entry.stat(follow_symlinks=False).st_blocks * 512 for entry in _files(self.folder)
        )
        free = shutil.disk_usage(self.folder).free
        if total - here > free:
            raise WriteError(
                f"{self._dst}: needs {(total - here) / 1e6:,.1f} MB, and {free / 1e6:,.1f} MB are "
                "free there; free space, or give another --dst"
            )


def make(
    dst: Path,
    name: str,
    write: Callable[[Work], Contents],
    settings: Mapping[str, str | int | float] | None = None,
    sources: Mapping[str, Source] | None = None,
    unrecorded: Record | None = None,
    own_images: bool = False,
) -> str:
    """Make the set `name` in the folder `dst` with `write`; one line that says what is there now.

    A complete set is left as it is. `unrecorded`: what one from before there were records holds.
    `own_images`: nobody has published them, and a bad one is said in the line.
    Raises WriteError when `dst` holds anything else, or cannot be written; what `write` raises.
    """
    dst = Path(os.path.realpath(dst))
    settings, sources = dict(settings or {}), dict(sources or {})
    identities = {key: source.identity for key, source in sources.items()}
    note = Note(set=name, settings=settings, archives=identities)
    try:
        while (there := existing(dst, note, sources, unrecorded, own_images)) is None:
            with _beside(dst, note) as work:
                if work is None:
                    continue  # another process was here and is gone: look again
                record = _finish(work.folder, name, settings, write(work))
                work.folder.rename(dst)
                (dst / _NOTE).unlink()
            bad = bad_image(dst, record) if own_images else ""
            return f"{dst}: wrote {record.said()}{advice(dst, bad)}"
        if (dst / _NOTE).exists():  # killed right behind the rename
            (dst / _NOTE).unlink()
        return there
    except (ArchiveError, DataError) as error:
        if (left := _beside_of(dst)).exists():
            said = f"{error}; what was made so far is in {left}"
            raise type(error)(said, error.exit_code) from None
        raise
    except KeyboardInterrupt:
        raise ProofrunError(
            f"{dst}: stopped before it was whole; the same command goes on", Exit.INTERRUPTED
        ) from None
    except OSError as error:
        if disk_is_full(error):
            why = "the disk is full; free space, then the same command goes on"
        else:
            why = f"cannot be written ({error.strerror}); mend it or give another --dst"
        raise WriteError(f"{dst}: {why}") from None


def _beside_of(dst: Path) -> Path:
    return dst.with_name(f".{dst.name}.partial")


@contextmanager
def _beside(dst: Path, note: Note) -> Iterator[Work | None]:
    """The folder to work in, locked. None where another process has renamed it meanwhile."""
    if dst.is_mount():
        raise WriteError(f"{dst}: is a mount point; give a folder in it as --dst")
    folder = _beside_of(dst)
    if folder.is_symlink():
        raise WriteError(f"{folder}: is a link, and in the way; move it away")
    folder.mkdir(parents=True, exist_ok=True)
    lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        _wait_for(lock, dst)
        same = folder.exists() and os.path.samestat(os.fstat(lock), folder.stat())
        if not same or not is_free(dst):
            yield None
            return
        yield Work(folder, dst, _take_up(folder, note))
    finally:
        with suppress(OSError):  # only where nothing was made but the note
            if set(os.listdir(folder)) <= {_NOTE}:
                (folder / _NOTE).unlink(missing_ok=True)
                folder.rmdir()
        os.close(lock)


def _wait_for(lock: int, dst: Path) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print(f"{dst}: waiting for another process that makes it", file=sys.stderr, flush=True)
        fcntl.flock(lock, fcntl.LOCK_EX)


def _take_up(folder: Path, note: Note) -> Note:
    """The note of the work in `folder`, if it is this one; else that work is begun anew."""
    inside = [entry for entry in os.listdir(folder) if not entry.startswith(_NOTE)]
    try:
        before = Note.model_validate_json((folder / _NOTE).read_bytes())
        if before.model_copy(update={"md5": {}}) == note:
            return before
    except FileNotFoundError:
        if inside:
            raise WriteError(
                f"{folder}: is no unfinished data set of ours, and in the way; move it away"
            ) from None
    except ValidationError:
        pass
    if inside:
        print(f"{folder}: was begun from something else: begun anew", file=sys.stderr, flush=True)
    for entry in inside:  # the note goes last: until then the folder is known as ours
        path = folder / entry
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    _write_whole(folder / _NOTE, note.model_dump_json())
    return note


def _finish(folder: Path, name: str, settings: dict[str, Any], contents: Contents) -> Record:
    """Write classes, lists and record, after reading the lists back as a run does."""
    _write_whole(folder / CLASSES, "".join(f"{line}\n" for line in contents.classes))
    for split, images in contents.images.items():
        lines = sorted(f"{path} {label}\n" for path, label in images)
        _write_whole(folder / f"{split}.txt", "".join(lines))
    record = Record(
        set=name,
        settings=settings,
        archives=contents.archives,
        images={split: len(images) for split, images in contents.images.items()},
        classes=len(contents.classes),
        lists=_hashes(folder, len(contents.classes)),
    )
    _write_whole(folder / RECORD, record.model_dump_json(indent=1) + "\n")
    return record


def _hashes(folder: Path, classes: int) -> dict[Split, str]:
    return {
        "train": list_hash(read_split(folder, "train", classes)),
        "val": list_hash(read_split(folder, "val", classes)),
    }


def _files(folder: Path) -> Iterator[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from _files(Path(entry.path))
            else:
                yield entry


def _write_whole(path: Path, text: str) -> None:
    temporary = path.with_name(f"{_NOTE}.new")
    temporary.write_text(text, encoding="utf-8")
    temporary.rename(path)
