"""What every reader of an archive from elsewhere refuses: bombs, cut ends, names that lead away."""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

MAX_DEPTH = 12
CHUNK = 1 << 16


class DamagedError(Exception):
    """The archive cannot be read on; the text says why."""


@dataclass(frozen=True)
class Limits:
    """What an archive may unpack to."""

    bytes: int  # unpacked, of all files
    files: int
    ratio: int = 100  # unpacked over packed, beyond the first `free_bytes`
    free_bytes: int = 1 << 24

    def exceeded(self, total: int, packed: int, files: int) -> str:
        """Why `files` files of `total` bytes, out of `packed` bytes, are too much, or ""."""
        if total > self.bytes:
            return f"more than {self.bytes >> 20} MiB unpacked"
        if files > self.files:
            return f"more than {self.files} files"
        if total > self.free_bytes and total > self.ratio * packed:
            return f"unpacks to more than {self.ratio} times its size"
        return ""


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


class Inflated:
    """The unpacked bytes of one gzip member, within limits. Every method raises DamagedError."""

    def __init__(self, file: BinaryIO, limits: Limits) -> None:
        self.taken = 0  # packed bytes read
        self.given = 0  # bytes unpacked
        self._file = file
        self._limits = limits
        self._chunks = self._inflate()
        self._buffer = io.BytesIO()

    def take(self, size: int) -> bytes:
        """Exactly so many bytes."""
        return b"".join(self.pieces(size))

    def pieces(self, size: int) -> Iterator[bytes]:
        """Exactly so many bytes, in parts."""
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
        """All that is left, in parts."""
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
            if reason := self._limits.exceeded(self.given, self.taken, 0):
                raise DamagedError(reason)
            if chunk:
                yield chunk
        if inflater.unused_data or self._file.read(1):
            raise DamagedError("something hidden behind its end")
