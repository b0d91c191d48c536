"""Align a device with a trusted one, in minutes: record, replay, diff, input.

python tools/align.py replay GoogLeNet --device GPU    20 steps, held against the committed trace
python tools/align.py --help                           all of it
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from proofrun import early, process  # noqa: E402

if "TORCHELASTIC_RUN_ID" in os.environ:  # a rank: torchrun may be gone before it can end it
    process.stop_with_parent(alone=False)
elif __name__ == "__main__":  # before any import that takes time
    early.stop_tool_on_signals("align.py")

from proofrun import bootstrap  # noqa: E402

bootstrap.ensure("pydantic", "yaml", "numpy", "rich")

from _align.cli import main  # noqa: E402

from proofrun.errors import main_exit  # noqa: E402

if __name__ == "__main__":
    main_exit(main, "align.py")
