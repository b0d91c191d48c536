"""Prepare data sets.

python tools/dataset.py prepare digits --dst DIR    the embedded digits, no download
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from proofrun import bootstrap

bootstrap.ensure("numpy", "PIL", "pydantic", "yaml", "sklearn")

from _dataset import digits  # noqa: E402

from proofrun.errors import Parser, main_exit  # noqa: E402

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[Parser]


def add_prepare(commands: Commands) -> None:
    """`prepare SET --dst DIR`."""
    prepare = commands.add_parser("prepare", help="write a data set in the ImageNet layout")
    sets = prepare.add_subparsers(required=True)
    embedded = sets.add_parser("digits", help="scikit-learn's handwritten digits, no download")
    embedded.add_argument("--dst", type=Path, required=True, metavar="DIR", help="folder to make")
    embedded.set_defaults(command=lambda args: print(digits.prepare(args.dst)))


def parse_args() -> argparse.Namespace:
    """The command line; each command's function is in `command`."""
    parser = Parser(prog="dataset.py", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True)
    add_prepare(commands)
    return parser.parse_args()


def main() -> int | None:
    """Do what the command line says; ProofrunError as each command documents."""
    args = parse_args()
    code: int | None = args.command(args)
    return code


if __name__ == "__main__":
    main_exit(main, "dataset.py")
