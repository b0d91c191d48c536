"""What is to be said about one image file: read once, hashed, and decoded to its end."""

from __future__ import annotations

import hashlib
import io
import os
import signal
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

from proofrun.data.entries import undecodable_name
from proofrun.data.lists import first_scan, format_error
from proofrun.errors import Exit, one_line
from proofrun.process import stop_with_parent

from . import png
from .findings import REMARKS, Finding

#: More is never decoded: PIL, and so the torchvision loader, refuses it as a decompression bomb.
MAX_PIXELS = 2 * (Image.MAX_IMAGE_PIXELS or 1 << 27)

#: Scans of a JPEG, each of which costs a pass over its pixels. libjpeg makes 10 of a progressive
#: one, so more work than 10 over the largest image is none that an encoder asks for; and no image
#: has more than libjpeg-turbo's own fuzzers take.
SCANS, MOST_SCANS = 10, 500

#: A file that has more is no image of a training set, and is not read.
MAX_BYTES = 1 << 28

#: Of the shorter side in pixels: less has nothing to crop from.
TINY = 16

PART = 64  # files that a process examines before it reports

_ORIENTATION = 0x0112  # EXIF
_BIT_DEPTH = 24  # offset in a PNG file
_REMARK_OF_MODE = {
    "CMYK": "cmyk",
    "L": "grey",
    "1": "grey",
    "P": "palette",
    "LA": "alpha",
    "RGBA": "alpha",
    "PA": "alpha",
}
_DEEP = ("I", "F", "I;16", "I;16B", "I;16L", "I;16N")


class Part(NamedTuple):
    """Some files in order: stats int64 (n, 3) as in a manifest, sha256 uint8 (n, 32), findings.

    A file that could not be read has zeros.
    """

    stats: NDArray[np.int64]
    digests: NDArray[np.uint8]
    findings: list[Finding]


def examine_all(root: Path, names: Sequence[str], processes: int) -> Iterator[Part]:
    """Examine files in parallel, `PART` at a time, in their order.

    A file that kills the process which decodes it is found by giving each file its own.
    """
    parts = [names[at : at + PART] for at in range(0, len(names), PART)]
    done = 0
    while done < len(parts):
        try:
            with _processes(processes) as pool:
                for part in pool.map(examine_part, [str(root)] * len(parts[done:]), parts[done:]):
                    yield part
                    done += 1
        except BrokenProcessPool:
            for part_names in islice(parts, done, done + processes + 1):
                yield _one_by_one(root, part_names)
                done += 1


def _processes(count: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(count, get_context("fork"), initializer=_leave_signals_to_parent)


def _leave_signals_to_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    stop_with_parent(alone=False)


def _one_by_one(root: Path, names: Sequence[str]) -> Part:
    found = []
    for name in names:
        try:
            with _processes(1) as pool:
                found.append(pool.submit(examine_part, str(root), [name]).result())
        except BrokenProcessPool:
            said = f"{root / name}: kills the decoder; replace it or take it out of the list"
            none = np.zeros((1, 3), np.int64), np.zeros((1, 32), np.uint8)
            found.append(Part(*none, [Finding("invalid", name, said)]))
    stats, digests, findings = zip(*found, strict=True)
    return Part(
        np.concatenate(stats), np.concatenate(digests), [f for few in findings for f in few]
    )


def examine_part(root: str, names: Sequence[str]) -> Part:
    """Examine files one after the other; what a worker process does."""
    stats, digests = np.zeros((len(names), 3), np.int64), np.zeros((len(names), 32), np.uint8)
    findings: list[Finding] = []
    for row, name in enumerate(names):
        path = Path(root, name)
        try:
            with path.open("rb", buffering=0) as file:
                stat = os.fstat(file.fileno())
                data = file.read() if stat.st_size <= MAX_BYTES else b""
        except OSError as error:
            said = f"{path}: cannot be read ({error.strerror}); check the disk and permissions"
            findings.append(Finding("unreadable", name, said))
            continue
        if stat.st_size > MAX_BYTES:
            said = f"{path}: has {stat.st_size} bytes, more than {MAX_BYTES}; replace it"
            findings.append(Finding("too_large", name, said))
            continue
        stats[row] = stat.st_size, stat.st_mtime_ns, stat.st_ino
        digests[row] = np.frombuffer(hashlib.sha256(data).digest(), np.uint8)
        findings += examine(path, name, data)
    return Part(stats, digests, findings)


def examine(path: Path, name: str, data: bytes) -> list[Finding]:
    """The findings on a file with this content: errors first, at most one of them."""

    def error(kind: str, what: str) -> list[Finding]:
        return [Finding(kind, name, f"{path}: {what}; replace it or take it out of the list")]

    if undecodable_name([name]) is not None:
        said = f"{path}: the name is not UTF-8, and DALI cannot open it; rename the file"
        return [Finding("name", name, said)]
    if not data:
        return error("truncated", "has 0 bytes")
    if (wrong := format_error(path, data)) is not None:
        kind = "truncated" if wrong.exit_code is Exit.IMAGE_TRUNCATED else "invalid"
        return [Finding(kind, name, str(wrong))]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data), formats=("JPEG", "PNG")) as image:
                width, height = image.size
                if width * height > MAX_PIXELS:
                    return error("too_large", f"says it has {width}x{height} pixels")
                if image.format == "JPEG" and (scans := too_many_scans(image, data)):
                    return error("too_large", f"has {scans} scans of {width}x{height} pixels")
                if image.mode in _DEEP or (image.format == "PNG" and data[_BIT_DEPTH] == 16):
                    return error("deep", "has 16 bits a channel, which the loaders cut differently")
                damage = _decode(image, data)
                if damage is not None and damage[0] not in REMARKS:
                    return error(*damage)
                return [
                    *([Finding(*damage[:1], name, f"{path}: {damage[1]}")] if damage else []),
                    *(Finding(kind, name, str(path)) for kind in _remarks(path, image)),
                ]
    except Image.DecompressionBombError as problem:
        return error("too_large", f"is not decoded ({one_line(problem)})")
    except Exception as problem:  # PIL raises OSError, SyntaxError, ValueError, struct.error, …
        kind = "truncated" if "truncated" in str(problem) else "invalid"
        return error(kind, f"cannot be decoded ({one_line(problem)})")


def too_many_scans(image: Image.Image, data: bytes) -> int:
    """The number of scans, if decoding them takes too long; else 0. Markers are all counted.

    A sequential JPEG with all components in its first scan has no other: libjpeg refuses it.
    """
    components = data[(at := first_scan(data)) + 4 : at + 5]
    if "progressive" not in image.info and components == bytes([len(image.getbands())]):
        return 0
    scans = data.count(b"\xff\xda")
    work = scans * image.width * image.height
    return scans if scans > MOST_SCANS or work > SCANS * MAX_PIXELS else 0


def _decode(image: Image.Image, data: bytes) -> tuple[str, str] | None:
    """Decode all of the data: None, or (kind, what is wrong). Raises what PIL raises.

    libjpeg-turbo fills what it cannot read with grey and only warns, which PIL does not pass on: a
    file cut and glued together again would go unseen. So its strict binding decodes JPEGs, every
    coefficient of them, without computing the pixels that nobody looks at (an eighth of each side).
    PIL passes over what a PNG lacks as well.
    """
    if image.format == "PNG":
        image.load()
        return png.damage(data)
    space = "CMYK" if image.mode == "CMYK" else "GRAY"
    try:
        simplejpeg.decode_jpeg(data, space, min_height=1, min_width=1, min_factor=8)
        return None
    except ValueError as error:
        said = one_line(error)
    if "premature end" in said:
        return "truncated", f"its pixels end early ({said})"
    image.load()
    return "damaged", f"decodes with a warning ({said})"


def _remarks(path: Path, image: Image.Image) -> list[str]:
    found = []
    if (mode := _REMARK_OF_MODE.get(image.mode)) is not None:
        found.append(mode)
    if (path.suffix.lower() == ".png") != (image.format == "PNG"):
        found.append("misnamed")
    if min(image.size) < TINY:
        found.append("tiny")
    if "exif" in image.info and image.getexif().get(_ORIENTATION, 1) != 1:
        found.append("orientation")
    return found
