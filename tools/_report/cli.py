"""The command line of report.py: one report, or one of the things done with it."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path

from proofrun import bootstrap
from proofrun.bootstrap import ROOT
from proofrun.errors import Exit, Parser, UsageError


def parse_args() -> argparse.Namespace:
    """The command line."""
    parser = Parser(
        prog="report.py",
        description="Read training logs, print the tables with their verdicts, write the report.",
    )
    parser.add_argument(
        "paths",
        nargs="*",
        type=given_path,
        help="log folders, run folders, logs of other systems (default: env.sh)",
    )
    parser.add_argument(
        "--out",
        type=given_path,
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
        help="language of the tables' fixed words (CSV and JSON stay English)",
    )
    other = parser.add_argument_group("instead of writing a report").add_mutually_exclusive_group()
    other.add_argument(
        "--bundle",
        type=given_path,
        metavar="FILE",
        help="pack logs, report.json and a manifest of hashes into FILE (.tar.gz)",
    )
    other.add_argument(
        "--verify",
        type=given_path,
        metavar="FILE",
        help=f"check a bundle and judge its logs again; exit {int(Exit.VERDICT)} if anything "
        "differs; needs no logs",
    )
    other.add_argument(
        "--check",
        nargs="?",
        const=True,
        type=given_path,
        metavar="DIR",
        help="compare the report in DIR (default: --out) with one made from the logs (default: "
        f"DIR/logs); exit {int(Exit.VERDICT)} and name each cell that differs",
    )
    other.add_argument(
        "--compare",
        nargs=2,
        metavar="RUN",
        help="two runs side by side (run folders, or NAME/NNN under the logs): settings, "
        "provenance, measures, and where the losses part",
    )
    other.add_argument(
        "--watch",
        nargs="?",
        const=2.0,
        type=_seconds,
        metavar="SECONDS",
        help="follow runs in progress until all have ended; look again after SECONDS (default: 2)",
    )
    parser.add_argument(
        "--digest", metavar="HEX", help="with --verify: the bundle digest that its publisher states"
    )
    args = parser.parse_args()
    writes = args.gate or args.all_claims or args.out
    if (args.bundle or args.verify or args.compare or args.watch) and writes:
        parser.error("--gate, --all-claims and --out are for a report that is written")
    if args.check and args.gate:
        parser.error("--check goes without --gate")
    if args.verify and args.paths:
        parser.error("--verify takes the bundle and no logs")
    if args.digest is not None:
        args.digest = args.digest.lower()
        if not args.verify or not re.fullmatch("[0-9a-f]{64}", args.digest):
            parser.error("--digest goes with --verify and takes 64 hexadecimal digits")
    if args.check and args.check is not True:
        args.paths = args.paths or [args.check / "logs"]
        args.out = args.check
    args.paths = args.paths or [bootstrap.folder("PROOFRUN_LOGS", "logs", None)]
    return args


def given_path(text: str) -> Path:
    """An empty name is a variable that was not set, not the current folder."""
    if not text:
        raise argparse.ArgumentTypeError("a path is empty")
    return Path(text)


def _seconds(text: str) -> float:
    """0.1 s to an hour."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.1 <= value <= 3600:
        raise argparse.ArgumentTypeError("give 0.1 to 3600 seconds; folders come before --watch")
    return value


def main() -> Exit:
    """Do what the command line says; the exit code depends on verdicts with --gate only."""
    args = parse_args()
    # Not at the top: --help needs none of the packages behind these.
    if args.bundle:
        from .bundle import write_bundle

        write_bundle(args.paths, args.bundle)
        return Exit.OK
    if args.verify:
        from .verify import verify

        return Exit.OK if verify(args.verify, args.digest) else Exit.VERDICT
    if args.compare:
        from .compare import compare

        compare(args.compare, args.paths)
        return Exit.OK
    if args.watch:
        from .watch import watch

        watch(args.paths, args.watch)
        return Exit.OK
    return _report(args)


def _report(args: argparse.Namespace) -> Exit:
    from .build import build
    from .check import check
    from .output import write_report
    from .read import read_logs

    logs = read_logs(args.paths)
    report = build(logs, ROOT / "recipes" if args.all_claims else None)
    out = args.out or _place(args.paths, logs.root)
    if args.check:
        return Exit.OK if check(report, out) else Exit.VERDICT
    page = write_report(report, out, args.lang)
    if args.gate:
        print(f"gate: {'passed' if report.all_reproduced else 'failed'}")
    print(f"Report page: {page}")
    if not logs.runs and not logs.foreign:
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
