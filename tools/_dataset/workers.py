"""Threads that write files while the main one reads on, and what a person sees of it."""

from __future__ import annotations

import os
import sys
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, NamedTuple

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from proofrun.archive import DamagedError
from proofrun.errors import printable

from . import tars

BATCH = 64  # files that a thread writes in one go
_LINE_S = 30.0  # without a terminal: seconds between two lines


class Piece(NamedTuple):
    """One file to write: `size` bytes from `offset` of an open file."""

    target: str
    offset: int
    size: int


class Workers:
    """As many threads as cores, and a bar. Threads, since all they do is done without Python's
    lock; and a kill ends all of them.

    `total`: what the bar counts to, in the unit of `submit`'s `amount`. An error in a thread is
    raised by the next call, or at the end.
    """

    def __init__(self, title: str, total: int) -> None:
        cores = len(os.sched_getaffinity(0))
        self._pool = ThreadPoolExecutor(max(2, cores))
        self._ahead = 2 * max(2, cores)  # more would drop out of memory before they are copied
        self._running: deque[tuple[Future[Any], int, int]] = deque()
        self._bar = _Bar(title, total)

    def __enter__(self) -> Workers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, _: TracebackType | None
    ) -> None:
        try:
            while kind is None and self._running:
                self._wait()
        finally:
            self._pool.shutdown(cancel_futures=True)
            self._bar.close()

    def submit(self, amount: int, images: int, work: Callable[..., object], *args: object) -> None:
        """Have `work(*args)` done, which then counts for so much and so many images."""
        if len(self._running) >= self._ahead:
            self._wait()
        self._running.append((self._pool.submit(work, *args), amount, images))

    def _wait(self) -> None:
        future, amount, images = self._running.popleft()
        future.result()
        self._bar.advance(amount, images)


def copy(fd: int, batch: list[Piece]) -> None:
    """Write each piece of the open file `fd` that is not there in its full size.

    Raises DamagedError where that file has become shorter or cannot be read, OSError.
    """
    for target, offset, size in batch:
        out = _open(target, size)
        if out is not None:
            _fill(out, tars.read(fd, size, offset), size)


def write(target: str, data: bytes) -> None:
    """Write a file that is not there in its full size. OSError."""
    out = _open(target, len(data))
    if out is not None:
        _fill(out, data, len(data))


def _open(target: str, size: int) -> int | None:
    """The file, open and empty; None where it is whole, which is: it has its size."""
    try:
        return os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    except FileExistsError:
        if os.stat(target).st_size == size:
            return None
        return os.open(target, os.O_WRONLY | os.O_TRUNC)


def _fill(out: int, data: bytes, size: int) -> None:
    """Write from the start, once, and close."""
    try:
        if len(data) != size:
            raise DamagedError("it became shorter while it was read")
        view = memoryview(data)
        while view:
            view = view[os.write(out, view) :]
    finally:
        os.close(out)


class _Bar:
    """A bar with the time left on a terminal; elsewhere a line now and then. On stderr."""

    def __init__(self, title: str, total: int) -> None:
        self._title, self._total = title, max(total, 1)
        self._done = self._images = 0
        self._start = self._said = time.monotonic()
        console = Console(stderr=True)
        self._terminal = console.is_terminal
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),  # a folder's name may look like it
            BarColumn(),
            TextColumn("{task.percentage:>3.0f} %  {task.fields[images]:,} images"),
            TextColumn("{task.fields[rate]:,.0f} img/s  left"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not self._terminal,
        )
        self._task = self._progress.add_task(
            printable(title), total=self._total, images=0, rate=0.0
        )
        self._progress.start()

    def advance(self, amount: int, images: int) -> None:
        self._done += amount
        self._images += images
        now = time.monotonic()
        spent = max(now - self._start, 1e-9)
        rate = self._images / spent
        self._progress.update(self._task, completed=self._done, images=self._images, rate=rate)
        if not self._terminal and now - self._said >= _LINE_S:
            self._said = now
            left = spent * (self._total - self._done) / self._done if self._done else 0.0
            print(
                f"{self._title}  {100 * self._done / self._total:.0f} %  {self._images:,} images  "
                f"{rate:,.0f} img/s  left {left / 60:.0f} min",
                file=sys.stderr,
                flush=True,
            )

    def close(self) -> None:
        self._progress.stop()
