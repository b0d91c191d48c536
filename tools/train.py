"""Train on one card with the flags of the published Ascend recipe.

python tools/train.py --backbone=googlenet --max_epoch=300 …   all cards: tools/launch.py
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from proofrun import early  # before any import that takes time

if __name__ == "__main__":
    early.stop_tool_on_signals("train.py")

from proofrun import bootstrap

bootstrap.ensure("pydantic", "yaml", "psutil", "numpy")

from _known.start import main_script  # noqa: E402

from proofrun.errors import main_exit  # noqa: E402

if __name__ == "__main__":
    main_exit(lambda: main_script("train"), "train.py")
