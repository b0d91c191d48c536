"""Walks a tar archive as if an enemy had written it: where each file's bytes lie, and no more.

Nothing is unpacked by the names in an archive: a caller reads the ranges that it has a place for.
Known are plain files and folders with names of up to 255 bytes, in the formats v7, ustar, GNU and
pax. All else is refused, and so is an archive that does not end as a tar archive does: Python's
own reader takes a damaged header for the end.
"""

from __future__ import annotations

import os
import re
import tarfile
from collections.abc import Iterator
from typing import NamedTuple

from proofrun.archive import DamagedError, Limits, bad_name

#: Of one archive: beyond the published ones, and far from what a disk cannot hold.
LIMITS = Limits(bytes=1 << 40, files=100_000)
MAX_FILE = 1 << 26  # bytes of one image
MAX_EXTENDED = 1 << 16  # bytes of a pax header

_BLOCK = tarfile.BLOCKSIZE
_FILES = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE)
_KINDS = {
    tarfile.LNKTYPE: "a hard link",
    tarfile.SYMTYPE: "a symbolic link",
    tarfile.CHRTYPE: "a device",
    tarfile.BLKTYPE: "a device",
    tarfile.FIFOTYPE: "a pipe",
    tarfile.GNUTYPE_SPARSE: "a sparse file",
    tarfile.GNUTYPE_LONGNAME: "a name of more than 255 bytes",
    tarfile.GNUTYPE_LONGLINK: "a link",
}
#: Extended headers that change neither name, size nor kind of a file.
_HARMLESS = re.compile(
    rb"[amc]time|[ug]id|[ug]name|comment|(SCHILY|LIBARCHIVE)\.(?!realsize)[\w.]+"
)


class Member(NamedTuple):
    """A plain file in an archive: its name, and where its content lies, in bytes."""

    name: str
    offset: int
    size: int

    @property
    def end(self) -> int:
        """Where the next header stands."""
        return self.offset + self.size + -self.size % _BLOCK


def walk(
    fd: int, start: int, end: int, limits: Limits = LIMITS, largest: int = MAX_FILE
) -> Iterator[Member]:
    """The plain files of the archive at bytes `start` to `end` of an open file, as they come.

    Folders are passed over, and a leading `./` is no part of a name. Raises DamagedError for what
    is cut off, damaged, unreadable, too much, there twice, or neither a file nor a folder.
    """
    seen: set[str] = set()
    total = 0
    at = start
    while (block := read(fd, max(0, min(_BLOCK, end - at)), at)) != bytes(_BLOCK):
        if len(block) < _BLOCK:
            raise DamagedError("its end is missing")
        name, kind, size = _parse(block, at)
        member = Member(name, at + _BLOCK, size)
        if member.offset + size > end:
            raise DamagedError(f"{name!r}: its end is missing")
        at = member.end
        if kind in (tarfile.XHDTYPE, tarfile.XGLTYPE):
            _check_extended(fd, member)
            continue
        if kind not in (*_FILES, tarfile.DIRTYPE):
            what = _KINDS.get(kind, f"of the unknown kind {kind!r}")
            raise DamagedError(f"{name!r}: {what}, where only files and folders belong")
        if reason := bad_name(name):
            raise DamagedError(f"{name!r}: {reason}")
        if kind in _FILES:
            if name in seen:
                raise DamagedError(f"{name!r}: there twice")
            seen.add(name)
            total += size
            if reason := limits.exceeded(total, end - start, len(seen)):
                raise DamagedError(f"{name!r}: {reason}")
            if size > largest:
                raise DamagedError(f"{name!r}: a file of more than {largest >> 20} MiB")
            yield member
    _check_end(fd, at, end)


def read(fd: int, size: int, offset: int) -> bytes:
    """Bytes of an archive. Raises DamagedError where its disk fails."""
    try:
        return os.pread(fd, size, offset)
    except OSError as error:
        raise DamagedError(f"cannot be read ({error.strerror})") from None


def below_top(fd: int, size: int, limits: Limits) -> dict[str, Member]:
    """The files of an archive of one folder, by their paths in there. Raises as `walk`."""
    found: dict[str, Member] = {}
    for member in walk(fd, 0, size, limits):
        _, _, name = member.name.partition("/")
        if name in found:
            raise DamagedError(f"{member.name!r}: there twice, in two folders")
        if name:
            found[name] = member
    return found


def _parse(block: bytes, at: int) -> tuple[str, bytes, int]:
    """Name, kind and size in bytes as a header states them."""
    try:
        info = tarfile.TarInfo.frombuf(block, "utf-8", "strict")
    except UnicodeDecodeError:
        raw = block[:100].rstrip(b"\0")
        raise DamagedError(f"{raw!r}: a name that is not UTF-8") from None
    except tarfile.HeaderError:
        raise DamagedError(f"no tar archive, or damaged at byte {at:,}") from None
    if info.size < 0 or (info.isdir() and info.size):
        raise DamagedError(f"{info.name!r}: a size that cannot be")
    name = info.name.removeprefix("./") if info.name not in (".", "./") else "folder"
    return name.removesuffix("/"), info.type, info.size


def _check_extended(fd: int, member: Member) -> None:
    """Raises DamagedError where an extended header says more than dates and owners."""
    if member.size > MAX_EXTENDED:
        raise DamagedError(f"an extended header of more than {MAX_EXTENDED >> 10} KiB")
    rest = read(fd, member.size, member.offset)
    while rest:
        length, _, _ = rest.partition(b" ")
        count = int(length) if length.isdigit() and len(length) < 7 else 0
        record, rest = rest[:count], rest[count:]
        key, equals, _ = record[len(length) + 1 :].partition(b"=")
        if not equals or not record.endswith(b"\n"):
            raise DamagedError("a damaged extended header")
        if not _HARMLESS.fullmatch(key):
            said = key[:40].decode(errors="replace")
            raise DamagedError(f"an extended header that sets {said!r}: no plain file, or renamed")


def _check_end(fd: int, at: int, end: int) -> None:
    """Behind the end of an archive stand zeros only."""
    while at < end:
        data = read(fd, min(1 << 20, end - at), at)
        if any(data):
            raise DamagedError(f"something hidden behind its end, at byte {at:,}")
        if not data:
            raise DamagedError("it became shorter while it was read")
        at += len(data)
