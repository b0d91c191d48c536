"""Where two plain values (dicts, lists, numbers, strings as in JSON) differ, by dotted keys."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

from proofrun.text import clean


class _Absent:
    """Stands where one side has no such key."""


ABSENT = _Absent()


class Difference(NamedTuple):
    where: str
    old: Any
    new: Any

    def __str__(self) -> str:
        return f"{clean(self.where)}: {shown(self.old)} -> {shown(self.new)}"


def shown(value: object) -> str:
    """A value in a few words."""
    if value is ABSENT:
        return "absent"
    if isinstance(value, dict | list):
        return f"({len(value)} entries)"
    text = clean(value if value is not None else "n/a")
    return f"{text[:117]}…" if len(text) > 120 else text or '""'


def differences(
    old: Any, new: Any, where: str = "", closeness: float = 0.0
) -> Iterator[Difference]:
    """Every leaf that differs. `closeness`: relative difference up to which numbers are equal.

    Goes only as deep as both sides go.
    """
    if isinstance(old, dict) and isinstance(new, dict):
        for key in {**old, **new}:
            below = f"{where}.{key}" if where else str(key)
            was, now = old.get(key, ABSENT), new.get(key, ABSENT)
            yield from differences(was, now, below, closeness=closeness)
    elif isinstance(old, list) and isinstance(new, list):
        for i in range(max(len(old), len(new))):
            was, now = (side[i] if i < len(side) else ABSENT for side in (old, new))
            yield from differences(was, now, f"{where}[{i}]", closeness=closeness)
    elif not _equal(old, new, closeness):
        yield Difference(where, old, new)


def _equal(old: Any, new: Any, closeness: float) -> bool:
    numbers = (int, float)
    if type(old) in numbers and type(new) in numbers:
        return old == new or math.isclose(old, new, rel_tol=closeness)
    return type(old) is type(new) and bool(old == new)
