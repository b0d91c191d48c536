"""Prepare and verify data sets.

python tools/dataset.py prepare digits --dst DIR    the embedded digits, no download
python tools/dataset.py verify DIR                  every list, folder and image; the fingerprint
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from proofrun import bootstrap

bootstrap.ensure("numpy", "PIL", "pydantic", "yaml", "sklearn", "simplejpeg", "tqdm")

from _dataset import digits, verify  # noqa: E402

from proofrun.errors import Parser, main_exit, whole  # noqa: E402

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[Parser]


def add_prepare(commands: Commands) -> None:
    """`prepare SET --dst DIR`."""
    prepare = commands.add_parser("prepare", help="write a data set in the ImageNet layout")
    sets = prepare.add_subparsers(required=True)
    embedded = sets.add_parser("digits", help="scikit-learn's handwritten digits, no download")
    embedded.add_argument("--dst", type=Path, required=True, metavar="DIR", help="folder to make")
    embedded.set_defaults(command=lambda args: print(digits.prepare(args.dst)))


def add_verify(commands: Commands) -> None:
    """`verify DIR`."""
    check = commands.add_parser("verify", help="check every list, folder and image of a data set")
    check.add_argument("dir", type=Path, metavar="DIR", help="folder that holds train and val")
    check.add_argument(
        "--recipe",
        metavar="Model[-Data]",
        help="hold counts against this recipe (default: the set that the class folders look like)",
    )
    moves = check.add_mutually_exclusive_group()
    moves.add_argument(
        "--quarantine",
        type=Path,
        metavar="QDIR",
        help="move bad images there and take them and missing ones out of the lists",
    )
    moves.add_argument(
        "--restore", type=Path, metavar="QDIR", help="put back all that a quarantine moved; only"
    )
    check.add_argument("--json", type=Path, metavar="FILE", help="every finding, for programs")
    check.add_argument(
        "--processes", type=whole(1), metavar="N", help="default: as many as there are cores"
    )
    check.set_defaults(command=verify.command)


def parse_args() -> argparse.Namespace:
    """The command line; each command's function is in `command`."""
    parser = Parser(prog="dataset.py", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True)
    add_prepare(commands)
    add_verify(commands)
    return parser.parse_args()


def main() -> int | None:
    """Do what the command line says; ProofrunError as each command documents."""
    args = parse_args()
    code: int | None = args.command(args)
    return code


if __name__ == "__main__":
    main_exit(main, "dataset.py")
