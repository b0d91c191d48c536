"""Which data a run saw: a fingerprint of the content, kept in a manifest beside it. Torch-free.

The fingerprint is a sha256 over the sorted (path, size, sha256) of every listed image, so neither
the order of a list nor the way of copying matters. Reading a large set takes minutes, so each
file's hash is kept with its stat (size, mtime, inode): the next time only files whose stat changed
are read again.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from proofrun.data import apart
from proofrun.data.identity import confirmed
from proofrun.data.lists import ImageList, Split, image_error, list_hash
from proofrun.errors import DataError, Exit
from proofrun.progress import counted

#: The manifest's name in the data folder.
MANIFEST = ".proofrun-manifest.npz"

_SCHEMA = 1
_THREADS = min(32, 4 * (os.cpu_count() or 1))  # more than cores: network disks answer late
_STAT_FIELDS = 3  # size, mtime_ns, inode
_PART = 64  # files a thread reads before it reports


@dataclass(frozen=True, eq=False)
class Manifest:
    """What was read, when. Row i: `paths[i]`, `stats[i]` (size, mtime_ns, inode), `digests[i]`.

    `paths` are sorted and relative to the data folder; `stats` is int64 (N, 3), `digests` uint8
    (N, 32). `lists` has the hash of each split's list, `identity` the name of a known set.
    """

    paths: list[str]
    stats: NDArray[np.int64]
    digests: NDArray[np.uint8]
    lists: dict[Split, str]
    identity: str
    taken: float = field(default_factory=time.time)

    def fingerprint(self) -> str:
        """sha256 over lines `path<tab>size<tab>sha256`, sorted by path."""
        total = hashlib.sha256()
        hexes = self.digests.tobytes().hex()
        sizes = self.stats[:, 0].tolist()
        for index, path in enumerate(self.paths):
            name = path.replace("\\", "\\\\").replace("\n", "\\n")
            line = f"{name}\t{sizes[index]}\t{hexes[64 * index : 64 * index + 64]}\n"
            total.update(line.encode(errors="surrogateescape"))
        return total.hexdigest()

    def named(self) -> Manifest:
        """The same, with an identity that content and labels confirm."""
        return replace(self, identity=confirmed(self.identity, self.lists, self.fingerprint))


class Seen(NamedTuple):
    """What a run records of its data. `changed`: it is not what was fingerprinted, and accepted."""

    fingerprint: str
    lists: dict[Split, str]
    identity: str
    changed: bool
    root: str

    @property
    def hash(self) -> str:
        """What two runs on the same data share: content and labels."""
        return "-".join([self.fingerprint, *self.lists.values()])

    def provenance(self) -> dict[str, Any]:
        return {
            "fingerprint": self.fingerprint,
            "identity": self.identity,
            "changed": self.changed,
            "root": self.root,
        }


def settle(
    root: Path,
    lists: Mapping[Split, ImageList],
    identity: str,
    cache: Path,
    accept: bool,
    leaks: int = 0,
) -> Seen:
    """What the data is now, against its manifest; the first time the manifest is made.

    `identity` is what the lists look like, `cache` the folder for manifests of data that cannot be
    written, `leaks` as many images of val as may be in train. Raises DataError BAD_LIST for more,
    DATA_CHANGED naming the first path that differs, unless `accept`; an image that broke since has
    the error of `image_error`.
    """
    paths = sorted(name for images in lists.values() for name in images.files)
    hashes = {split: list_hash(images) for split, images in lists.items()}
    stats = observe(root, paths)
    known = load(root, cache)
    now = Manifest(paths, stats, _digests(root, paths, stats, known), hashes, identity).named()
    difference = None if known is None else first_difference(known, now)
    if difference is None or accept:
        apart.check_content(paths, now.digests, lists["val"], leaks)
    if difference is None:
        if known is None or not _same_stats(known, now):
            keep(root, cache, now)
    elif not accept:
        first = root / difference.path
        broken = first.suffix != ".txt" and first.exists() and image_error(first, decode=True)
        raise broken or _changed(root, difference)
    return Seen(now.fingerprint(), hashes, now.identity, difference is not None, root.name)


class Difference(NamedTuple):
    """The first of `paths` that differ between a manifest taken at `taken` and a later one."""

    path: str
    what: str
    paths: int
    taken: float


def first_difference(before: Manifest, now: Manifest) -> Difference | None:
    """Where content, paths or labels differ; stats say nothing. None: the same data."""
    if before.paths == now.paths:
        other = np.flatnonzero((before.digests != now.digests).any(axis=1)).tolist()
        if other:
            return Difference(now.paths[other[0]], "has other content", len(other), before.taken)
        for split, value in now.lists.items():
            if before.lists.get(split) != value:
                return Difference(f"{split}.txt", "gives other labels", 1, before.taken)
        return None
    old, new = _rows(before), _rows(now)
    odd = sorted(path for path in old.keys() | new.keys() if old.get(path) != new.get(path))
    first = odd[0]
    what = "has other content" if first in old and first in new else "is new"
    return Difference(first, what if first in new else "is gone", len(odd), before.taken)


def _rows(manifest: Manifest) -> dict[str, bytes]:
    return {
        path: digest.tobytes()
        for path, digest in zip(manifest.paths, manifest.digests, strict=True)
    }


def _changed(root: Path, difference: Difference) -> DataError:
    more = f" (and {difference.paths - 1} more)" if difference.paths > 1 else ""
    taken = time.strftime("%Y-%m-%d %H:%M", time.localtime(difference.taken))
    return DataError(
        f"{root / difference.path}: {difference.what} since the data was fingerprinted on "
        f"{taken}{more}; put it back, or run `python tools/dataset.py verify {root}` to take it as "
        "it is now, or give --accept-changed-data, which marks the row overridden",
        Exit.DATA_CHANGED,
    )


def observe(root: Path, paths: Sequence[str]) -> NDArray[np.int64]:
    """(size, mtime_ns, inode) of each path, int64 (N, 3); one scan a folder. Raises DataError."""
    wanted: dict[str, list[int]] = {}
    for index, path in enumerate(paths):
        wanted.setdefault(path.rpartition("/")[0], []).append(index)
    stats = np.zeros((len(paths), _STAT_FIELDS), np.int64)

    def scan(folder: str) -> None:
        rows = {paths[index].rpartition("/")[2]: index for index in wanted[folder]}
        with os.scandir(root / folder) as entries:
            for entry in entries:
                if (index := rows.pop(entry.name, None)) is not None:
                    found = entry.stat()
                    stats[index] = found.st_size, found.st_mtime_ns, found.st_ino
        for name in rows:  # a run checked that it is there, moments ago
            raise FileNotFoundError(2, "No such file", str(root / folder / name))

    try:
        with ThreadPoolExecutor(_THREADS) as pool:
            for _ in pool.map(scan, wanted):
                pass
    except OSError as error:
        raise DataError(
            f"{error.filename or root}: cannot be read ({error.strerror}); complete the data",
            Exit.LIST_MISSING_FILE,
        ) from None
    return stats


def _digests(
    root: Path, paths: list[str], stats: NDArray[np.int64], known: Manifest | None
) -> NDArray[np.uint8]:
    """The digest of each file: from `known` where path and stat are the same, else by reading."""
    digests = np.zeros((len(paths), 32), np.uint8)
    stale: Iterable[int] = range(len(paths))
    if known is not None and known.paths == paths:
        same = (known.stats == stats).all(axis=1)
        digests[same] = known.digests[same]
        stale = np.flatnonzero(~same).tolist()
    elif known is not None:
        row_of = {path: row for row, path in enumerate(known.paths)}
        rows = np.array([row_of.get(path, -1) for path in paths])
        same = (rows >= 0) & (known.stats[rows] == stats).all(axis=1)
        digests[same] = known.digests[rows[same]]
        stale = np.flatnonzero(~same).tolist()
    todo = list(stale)
    parts = [todo[at : at + _PART] for at in range(0, len(todo), _PART)]

    def read(part: list[int]) -> bytes:
        return b"".join(file_digest(root / paths[index]) for index in part)

    what = f"{root}: reading the data for its fingerprint"
    with ThreadPoolExecutor(_THREADS) as pool:
        done = counted(pool.map(read, parts), len(todo), what, _PART)
        for part, found in zip(parts, done, strict=True):
            digests[part] = np.frombuffer(found, np.uint8).reshape(-1, 32)
    return digests


def file_digest(path: Path) -> bytes:
    """sha256 of a file's content. Raises DataError when it cannot be read."""
    try:
        with path.open("rb", buffering=0) as file:
            return hashlib.sha256(file.read()).digest()
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read ({error.strerror}); check its permissions",
            Exit.IMAGE_INVALID,
        ) from None


def _same_stats(before: Manifest, now: Manifest) -> bool:
    return before.identity == now.identity and bool((before.stats == now.stats).all())


def _places(root: Path, cache: Path) -> tuple[Path, Path]:
    """Beside the data, and in the cache folder, named by the data folder's path and inode."""
    real = root.resolve()
    name = hashlib.sha256(f"{real}\0{real.stat().st_ino}".encode(errors="surrogateescape"))
    return root / MANIFEST, cache / f"data-{name.hexdigest()[:16]}.npz"


def load(root: Path, cache: Path) -> Manifest | None:
    """The newest manifest of a data folder; None where there is none, or none that is whole."""
    found = [manifest for place in _places(root, cache) if (manifest := _read(place)) is not None]
    return max(found, key=lambda manifest: manifest.taken, default=None)


def _read(path: Path) -> Manifest | None:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            head = json.loads(arrays["head"].tobytes())
            text = arrays["paths"].tobytes().decode(errors="surrogateescape")
            stats, digests = arrays["stats"], arrays["digests"]
        paths = text.split("\0") if text else []
        fits = stats.shape == (len(paths), _STAT_FIELDS) and digests.shape == (len(paths), 32)
        if head["schema"] != _SCHEMA or not fits:
            return None
        return Manifest(
            paths, stats, digests, dict(head["lists"]), str(head["identity"]), float(head["taken"])
        )
    except Exception:  # zipfile and numpy raise anything on damaged bytes: it can be made again
        return None


def keep(root: Path, cache: Path, manifest: Manifest) -> None:
    """`save`, or say that the next run will read everything again."""
    if save(root, cache, manifest) is None:
        said = f"{root}: its manifest can be written neither there nor to {cache}: every"
        print(f"{said} run reads all of the data first; set PROOFRUN_CACHE", file=sys.stderr)


def save(root: Path, cache: Path, manifest: Manifest) -> Path | None:
    """Write it beside the data, else into the cache folder; None where neither can be written."""
    head = {
        "schema": _SCHEMA,
        "fingerprint": manifest.fingerprint(),
        "lists": manifest.lists,
        "identity": manifest.identity,
        "taken": manifest.taken,
    }
    paths = "\0".join(manifest.paths).encode(errors="surrogateescape")
    buffer = io.BytesIO()
    np.savez(
        buffer,
        head=np.frombuffer(json.dumps(head).encode(), np.uint8),
        paths=np.frombuffer(paths, np.uint8),
        stats=manifest.stats,
        digests=manifest.digests,
    )
    for place in _places(root, cache):
        temporary = place.with_name(f".{place.name}.{os.getpid()}")
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_bytes(buffer.getbuffer())
            temporary.rename(place)
            return place
        except OSError:  # read-only, or full
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
    return None
