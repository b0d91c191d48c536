"""Start train.py or test.py with the flags of the published Ascend recipe.

python tools/launch.py --nproc_per_node=8 tools/train.py --backbone=googlenet …

Every flag and what it becomes: docs/coming-from.md
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from proofrun import early  # before any import that takes time

if __name__ == "__main__":
    early.stop_tool_on_signals("launch.py")

from proofrun import bootstrap

bootstrap.ensure("pydantic", "yaml", "psutil", "numpy")

from _known.start import main_launch  # noqa: E402

from proofrun.errors import main_exit  # noqa: E402

if __name__ == "__main__":
    main_exit(main_launch, "launch.py")
