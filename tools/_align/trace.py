"""The trace of a few training steps: numbers in an .npz without pickle, read without torch."""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationError

from proofrun.alignment import Text
from proofrun.archive import Limits
from proofrun.errors import Exit, ProofrunError, WriteError, disk_is_full, one_line
from proofrun.recipe import Strict

SCHEMA = 1

#: What an exercise may have, and what its file may unpack to: 20 steps of a rank take 1.3 MB.
MOST_STEPS, MOST_RANKS = 1000, 4096
LIMITS = Limits(bytes=1 << 28, files=3)

#: In the order in which a step makes them; `Trace.order` says more.
Kind = Literal["output", "buffer", "grad", "weight_grad", "moment", "weight"]
KINDS: tuple[str, ...] = get_args(Kind)

#: Of one tensor: mean, root of the mean square, largest magnitude, rms without the outermost rows
#: and columns (0 where there is no map), share of exact zeros; then three random projections and
#: the same three with `streams.ramp` over the channels. A projection is a sum over n elements
#: divided by sqrt(n): of independent elements it has the size of the rms.
STATS = ("mean", "rms", "max", "inner", "zeros", "p0", "p1", "p2", "r0", "r1", "r2")
SCALARS = ("loss", "grad_norm", "lr")

Values = NDArray[np.float64]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class TraceError(ProofrunError):
    exit_code = Exit.BAD_TRACE


class Exercise(Strict):
    """What is computed: two traces of one exercise differ by the machine alone.

    `batch` is per rank. `steps` of the whole exercise; a trace may hold fewer of them.
    """

    recipe: Text
    data: Text
    recipe_hash: Sha256
    weights_hash: Sha256
    images_hash: Sha256
    seed: int
    steps: Annotated[int, Field(ge=1, le=MOST_STEPS)]
    batch: Annotated[int, Field(ge=2)]
    ranks: Annotated[int, Field(ge=1, le=MOST_RANKS)]
    image_size: int
    classes: int


class Row(Strict):
    """One traced tensor: `name` is the module's or parameter's, as in the network."""

    name: Text
    kind: Kind
    shape: tuple[int, ...]


class Made(Strict):
    """How and where a trace was made; for people, nothing is decided by it."""

    precision: Text
    device: Text
    device_name: Text
    torch: Text
    numpy: Text
    date: Text
    took_s: Annotated[float, Field(ge=0, lt=1e9)]
    note: Text = ""


class Header(Strict):
    schema_: int = Field(alias="schema")
    exercise: Exercise
    made: Made
    rows: tuple[Row, ...]
    stats: tuple[str, ...] = STATS
    scalars: tuple[str, ...] = SCALARS


@dataclass(frozen=True, eq=False)
class Trace:
    """`stats`: (ranks, steps, rows, len(STATS)); `scalars`: (ranks, steps, len(SCALARS))."""

    header: Header
    stats: Values
    scalars: Values

    @property
    def steps(self) -> int:
        return self.stats.shape[1]

    @property
    def rows(self) -> tuple[Row, ...]:
        return self.header.rows

    def save(self, path: Path) -> None:
        """Write beside `path` and rename. Raises WriteError."""
        text = self.header.model_dump_json(by_alias=True)
        partial = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with partial.open("wb") as file:
                np.savez_compressed(
                    file,
                    header=np.frombuffer(text.encode(), dtype=np.uint8),
                    # a statistic's values lie together: they compress better
                    stats=np.ascontiguousarray(self.stats.transpose(3, 0, 2, 1), dtype="<f4"),
                    scalars=self.scalars.astype("<f8"),
                )
            partial.replace(path)
        except OSError as error:
            with contextlib.suppress(OSError):
                partial.unlink()
            what = "free the disk" if disk_is_full(error) else "give another --out"
            raise WriteError(f"{path}: cannot be written ({error.strerror}); {what}") from None


def load(path: Path) -> Trace:
    """Read a trace. Raises TraceError with one line for a missing, damaged or foreign file."""
    if not path.exists():
        raise TraceError(
            f"{path}: there is no such trace; make it with `python tools/align.py record`"
        )
    if not path.is_file():  # a fifo would be waited for
        raise TraceError(f"{path}: is no file; give the .npz file of a trace")
    try:
        text, stats, scalars = _unpacked(path)
    except _DAMAGE as error:
        raise TraceError(f"{path}: is damaged ({one_line(error)}); record it again") from None
    return Trace(*_checked(path, text, stats, scalars))


#: What zipfile, zlib and numpy raise over bytes that are not what they seem.
_DAMAGE = (
    OSError, ValueError, EOFError, MemoryError, RuntimeError, NotImplementedError,
    zipfile.BadZipFile, zlib.error,
)  # fmt: skip

_ARRAYS = ("header", "stats", "scalars")
_ZIP = b"PK\x03\x04"


def _unpacked(path: Path) -> tuple[str, NDArray[np.generic], NDArray[np.generic]]:
    """(header, stats, scalars). Raises TraceError for what is none, `_DAMAGE` for what is cut."""
    with path.open("rb") as file:
        if file.read(len(_ZIP)) != _ZIP:
            raise TraceError(f"{path}: is no trace of align.py; give the .npz file of one")
    with zipfile.ZipFile(path) as archive:
        members = {member.filename: member for member in archive.infolist()}
        if set(members) != {f"{name}.npy" for name in _ARRAYS}:
            raise TraceError(
                f"{path}: is no trace of align.py (it does not hold {', '.join(_ARRAYS)}); give "
                "the .npz file of one"
            )
        size = sum(member.file_size for member in members.values())
        if reason := LIMITS.exceeded(size, path.stat().st_size, len(archive.infolist())):
            raise TraceError(f"{path}: is no trace of align.py ({reason})")
        header, stats, scalars = (_array(archive.read(f"{name}.npy")) for name in _ARRAYS)
    return header.tobytes().decode(), stats, scalars


def _array(raw: bytes) -> NDArray[np.generic]:
    """Of an .npy file without objects. Raises ValueError."""
    try:
        read: NDArray[np.generic] = np.lib.format.read_array(io.BytesIO(raw), allow_pickle=False)
    except Exception:  # of any kind; numpy's words may advise to read what is not safe to read
        raise ValueError("an array of it cannot be read") from None
    return read


def _checked(
    path: Path, text: str, stats: NDArray[np.generic], scalars: NDArray[np.generic]
) -> tuple[Header, Values, Values]:
    try:
        plain = json.loads(text)
        if isinstance(plain, dict) and plain.get("schema") != SCHEMA:
            raise TraceError(
                f"{path}: has schema {plain.get('schema')!r}, this checkout reads {SCHEMA}; record "
                "it again"
            )
        header = Header.model_validate_json(text)
    except (ValidationError, ValueError, RecursionError) as error:
        raise TraceError(
            f"{path}: its header is damaged ({one_line(error)[:100]}); record it again"
        ) from None
    ranks, rows = header.exercise.ranks, len(header.rows)
    fits = (
        stats.ndim == 4
        and stats.shape[:3] == (len(STATS), ranks, rows)
        and 0 < stats.shape[3] <= header.exercise.steps
        and scalars.shape == (ranks, stats.shape[3], len(SCALARS))
        and (stats.dtype, scalars.dtype) == ("<f4", "<f8")
        and (header.stats, header.scalars) == (STATS, SCALARS)
    )
    if not fits:
        raise TraceError(
            f"{path}: its numbers {stats.shape}, {scalars.shape} do not fit its header; record it "
            "again"
        )
    return header, stats.astype(np.float64).transpose(1, 3, 2, 0), scalars.astype(np.float64)


#: What an exercise is asked for comes before what it is then made of.
_HASHES = [name for name in Exercise.model_fields if name.endswith("_hash")]
_ASKED = [name for name in Exercise.model_fields if name not in _HASHES]


def check_same(mine: Exercise, theirs: Exercise, where: Path) -> None:
    """`mine` is the trusted one. Raises TraceError naming the first fact in which they differ."""
    for name in (*_ASKED, *_HASHES):
        if getattr(mine, name) != getattr(theirs, name):
            raise TraceError(
                f"{where}: has {name} {_short(getattr(theirs, name))}, the trusted trace "
                f"{_short(getattr(mine, name))}: they are not of the same exercise; record one "
                "that fits, or replay again"
            )


def _short(value: object) -> str:
    text = str(value)
    return text[:12] if len(text) == 64 else text


def elements(row: Row) -> int:
    return math.prod(row.shape)
