"""Write one run's log in the form of a tracker.

python tools/export_log.py logs/NAME/001 --to mllog > run.log        MLPerf's :::MLLOG lines
python tools/export_log.py logs/NAME/001 --to csv --out run.csv      one row an event
python tools/export_log.py logs/NAME/001 --to tensorboard --out DIR  DIR/NAME/001/events.out.…
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from proofrun import bootstrap

bootstrap.ensure("pydantic", "yaml", "pandas", "rich")

from proofrun.errors import Parser, UsageError, main_exit  # noqa: E402


def parse_args() -> argparse.Namespace:
    """The command line."""
    from _report.cli import given_path

    parser = Parser(prog="export_log.py", description=__doc__.splitlines()[0])
    parser.add_argument("run", type=given_path, help="a run folder: logs/NAME/NNN")
    parser.add_argument("--to", required=True, choices=("mllog", "tensorboard", "csv"))
    parser.add_argument(
        "--out",
        type=given_path,
        metavar="PATH",
        help="file to write (default: standard output); for tensorboard the log folder, needed",
    )
    args = parser.parse_args()
    if args.to == "tensorboard" and not args.out:
        parser.error("--to tensorboard needs --out DIR")
    return args


def main() -> None:
    """Do what the command line says. Raises UsageError and WriteError."""
    args = parse_args()
    from _report.export import to_csv, to_mllog, to_tensorboard, whole
    from _report.read import read_logs
    from _report.render import write_bytes

    logs = read_logs([args.run])
    if len(logs.runs) != 1:
        why = logs.rejected[0].reason if logs.rejected else f"holds {len(logs.runs)} runs"
        raise UsageError(f"{args.run}: {why}; name one run folder, logs/NAME/NNN")
    run = logs.runs[0]
    log = whole(run, logs.root)
    if args.to == "tensorboard":
        name = f"events.out.tfevents.{run.number}.proofrun"
        path = args.out / run.plan.run / run.number / name
        write_bytes(path, to_tensorboard(log))
        print(path)
        return
    data = (to_mllog if args.to == "mllog" else to_csv)(log).encode("utf-8", "replace")
    if args.out:
        write_bytes(args.out, data)
        print(args.out)
    else:
        sys.stdout.buffer.write(data)


if __name__ == "__main__":
    main_exit(main, "export_log.py")
