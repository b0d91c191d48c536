"""The lines of an image list, the good and the bad ones. Torch-free."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from proofrun.errors import DataError, Exit

MAX_LABEL = 2**31 - 1  # more is no number of a class, and no loader's label


class Line(NamedTuple):
    """A line of a list, counted from 1; `error` says why it cannot be used."""

    number: int
    name: str
    label: int
    error: DataError | None = None


def list_lines(list_file: Path, classes: int | None) -> Iterator[Line]:
    """The entries of a list, good and bad, in its order; `classes` None: any label from 0 up.

    A byte order mark, CRLF and empty lines are no errors. Raises OSError.
    """
    # surrogateescape: a file name may be any bytes, and opens again under the same ones.
    text = list_file.read_bytes().decode("utf-8-sig", errors="surrogateescape")
    line_of: dict[str, int] = {}
    # Not splitlines(): it also splits at characters that a file name may have in it.
    for number, line in enumerate(text.split("\n"), start=1):
        line = line.rstrip(" \t\r")
        if not line:
            continue
        cut = max(line.rfind(" "), line.rfind("\t"))
        name, label = line[: max(cut, 0)].rstrip(" \t"), line[cut + 1 :]
        absolute = name.startswith("/")
        name = "/".join(part for part in name.split("/") if part not in ("", "."))  # one spelling
        error = None
        if not name or absolute or "\0" in name or not _is_integer(label):
            error = DataError(
                f"{list_file}:{number}: {line[:200]!r} is not `relative/path label`; "
                "correct the line",
                Exit.BAD_LIST,
            )
            label = "-1"
        elif ".." in name.split("/"):
            error = DataError(
                f"{list_file}:{number}: {name[:200]!r} leads out of the data folder; correct the "
                "line",
                Exit.BAD_LIST,
            )
        elif not 0 <= int(label) <= (MAX_LABEL if classes is None else classes - 1):
            last = "" if classes is None else f" {classes - 1}"
            error = DataError(
                f"{list_file}:{number}: label {label} is outside 0 …{last}; correct the "
                "list, or use a recipe with as many classes",
                Exit.LABEL_OUT_OF_RANGE,
            )
        elif (first := line_of.setdefault(name, number)) != number:
            error = DataError(
                f"{list_file}:{number}: {name!r} is in line {first} already; remove one of them",
                Exit.BAD_LIST,
            )
        yield Line(number, name, int(label), error)


def undecodable_name(names: list[str]) -> str | None:
    """The first name that is not UTF-8: it can be listed and opened, but not by DALI."""
    try:
        "".join(names).encode()
    except UnicodeEncodeError as error:
        ends = itertools.accumulate(map(len, names))
        return next(name for name, end in zip(names, ends, strict=True) if end > error.start)
    return None


def _is_integer(text: str) -> bool:
    return text.isascii() and text.removeprefix("-").isdecimal() and len(text) < 100
