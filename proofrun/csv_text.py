"""Text for CSV files that people open in a spreadsheet, where some text is a program."""

from __future__ import annotations

import re
import unicodedata

_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?|[-+]?(?:inf|nan)", re.IGNORECASE)
_FORMULA = ("=", "+", "-", "@", "＝", "＋", "－", "＠")


def csv_text(value: object) -> object:
    """Text on one line without control characters, and after a `'` where it would be a formula.

    Numbers stay as they are, in text too. What begins a formula: OWASP, CSV Injection.
    """
    if not isinstance(value, str):
        return value
    text = "".join(c for c in " ".join(value.split()) if unicodedata.category(c)[0] != "C")
    return f"'{text}" if text.startswith(_FORMULA) and not _NUMBER.fullmatch(text) else text
