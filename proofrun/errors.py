"""Exit codes and the errors that carry them: one table, read by people, scripts and schedulers.

Every error meant for a user is a `ProofrunError` with one actionable line: what, where, what to do.
Invariants of our own code are `assert`, not these.
"""

from __future__ import annotations

import argparse
import errno
import os
import re
import sys
import traceback
from collections.abc import Callable
from enum import IntEnum
from typing import Any, NoReturn

from proofrun.process import keep_going_without_reader


class Exit(IntEnum):
    """Exit codes of every proofrun command.

    Codes of bad input never lead to a restart (`RESTARTABLE` has the ones that do).
    0 and 2 keep their usual meaning; 75 is EX_TEMPFAIL: the same command again.
    """

    OK = 0
    VERDICT = 1  # report --gate, --check, --verify, align: what was asked does not hold
    USAGE = 2
    NO_SUCH_RUN = 10
    BAD_RECIPE = 11
    BAD_OVERRIDE = 12
    NO_DEVICE = 13
    NOT_INSTALLED = 14
    NO_RENDEZVOUS = 15
    SHARED_MEMORY = 16
    NO_DATA = 20
    IMAGE_TRUNCATED = 21
    IMAGE_INVALID = 22
    LIST_MISSING_FILE = 23
    LABEL_OUT_OF_RANGE = 24
    CLASS_COUNT = 25
    BAD_LIST = 26
    IMAGE_COUNT = 27
    BAD_ARCHIVE = 28
    DATA_CHANGED = 29
    RESUME_REFUSED = 30
    BAD_CHECKPOINT = 31
    RUN_LOCKED = 32
    CANNOT_WRITE = 33
    NO_WEIGHTS = 34
    FOREIGN_WEIGHTS = 35
    WEIGHTS_CLASSES = 36
    NON_FINITE = 40
    WORKER_DIED = 41
    BAD_COUNT = 42
    HUNG = 43
    OUT_OF_MEMORY = 44
    EXPORT_DIFFERS = 45
    BAD_TRACE = 50
    INTERNAL = 70
    INTERRUPTED = 75


#: What each code means and what to do, as printed by `python -m proofrun.errors` and the README.
MEANING: dict[Exit, str] = {
    Exit.OK: "finished",
    Exit.VERDICT: "`report.py`: a claim is not reproduced (`--gate`), or a report or bundle "
    "is not what its logs say (`--check`, `--verify`); `align.py`: a device leaves the bounds",
    Exit.USAGE: "wrong command line",
    Exit.NO_SUCH_RUN: "no recipe declares a run of this name",
    Exit.BAD_RECIPE: "recipe.yaml does not fit the schema",
    Exit.BAD_OVERRIDE: "an extra flag does not fit the recipe",
    Exit.NO_DEVICE: "this host lacks the device, or has fewer cards than the run",
    Exit.NOT_INSTALLED: "a package is missing: run `bash tools/setup.sh`",
    Exit.NO_RENDEZVOUS: "of several machines one did not arrive in time, or the port is taken",
    Exit.SHARED_MEMORY: "shared memory is too small for the loader's processes or for the cards",
    Exit.NO_DATA: "the data folder is missing or empty, or holds no image",
    Exit.IMAGE_TRUNCATED: "an image has 0 bytes or its end is missing",
    Exit.IMAGE_INVALID: "a file in the list is no image, or cannot be decoded",
    Exit.LIST_MISSING_FILE: "a list names a file that does not exist",
    Exit.LABEL_OUT_OF_RANGE: "a list has a label outside 0 … classes-1",
    Exit.CLASS_COUNT: "the data has fewer or more classes than the recipe",
    Exit.BAD_LIST: "a list has a line that is not `path label`, an entry twice, a label that is "
    "not its class's, or images of the other split",
    Exit.IMAGE_COUNT: "the data has fewer or more images than the recipe",
    Exit.BAD_ARCHIVE: "an archive is damaged, not the published one, or not safe to unpack",
    Exit.DATA_CHANGED: "the data is not what was fingerprinted: see `--accept-changed-data`",
    Exit.RESUME_REFUSED: "the interrupted run had another recipe, override or data: see `--new`",
    Exit.BAD_CHECKPOINT: "a checkpoint is damaged, or none of the run can be loaded",
    Exit.RUN_LOCKED: "another process works in this run folder",
    Exit.CANNOT_WRITE: "the log folder cannot be written, or the disk is full",
    Exit.NO_WEIGHTS: "there are no weights at the path given, or no finished training to take them "
    "from",
    Exit.FOREIGN_WEIGHTS: "the weights are of another network, or the file is no file of weights",
    Exit.WEIGHTS_CLASSES: "the weights are for fewer or more classes than the data",
    Exit.NON_FINITE: "the loss is not finite",
    Exit.WORKER_DIED: "a rank died without saying why (killed, out of memory, crashed)",
    Exit.BAD_COUNT: "an evaluation did not score every image exactly once",
    Exit.HUNG: "a rank did nothing for RANK_TIMEOUT seconds",
    Exit.OUT_OF_MEMORY: "too little memory: the line says which batch fits, or what to do",
    Exit.EXPORT_DIFFERS: "`export.py` only: the exported file computes something else, and was not "
    "kept",
    Exit.BAD_TRACE: "`align.py`: a trace is damaged, or belongs to another exercise",
    Exit.INTERNAL: "a defect of proofrun: the traceback is in stdout.log of the run, or printed",
    Exit.INTERRUPTED: "stopped by a signal: the same command goes on from what was saved, or "
    "does it again where nothing is saved",
}

#: A new attempt from the last checkpoint can succeed. Everything else would fail again.
RESTARTABLE = frozenset({Exit.WORKER_DIED, Exit.HUNG, Exit.INTERNAL})


class ProofrunError(Exception):
    """An error with one line for the user and an exit code."""

    exit_code: Exit = Exit.INTERNAL

    def __init__(self, message: str, exit_code: Exit | None = None) -> None:
        super().__init__(message)
        if exit_code is not None:
            self.exit_code = exit_code


class UsageError(ProofrunError):
    exit_code = Exit.USAGE


class RunNameError(ProofrunError):
    exit_code = Exit.NO_SUCH_RUN


class RecipeError(ProofrunError):
    exit_code = Exit.BAD_RECIPE


class OverrideError(ProofrunError):
    exit_code = Exit.BAD_OVERRIDE


class DeviceError(ProofrunError):
    exit_code = Exit.NO_DEVICE


class RendezvousError(ProofrunError):
    exit_code = Exit.NO_RENDEZVOUS


class DataError(ProofrunError):
    """Give the exit code that fits: several kinds of bad data have one each."""

    exit_code = Exit.NO_DATA


class ArchiveError(ProofrunError):
    exit_code = Exit.BAD_ARCHIVE


class CheckpointError(ProofrunError):
    exit_code = Exit.BAD_CHECKPOINT


class ResumeError(ProofrunError):
    exit_code = Exit.RESUME_REFUSED


class LockedError(ProofrunError):
    exit_code = Exit.RUN_LOCKED


class WriteError(ProofrunError):
    exit_code = Exit.CANNOT_WRITE


class NonFiniteError(ProofrunError):
    exit_code = Exit.NON_FINITE


class CountError(ProofrunError):
    exit_code = Exit.BAD_COUNT


def one_line(error: BaseException) -> str:
    """The error's text on one line (a message may carry a file name with a newline in it)."""
    return " ".join(str(error).split()) or type(error).__name__


def printable(text: str) -> str:
    """A line as a terminal may have it: a file name may hold escapes, line ends and any bytes."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )


def disk_is_full(error: OSError) -> bool:
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


#: How allocators say that they got nothing: torch's, the system's, C++'s; of oneDNN only what it
#: could not make reaches us, and the loader of libraries only says what it could not map.
_NO_MEMORY = (
    "out of memory", "can't allocate memory", "not enough memory", "bad allocation", "bad_alloc",
    "could not create a primitive", "could not create a memory", "failed to map segment",
    "cannot allocate memory",
)  # fmt: skip


def out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed, on the card or on the host; each allocator says it its way."""
    if isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM:
        return True
    said = str(error).lower()
    return isinstance(error, Exception) and any(words in said for words in _NO_MEMORY)


class Parser(argparse.ArgumentParser):
    """argparse, with its complaints on one line, and no flag that is cut short."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"allow_abbrev": False} | options)

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; see --help")


def whole(least: int, most: int = 2**31 - 1) -> Callable[[str], int]:
    """A reader of whole numbers from `least` to `most`, as argparse wants it."""
    until = "up" if most == 2**31 - 1 else f"to {most}"

    def read(text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,10}", text) or not least <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"{text!r} is no whole number from {least} {until}")
        return int(text)

    return read


def main_exit(main: Callable[[], int | None], name: str) -> None:
    """Run `main` and exit: a `ProofrunError` becomes one line on stderr and its exit code."""
    keep_going_without_reader()
    try:
        code = main() or Exit.OK
        sys.stdout.flush()
    except ProofrunError as error:
        print(f"{name}: {printable(one_line(error))}", file=sys.stderr)
        code = error.exit_code
    except KeyboardInterrupt:
        print(f"{name}: stopped; give the same command again", file=sys.stderr)
        code = Exit.INTERRUPTED
    except Exception as error:
        code = Exit.INTERNAL
        if isinstance(error, OSError) and disk_is_full(error):
            code = Exit.CANNOT_WRITE
            where = error.filename or "standard output"
            print(f"{name}: {where}: the disk is full; free space", file=sys.stderr)
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what is still buffered may go nowhere
        elif out_of_memory(error):
            code = Exit.OUT_OF_MEMORY
            said = f"too little memory ({printable(one_line(error))[:200]})"
            print(f"{name}: {said}; free some, or raise its limit (ulimit -v)", file=sys.stderr)
        else:
            traceback.print_exc()
            said = f"a defect of its own, please report it: {one_line(error)}"
            print(f"{name}: {said}", file=sys.stderr)
    sys.exit(int(code))


def table() -> str:
    """The exit codes as a Markdown table; the README's copy is checked against this."""
    rows = [f"| {int(code)} | {code.name} | {MEANING[code]} |" for code in Exit]
    return "\n".join(["| code | name | meaning |", "| --- | --- | --- |", *rows])


if __name__ == "__main__":
    print(table())
