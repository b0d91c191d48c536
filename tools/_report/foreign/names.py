"""What the name of a metric means, where users name metrics: `val_acc`, `accuracy/top1`, …"""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

Kind = Literal["top1", "top5", "loss", "lr"]
Split = Literal["train", "val", "test", ""]

_SPLITS: dict[str, Split] = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "eval": "val",
    "evaluation": "val",
    "test": "test",
}
_KINDS: list[tuple[Kind, re.Pattern[str]]] = [
    (
        "top1",
        re.compile(
            r"acc(uracy)?|(acc|accuracy|top|prec)_?1|top_?1_acc(uracy)?|acc(uracy)?_top_?1"
            r"|(sparse_)?categorical_accuracy|multiclass_?accuracy"
        ),
    ),
    (
        "top5",
        re.compile(
            r"(acc|accuracy|top|prec)_?5|top_?5_acc(uracy)?|acc(uracy)?_top_?5"
            r"|(sparse_)?top_k_categorical_accuracy|top_k_accuracy_5"
        ),
    ),
    ("loss", re.compile(r"loss|cross_entropy|ce_?loss")),
    ("lr", re.compile(r"lr|learning_rate|lr_\w+|base_lr|opt_lr|lr_\w+_pg_?1")),
]


class Meaning(NamedTuple):
    """`when`: "epoch" or "step" where the name says which of the two it sums up."""

    kind: Kind
    split: Split
    when: str


def meaning(name: str) -> Meaning | None:
    """None for what is no accuracy, loss or learning rate of one data set."""
    words = [word for word in re.split(r"[^a-z0-9]+|_", name.lower()) if word][:8]
    split: Split = ""
    when = ""
    if words and words[-1] in ("epoch", "step"):
        when = words.pop()
    elif words and words[0] in ("epoch", "batch"):
        when = {"epoch": "epoch", "batch": "step"}[words.pop(0)]
    for at in (0, 0, -1):  # `perf/test_acc1`, `val/val_acc`, `acc/val`
        if len(words) > 1 and words[at] == "perf":
            words.pop(at)
        if len(words) > 1 and words[at] in _SPLITS:
            split = _SPLITS[words.pop(at)]
    rest = "_".join(words)
    for kind, pattern in _KINDS:
        if pattern.fullmatch(rest):
            return Meaning(kind, split, when)
    return None
