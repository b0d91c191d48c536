"""A published archive, read once: its MD5 is computed over the bytes as they are used."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from stat import S_ISREG

from pydantic import BaseModel, ConfigDict

from proofrun.archive import DamagedError, Inflated, Limits
from proofrun.errors import ArchiveError, DataError, Exit

from .published import Published

#: What a tar.gz may unpack to: the largest, CIFAR-10's, has 180 MB.
GZIP_LIMITS = Limits(bytes=1 << 29, files=1000)

_CHUNK = 1 << 20
_ADVICE = "download it again"


class Identity(BaseModel):
    """Tells an archive from another without reading it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    bytes: int
    mtime_ns: int


class Archived(BaseModel):
    """What a data set's record says of an archive. `published`: its MD5 is its publisher's.

    `mtime_ns` tells that an archive is the same one without reading it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    bytes: int
    md5: str
    published: bool
    mtime_ns: int | None = None


class Source:
    """One archive, open. `any_archive` takes one whose checksum is not the published one.

    Raises DataError NO_DATA where there is no such file, ArchiveError for one of another size than
    published.
    """

    def __init__(self, path: Path, published: Published, any_archive: bool = False) -> None:
        self.path = path
        self._published = published
        self.any_archive = any_archive
        self._known: str | None = None
        try:
            self.fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # a pipe would be waited for
        except OSError as error:
            raise _unreadable(path, error) from None
        if not S_ISREG(os.fstat(self.fd).st_mode):
            os.close(self.fd)
            raise DataError(f"{path}: is no regular file; give the folder of the archives as --src")
        stat = os.fstat(self.fd)
        self.identity = Identity(bytes=stat.st_size, mtime_ns=stat.st_mtime_ns)
        self.size = stat.st_size
        self._hash = hashlib.md5(usedforsecurity=False)
        self._hashed = 0
        self._buffer = bytearray(_CHUNK)
        expected = published.bytes
        if not any_archive and expected is not None and self.size != expected:
            os.close(self.fd)
            raise ArchiveError(
                f"{path}: has {self.size:,} bytes, the published one {expected:,}; {_ADVICE}, or "
                "take another archive on purpose with --any-archives"
            )

    def __enter__(self) -> Source:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.fd)

    def skip_hash(self, md5: str | None) -> None:
        """An earlier attempt has found this MD5, over the very same bytes."""
        self._known = md5

    @contextmanager
    def damage(self) -> Iterator[None]:
        """A DamagedError in here is about this archive. Raises ArchiveError."""
        try:
            yield
        except DamagedError as error:
            raise ArchiveError(f"{self.path}: {error}; {_ADVICE}") from None

    def advance(self, end: int) -> None:
        """Hash on to byte `end`. Who reads there next finds it in memory: one read of the disk."""
        if self._known is not None:
            return
        while self._hashed < end:
            view = memoryview(self._buffer)[: min(_CHUNK, end - self._hashed)]
            with self.reading():
                count = os.preadv(self.fd, [view], self._hashed)
            if not count:
                raise DamagedError("it became shorter while it was read")
            self._hash.update(view[:count])
            self._hashed += count

    def finish(self) -> Archived:
        """Hash to the end. Raises ArchiveError where the archive is not the published one."""
        self.advance(self.size)
        stat = os.fstat(self.fd)
        if self.identity != Identity(bytes=stat.st_size, mtime_ns=stat.st_mtime_ns):
            raise ArchiveError(f"{self.path}: changed while it was read; give the command again")
        md5 = self._known or self._hash.hexdigest()
        if md5 != self._published.md5 and not self.any_archive:
            raise ArchiveError(
                f"{self.path}: has the MD5 {md5}, the published one {self._published.md5}; "
                f"{_ADVICE}, or take another archive on purpose with --any-archives"
            )
        mtime_ns = self.identity.mtime_ns
        published = md5 == self._published.md5
        return Archived(bytes=self.size, md5=md5, published=published, mtime_ns=mtime_ns)

    @contextmanager
    def inflated(self, limits: Limits = GZIP_LIMITS) -> Iterator[tuple[int, int]]:
        """Of a tar.gz: a file in memory that holds the tar archive, and its bytes. Hashes all."""
        fd = os.memfd_create("archive")
        try:
            unpacked = Inflated(_Reader(self), limits)  # type: ignore[arg-type]
            size = 0
            for data in unpacked.rest():
                size += os.write(fd, data)
            yield fd, size
        finally:
            os.close(fd)

    @contextmanager
    def reading(self) -> Iterator[None]:
        """An OSError in here is about the archive. Raises DataError."""
        try:
            yield
        except OSError as error:
            raise _unreadable(self.path, error) from None


class _Reader:
    """`read` of an archive from its start, hashing."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._at = 0

    def read(self, size: int) -> bytes:
        with self._source.reading():
            data = os.pread(self._source.fd, size, self._at)
        self._at += len(data)
        self._source.advance(self._at)
        return data


def _unreadable(path: Path, error: OSError) -> DataError:
    return DataError(
        f"{path}: cannot be read ({error.strerror}); give the folder of the archives with --src",
        Exit.NO_DATA,
    )
