"""Prepare data sets: `python tools/dataset.py prepare digits --dst DIR`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # runs from any folder

from proofrun.data import digits
from proofrun.errors import main_exit


def main() -> None:
    """Read the command line and do what it says; ProofrunError as each command documents."""
    parser = argparse.ArgumentParser(prog="dataset.py", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    prepare = commands.add_parser("prepare", help="write a data set in the ImageNet layout")
    sets = prepare.add_subparsers(dest="data_set", required=True)
    embedded = sets.add_parser("digits", help="scikit-learn's handwritten digits, no download")
    embedded.add_argument("--dst", type=Path, required=True, help="the folder to make")
    args = parser.parse_args()
    print(digits.prepare(args.dst))


if __name__ == "__main__":
    main_exit(main, "dataset.py")
