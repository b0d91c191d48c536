"""A tar.gz of plain files: written alike for like content, read as if an enemy had written it.

The reader knows one form only (one gzip member, ustar headers, regular files, nothing after the
end), so no two readers can see different files in one archive.
"""

from __future__ import annotations

import gzip
import hashlib
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO, NamedTuple

from proofrun.archive import DamagedError, Inflated, Limits, bad_name

LIMITS = Limits(bytes=1 << 29, files=20_000)
MAX_LINES = 2_000_000  # of all files: each may become a rejected line in memory
BLOCK = tarfile.BLOCKSIZE


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
    stream = Inflated(file, LIMITS)
    lines = 0
    while (header := stream.take(BLOCK)) != bytes(BLOCK):
        name, size = _parse(header)
        total = stream.given + size
        if reason := bad_name(name) or LIMITS.exceeded(total, total, len(found)):
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
