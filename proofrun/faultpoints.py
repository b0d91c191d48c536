"""Named places at which a test makes a run fail. Without PROOFRUN_TEST_FAULT they do nothing.

`PROOFRUN_TEST_FAULT=<point>[,<key>=<whole number> …]:<action>` acts at that point where every key
has that value, once: with PROOFRUN_TEST_FAULT_ONCE=<file>, once over all restarts (the file is
made then). Several are parted by `;`; the files of the second and later are `<file>.1`, …
Only tests set these variables; `proofrun.launch` says so in
its first lines when they are set. Torch-free.

Actions: kill, abort, segfault, stop (SIGSTOP), sigterm, sigint: to this process; exception; thread
(an exception in a thread of its own); handler (an exception in a signal handler); gil (holds the
interpreter's lock for an hour); sleep=<seconds>; enospc, eacces (OSError). `nan` acts where the
code asks `poisoned`: it then spoils its own numbers.
"""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

VARIABLE = "PROOFRUN_TEST_FAULT"
POISON = "nan"
_ONCE = "PROOFRUN_TEST_FAULT_ONCE"


class InjectedFault(Exception):
    """What the action `exception` raises: a defect nobody has foreseen."""


def fault_point(name: str, **place: int) -> None:
    """Act if the tests' environment asks for a fault here; `place` is, e.g., step and rank."""
    if asked := os.environ.get(VARIABLE):
        for action in _due(asked, name, place):
            if action != POISON:
                _act(action, name)


def poisoned(name: str, **place: int) -> bool:
    """Whether the tests' environment asks for numbers that are not finite here."""
    asked = os.environ.get(VARIABLE)
    return bool(asked) and POISON in _due(str(asked), name, place)


def _due(asked: str, name: str, place: dict[str, int]) -> Iterator[str]:
    """The actions asked for at this place, each once."""
    for number, one in enumerate(asked.split(";")):
        where, _, action = one.partition(":")
        point, *conditions = where.split(",")
        wanted = dict(condition.split("=") for condition in conditions)
        if point == name and all(place.get(key) == int(value) for key, value in wanted.items()):
            if (once := os.environ.get(_ONCE)) is not None:
                try:
                    Path(f"{once}{f'.{number}' if number else ''}").touch(exist_ok=False)
                except FileExistsError:
                    continue
            yield action


def _act(action: str, name: str) -> None:
    word, _, value = action.partition("=")
    pid = os.getpid()
    match word:
        case "kill":
            os.kill(pid, signal.SIGKILL)
            time.sleep(60)  # the signal is on its way
        case "abort":
            os.abort()
        case "segfault":
            ctypes.string_at(0)
        case "stop":
            os.kill(pid, signal.SIGSTOP)
        case "sigterm":
            os.kill(pid, signal.SIGTERM)
        case "sigint":
            os.kill(pid, signal.SIGINT)
        case "exception":
            raise InjectedFault(f"at {name}")
        case "thread":
            thread = threading.Thread(target=_raise, args=(name,))
            thread.start()
            thread.join()
        case "handler":
            signal.signal(signal.SIGUSR1, lambda *_: _raise(name))
            os.kill(pid, signal.SIGUSR1)
            time.sleep(0.01)
        case "gil":
            ctypes.PyDLL(None).sleep(3600)  # PyDLL keeps the lock
        case "sleep":
            time.sleep(float(value))
        case "enospc":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        case "eacces":
            raise OSError(errno.EACCES, os.strerror(errno.EACCES))
        case _:
            raise ValueError(f"{VARIABLE}: unknown action {action!r}")


def _raise(name: str) -> None:
    raise InjectedFault(f"at {name}")
