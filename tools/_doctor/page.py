"""A line of the doctor's page, and the page: for people in colours, for programs as JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal

from proofrun.errors import printable

#: good; bad: the run needs it; absent: not there, and this run does not need it; odd: look at it.
State = Literal["good", "bad", "absent", "odd"]

_SIGN = {"good": "ok", "bad": "BAD", "absent": "-", "odd": "?"}
_COLOUR = {"good": "32", "bad": "31", "absent": "2", "odd": "33"}


@dataclass(frozen=True)
class Line:
    """`what` is so: `state`, `found` in words; `todo` says what a person can do about it."""

    group: str
    what: str
    state: State
    found: str
    todo: str = ""


def text(lines: Sequence[Line], colour: bool | None = None) -> str:
    """The page. Colours on a terminal, unless told otherwise."""
    colour = sys.stdout.isatty() if colour is None else colour
    out: list[str] = []
    group = ""
    width = max(len(line.what) for line in lines)
    for line in lines:
        if line.group != group:
            group = line.group
            out += ["", group]
        sign = f"{_SIGN[line.state]:<4}"
        if colour:
            sign = f"\x1b[{_COLOUR[line.state]}m{sign}\x1b[0m"
        out.append(f"  {sign}{line.what:<{width}}  {printable(line.found)}")
        if line.todo and line.state in ("bad", "odd"):
            out.append(f"  {'':<4}{'':<{width}}  -> {printable(line.todo)}")
    return "\n".join(out[1:])


def document(run: str, lines: Sequence[Line]) -> str:
    """The page as JSON: `run`, `fit` (nothing it needs is bad), `lines`."""
    fit = not any(line.state == "bad" for line in lines)
    content = {"schema": 1, "run": run, "fit": fit, "lines": [asdict(line) for line in lines]}
    return json.dumps(content, indent=1)
