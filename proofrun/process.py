"""How a process stands to the one above it and to its readers. Standard library only."""

from __future__ import annotations

import ctypes
import errno
import io
import os
import signal
import sys
from typing import Any

#: A rank that gets this writes the stacks of all its threads to stderr, whatever it waits for.
STACKS = signal.SIGUSR2

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def stop_with_parent(alone: bool = True) -> None:
    """Ask the kernel to end this process when its parent dies, however it dies.

    `alone`: by SIGTERM, so that it saves. Among several machines by SIGKILL: a SIGTERM to one is
    obeyed by all, and here the others shall wait for this one to come back.
    """
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM if alone else signal.SIGKILL)


class _Unbroken(io.FileIO):
    """A standard stream whose reader may leave: what nobody reads any more is dropped."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError as error:
            if error.errno not in (errno.EPIPE, errno.EIO):  # EIO: the terminal has closed
                raise
            return len(memoryview(data).cast("B"))


def keep_going_without_reader() -> None:
    """`| head`, a closed terminal or one without UTF-8 must not end a run, nor change a code."""
    for name, own in (("stdout", sys.__stdout__), ("stderr", sys.__stderr__)):
        stream = getattr(sys, name)
        if stream is None:  # closed by the caller: `>&-`
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
            continue
        if stream is not own or not isinstance(stream, io.TextIOWrapper):
            continue  # somebody captures it, or it is closed
        stream.flush()
        raw = _Unbroken(stream.fileno(), "w", closefd=False)
        unbroken = io.TextIOWrapper(
            io.BufferedWriter(raw),
            encoding=stream.encoding,
            errors="replace" if stream.errors == "strict" else stream.errors,
            line_buffering=stream.line_buffering,
        )
        setattr(sys, name, unbroken)
