"""Run folders `logs/<run name>/<NNN>/`: their number, lock, and end. Torch-free."""

from __future__ import annotations

import fcntl
import json
import os
import re
import time
from dataclasses import replace
from pathlib import Path
from typing import IO, Any, Literal

from proofrun import events
from proofrun.errors import Exit, LockedError, ResumeError, WriteError
from proofrun.heartbeat import Hang, clear_beats, read_beat
from proofrun.runs import Plan
from proofrun.status import Status
from proofrun.writer import Clock, EventWriter

#: Left by a rank as soon as it lives: without it, torchrun never came to start one.
STARTED = ".started"
#: Locked by rank 0 as long as it lives: launch may be killed while its ranks still save.
RANK0 = ".rank0.lock"

State = Literal["new", "resumed", "one node of several"]


class RunFolder:
    """One numbered folder, or another node's folder, locked by this process while entered."""

    def __init__(self, path: Path, plan: Plan, state: State, lock: IO[str], node: int = 0):
        self.path = path
        self.plan = plan
        self.state = state
        self.attempt = ""  # as its ranks write it into their statuses
        self._lock = lock
        self.ranks = range(node * plan.world.cards, (node + 1) * plan.world.cards)

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.close()

    def write_plan(self, provenance: dict[str, Any]) -> None:
        """Leave what the ranks read: the resolved recipe and where the run comes from."""
        _write(self.path / "recipe.yaml", self.plan.to_yaml())
        _write(self.path / "provenance.json", json.dumps(provenance, indent=1) + "\n")

    def open_log(self) -> IO[bytes]:
        """`stdout.log`, to append to, unbuffered: closing it never fails. Raises WriteError."""
        try:
            return (self.path / "stdout.log").open("ab", buffering=0)
        except OSError as error:
            raise _cannot_write(self.path / "stdout.log", error) from None

    def clear_status(self) -> None:
        """Before an attempt: what an earlier one left must not be taken for this one's."""
        left = [*self.path.glob("status*.json"), *self.path.glob(".status*.json.*")]
        for path in [*left, self.path / STARTED]:
            path.unlink(missing_ok=True)
        clear_beats(self.path)

    def ranks_started(self) -> bool:
        """Whether any rank of this node has lived in this attempt."""
        return (self.path / STARTED).exists()

    def outcome(self, stopped: bool, killed: bool = False, hang: Hang | None = None) -> Status:
        """How the attempt ended here: the first cause that a rank of this node named, or silence.

        `stopped`: launch was told to stop, so a rank that ends without a word did as it was told.
        `killed`: torchrun was killed; its ranks may have saved, but nobody asked them to stop.
        `hang`: launch killed them all for it. A run whose rank 0 could not say how it ended gets
        its last events from here.
        """
        found = [Status.read(path) for path in self.path.glob("status*.json")]
        mine = [s for s in found if s is not None and s.attempt == self.attempt]
        said = sorted(mine, key=lambda s: s.t_wall)
        own = next((s for s in said if s.rank == self.ranks[0]), None)
        status = self._cause(said, stopped, killed, hang) or own
        assert status is not None, "no silent rank and no cause: the first rank has spoken"
        lost = own is not None and own.lost_peer and own is not status
        if own is None or own.code != status.code or lost:
            self._close_events(status, again=lost)
        replace(status, rank=0).write(self.path)
        clear_beats(self.path)
        return status

    def _cause(
        self, said: list[Status], stopped: bool, killed: bool, hang: Hang | None
    ) -> Status | None:
        """What ended the ranks, or None when the first of them has said it all."""
        for status in said:
            if status.code not in (Exit.OK, Exit.INTERRUPTED) and not status.lost_peer:
                return status
        silent = sorted(set(self.ranks) - {s.rank for s in said})
        if hang is not None:
            code = Exit.INTERRUPTED if stopped else Exit.HUNG
            return Status(int(code), hang.message, hang.rank, time.time(), hang.step)
        if stopped and silent:
            message = "stopped by a signal before it could save; the same command goes on"
            return self._of(Exit.INTERRUPTED, message, silent[0])
        if killed and not stopped:
            message = "torchrun was killed; the same command goes on from the last checkpoint"
            return self._of(Exit.WORKER_DIED, message, self.ranks[0])
        if silent or any(s.lost_peer for s in said):
            message = (
                f"{_who(silent)} died without a word (killed, out of memory, or "
                f"crashed): see {self.path / 'stdout.log'}; the same command goes on from the "
                "last checkpoint"
            )
            return self._of(Exit.WORKER_DIED, message, silent[0] if silent else self.ranks[0])
        return None

    def _of(self, code: Exit, message: str, rank: int) -> Status:
        beat = read_beat(self.path, rank)
        return Status(int(code), message, rank, time.time(), beat.step if beat else 0)

    def _close_events(self, status: Status, again: bool) -> None:
        """Rank 0 is gone: end its log where its last event stands.

        `again`: also where it did so itself, and could not say which rank it lost.
        """
        path = self.path / "events.jsonl"
        if not path.exists() or (lock := _lock(self.path / RANK0)) is None:
            return  # ranks of a killed launch still write it
        clock = Clock()
        writer = EventWriter(path, clock)
        last = writer.last
        if last is not None and (again or not isinstance(last, events.RunEnd)):
            clock.go_on_from(last.wall_s, last.mark_s, last.train_s)
            place: dict[str, Any] = {"step": last.step, "epoch": last.epoch}
            code = Exit(status.code)
            writer.write(
                events.Fault,
                **place,
                code=code,
                name=code.name,
                message=status.message,
                rank=status.rank,
            )
            writer.write(
                events.RunEnd, **place, status=status.status, code=code, message=status.message
            )
        writer.close()
        lock.close()


def _who(silent: list[int]) -> str:
    return f"rank {', '.join(map(str, silent))}" if silent else "a rank of another node"


def open_folder(logs: Path, plan: Plan, new: bool) -> RunFolder:
    """The folder of this command: that of the same run if interrupted, else the next number.

    A run's seed defaults to its number. Raises ResumeError, LockedError, WriteError.
    """
    base = logs / plan.run
    try:
        base.mkdir(parents=True, exist_ok=True)
        with (base / ".lock").open("w", encoding="utf-8") as gate:
            fcntl.flock(gate, fcntl.LOCK_EX)  # two commands at once get two numbers
            return _choose(base, plan, new)
    except OSError as error:
        raise WriteError(
            f"{base}: {error.strerror}; give a folder that can be written: --logs DIR"
        ) from None


def open_node_folder(logs: Path, plan: Plan, node: int) -> RunFolder:
    """The folder of a node beyond the first: its plan, statuses and output, beside the numbers.

    Raises LockedError, WriteError.
    """
    path = logs / plan.run / f"node{node}"
    try:
        path.mkdir(parents=True, exist_ok=True)
        lock = _lock(path / ".lock")
    except OSError as error:
        raise WriteError(
            f"{path}: {error.strerror}; give a folder that can be written: --logs DIR"
        ) from None
    if lock is None:
        raise LockedError(
            f"{path}: another process of this machine is node {node} of this run; give each "
            "node a NODE_RANK of its own"
        )
    return RunFolder(path, plan, "one node of several", lock, node)


def _choose(base: Path, plan: Plan, new: bool) -> RunFolder:
    numbers = sorted(int(path.name) for path in base.iterdir() if _NUMBER.fullmatch(path.name))
    if numbers and not new:
        path = base / f"{numbers[-1]:03d}"
        status = Status.read(path / "status.json")
        if (path / "recipe.yaml").exists() and (status is None or status.status == "interrupted"):
            lock = _lock(path / ".lock")
            if lock is None:
                raise LockedError(
                    f"{path}: another process is training this run; wait for it, or start a second "
                    "one beside it with --new"
                )
            if (same := _go_on(path, plan)) is not None:
                return RunFolder(path, same, "resumed", lock)
            lock.close()
    number = numbers[-1] + 1 if numbers else 1
    if numbers and _is_bare(base / f"{numbers[-1]:03d}"):
        number = numbers[-1]
    path = base / f"{number:03d}"
    path.mkdir(exist_ok=True)
    seed = number if plan.seed < 0 else plan.seed
    lock = _lock(path / ".lock")
    if lock is None:
        raise LockedError(f"{path}: another process has just begun this run; try again")
    return RunFolder(path, plan.model_copy(update={"seed": seed}), "new", lock)


_NUMBER = re.compile(r"[0-9]{3,9}")


def _is_bare(path: Path) -> bool:
    """A full disk or a signal came before anything was in it."""
    return path.is_dir() and not [e for e in path.iterdir() if not e.name.startswith(".")]


def _go_on(path: Path, plan: Plan) -> Plan | None:
    """The plan to resume with: this command's, with the seed of the interrupted run.

    None for another command where nothing was saved: then there is nothing to go on from, and
    nothing to protect. Raises RecipeError, ResumeError.
    """
    before = Plan.load(path / "recipe.yaml")
    if before.config_hash() == plan.config_hash():
        return plan.model_copy(update={"seed": before.seed})
    if not any((path / "checkpoints").glob("step-*")):
        return None
    raise ResumeError(
        f"{path} was interrupted with another recipe, override or data, and cannot go on with "
        "this one; give --new to start beside it, or the same data and the flags it had: "
        f"{before.flags() or 'none'}"
    )


def _lock(path: Path) -> IO[str] | None:
    """This file's lock, held until closed or until this process ends; None when it is taken."""
    file = path.open("w", encoding="utf-8")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return file


def _write(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.rename(path)
    except OSError as error:
        raise _cannot_write(path, error) from None


def _cannot_write(path: Path, error: OSError) -> WriteError:
    return WriteError(f"{path}: {error.strerror}; free space or mend the folder")
