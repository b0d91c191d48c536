"""Entry of one rank: `python -m proofrun.worker RUN_DIR`, started by torchrun.

The signal handlers are in place before torch is imported, which takes seconds: a SIGTERM in that
time must not be lost.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
import threading
from pathlib import Path

from proofrun.errors import Exit
from proofrun.process import STACKS, keep_going_without_reader, stop_with_parent


def main(run_dir: Path) -> Exit:
    """Train one rank; its exit code is that of the error table."""
    received: list[int] = []
    failures: list[BaseException] = []

    def remember(number: int, _frame: object) -> None:
        received.append(number)

    def fail(args: threading.ExceptHookArgs) -> None:
        threading.__excepthook__(args)
        if args.exc_value is not None:
            failures.append(args.exc_value)  # raised at the next step: no thread dies unnoticed

    signal.signal(signal.SIGTERM, remember)
    signal.signal(signal.SIGINT, remember)
    # a killed torchrun leaves no ranks behind: they save and go
    stop_with_parent(alone=os.environ.get("GROUP_WORLD_SIZE", "1") == "1")
    keep_going_without_reader()  # and a killed launch nobody who reads: the save must not fail
    faulthandler.enable()
    faulthandler.register(STACKS, all_threads=True)
    threading.excepthook = fail
    from proofrun.cluster import take_place
    from proofrun.folders import STARTED
    from proofrun.heartbeat import Heart

    take_place(os.environ)
    (run_dir / STARTED).touch()
    heart = Heart(run_dir, int(os.environ.get("RANK", "0")))
    from proofrun.session import run_rank

    return run_rank(run_dir, received, heart, failures)


if __name__ == "__main__":
    sys.exit(int(main(Path(sys.argv[1]))))
