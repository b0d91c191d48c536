"""The devkit of ILSVRC2012: what the classes are called, and what the validation images show."""

from __future__ import annotations

import io
import os
import zlib
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from proofrun.archive import DamagedError
from proofrun.errors import one_line

from . import tars
from .source import GZIP_LIMITS, Source

_META = "data/meta.mat"
_META_BYTES = 1 << 24  # ours: the published one has a few MB of 1860 synsets
_MAT_HEADER = 128  # bytes
_MAT_COMPRESSED = 15  # miCOMPRESSED
_TRUTH = "data/ILSVRC2012_validation_ground_truth.txt"


@dataclass(frozen=True)
class Devkit:
    """`wnids` are sorted: the place of one is its label. `words`: what each class is called.

    `val_wnids`: the class of each validation image, in the order of their numbers.
    """

    wnids: list[str]
    words: dict[str, str]
    val_wnids: list[str]

    @cached_property
    def label(self) -> dict[str, int]:
        return {wnid: label for label, wnid in enumerate(self.wnids)}


def read(source: Source) -> Devkit:
    """Read the archive; its checksum is compared before anything in it is looked at.

    Raises ArchiveError, DataError NO_DATA.
    """
    with source.damage(), source.inflated() as (fd, size):
        source.finish()
        files = {
            name: os.pread(fd, member.size, member.offset)
            for name, member in tars.below_top(fd, size, GZIP_LIMITS).items()
        }
        for name in (_META, _TRUTH):
            if name not in files:
                raise DamagedError(f"has no {name}")
        wnid_of, words = _meta(files[_META])
        return Devkit(sorted(words), words, _truth(files[_TRUTH], wnid_of))


def _meta(data: bytes) -> tuple[dict[int, str], dict[str, str]]:
    """The wnid of each ILSVRC2012_ID, and the words of each wnid, of the synsets that are classes.

    meta.mat has a struct array `synsets`; those with children are groups of classes.
    """
    from scipy.io import loadmat

    _check_size(data)
    try:
        synsets = np.atleast_1d(loadmat(io.BytesIO(data), squeeze_me=True)["synsets"])
        fields = (synsets[f] for f in ("ILSVRC2012_ID", "WNID", "words", "num_children"))
        rows = [
            (int(number), str(wnid), str(words))
            for number, wnid, words, children in zip(*fields, strict=True)
            if int(children) == 0
        ]
    except Exception as error:  # scipy raises whatever a damaged file leads it to
        raise DamagedError(f"{_META}: cannot be read ({one_line(error)})") from None
    wnid_of = {number: wnid for number, wnid, _ in rows}
    words_of = {wnid: words for _, wnid, words in rows}
    if not all(words.isprintable() for words in words_of.values()):
        raise DamagedError(f"{_META}: has unprintable words")
    if not rows or not len(wnid_of) == len(words_of) == len(rows):
        raise DamagedError(f"{_META}: has no classes, or one of them twice")
    return wnid_of, words_of


def _check_size(data: bytes) -> None:
    """Raises DamagedError where the compressed variables of a MAT file unpack to too much.

    Format: MAT-File Level 5 (MathWorks): a header, then variables with type and length.
    """
    order: Literal["little", "big"] = "little" if data[126:128] == b"IM" else "big"
    at, total = _MAT_HEADER, 0
    while at + 8 <= len(data):
        kind = int.from_bytes(data[at : at + 4], order)
        length = int.from_bytes(data[at + 4 : at + 8], order)
        if kind == _MAT_COMPRESSED:
            inflater, packed = zlib.decompressobj(), data[at + 8 : at + 8 + length]
            try:
                total += len(inflater.decompress(packed, _META_BYTES + 1))
            except zlib.error as error:
                raise DamagedError(f"{_META}: cannot be read ({error})") from None
            if total > _META_BYTES:
                raise DamagedError(f"{_META}: unpacks to more than {_META_BYTES >> 20} MiB")
        at += 8 + length


def _truth(data: bytes, wnid_of: dict[int, str]) -> list[str]:
    """A line for each validation image: its ILSVRC2012_ID."""
    try:
        truth = [wnid_of[int(line)] for line in data.split()]
    except (ValueError, KeyError) as error:
        raise DamagedError(f"{_TRUTH}: {one_line(error)} is no class of {_META}") from None
    if missing := sorted(set(wnid_of.values()) - set(truth)):
        raise DamagedError(f"{_TRUTH}: has no image of {missing[0]}")
    return truth
