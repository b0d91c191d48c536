"""The formats that are known, and how a file is recognised as one of them: by content alone."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from .lines import Line
from .record import Sink

Feed = Callable[[Line], None]


@dataclass(frozen=True)
class Format:
    """One format. `gives` and `lacks` are the table of what it knows and cannot tell.

    `signature` matches a line that only this format prints. `reader` takes a sink and returns what
    is called with every line, and whose `close`, if it has one, is called after the last. A binary
    format has `read` instead, called with the path, and `magic`, called with the first 4096 bytes.
    `base`: the number of the first epoch, None if both are in use.
    """

    key: str
    title: str
    gives: tuple[str, ...]
    lacks: dict[str, str]
    signature: re.Pattern[str] | None = None
    reader: Callable[[Sink], Feed] | None = None
    base: int | None = None
    magic: Callable[[bytes], bool] | None = None
    read: Callable[[Path, Sink], None] | None = None


#: Modules in the order in which their signatures are tried; the narrow before the wide.
MODULES = (
    "ascend_googlenet",
    "cambricon",
    "keras",
    "lightning",
    "mindspore",
    "mxnet",
    "paddleclas",
    "tensorboard",
    "torch_imagenet",
)


def formats() -> list[Format]:
    """All formats, in order."""
    found: list[Format] = []
    for name in MODULES:
        found += import_module(f"{__package__}.{name}").FORMATS
    return found


def recognise(lines: list[str], known: list[Format]) -> Format | None:
    """The format with most signatures in these lines; of equal ones the first in order."""
    counts = [
        sum(1 for text in lines if one.signature is not None and one.signature.search(text))
        for one in known
    ]
    best = max(counts, default=0)
    return known[counts.index(best)] if best else None
