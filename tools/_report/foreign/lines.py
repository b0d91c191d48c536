"""Bytes of a log to clean lines of text: one at a time, whatever the file holds."""

from __future__ import annotations

import errno
import gzip
import re
import zlib
from collections.abc import Callable, Iterator
from io import BufferedIOBase
from pathlib import Path
from typing import Any, NamedTuple

LONGEST = 1 << 20  # bytes; a longer line is cut, and still one line
UNPACKED, RATIO = 1 << 26, 200  # bytes; beyond so many and so many times the packed size: no log
_BLOCK = 1 << 16
_ANSI = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])")
_CONTROL = bytes([*range(9), *range(11, 32), 127])  # all but tab
_REMOVED = dict.fromkeys(_CONTROL)
# What launchers put before a line, with the rank: mpirun --tag-output, torchrun, torch, srun -l.
_RANK = re.compile(
    r"\s*(?:\[\d+,(\d+)\]<std(?:out|err)>:|\[(?:default|rank)(\d+)\]:"
    r"|\(?RANK[ =:](\d+)\)?:?|(\d+):(?=\s))\s?"
)
_CONTAINER = re.compile(
    r"\S+T\S+Z?\s+std(?:out|err)\s+[FP]\s|[\w.-]+\s+\|\s(?=\S)|\(\w+ pid=\d+[^)]*\)\s"
)


class Unpacked(gzip.GzipFile):
    """A gzip file that ends where it is cut, damaged or swells; then `fault` says so."""

    fault = ""
    _given = 0

    def read1(self, size: int = -1) -> bytes:
        """As of any file; b"" also after a fault."""
        return self._guarded(super().read1, size)  # gives what a torn gzip still holds

    def read(self, size: int | None = -1) -> bytes:
        """As `read1`."""
        return self._guarded(super().read, size)

    def _guarded(self, read: Callable[[Any], bytes], size: int | None) -> bytes:
        if self.fault:
            return b""
        try:
            block = read(size)
        except EOFError:
            self.fault = "the gzip data ends too early: read up to here"
            return b""
        except (OSError, zlib.error) as error:
            self.fault = f"the gzip data is damaged ({error}): read up to here"
            return b""
        self._given += len(block)
        if self._given <= UNPACKED:
            return block
        packed: int = self.fileobj.tell()  # type: ignore[union-attr]
        if self._given > RATIO * packed:
            self.fault = f"unpacks to more than {RATIO} times its size: read up to here"
        return block


class Line(NamedTuple):
    """`number` counts newlines from 1; `rank` is what a launcher's prefix says, else None."""

    number: int
    text: str
    rank: int | None = None


def open_log(path: Path) -> BufferedIOBase:
    """The file, unpacked if it is gzip. Raises OSError, also for what is no file: a pipe blocks."""
    if not path.is_file():
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    file = path.open("rb")
    if file.peek(2)[:2] == b"\x1f\x8b":
        file.close()
        return Unpacked(path, "rb")
    return file


def raw_lines(file: BufferedIOBase) -> Iterator[tuple[int, bytes]]:
    """(number from 1, bytes without the newline) in bounded memory. See `Unpacked.fault`."""
    number = 1
    rest = b""
    while True:
        try:
            block = file.read1(_BLOCK)
        except OSError:
            block = b""
        if not block:
            break
        *whole, last = block.split(b"\n")
        for part in whole:
            yield number, (rest + part)[:LONGEST]
            rest = b""
            number += 1
        rest = (rest + last)[:LONGEST]
    if rest:
        yield number, rest


def read_lines(file: BufferedIOBase) -> Iterator[Line]:
    """Clean lines. What a carriage return overwrote is given too: progress bars log that way."""
    encoding = ""
    for number, raw in raw_lines(file):
        if number == 1 and raw[:2] in (b"\xff\xfe", b"\xfe\xff"):
            encoding = "utf-16-le" if raw[:1] == b"\xff" else "utf-16-be"
            raw = raw[2:]
        if encoding:  # a split at the byte of a newline leaves its other half behind
            raw = (
                raw.removeprefix(b"\x00") if encoding == "utf-16-le" else raw.removesuffix(b"\x00")
            )
        if not encoding and b"\x1b" not in raw and b"\r" not in raw:  # nearly all lines
            text = raw.translate(None, _CONTROL).decode("utf-8", errors="replace")
            cleaned = text.strip("\ufeff \n")
            if cleaned:
                yield _without_launcher(number, cleaned)
            continue
        text = raw.decode(encoding or "utf-8", errors="replace")
        for part in text.split("\r"):
            cleaned = clean(part)
            if cleaned:
                yield _without_launcher(number, cleaned)


def clean(text: str) -> str:
    """Without terminal sequences, NUL and other control characters; tabs stay."""
    if "\x1b" in text:
        text = _ANSI.sub("", text)
    return text.translate(_REMOVED).strip("\ufeff \n")


def _without_launcher(number: int, text: str) -> Line:
    found = _CONTAINER.match(text) if ("pid=" in text or "|" in text or " std" in text) else None
    if found:
        text = text[found.end() :]
    found = _RANK.match(text)
    if found is None:
        return Line(number, text)
    rank = int(next(group for group in found.groups() if group is not None)[:6])
    return Line(number, text[found.end() :], rank)
