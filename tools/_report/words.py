"""The fixed words of tables and page in the reader's language; CSV files stay English."""

from __future__ import annotations

from collections.abc import Callable

Say = Callable[[str], str]

ZH: dict[str, str] = {}


def speaker(language: str) -> Say:
    """A function from an English word to the reader's; what has no translation stays English."""
    if language == "en":
        return lambda text: text
    return lambda text: ZH.get(text, text)
