"""Entry of one rank: `python -m proofrun.worker RUN_DIR`, started by torchrun.

The signal handlers are in place before torch is imported, which takes seconds: a SIGTERM in that
time must not be lost.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from proofrun.errors import Exit
from proofrun.process import keep_going_without_reader, stop_with_parent


def main(run_dir: Path) -> Exit:
    """Train one rank; its exit code is that of the error table."""
    received: list[int] = []

    def remember(number: int, _frame: object) -> None:
        received.append(number)

    signal.signal(signal.SIGTERM, remember)
    signal.signal(signal.SIGINT, remember)
    # a killed torchrun leaves no ranks behind: they save and go
    stop_with_parent(alone=os.environ.get("GROUP_WORLD_SIZE", "1") == "1")
    keep_going_without_reader()  # and a killed launch nobody who reads: the save must not fail
    from proofrun.cluster import take_place
    from proofrun.folders import STARTED

    take_place(os.environ)
    (run_dir / STARTED).touch()
    from proofrun.session import run_rank

    return run_rank(run_dir, received)


if __name__ == "__main__":
    sys.exit(int(main(Path(sys.argv[1]))))
