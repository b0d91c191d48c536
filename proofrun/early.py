"""A stop before anything runs. Imports nothing that Python has not imported on its own way up."""

from __future__ import annotations

import os
import signal

#: `proofrun.errors.Exit.INTERRUPTED`, whose module takes longer to import than a Ctrl-C to come.
INTERRUPTED = 75

#: What a stop removes on its way out: files that somebody is writing under a temporary name.
unfinished: list[str] = []


def stop_on_signals(
    said: str = "proofrun: stopped while no rank was training; the same command goes on",
) -> None:
    """From here on SIGINT and SIGTERM end this process with one line, even amid its imports.

    At once, for Python may swallow a KeyboardInterrupt: in a destructor, in a weak reference.
    """

    def stop(_number: int, _frame: object) -> None:
        for path in unfinished:
            if os.path.exists(path):  # neither still to be made nor renamed already
                os.unlink(path)
        os.write(2, f"{said}\n".encode())
        os._exit(INTERRUPTED)

    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)


def stop_tool_on_signals(name: str) -> None:
    """The same for a tool, which has saved nothing yet; it says what `main_exit` does later."""
    stop_on_signals(f"{name}: stopped; give the same command again")
