"""The devkit of ILSVRC2012: what the classes are called, and what the validation images show."""

from __future__ import annotations

import io
import os
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from proofrun.archive import DamagedError
from proofrun.errors import one_line

from . import tars
from .source import GZIP_LIMITS, Source

_META = "data/meta.mat"
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


def _truth(data: bytes, wnid_of: dict[int, str]) -> list[str]:
    """A line for each validation image: its ILSVRC2012_ID."""
    try:
        truth = [wnid_of[int(line)] for line in data.split()]
    except (ValueError, KeyError) as error:
        raise DamagedError(f"{_TRUTH}: {one_line(error)} is no class of {_META}") from None
    if missing := sorted(set(wnid_of.values()) - set(truth)):
        raise DamagedError(f"{_TRUTH}: has no image of {missing[0]}")
    return truth
