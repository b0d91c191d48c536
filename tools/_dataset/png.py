"""Whether a PNG file has every byte of its pixels: PIL fills in what is missing and says nothing.

Source: RFC 2083 (chunks, filters, Adam7), RFC 1950 (the compressed stream).
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator

_SIGNATURE = 8  # bytes
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by colour type
#: Of Adam7's passes: first column and row, and the steps between them.
_PASSES = (
    (0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2),
    (0, 1, 1, 2),
)  # fmt: skip
_AT_ONCE = 1 << 20  # bytes unpacked: what a header promises is never held


def damage(data: bytes) -> tuple[str, str] | None:
    """(kind of finding, what is wrong) of a file that starts as a PNG; None where it is whole."""
    header = b""
    pixels: list[memoryview] = []
    for kind, content, whole in _chunks(memoryview(data)):
        if not whole:
            return "invalid", f"the checksum of its chunk {kind.decode('latin-1')!r} is wrong"
        if kind == b"IHDR":
            header = bytes(content)
        elif kind == b"IDAT":
            pixels.append(content)
    if len(header) != 13 or header[9] not in _CHANNELS:
        return "invalid", "its header is damaged"
    return _pixels(header, pixels)


def _chunks(data: memoryview) -> Iterator[tuple[bytes, memoryview, bool]]:
    """Kind, content, and whether the checksum is right, up to the end chunk or a cut one."""
    at, kind = _SIGNATURE, b""
    while kind != b"IEND" and at + 12 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        kind, end = bytes(data[at + 4 : at + 8]), at + 8 + length
        if end + 4 > len(data):
            return
        crc = int.from_bytes(data[end : end + 4], "big")
        yield kind, data[at + 8 : end], zlib.crc32(data[at + 4 : end]) == crc
        at = end + 4


def _pixels(header: bytes, parts: list[memoryview]) -> tuple[str, str] | None:
    expected = _expected(header)
    inflater = zlib.decompressobj()
    got = 0
    try:
        for part in parts:
            rest: bytes | memoryview = part
            while rest and not inflater.eof and got <= expected:
                got += len(inflater.decompress(rest, _AT_ONCE))
                rest = inflater.unconsumed_tail
        while not inflater.eof and got <= expected:  # what zlib still holds
            more = len(inflater.decompress(b"", _AT_ONCE))
            if not more:
                break
            got += more
    except zlib.error as error:
        return "invalid", f"its pixels cannot be unpacked ({error})"
    if got < expected:
        return "truncated", f"has {got} of {expected} bytes of pixels"
    if got > expected:
        return "damaged", f"decodes with a warning (more than {expected} bytes of pixels)"
    if not inflater.eof:
        return "truncated", "the end of its pixels is missing, with their checksum"
    return None


def _expected(header: bytes) -> int:
    """Bytes of all rows, each with its filter byte."""
    width, height = int.from_bytes(header[:4], "big"), int.from_bytes(header[4:8], "big")
    bits = header[8] * _CHANNELS[header[9]]
    passes = _PASSES if header[12] else ((0, 0, 1, 1),)
    total = 0
    for left, top, right, down in passes:
        columns, rows = -(-(width - left) // right), -(-(height - top) // down)
        if columns > 0 and rows > 0:
            total += rows * (1 + (columns * bits + 7) // 8)
    return total
