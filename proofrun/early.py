"""A stop before anything runs. Imports nothing that Python has not imported on its own way up."""

from __future__ import annotations

import os
import signal

#: `proofrun.errors.Exit.INTERRUPTED`, whose module takes longer to import than a Ctrl-C to come.
INTERRUPTED = 75


def stop_on_signals(
    said: str = "proofrun: stopped while no rank was training; the same command goes on",
) -> None:
    """From here on SIGINT and SIGTERM end this process with one line, even amid its imports."""

    def stop(_number: int, _frame: object) -> None:
        os.write(2, f"{said}\n".encode())
        os._exit(INTERRUPTED)

    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)


def stop_tool_on_signals(name: str) -> None:
    """The same for a tool, which has saved nothing yet; it says what `main_exit` does later."""
    stop_on_signals(f"{name}: stopped; give the same command again")


def interrupt_on_signals() -> None:
    """From here on SIGINT and SIGTERM raise KeyboardInterrupt: what was begun is tidied up."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
