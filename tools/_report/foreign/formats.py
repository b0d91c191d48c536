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
DECISIVE = 3  # lines
# A line that any signature matches has one of these: most lines of other files have none.
_WORDS = (
    *("epoch", "train", "test", "iter", "step", "loss", "acc", "top", "metric", "result"),
    *(":::ml", "dll", "dpf_mode", "line,kind", "[=", "[>", "[.", "━"),
)


@dataclass(frozen=True)
class Format:
    """One format. `gives` and `lacks` are the table of what it knows and cannot tell.

    `signature` matches a line that only this format prints, `scores` one of an evaluation without
    training, which counts where a file has no signature at all. `reader` takes a sink and returns
    what is called with every line, and whose `close`, if it has one, is called after the last. A
    binary format has `read` instead, called with the path, and `magic`, called with the first 4096
    bytes. `base`: the number of the first epoch, None if both are in use. `one_writer`: only one
    rank prints. `own_clock`: the reader gives the times; stamps of other lines do not count.
    `decisive`: a few lines of it decide, however many another logger writes into the same file.
    `reexported`: made from a run of ours.
    """

    key: str
    title: str
    gives: tuple[str, ...]
    lacks: dict[str, str]
    signature: re.Pattern[str] | None = None
    scores: re.Pattern[str] | None = None
    reader: Callable[[Sink], Feed] | None = None
    base: int | None = None
    one_writer: bool = False
    own_clock: bool = False
    decisive: bool = False
    reexported: bool = False
    magic: Callable[[bytes], bool] | None = None
    read: Callable[[Path, Sink], None] | None = None


#: Modules in the order in which their signatures are tried; the narrow before the wide.
MODULES = (
    "reexport",
    "mlperf",
    "dllogger",
    "timm",
    "swin",
    "torchvision_refs",
    "mmpretrain",
    "deit_json",
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


def may_match(text: str) -> bool:
    """The quick answer for most lines of other files: no."""
    low = text.lower()
    return any(word in low for word in _WORDS)


def recognise(lines: list[str], known: list[Format]) -> Format | None:
    """A decisive format, else that with most signatures in these lines; if equal, the first."""
    lines = [text for text in lines if may_match(text)]
    counts = [
        sum(1 for text in lines if one.signature is not None and one.signature.search(text))
        for one in known
    ]
    for one, count in zip(known, counts, strict=True):
        if one.decisive and count >= DECISIVE:
            return one
    best = max(counts, default=0)
    return known[counts.index(best)] if best else None


def recognise_scores(lines: list[str], known: list[Format]) -> Format | None:
    """The first format whose `scores` are in these lines."""
    for one in known:
        if one.scores is not None and any(one.scores.search(text) for text in lines):
            return one
    return None
