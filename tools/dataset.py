"""Prepare data sets.

python tools/dataset.py prepare digits --dst DIR    the embedded digits, no download
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from proofrun import bootstrap

bootstrap.ensure("numpy", "PIL", "pydantic", "yaml", "sklearn")

from proofrun.data import digits  # noqa: E402
from proofrun.errors import Parser, main_exit  # noqa: E402


def parse_args() -> argparse.Namespace:
    """The command line."""
    parser = Parser(prog="dataset.py", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True)
    prepare = commands.add_parser("prepare", help="write a data set in the ImageNet layout")
    sets = prepare.add_subparsers(required=True)
    embedded = sets.add_parser("digits", help="scikit-learn's handwritten digits, no download")
    embedded.add_argument("--dst", type=Path, required=True, metavar="DIR", help="folder to make")
    return parser.parse_args()


def main() -> None:
    """Do what the command line says; ProofrunError as each command documents."""
    args = parse_args()
    print(digits.prepare(args.dst))


if __name__ == "__main__":
    main_exit(main, "dataset.py")
