"""Drives the readers: a file in, its runs and what was rejected out. Raises nothing but OSError."""

from __future__ import annotations

import contextlib
import gzip
import zlib
from dataclasses import dataclass, field
from pathlib import Path

from .clock import stamp
from .formats import Feed, Format, formats, recognise
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
    """What one file holds. `rejected` are (line, reason); `empty_starts` never came to a record."""

    format: Format
    runs: list[ForeignRun] = field(default_factory=list)
    rejected: list[tuple[int, str]] = field(default_factory=list)
    rejected_count: int = 0
    empty_starts: int = 0
    ranks: int = 1


def read_file(path: Path) -> ForeignFile | None:
    """The runs of a log, or None where no format is recognised. Raises OSError."""
    known = formats()
    head = b""
    with open_log(path) as file, contextlib.suppress(EOFError, zlib.error, gzip.BadGzipFile):
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


def _read_text(path: Path, known: list[Format]) -> ForeignFile | None:
    held: list[Line] = []
    chosen: Format | None = None
    sinks: dict[int | None, tuple[Sink, Feed]] = {}
    with open_log(path) as file:
        for line in read_lines(file):
            if chosen is None:
                held.append(line)
                if len(held) < SNIFF:
                    continue
                chosen = recognise([text for _, text, _ in held], known)
                if chosen is None:
                    del held[: SNIFF // 2]
                    continue
                for early in held:
                    _feed(chosen, sinks, early)
                held.clear()
            else:
                _feed(chosen, sinks, line)
    if chosen is None:
        chosen = recognise([text for _, text, _ in held], known)
        if chosen is None:
            return None
        for early in held:
            _feed(chosen, sinks, early)
    for sink, feed in sinks.values():
        _guarded(sink, getattr(feed, "close", lambda: None))
    return _collect(chosen, {rank: sink for rank, (sink, _) in sinks.items()})


def _feed(one: Format, sinks: dict[int | None, tuple[Sink, Feed]], line: Line) -> None:
    if line.rank not in sinks:
        if len(sinks) >= RANKS:
            return
        sink = _sink(one)
        assert one.reader is not None
        sinks[line.rank] = sink, one.reader(sink)
    sink, feed = sinks[line.rank]
    sink.line = line.number

    def read() -> None:
        found = None if one.own_clock else stamp(line.text)
        if found is not None:
            sink.clock(*found)
        feed(line)

    _guarded(sink, read)


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
