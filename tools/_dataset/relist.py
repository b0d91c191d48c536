"""Lists and record of a data set without some of its entries."""

from __future__ import annotations

import codecs
import re
from contextlib import suppress
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from proofrun.data.entries import list_lines
from proofrun.data.lists import ImageList, Split, list_hash, rooted

from .record import RECORD, Record
from .survey import SPLITS


def relisted(root: Path, entries: set[str]) -> dict[str, bytes]:
    """The new content of each list that names some of `entries`, and of the record of the set."""
    changed: dict[str, bytes] = {}
    for split in SPLITS:
        path = root / f"{split}.txt"
        if path.is_file() and (after := _without(root, split, entries)) != path.read_bytes():
            changed[path.name] = after
    if changed and (root / RECORD).is_file():
        with suppress(ValidationError, OSError):  # not ours
            changed[RECORD] = _record(root, entries)
    return changed


def _without(root: Path, split: Split, entries: set[str]) -> bytes:
    """The list's bytes without the lines of these entries; every other byte as it is."""
    path = root / f"{split}.txt"
    lines = list(list_lines(path, None))
    files = rooted(root, split, [line.name for line in lines])
    drop = {line.number for line, file in zip(lines, files, strict=True) if file in entries}
    content = path.read_bytes()
    mark = codecs.BOM_UTF8 if content.startswith(codecs.BOM_UTF8) else b""
    every = re.findall(rb"[^\n]*\n|[^\n]+", content.removeprefix(mark))
    return mark + b"".join(line for at, line in enumerate(every, start=1) if at not in drop)


def _record(root: Path, entries: set[str]) -> bytes:
    """Of a set with these lists: `prepare` knows it again."""
    record = Record.model_validate_json((root / RECORD).read_bytes())
    images, hashes = dict(record.images), dict(record.lists)
    for split in images:
        lines = list(list_lines(root / f"{split}.txt", None))
        files = rooted(root, split, [line.name for line in lines])
        kept = [
            (file, line.label)
            for file, line in zip(files, lines, strict=True)
            if file not in entries
        ]
        labels = np.array([label for _, label in kept], np.int64)
        images[split] = len(kept)
        hashes[split] = list_hash(ImageList(root, [file for file, _ in kept], labels, 0))
    taken = sum(record.images.values()) - sum(images.values())
    changes = {"images": images, "lists": hashes, "quarantined": record.quarantined + taken}
    return (record.model_copy(update=changes).model_dump_json(indent=1) + "\n").encode()
