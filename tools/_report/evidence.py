"""The log lines behind the page's numbers: each number links to them, and they link back."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from html import escape
from io import BufferedIOBase
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from proofrun.text import clean

from .foreign.lines import open_log
from .words import Say

SHOWN = 600  # characters of a line; a run_start has thousands
_KEPT = 4 * SHOWN + 1  # bytes that hold them, and tell that there are more
_BLOCK = 1 << 20


class Source(NamedTuple):
    """`folder/events.jsonl:12` or `…:12-40`: a file below the logs' root, lines from 1."""

    file: str
    first: int
    last: int

    @classmethod
    def parse(cls, text: str) -> Source:
        """What is no such text is a file without lines."""
        file, _, lines = text.rpartition(":")
        first, _, last = lines.partition("-")
        if not (file and first.isdecimal() and (last or first).isdecimal()):
            return cls(text, 0, -1)
        return cls(file, int(first), int(last or first))

    @property
    def lines(self) -> list[int]:
        """The lines to show: the first and the last."""
        return sorted({self.first, self.last} - {0, -1})


@dataclass
class _Entry:
    """All lines of one number; `uses` are (id, text) of the places where it stands."""

    name: str
    uses: list[tuple[str, str]] = field(default_factory=list)


class Evidence:
    """Collects what the page cites while it is written; `section` then shows the lines."""

    def __init__(self) -> None:
        self._entries: dict[tuple[str, ...], _Entry] = {}
        self._uses = 0

    def link(self, text: str, sources: Sequence[str]) -> str:
        """`text`, escaped, as a link to its lines; plain where it has none."""
        said = escape(clean(text))
        if not sources:
            return said
        key = tuple(dict.fromkeys(sources))
        entry = self._entries.setdefault(key, _Entry(f"e{len(self._entries) + 1}"))
        self._uses += 1
        entry.uses.append((f"n{self._uses}", said))
        title = escape(clean("; ".join(key)))
        return f'<a class=cite id="n{self._uses}" href="#{entry.name}" title="{title}">{said}</a>'

    def section(self, root: Path, folder: Path, say: Say) -> str:
        """Every cited line once. `root` is that of the logs, `folder` the page's own."""
        if not self._entries:
            return ""
        texts = read_lines(root, (Source.parse(s) for key in self._entries for s in key))
        anchors: dict[str, str] = {}
        parts = []
        for key, entry in self._entries.items():
            back = " · ".join(f'<a href="#{name}">↩ {said}</a>' for name, said in entry.uses)
            lines = "".join(_source(s, anchors, texts, root, folder, say) for s in key)
            parts.append(f'<li id="{entry.name}"><p>{back}</p>{lines}</li>')
        return (
            f'<section id="evidence">\n<h2>{say("Log lines")} ({len(parts)})</h2>\n'
            f"<p class=muted>{say('Each number above links here; ↩ leads back to it.')}</p>\n"
            f"<ol>\n{chr(10).join(parts)}\n</ol>\n</section>"
        )


def _source(
    text: str,
    anchors: dict[str, str],
    texts: dict[tuple[str, int], str],
    root: Path,
    folder: Path,
    say: Say,
) -> str:
    """One source with its lines; where it stands already, a link to that place."""
    shown = escape(clean(text))
    if text in anchors:
        return f'<div class=line><a href="#{anchors[text]}">{shown}</a></div>'
    anchors[text] = f"s{len(anchors) + 1}"
    source = Source.parse(text)
    href = relative_link(root / source.file, root, folder)
    name = f'<a href="{href}">{shown}</a>' if href else shown
    count = source.last - source.first + 1
    many = f" · {count:,} {say('lines, the first and the last:')}" if count > 1 else ""
    missing = say("this line cannot be read any more")
    lines = "".join(
        f"<code>{escape(texts[at])}</code>" if at in texts else f"<p class=muted>{missing}</p>"
        for at in ((source.file, line) for line in source.lines)
    )
    return f'<div class=line id="{anchors[text]}">{name}{many}{lines}</div>'


def relative_link(file: Path, root: Path, folder: Path) -> str:
    """The way from the page to a log file that lies below or beside its folder, else ""."""
    folder = folder.resolve()
    near = file.is_relative_to(folder.parent) or folder.is_relative_to(root)
    if not near or ".." in file.parts:
        return ""
    path = Path(os.path.relpath(file, folder)).as_posix()
    return escape(quote(os.fsencode(path)))


def read_lines(root: Path, sources: Iterable[Source]) -> dict[tuple[str, int], str]:
    """{(file, line): its first characters}; a line that cannot be read is left out."""
    wanted: dict[str, set[int]] = {}
    for source in sources:
        wanted.setdefault(source.file, set()).update(source.lines)
    found: dict[tuple[str, int], str] = {}
    for name, lines in wanted.items():
        try:
            with _open(root / name) as file:
                for line, raw in lines_at(file, lines).items():
                    text = clean(raw.decode("utf-8", "replace"))
                    found[name, line] = text[:SHOWN] + ("…" if len(text) > SHOWN else "")
        except (OSError, ValueError):
            continue
    return found


def _open(path: Path) -> BufferedIOBase:
    """Plain or compressed, whatever the name says."""
    return open_log(path if path.exists() else path.with_name(f"{path.name}.gz"))


def lines_at(file: BufferedIOBase, wanted: set[int]) -> dict[int, bytes]:
    """The beginnings of some lines, from 1; memory is bounded whatever the file holds."""
    found: dict[int, bytes] = {}
    line, last = 1, max(wanted, default=0)  # `line` begins, or goes on, where the block does
    while line <= last and (block := file.read1(_BLOCK)):
        breaks = block.count(b"\n")
        if wanted.isdisjoint(range(line, line + breaks + 1)):
            line += breaks
            continue
        for piece in block.split(b"\n"):
            if line in wanted:
                found[line] = (found.get(line, b"") + piece)[:_KEPT]
            line += 1
        line -= 1  # its end is in the next block
    return {number: text for number, text in found.items() if text}
