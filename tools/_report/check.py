"""Whether a written report is still what its logs give: every file made again and compared."""

from __future__ import annotations

import csv
import io
import itertools
import json
from collections.abc import Iterator
from pathlib import Path

from proofrun.text import clean

from .build import Report
from .differences import ABSENT, Difference, differences
from .output import files

SHOWN = 20  # of each file


def check(report: Report, folder: Path) -> bool:
    """Compare the files in `folder` with those of `report`; print each drift as old -> new."""
    drifted = []
    for name, text in files(report, folder).items():
        try:
            old = (folder / name).read_bytes().decode("utf-8", "replace")
        except OSError as error:
            print(f"{name}: cannot be read ({error.strerror})")
            drifted.append(name)
            continue
        new = text.encode("utf-8", "replace").decode()
        if old == new:
            continue
        drifted.append(name)
        found = list(_differences(name, old, new)) or [
            Difference("the file", "spelled otherwise", "as from the logs")
        ]
        for difference in found[:SHOWN]:
            print(f"{name}: {difference}")
        if len(found) > SHOWN:
            print(f"{name}: … {len(found) - SHOWN} more")
    if drifted:
        print(f"drift: {', '.join(drifted)} in {folder} {'are' if drifted[1:] else 'is'} not what "
              "the logs give (written -> from the logs)")  # fmt: skip
    else:
        print(f"no drift: every file in {folder} is what the logs give")
    return not drifted


def _differences(name: str, old: str, new: str) -> Iterator[Difference]:
    if name.endswith(".csv"):
        return _cells(old, new)
    if name.endswith(".json"):
        try:
            return differences(json.loads(old), json.loads(new))
        except (ValueError, RecursionError):
            return iter([Difference("the file", "no JSON", "JSON")])
    return _lines(old, new)


def _cells(old: str, new: str) -> Iterator[Difference]:
    """Rows count from 1 below the header; a cell is named by its column."""
    try:
        was, now = (list(csv.reader(io.StringIO(text), strict=True)) for text in (old, new))
    except csv.Error:
        yield Difference("the file", "no CSV", "CSV")
        return
    columns = [row[0] if row else [] for row in (was, now)]
    if columns[0] != columns[1]:
        yield from differences(columns[0], columns[1], "columns")
    for row, (a, b) in enumerate(itertools.zip_longest(was[1:], now[1:]), 1):
        if a is None or b is None:
            said = ["absent" if side is None else f"{', '.join(side[:4])}, …" for side in (a, b)]
            yield Difference(f"row {row}", *said)
            continue
        sides = [dict(zip(columns[i], side, strict=False)) for i, side in enumerate((a, b))]
        for column in dict.fromkeys([*sides[0], *sides[1]]):
            cells = [side.get(column, ABSENT) for side in sides]
            if cells[0] != cells[1]:
                yield Difference(f"row {row}, {clean(column)}", *cells)


def _lines(old: str, new: str) -> Iterator[Difference]:
    pairs = itertools.zip_longest(old.split("\n"), new.split("\n"), fillvalue=ABSENT)
    for number, (a, b) in enumerate(pairs, 1):
        if a != b:
            yield Difference(f"line {number}", *_around(a, b))


def _around(a: object, b: object) -> tuple[object, object]:
    """Both from shortly before the first character that differs."""
    if not isinstance(a, str) or not isinstance(b, str):
        return a, b
    pairs = enumerate(zip(a, b, strict=False))
    start = max(0, next((i for i, (x, y) in pairs if x != y), min(len(a), len(b))) - 20)
    return a[start:], b[start:]
