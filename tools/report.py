"""Read training logs, print the tables with their verdicts, write the report page.

python tools/report.py logs/                  everything under logs/
python tools/report.py logs/NAME/001 --gate   one run; exit 1 unless every claim is reproduced
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from proofrun import bootstrap  # noqa: E402

bootstrap.ensure("pydantic", "yaml", "pandas", "matplotlib", "rich", "scipy")

from proofrun.errors import Exit, Parser, UsageError, main_exit  # noqa: E402


def parse_args() -> argparse.Namespace:
    """The command line."""
    parser = Parser(prog="report.py", description=__doc__.splitlines()[0])
    parser.add_argument(
        "paths", nargs="*", type=Path, help="log folders or run folders (default: env.sh)"
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="where to write (default: <logs>/report, for some of the runs a folder in there)",
    )
    parser.add_argument(
        "--all-claims", action="store_true", help="show claims that no run has met, as n/a"
    )
    parser.add_argument(
        "--gate",
        action="store_true",
        help=f"exit {int(Exit.VERDICT)} unless at least one claim is shown and every claim shown "
        "is reproduced (inconclusive, n/a and different hardware fail too)",
    )
    parser.add_argument(
        "--lang",
        choices=("en", "zh"),
        default="en",
        help="language of the tables' fixed words (CSV files stay English)",
    )
    args = parser.parse_args()
    args.paths = args.paths or [bootstrap.folder("PROOFRUN_LOGS", "logs", None)]
    return args


def main() -> Exit:
    """Report; the exit code depends on the verdicts only with --gate."""
    args = parse_args()
    # Not at the top: --help needs none of the packages behind these.
    from _report.build import build
    from _report.output import write_report
    from _report.read import read_logs

    logs = read_logs(args.paths)
    report = build(logs, ROOT / "recipes" if args.all_claims else None)
    page = write_report(report, args.out or _place(args.paths, logs.root), args.lang)
    if args.gate:
        print(f"gate: {'passed' if report.all_reproduced else 'failed'}")
    print(f"Report page: {page}")
    if not logs.runs:
        raise UsageError(f"none of the runs under {logs.root} can be read; the lines above say why")
    return Exit.VERDICT if args.gate and not report.all_reproduced else Exit.OK


def _place(given: Sequence[Path], root: Path) -> Path:
    """`<logs>/report`; of some runs only, a folder in there, so that all runs keep their page."""
    out = root / "report"
    below = [path.resolve() for path in given]
    if all(path != root and path.is_relative_to(root) for path in below):
        out /= "+".join("-".join(path.relative_to(root).parts) for path in below)[:200]
    here = Path.cwd()
    return out.relative_to(here) if not given[0].is_absolute() and out.is_relative_to(here) else out


if __name__ == "__main__":
    main_exit(main, "report.py")
