"""Score weights: a file, a run folder, or a folder of checkpoints, which are ranked.

python tools/test.py logs/RUN/001
python tools/test.py logs/RUN/001/checkpoints --nproc_per_node=2
python tools/test.py bn_inception.pth --data DIR
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from proofrun import early  # before any import that takes time

if __name__ == "__main__":
    early.stop_tool_on_signals("test.py")

from proofrun import bootstrap

bootstrap.ensure("pydantic", "yaml", "psutil", "numpy")

from _known.start import main_script  # noqa: E402

from proofrun.errors import main_exit  # noqa: E402

if __name__ == "__main__":
    main_exit(lambda: main_script("test"), "test.py")
