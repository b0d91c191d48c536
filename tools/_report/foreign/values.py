"""Plain values out of what a log's JSON or text holds: never a bool for a number, never a guess."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable
from typing import Any

from .starts import BadRecord

_DECODER = json.JSONDecoder()
#: Takes the whole of `0,53` and of `1,281,167`: half of either is another number. See `decimal`.
NUMBER = r"([-+]?(?:\d+(?:,\d+)*\.?\d*(?:[eE][-+]?\d+)?|nan|inf))"
_GROUPED = re.compile(r"[-+]?[1-9]\d{0,2}(?:,\d{3})+(?:\.\d*)?")


def decimal(text: str) -> float:
    """A number as NUMBER finds it: `0,53` and `52,876` as 0.53 and 52.876, `1,281,167` as it is.

    Raises ValueError.
    """
    commas = text.count(",")
    if not commas:
        return float(text)
    if _GROUPED.fullmatch(text) and (commas > 1 or "." in text):
        return float(text.replace(",", ""))
    if commas > 1 or "." in text:
        raise BadRecord(f"{text[:40]} is no number: which comma is what?")
    return float(text.replace(",", "."))


def images_per_s(text: str) -> float:
    """As `decimal`, of what may be above 1000: `2,560` is refused. Raises ValueError."""
    if "," in text and "." not in text and text.count(",") == 1 and _GROUPED.fullmatch(text):
        raise BadRecord(f"{text} may be {text.replace(',', '')} or {text.replace(',', '.')}")
    return decimal(text)


def json_at(text: str, start: int = 0) -> Any:
    """The JSON value that starts at `start`; what follows it is left. Raises ValueError."""
    while start < len(text) and text[start] in " \t":
        start += 1
    return _DECODER.raw_decode(text, start)[0]


def object_at(text: str, start: int = 0) -> dict[str, Any]:
    """As `json_at`, for an object. Raises ValueError for anything else."""
    found = json_at(text, start)
    if not isinstance(found, dict):
        raise ValueError("no JSON object")
    return found


def number(value: object) -> float | None:
    """A float of a number or of text that is one; NaN and infinity are numbers. Else None."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        return decimal(value) if isinstance(value, str) else float(value)
    except (ValueError, OverflowError):
        return None


def whole(value: object) -> int | None:
    """An int of a whole number or of text that is one, else None."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    found = number(value)
    return int(found) if found is not None and math.isfinite(found) and found % 1 == 0 else None


def first(data: dict[str, Any], keys: Iterable[str]) -> float | None:
    """The number under the first of `keys` that has one."""
    for key in keys:
        found = number(data.get(key))
        if found is not None:
            return found
    return None


def percent(fraction: float | None) -> float | None:
    """Of a fraction, where the format has fractions."""
    return None if fraction is None else fraction * 100
