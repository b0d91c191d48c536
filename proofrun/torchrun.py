"""One torchrun from start to end under launch's eyes: signals, output, and a watch for hangs."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import FrameType
from typing import IO, NamedTuple

import psutil

from proofrun import bootstrap, device
from proofrun.cluster import Nodes, interface_of, own_address
from proofrun.errors import UsageError, WriteError
from proofrun.folders import RunFolder
from proofrun.heartbeat import Hang, Watch, read_beat, timeout_of
from proofrun.host import usable_cores
from proofrun.process import STACKS, stop_with_parent
from proofrun.runs import Plan

THREADS = ("OMP_NUM_THREADS", "PROOFRUN_LOADER_THREADS")

#: Seconds that ranks which outlive torchrun have to save and go.
LAST_SAVE_S = 60


class Ended(NamedTuple):
    """How torchrun ended: `killed` by a signal, `hang`: by launch, for what the watch found."""

    killed: bool
    hang: Hang | None


def check_threads() -> None:
    """Raises UsageError when a thread variable of the caller is no number of threads."""
    for name in THREADS:
        if not re.fullmatch(r"|0*[1-9][0-9]{0,4}", text := os.environ.get(name, "")):
            raise UsageError(f"{name}={text}: give a whole number from 1 up, or unset it")


def command(plan: Plan, nodes: Nodes, run_dir: Path) -> list[str]:
    """The torchrun command line. 127.0.0.1 by name: resolving a host name may take minutes."""
    meet = ["--local-addr=127.0.0.1"]
    if nodes.count > 1:
        wait = f"join_timeout={nodes.timeout_s},read_timeout={nodes.timeout_s}"
        meet = ["--rdzv-id=proofrun", f"--rdzv-conf=is_host={int(nodes.is_first)},{wait}"]
        if address := own_address(nodes):
            meet.append(f"--local-addr={address}")
    return [
        sys.executable, "-m", "torch.distributed.run",
        f"--nnodes={nodes.count}", f"--nproc-per-node={plan.world.cards}", "--max-restarts=0",
        "--rdzv-backend=c10d", f"--rdzv-endpoint={nodes.endpoint}", *meet,
        "-m", "proofrun.worker", str(run_dir),
    ]  # fmt: skip


def environment(plan: Plan, nodes: Nodes) -> dict[str, str]:
    """What the ranks get besides the caller's environment."""
    share = max(1, usable_cores() // plan.world.cards)
    own = {
        "PROOFRUN_STARTED": repr(time.monotonic()),
        "PROOFRUN_PROGRESS": "bar" if sys.stdout.isatty() else "lines",
        "PYTHONPATH": os.pathsep.join(
            [str(bootstrap.ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        ),
        "PYTHONUNBUFFERED": "1",
        **device.RANK_ENVIRONMENT,
        "PROOFRUN_NODE_RANK": str(nodes.rank),
        "PROOFRUN_NODES_TIMEOUT": str(nodes.timeout_s),
    }
    if nodes.count > 1 and (address := own_address(nodes)) and (card := interface_of(address)):
        own |= {name: card for name in device.INTERFACE_VARIABLES if not os.environ.get(name)}
    if sys.stdout.isatty():
        own["COLUMNS"] = str(os.get_terminal_size().columns or 100)
    for name in THREADS:
        if not os.environ.get(name):
            own[name] = str(share)
    return own


class Signals:
    """While entered, SIGTERM, SIGINT and SIGHUP are noted, and go to the ranks of `process`.

    To the ranks: torchrun itself would kill them early. Entered once for all attempts, so that a
    signal between two of them is not lost either. What comes after changes no exit code any more.
    """

    def __init__(self) -> None:
        self.used = False
        self._process: subprocess.Popen[bytes] | None = None
        self._mine: list[int] = []

    def __enter__(self) -> Signals:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            if number == signal.SIGHUP and signal.getsignal(number) is signal.SIG_IGN:
                continue  # nohup: the terminal may close
            signal.signal(number, self._note)
            self._mine.append(number)
        return self

    def __exit__(self, *_: object) -> None:
        for number in self._mine:  # not as before: Python, ending, would let them kill it
            signal.signal(number, signal.SIG_IGN)

    @contextlib.contextmanager
    def to(self, process: subprocess.Popen[bytes]) -> Iterator[None]:
        self._process = process
        if self.used:  # it came while torchrun was being started
            self._pass_on()
        try:
            yield
        finally:
            self._process = None

    def _note(self, _number: int, _frame: FrameType | None) -> None:
        if not self.used:  # not print: the signal may have come amid one
            with contextlib.suppress(OSError):  # nobody may read it
                os.write(2, b"proofrun: stopping; ranks that train save first\n")
        self.used = True
        self._pass_on()

    def _pass_on(self) -> None:
        if self._process is None or self._process.poll() is not None:
            return
        ranks = _children(self._process.pid)
        for rank in ranks:
            with contextlib.suppress(psutil.NoSuchProcess):
                rank.send_signal(signal.SIGTERM)
        if not ranks:  # too early: torchrun has not started them yet
            self._process.send_signal(signal.SIGTERM)


def torchrun(plan: Plan, nodes: Nodes, folder: RunFolder, signals: Signals) -> Ended:
    """Run it to its end, passing signals on and output through. Raises WriteError."""
    try:  # torchrun never removes the folder of its own, nor do its ranks need it
        scratch = tempfile.TemporaryDirectory(prefix="proofrun-", ignore_cleanup_errors=True)
    except OSError as error:
        raise WriteError(f"no temporary folder for torchrun ({error}): set TMPDIR") from error
    with scratch as logs:
        own = {"PET_LOG_DIR": logs, **environment(plan, nodes)}
        return _to_its_end(command(plan, nodes, folder.path), own, nodes, folder, signals)


def _to_its_end(
    line: list[str], own: dict[str, str], nodes: Nodes, folder: RunFolder, signals: Signals
) -> Ended:
    folder.attempt = own["PROOFRUN_STARTED"]
    shown = [f"{name}={own[name]}" for name in THREADS if name in own]
    print(" ".join(["$", *shown, shlex.join(line)]), flush=True)
    with folder.open_log() as log:
        process = subprocess.Popen(
            line,
            env={**os.environ, **own},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,  # tracebacks are for the log; users get one line
            start_new_session=True,  # Ctrl-C reaches launch alone, which passes it on once
            preexec_fn=partial(stop_with_parent, alone=nodes.count == 1),
        )
        assert process.stdout is not None
        relay = threading.Thread(target=pass_through, args=(process.stdout, log), daemon=True)
        relay.start()
        watch = Watch(folder.path, folder.ranks, timeout_of(os.environ), alone=nodes.count == 1)
        hang = None
        with signals.to(process):
            while hang is None and _runs(process):
                hang = watch.look()
            if hang is not None:
                _end_hung(process)
        relay.join(timeout=LAST_SAVE_S)
        if relay.is_alive():
            _end_leftovers(folder)
            relay.join(timeout=LAST_SAVE_S)
    return Ended(process.returncode < 0, hang)


def _runs(process: subprocess.Popen[bytes]) -> bool:
    """Wait a second at most; whether it still runs."""
    try:
        process.wait(timeout=1)
    except subprocess.TimeoutExpired:
        return True
    return False


def _end_hung(process: subprocess.Popen[bytes]) -> None:
    """Ask all ranks where they are, then kill everything: what is stopped obeys nothing else."""
    for rank in _children(process.pid):
        with contextlib.suppress(psutil.NoSuchProcess):
            rank.send_signal(STACKS)
            time.sleep(0.5)  # one after another: they write into one file
    tree = _children(process.pid, recursive=True)
    process.kill()
    for child in tree:
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()
    process.wait()


def _end_leftovers(folder: RunFolder) -> None:
    """Kill ranks that torchrun left behind and that had their time: the next attempt needs room."""
    for rank in folder.ranks:
        beat = read_beat(folder.path, rank)
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            if beat is not None and str(folder.path) in psutil.Process(beat.pid).cmdline():
                psutil.Process(beat.pid).kill()


def _children(pid: int, recursive: bool = False) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=recursive)
    except psutil.NoSuchProcess:
        return []


def pass_through(source: IO[bytes], log: IO[bytes]) -> None:
    """Copy what the ranks print to our stdout and, without the bar's redrawn lines, to the log.

    A full disk takes words away, never the run: ranks would wait for ever for a pipe to be read.
    """
    rest = b""
    while chunk := os.read(source.fileno(), 65536):
        with contextlib.suppress(OSError):
            sys.stdout.buffer.write(chunk)
            sys.stdout.buffer.flush()
        *lines, rest = (rest + chunk).split(b"\n")
        with contextlib.suppress(OSError):
            log.writelines(line.rpartition(b"\r")[2] + b"\n" for line in lines)
            log.flush()
