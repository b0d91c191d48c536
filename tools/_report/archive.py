"""A tar.gz of plain files: written alike for like content, read as if an enemy had written it.

The reader knows one form only (one gzip member, ustar headers, regular files, nothing after the
end), so no two readers can see different files in one archive.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

MAX_BYTES = 1 << 29  # unpacked
MAX_FILES = 20_000
MAX_LINES = 2_000_000  # of all files: each may become a rejected line in memory
MAX_RATIO = 100  # unpacked over packed, beyond the first FREE_BYTES
FREE_BYTES = 1 << 24
MAX_DEPTH = 12
CHUNK = 1 << 16
BLOCK = tarfile.BLOCKSIZE


class DamagedError(Exception):
    """The archive cannot be read on; the text says why."""


class Content(NamedTuple):
    """What a file holds, as far as the manifest tells."""

    bytes: int
    sha256: str


def content(path: Path) -> Content:
    """Raises OSError."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
        return Content(file.tell(), digest.hexdigest())


def pack(out: BinaryIO, root: Path, names: Iterable[str]) -> None:
    """Write the files `root/name` in the order given. Raises OSError, and ValueError for a name
    that is too long."""
    with (
        gzip.GzipFile("", "wb", 9, out, mtime=0) as stream,
        tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as tar,
    ):
        for name in names:
            with (root / name).open("rb") as file:
                tar.addfile(_info(name, (root / name).stat().st_size), file)


def unpack(file: BinaryIO, target: Path, found: dict[str, Content]) -> None:
    """Write the archive's files under `target` and enter each into `found` once it is whole.

    Raises DamagedError; what is in `found` by then can still be looked at.
    """
    stream = _Stream(file)
    lines = 0
    while (header := stream.take(BLOCK)) != bytes(BLOCK):
        name, size = _parse(header)
        total = stream.given + size
        if reason := bad_name(name) or _too_large(total, total, len(found)):
            raise DamagedError(f"{name!r}: {reason}")
        if name in found:
            raise DamagedError(f"{name!r}: there twice")
        digest = hashlib.sha256()
        path = target / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("xb") as out:
                for data in stream.pieces(size):
                    out.write(data)
                    digest.update(data)
                    lines += data.count(b"\n")
        except (FileExistsError, NotADirectoryError, IsADirectoryError):
            raise DamagedError(f"{name!r}: a file and a folder at once") from None
        if lines > MAX_LINES:
            raise DamagedError(f"{name!r}: more than {MAX_LINES:,} lines in all")
        found[name] = Content(size, digest.hexdigest())
        if any(stream.take(-size % BLOCK)):
            raise DamagedError(f"{name!r}: something hidden behind it")
    for data in stream.rest():
        if any(data):
            raise DamagedError("something hidden behind its end")


def bad_name(name: str) -> str:
    """Why a name may not be in an archive, or ""."""
    parts = name.split("/")
    if name.startswith("/") or not all(parts):
        return "not a relative path"
    if "." in parts or ".." in parts:
        return "leads out of its folder"
    if not name.isprintable() or "\\" in name:
        return "unprintable characters or a backslash in its name"
    return "too deep a folder" if len(parts) > MAX_DEPTH else ""


def _too_large(total: int, packed: int, count: int) -> str:
    if total > MAX_BYTES:
        return f"more than {MAX_BYTES >> 20} MiB unpacked"
    if count > MAX_FILES:
        return f"more than {MAX_FILES} files"
    if total > FREE_BYTES and total > MAX_RATIO * packed:
        return f"unpacks to more than {MAX_RATIO} times its size"
    return ""


def _info(name: str, size: int) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size = size
    return info


def _parse(header: bytes) -> tuple[str, int]:
    """Name and size; the header must be the very one that `pack` writes for them."""
    try:
        name, prefix = (part.rstrip(b"\0").decode() for part in (header[:100], header[345:500]))
        name = f"{prefix}/{name}" if prefix else name
        size = int(header[124:135], 8)
        if header == _info(name, size).tobuf(tarfile.USTAR_FORMAT):
            return name, size
    except ValueError:
        pass
    raise DamagedError("a damaged header, or something else than a plain file (a link, a folder)")


class _Stream:
    """The inflated bytes of one gzip member, with limits. Every method raises DamagedError."""

    def __init__(self, file: BinaryIO) -> None:
        self.taken = 0  # packed bytes read
        self.given = 0  # bytes unpacked
        self._file = file
        self._chunks = self._inflate()
        self._buffer = io.BytesIO()

    def take(self, size: int) -> bytes:
        """Exactly so many bytes."""
        return b"".join(self.pieces(size))

    def pieces(self, size: int) -> Iterator[bytes]:
        while size:
            data = self._buffer.read(size)
            if data:
                size -= len(data)
                yield data
                continue
            chunk = next(self._chunks, None)
            if chunk is None:
                raise DamagedError("its end is missing")
            self._buffer = io.BytesIO(chunk)

    def rest(self) -> Iterator[bytes]:
        yield self._buffer.read()
        yield from self._chunks

    def _inflate(self) -> Iterator[bytes]:
        inflater = zlib.decompressobj(wbits=31)
        data = b""
        while not inflater.eof:
            if not data:
                data = self._file.read(CHUNK)
                self.taken += len(data)
            try:
                chunk = inflater.decompress(data, CHUNK)
            except zlib.error as error:
                raise DamagedError(f"no gzip file, or damaged ({error})") from None
            if not data and not chunk and not inflater.eof:
                raise DamagedError("its end is missing")
            data = inflater.unconsumed_tail
            self.given += len(chunk)
            if reason := _too_large(self.given, self.taken, 0):
                raise DamagedError(reason)
            if chunk:
                yield chunk
        if inflater.unused_data or self._file.read(1):
            raise DamagedError("something hidden behind its end")
