"""Drives the readers: a file in, its runs and what was rejected out. Raises nothing but OSError."""

from __future__ import annotations

import errno
from dataclasses import dataclass, field
from pathlib import Path

from .clock import stamp
from .formats import Feed, Format, formats, may_match, recognise, recognise_scores
from .lines import Line, open_log, read_lines
from .record import Sink
from .run import ForeignRun
from .starts import BadRecord

SNIFF = 2000  # lines looked at before a decision, and again until a signature is found
RANKS = 64
# What programs, images, archives, arrays and data bases begin with: no log, whatever follows.
_BINARY = (
    *(b"\x7fELF", b"!<arch>", b"MZ", b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"%PDF", b"PK\x03\x04"),
    *(b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd", b"\x93NUMPY", b"\x89HDF", b"PAR1", b"SQLite"),
    *(b"OggS", b"RIFF", b"\xca\xfe\xba\xbe"),
)


@dataclass
class ForeignFile:
    """What one file holds. `rejected` are (line, reason); `empty_starts` never came to a record.

    `remarks`: (line, what is in the file and was not read).
    """

    format: Format
    runs: list[ForeignRun] = field(default_factory=list)
    rejected: list[tuple[int, str]] = field(default_factory=list)
    rejected_count: int = 0
    empty_starts: int = 0
    ranks: int = 1
    remarks: list[tuple[int, str]] = field(default_factory=list)


def read_file(path: Path) -> ForeignFile | None:
    """The runs of a log, or None where no format is recognised. Raises OSError."""
    known = formats()
    with open_log(path) as file:
        head = file.read1(4096)
    for one in known:
        if one.magic is not None and one.read is not None and one.magic(head):
            sink = _sink(one)
            _guarded(sink, lambda one=one, sink=sink: one.read(path, sink))
            return _collect(one, {None: sink})
    return None if head.startswith(_BINARY) else _read_text(path, known)


def _sink(one: Format) -> Sink:
    assert one.base in (0, 1, None)
    return Sink(one.base, one.one_writer)  # type: ignore[arg-type]


class _Others:
    """Lines of other formats than that which was chosen: they are not read, and that is said."""

    def __init__(self, chosen: Format, known: list[Format]) -> None:
        self._known = [one for one in known if one.signature is not None]
        self._chosen = chosen
        self._found: dict[str, list[int]] = {}  # title: first line, lines

    def look(self, line: Line) -> None:
        """At a line that the reader had no use for."""
        if not may_match(line.text):
            return
        for at, one in enumerate(self._known):
            assert one.signature is not None
            if one.signature.search(line.text):
                if self._chosen.signature and not self._chosen.signature.search(line.text):
                    self._found.setdefault(one.title, [line.number, 0])[1] += 1
                self._known.insert(0, self._known.pop(at))  # the next line is like this one
                return

    def said(self) -> list[tuple[int, str]]:
        """(first line, remark) of each format."""
        return [
            (line, f"also looks like {title}: {count} line{'s' * (count != 1)} like this not read")
            for title, (line, count) in self._found.items()
        ]


class _Text:
    """A text log under way: which format, the readers of its ranks, what none of them used."""

    def __init__(self, known: list[Format]) -> None:
        self.known = known
        self.held: list[Line] = []
        self.chosen: Format | None = None
        self.sinks: dict[int | None, tuple[Sink, Feed]] = {}

    def take(self, line: Line) -> None:
        if self.chosen is not None:
            self._feed(self.chosen, line)
            return
        self.held.append(line)
        if len(self.held) >= SNIFF:
            self._choose(recognise([text for _, text, _ in self.held], self.known))
            del self.held[: SNIFF // 2]

    def end(self) -> Format | None:
        """The format, if there is one."""
        if self.chosen is None:
            texts = [text for _, text, _ in self.held]
            found = recognise(texts, self.known) or recognise_scores(texts, self.known)
            self._choose(found)
        for sink, feed in self.sinks.values():
            _guarded(sink, getattr(feed, "close", lambda: None))
        return self.chosen

    def _choose(self, found: Format | None) -> None:
        if found is None:
            return
        self.chosen, self.others = found, _Others(found, self.known)
        for early in self.held:
            self._feed(found, early)
        self.held.clear()

    def _feed(self, one: Format, line: Line) -> None:
        if line.rank not in self.sinks:
            if len(self.sinks) >= RANKS:
                return
            sink = _sink(one)
            assert one.reader is not None
            self.sinks[line.rank] = sink, one.reader(sink)
        sink, feed = self.sinks[line.rank]
        before, sink.line = sink.used, line.number
        _guarded(sink, lambda: _read_line(one, sink, feed, line))
        if sink.used == before:
            self.others.look(line)


def _read_text(path: Path, known: list[Format]) -> ForeignFile | None:
    log = _Text(known)
    with open_log(path) as file:
        for line in read_lines(file):
            log.take(line)
        fault: str = getattr(file, "fault", "")
    chosen = log.end()
    if chosen is None:
        if fault:
            raise OSError(errno.EINVAL, f"no format is recognised in it; {fault}", str(path))
        return None
    found = _collect(chosen, {rank: sink for rank, (sink, _) in log.sinks.items()})
    last = max((sink.line for sink, _ in log.sinks.values()), default=0)
    found.remarks = log.others.said() + ([(last, fault)] if fault else [])
    return found


def _read_line(one: Format, sink: Sink, feed: Feed, line: Line) -> None:
    found = None if one.own_clock else stamp(line.text)
    if found is not None:
        sink.clock(*found)
    feed(line)


def _guarded(sink: Sink, read: object) -> None:
    """Whatever a line makes a reader stumble over is a rejected line."""
    try:
        read()  # type: ignore[operator]
    except BadRecord as error:
        sink.reject(str(error))
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, ArithmeticError) as error:
        sink.reject(f"not as the format has it ({type(error).__name__})")
    except RecursionError:
        sink.reject("nested too deeply")


def _collect(one: Format, sinks: dict[int | None, Sink]) -> ForeignFile:
    """The lowest rank that has runs; without a launcher's prefixes there is one sink."""
    found = ForeignFile(one, ranks=max(1, len([rank for rank in sinks if rank is not None])))
    for rank in sorted(sinks, key=lambda rank: -1 if rank is None else rank):
        sink = sinks[rank]
        runs = sink.finish()
        found.rejected += sink.rejected
        found.rejected_count += sink.rejected_count
        if runs and not found.runs:
            found.runs, found.empty_starts = runs, sink.empty_starts
    return found
