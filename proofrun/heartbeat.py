"""The heartbeat of a rank, and the watch that launch keeps over it. Torch-free.

The main thread of every rank leaves a beat in a file of its own, `.beat.rank<k>` in the run folder:
no collective library is trusted to notice that it waits for ever. A beat is a few bytes written
into mapped memory, under a microsecond. Launch looks at whether the bytes change, by its own clock.
"""

from __future__ import annotations

import mmap
import os
import re
import struct
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil

from proofrun.errors import UsageError

#: Seconds without a beat after which a rank is taken for hung: RANK_TIMEOUT overrules it.
TIMEOUT_S = 600
#: Granted on top until the first step: imports and lists may lie on a slow disk.
START_S = 600
#: The most that counts between two looks: longer, and launch itself stood still.
LOOK_S = 5.0

#: What a rank does. In the last three it waits for others, or is done.
PHASES = ("start", "data", "step", "evaluate", "save", "exchange", "wait", "end")
_WAITING = ("exchange", "wait", "end")

_BEAT = struct.Struct("<qqqqd")  # pid, beats, step, phase, seconds on this host's monotonic clock


@dataclass(frozen=True)
class Beat:
    """One reading. `at_s` is a time.monotonic() reading of the rank."""

    pid: int
    beats: int
    step: int
    phase: str
    at_s: float


class Heart:
    """Writes this rank's beats. Only its main thread may call: it is the one that must not hang."""

    def __init__(self, run_dir: Path, rank: int) -> None:
        self._phase, self._step, self._beats = "start", 0, 0
        self._pid = os.getpid()
        path = _path(run_dir, rank)
        temporary = path.with_name(f"{path.name}.{self._pid}")  # an earlier rank may still beat
        with temporary.open("wb+") as file:
            file.write(b"\0" * _BEAT.size)
            file.flush()
            self._map = mmap.mmap(file.fileno(), _BEAT.size)
        temporary.rename(path)
        self.beat("start")

    def beat(self, phase: str, step: int | None = None) -> None:
        """`step`: steps done, where that changed."""
        self._phase = phase
        self._step = self._step if step is None else step
        self._beats += 1
        number = PHASES.index(phase)
        at_s = time.monotonic()
        _BEAT.pack_into(self._map, 0, self._pid, self._beats, self._step, number, at_s)

    def waiting(self) -> _Waiting:
        """While entered, this rank waits for others; then it goes on with what it did."""
        return _Waiting(self, self._phase)


class _Waiting:
    def __init__(self, heart: Heart, phase: str) -> None:
        self._heart, self._phase = heart, phase

    def __enter__(self) -> None:
        self._heart.beat("wait")

    def __exit__(self, *_: object) -> None:
        self._heart.beat(self._phase)


def read_beat(run_dir: Path, rank: int) -> Beat | None:
    """The last beat of a rank, or None before its first."""
    try:
        raw = _path(run_dir, rank).read_bytes()
    except OSError:
        return None
    if len(raw) != _BEAT.size or not any(raw):
        return None
    pid, beats, step, phase, at_s = _BEAT.unpack(raw)
    return Beat(pid, beats, step, PHASES[phase % len(PHASES)], at_s)


def clear_beats(run_dir: Path) -> None:
    for path in run_dir.glob(".beat.rank*"):
        path.unlink(missing_ok=True)


def _path(run_dir: Path, rank: int) -> Path:
    return run_dir / f".beat.rank{rank}"


def timeout_of(environment: Mapping[str, str]) -> int:
    """Seconds, by RANK_TIMEOUT. Raises UsageError."""
    text = environment.get("RANK_TIMEOUT") or str(TIMEOUT_S)
    if not re.fullmatch(r"0*[1-9][0-9]{0,6}", text):
        raise UsageError(f"RANK_TIMEOUT={text} is no whole number of seconds from 1 up")
    return int(text)


@dataclass(frozen=True)
class Hang:
    """What the watch found: `rank` did nothing for `idle_s` seconds."""

    rank: int
    step: int
    phase: str
    idle_s: float
    stopped: bool

    @property
    def message(self) -> str:
        how = "stopped by SIGSTOP" if self.stopped else f"in phase `{self.phase}`"
        return (
            f"rank {self.rank} hung at step {self.step}, {how}: nothing for {self.idle_s:.0f} s "
            "(RANK_TIMEOUT); its stack is in stdout.log; the same command goes on from the last "
            "checkpoint"
        )


class Watch:
    """Launch's look at the beats of the ranks of its own node, about once a second.

    `alone`: there is no other node. Where all ranks of this node only wait, a rank of another node
    may be at fault, whose launch acts first: this one takes twice the time.
    """

    def __init__(self, run_dir: Path, ranks: Iterable[int], timeout_s: float, alone: bool) -> None:
        self._run_dir = run_dir
        self._timeout_s = timeout_s
        self._alone = alone
        self._last: dict[int, Beat | None] = dict.fromkeys(ranks)
        self._idle = dict.fromkeys(self._last, 0.0)
        self._looked = time.monotonic()

    def look(self) -> Hang | None:
        """The rank at fault, once one has not beaten for too long.

        Before the first beat of any rank torchrun waits for other nodes, by a limit of its own.
        """
        now = time.monotonic()
        passed, self._looked = min(now - self._looked, LOOK_S), now
        for rank, before in self._last.items():
            beat = read_beat(self._run_dir, rank)
            self._idle[rank] = self._idle[rank] + passed if beat == before else 0.0
            self._last[rank] = beat
        if not any(self._last.values()):
            self._idle = dict.fromkeys(self._last, 0.0)
        if not any(self._idle[rank] > self._allowed(rank) for rank in self._last):
            return None
        still = [rank for rank in self._last if self._idle[rank] > self._timeout_s / 2]
        rank = min(still, key=self._blame)
        beat = self._last[rank] or Beat(0, 0, 0, "start", 0.0)
        return Hang(rank, beat.step, beat.phase, self._idle[rank], _state(beat.pid) == "stopped")

    def _allowed(self, rank: int) -> float:
        beat = self._last[rank]
        if beat is None or beat.phase == "start":
            return self._timeout_s + START_S
        if _state(beat.pid) == "gone":  # torchrun takes up to 30 s to end the others
            return self._timeout_s + 2 * 30
        others = not self._alone and all(b and b.phase in _WAITING for b in self._last.values())
        return self._timeout_s * (2 if others else 1)

    def _blame(self, rank: int) -> tuple[bool, bool, int, float]:
        """Least for the rank that the others wait for: stopped, else at work, else the last."""
        beat = self._last[rank]
        if beat is None:
            return (True, False, -1, 0.0)
        waits = beat.phase in _WAITING or _state(beat.pid) == "gone"
        return (_state(beat.pid) != "stopped", waits, beat.step, beat.at_s)


def _state(pid: int) -> Literal["stopped", "gone", "alive"]:
    try:
        status = psutil.Process(pid).status()
    except psutil.NoSuchProcess:
        return "gone"
    if status == psutil.STATUS_STOPPED:
        return "stopped"
    return "gone" if status == psutil.STATUS_ZOMBIE else "alive"
