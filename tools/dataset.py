"""Prepare and verify data sets.

python tools/dataset.py prepare digits --dst DIR              the embedded digits, no download
python tools/dataset.py prepare imagenet --src DIR --dst DIR  from the archives of ILSVRC2012
python tools/dataset.py prepare cifar10 --src DIR --dst DIR   from its python or binary archive
python tools/dataset.py prepare folder --src DIR --dst DIR    from a folder for each class
python tools/dataset.py verify DIR                            lists, folders and every image
"""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from proofrun import bootstrap

bootstrap.ensure(
    "numpy", "PIL", "pydantic", "yaml", "sklearn", "scipy", "rich", "simplejpeg", "tqdm"
)

from _dataset import cifar10, digits, folder, imagenet, verify  # noqa: E402

from proofrun.errors import Parser, main_exit, printable, whole  # noqa: E402

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[Parser]


def add_prepare(commands: Commands) -> None:
    """`prepare SET --dst DIR`, and `--src` where the set does not come with a package."""
    prepare = commands.add_parser("prepare", help="write a data set in the ImageNet layout")
    sets = prepare.add_subparsers(required=True)
    helps = {
        "digits": "scikit-learn's handwritten digits, no download",
        "imagenet": "ILSVRC2012, from its archives for training and validation and its devkit",
        "cifar10": "CIFAR-10, from its python or binary archive",
        "folder": "any tree with a folder for each class, split in two",
    }
    parsers = {name: sets.add_parser(name, help=text) for name, text in helps.items()}
    for name, parser in parsers.items():
        parser.add_argument("--dst", type=Path, required=True, metavar="DIR", help="folder to make")
        if name != "digits":
            what = "folder of the archives, or of the classes"
            parser.add_argument("--src", type=Path, required=True, metavar="DIR", help=what)
        if name in ("imagenet", "cifar10"):
            parser.add_argument(
                "--any-archives",
                action="store_true",
                help="take archives whose MD5 is not the published one; the set's record says so",
            )
    parsers["folder"].add_argument(
        "--val-fraction", type=float, default=0.2, metavar="F", help="share held out (default 0.2)"
    )
    parsers["folder"].add_argument("--seed", type=int, default=0, help="of the split (default 0)")
    parsers["folder"].add_argument(
        "--link",
        choices=("copy", "hard", "symbolic"),
        default="copy",
        help="copy the files (default), so that the set stays as it is; or link to them",
    )
    parsers["digits"].set_defaults(command=lambda a: digits.prepare(a.dst))
    parsers["imagenet"].set_defaults(
        command=lambda a: imagenet.prepare(a.src, a.dst, a.any_archives)
    )
    parsers["cifar10"].set_defaults(command=lambda a: cifar10.prepare(a.src, a.dst, a.any_archives))
    parsers["folder"].set_defaults(
        command=lambda a: folder.prepare(a.src, a.dst, a.val_fraction, a.seed, a.link)
    )


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
    """The command line; `command` is what each does, and returns the line to print."""
    parser = Parser(prog="dataset.py", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True)
    add_prepare(commands)
    add_verify(commands)
    return parser.parse_args()


def main() -> None:
    """Do what the command line says; ProofrunError as each command documents."""
    args = parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: the next one goes on
    print("\n".join(map(printable, args.command(args).split("\n"))))


if __name__ == "__main__":
    main_exit(main, "dataset.py")
