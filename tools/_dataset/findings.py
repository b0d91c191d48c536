"""What a verification can find: the vocabulary, and which of it is an error."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from proofrun.errors import Exit


class Finding(NamedTuple):
    """`path` is relative to the data folder; `message` is one line for people."""

    kind: str
    path: str
    message: str


#: A run would fail, or be wrong. The first kind found, in this order, gives the exit code.
ERRORS: dict[str, tuple[Exit, str]] = {
    "no_images": (Exit.NO_DATA, "a split has no images, or none in class folders"),
    "bad_line": (Exit.BAD_LIST, "line is not `path label`, or repeats a path"),
    "other_split": (Exit.BAD_LIST, "images of the other split: in both lists"),
    "label_range": (Exit.LABEL_OUT_OF_RANGE, "label outside 0 … classes-1"),
    "label_order": (Exit.BAD_LIST, "label is not the place of its class among the sorted names"),
    "class_count": (Exit.CLASS_COUNT, "classes missing, empty, too many, or of the wrong size"),
    "missing": (Exit.LIST_MISSING_FILE, "listed, but not there"),
    "unreadable": (Exit.IMAGE_INVALID, "cannot be read"),
    "truncated": (Exit.IMAGE_TRUNCATED, "0 bytes, or the end of the pixels is missing"),
    "invalid": (Exit.IMAGE_INVALID, "no JPEG or PNG, or cannot be decoded"),
    "too_large": (Exit.IMAGE_INVALID, "a decompression bomb: not decoded"),
    "deep": (Exit.IMAGE_INVALID, "16 bits a channel"),
    "name": (Exit.IMAGE_INVALID, "name is not UTF-8: DALI cannot open it"),
    "leak": (Exit.BAD_LIST, "the same content in train and val"),
    "image_count": (Exit.IMAGE_COUNT, "fewer or more images than the recipe has"),
}

#: The loaders survive it, as the tests hold; it may be as published.
REMARKS: dict[str, str] = {
    "damaged": "decodes with a warning of its library",
    "cmyk": "CMYK",
    "grey": "grey",
    "palette": "palette",
    "alpha": "transparent",
    "misnamed": "JPEG named .png, or PNG named .JPEG",
    "orientation": "EXIF asks for a rotation, which no published accuracy applies",
    "tiny": "shorter side under 16 pixels",
    "duplicate": "the same content twice in one split",
    "known_leak": "the same content in train and val, no more than is known of this set",
    "unlisted": "not in the list: no run sees it",
    "nested": "images in folders within class folders: no run sees them",
    "own_order": "the list has its own order of classes",
    "no_classes": "listed outside class folders: its label cannot be checked",
}

#: Kinds of errors that are in one image file: what `--quarantine` moves.
IN_FILE = frozenset({"unreadable", "truncated", "invalid", "too_large", "deep", "name"})

#: With one of these it is not known which images the set has: no fingerprint is taken.
UNSETTLED = IN_FILE | {"no_images", "bad_line", "other_split", "label_range", "missing"}


def worst(findings: Iterable[Finding]) -> Finding | None:
    """The finding that decides the exit code: of the first kind of `ERRORS`; None: no error."""
    order = {kind: place for place, kind in enumerate(ERRORS)}
    errors = [finding for finding in findings if finding.kind in order]
    return min(errors, key=lambda finding: order[finding.kind], default=None)
