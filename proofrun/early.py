"""A stop before anything runs. Imports nothing that Python has not imported on its own way up."""

from __future__ import annotations

import os
import signal

#: `proofrun.errors.Exit.INTERRUPTED`, whose module takes longer to import than a Ctrl-C to come.
INTERRUPTED = 75


def stop_on_signals() -> None:
    """From here on SIGINT and SIGTERM end this process with one line, even amid its imports."""

    def stop(_number: int, _frame: object) -> None:
        os.write(2, b"proofrun: stopped while no rank was training; the same command goes on\n")
        os._exit(INTERRUPTED)

    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)
