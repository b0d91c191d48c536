"""Text of strangers, made fit to be shown on a page, and in a CSV file for spreadsheets."""

from __future__ import annotations

import re
import unicodedata

_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?|[-+]?(?:inf|nan)", re.IGNORECASE)
_FORMULA = ("=", "+", "-", "@", "＝", "＋", "－", "＠")


def clean(text: object) -> str:
    """One line of printable text: logs may hold control characters and newlines."""
    words = " ".join(str(text).split())
    return "".join(c for c in words if unicodedata.category(c)[0] != "C")


def csv_text(value: object) -> object:
    """Text as `clean` gives it, after a `'` where a spreadsheet would take it for a formula.

    Numbers stay as they are, in text too. What begins a formula: OWASP, CSV Injection.
    """
    if not isinstance(value, str):
        return value
    text = clean(value)
    return f"'{text}" if text.startswith(_FORMULA) and not _NUMBER.fullmatch(text) else text
