"""Text of logs, made fit to be shown."""

from __future__ import annotations

import unicodedata


def clean(text: object) -> str:
    """One line of printable text: logs may hold control characters and newlines."""
    words = " ".join(str(text).split())
    return "".join(c for c in words if unicodedata.category(c)[0] != "C")
