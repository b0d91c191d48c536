"""Read training logs, print the tables with their verdicts, write the report page.

python tools/report.py logs/                     everything under logs/
python tools/report.py logs/NAME/001 --gate      one run; exit 1 unless every claim is reproduced
python tools/report.py logs/ --bundle B.tar.gz   logs and report in one file, for a third party
python tools/report.py --verify B.tar.gz         who needs nothing else to judge them again
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from proofrun import bootstrap  # noqa: E402

bootstrap.ensure("pydantic", "yaml", "pandas", "matplotlib", "rich", "scipy")

from _report.cli import main  # noqa: E402

from proofrun.errors import main_exit  # noqa: E402

if __name__ == "__main__":
    main_exit(main, "report.py")
