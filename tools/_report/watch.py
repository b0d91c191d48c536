"""Follows runs in progress until all have ended: a table on a terminal, on a pipe a line a change.

A run that had ended before is not shown; one that begins meanwhile is.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from rich import box
from rich.live import Live
from rich.table import Table
from rich.text import Text

from proofrun.errors import UsageError
from proofrun.text import clean

from . import units
from .cells import NONE
from .find import find
from .follow import Progress
from .output import stdout
from .read import read_logs

TOLD_S = 60  # a last line of less age is nothing to tell
COLUMNS = ("Run", "Status", "Epoch", "Step", "Loss", "img/s", "Data wait", "top1", "Left")


def watch(paths: Sequence[Path], seconds: float) -> None:
    """Look every `seconds` until all runs have ended, or Ctrl-C. Raises UsageError."""
    stop = threading.Event()  # an exception could cut a line in two, or write it twice
    before = signal.signal(signal.SIGINT, lambda *_: stop.set())
    console = stdout()
    try:
        if console.is_terminal:
            with Live(console=console, auto_refresh=False) as live:
                for runs in _looks(paths, seconds, stop):
                    live.update(_table(runs), refresh=True)
        else:
            _tell(_looks(paths, seconds, stop))
    finally:
        signal.signal(signal.SIGINT, before)
    print("stopped watching" if stop.is_set() else "no run is in progress")


def _looks(
    paths: Sequence[Path], seconds: float, stop: threading.Event
) -> Iterator[list[Progress]]:
    """The runs to show, again and again until none is in progress."""
    known = _found(paths)
    if not known or not all(path.is_dir() for path in paths):
        others = read_logs(paths).foreign  # says what is wrong with them
        if others and not known:
            what = f"{others[0].file}: a log of another system ({others[0].format.title})"
            raise UsageError(f"{what}; --watch follows run folders of ours")
    for run in known.values():
        run.update()
    over = {folder for folder, run in known.items() if run.status != "running"}
    while True:
        shown = [run for folder, run in known.items() if folder not in over]
        if shown:
            yield shown
        if all(run.status != "running" for run in shown) or stop.wait(seconds):
            return
        known |= {folder: run for folder, run in _found(paths).items() if folder not in known}
        for folder, run in known.items():
            if folder not in over:
                run.update()


def _found(paths: Sequence[Path]) -> dict[Path, Progress]:
    folders = (folder.resolve() for folder in find(paths).folders)
    return {folder: Progress(folder) for folder in folders}


def _tell(looks: Iterable[list[Progress]]) -> None:
    said: dict[Path, str] = {}
    for runs in looks:
        for run in runs:
            cells = zip(COLUMNS[1:], _cells(run)[1:], strict=True)
            line = ", ".join(f"{name.lower()} {text}" for name, text in cells if text != NONE)
            if said.get(run.folder) != line:
                said[run.folder] = line
                print(f"{_cells(run)[0]}: {line}", flush=True)


def _cells(run: Progress) -> tuple[str, ...]:
    """The texts of one run, in the order of COLUMNS."""
    train, last, plan = run.train, run.last, run.plan
    rate = wait = None
    if train and train.window_s > 0:
        rate = min(train.images, 2**53) / train.window_s
        wait = train.data_wait_s / train.window_s
    status: str = "in progress" if run.status == "running" else run.status
    if run.status == "running" and run.line_age_s is not None and run.line_age_s >= TOLD_S:
        status += f", last line {run.line_age_s // 60:.0f} min ago"
        status += " and no heartbeat: it may be dead" * run.silent
    if run.message and run.status not in ("running", "finished"):
        status += f" ({run.message})"
    epoch = (
        f"{last.epoch:.2f}{f' of {plan.recipe.schedule.epochs}' if plan else ''}" if last else NONE
    )
    cells = (
        "/".join(run.folder.parts[-2:]),
        status,
        epoch,
        last.step if last else NONE,
        _quantity("loss", train.loss if train else None),
        units.number("throughput", rate) if rate is not None else NONE,
        _quantity("share", wait),
        _quantity("top1", run.top1),
        _time(run.left_s),
    )
    return tuple(clean(text) for text in cells)


def _quantity(metric: str, value: float | None) -> str:
    return units.quantity(metric, value) if value is not None else NONE


def _time(seconds: float | None) -> str:
    """`2 h 05 min`, `3 min 20 s`, `41 s`."""
    if seconds is None:
        return NONE
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def _table(runs: Iterable[Progress]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, header_style="bold")
    for i, title in enumerate(COLUMNS):
        table.add_column(title, justify="right" if i > 1 else "left", overflow="fold")
    for run in runs:
        table.add_row(*(Text(text) for text in _cells(run)))
    return table
