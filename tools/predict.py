"""Name what is in images: the five likeliest classes of each, printed and as CSV.

python tools/predict.py photo.jpg --weights logs/RUN/001
python tools/predict.py FOLDER more.png --weights bn_inception.pth --csv predictions.csv
"""

from __future__ import annotations

import argparse
import csv
import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from proofrun import early  # before any import that takes time

if __name__ == "__main__":
    early.stop_tool_on_signals("predict.py")

from proofrun import bootstrap

bootstrap.ensure("torch", "torchvision", "numpy", "pydantic", "yaml", "psutil", "safetensors")

from proofrun.errors import (  # noqa: E402
    DataError,
    Exit,
    Parser,
    UsageError,
    WriteError,
    main_exit,
    printable,
    whole,
)
from proofrun.text import csv_text  # noqa: E402

if TYPE_CHECKING:
    from torch import Tensor

    from proofrun.recipe import EvalProtocol

Prediction = tuple[str, list[tuple[int, float]]]  # image; (class, probability), likeliest first


def parse_args() -> argparse.Namespace:
    """The command line. Raises UsageError."""
    parser = Parser(prog="predict.py", description=__doc__.splitlines()[0])
    parser.add_argument("images", nargs="+", type=Path, metavar="IMAGE|FOLDER")
    parser.add_argument(
        "--weights", required=True, type=Path, metavar="PATH", help="a file, a checkpoint or a run"
    )
    parser.add_argument("--dataset", metavar="NAME", help="where the weights fit several")
    parser.add_argument(
        "--data", metavar="DIR", help="data folder that names classes (default: env.sh)"
    )
    parser.add_argument("--csv", type=Path, metavar="FILE", help="also write a new CSV file")
    parser.add_argument("--top", type=whole(1), default=5, metavar="N", help="classes (default 5)")
    parser.add_argument("--batch", type=whole(1), default=32, metavar="N", help="images at once")
    options = parser.parse_args()
    if options.csv is not None and options.csv.exists():
        raise UsageError(f"{options.csv}: is there already, and is not overwritten; name another")
    if options.csv is not None and not options.csv.absolute().parent.is_dir():
        raise WriteError(f"{options.csv}: its folder is not there; give another --csv FILE")
    return options


def images_in(paths: Sequence[Path]) -> list[Path]:
    """As given, and of folders every JPEG and PNG below them, links and pipes too.

    Raises DataError.
    """
    from proofrun.data.lists import EXTENSIONS

    found: list[Path] = []
    for path in paths:
        if not path.exists():
            raise DataError(f"{path}: there is no such file or folder; give images or a folder")
        below = [path]
        if path.is_dir():
            files = sorted(p for p in path.rglob("*") if p.suffix.lower() in EXTENSIONS)
            below = [p for p in files if not p.is_dir()]  # broken links are named later
            if not below:
                raise DataError(
                    f"{path}: no image in this folder or below; images end in "
                    f"{', '.join(EXTENSIONS)}"
                )
        found += below
    return found


def class_names(data: str, given: str | None, classes: int) -> list[str]:
    """A name a class: of the data's classes.txt, else of its class folders.

    Where env.sh names data that is not there, the number. Raises DataError for `given` data that
    is not there, or has other classes.
    """
    from proofrun import preflight

    root = preflight.data_dir(data, given)
    names: list[str] = []
    if (root / "classes.txt").is_file():
        # a line is the class folder, and behind a space what the class is called, if that is known
        lines = (root / "classes.txt").read_text(encoding="utf-8").splitlines()
        names = [line.partition(" ")[2] or line for line in lines]
    elif (root / "val").is_dir():
        names = sorted(path.name for path in (root / "val").iterdir() if path.is_dir())
    if len(names) == classes:
        return names
    has = f"{len(names)} classes, the weights {classes}" if names else "no names of classes"
    has = has if root.is_dir() else "there is no such data folder"
    if given:
        raise DataError(
            f"{root}: {has}; give --data DIR of the data that the weights were trained on",
            Exit.CLASS_COUNT if names else Exit.NO_DATA,
        )
    said = f"{root}: {has}: numbers stand for names; give --data DIR"
    print(f"predict.py: {said}", file=sys.stderr)
    return [str(number) for number in range(classes)]


def predict(options: argparse.Namespace, names_of: list[str]) -> Iterator[Prediction | DataError]:
    """The likeliest classes of every image, in order; fills `names_of` with the class names.

    Yields a DataError for an image among others that cannot be read. Raises CheckpointError,
    DataError, ProofrunError OUT_OF_MEMORY.
    """
    import torch

    from proofrun import candidates, device, fuse, memory, pretrained
    from proofrun.evaluate import Inputs

    paths = images_in(options.images)
    files = [str(path.absolute()) for path in paths if path.is_file()]
    odd = [
        DataError(f"{path}: a broken link, or no regular file", Exit.IMAGE_INVALID)
        for path in paths
        if not path.is_file()
    ]
    chosen = candidates.one_at(options.weights)
    recipe_dir, recipe = pretrained.recipe_of(chosen, options.dataset)
    weights = pretrained.load(chosen, recipe)
    here = device.Device(device.kind_on_host(), "FP32", recipe.precision)
    net, _ = fuse.ready(weights, weights.build(recipe_dir), here)
    data = weights.recipe.data
    inputs = Inputs(data.normalize, here.torch_device, weights.bgr)
    batch = min(options.batch, len(paths))
    memory.check_batch(net, inputs, data.eval[0].crop, batch, here, "--batch ")
    names_of += class_names(data.name, options.data, data.classes)
    for found in chain(odd, _batches(files, data.eval[0], batch)):
        if isinstance(found, DataError):
            if len(paths) == 1:
                raise found
            yield found
            continue
        read, images = found
        with torch.no_grad(), here.autocast():
            chances = net(inputs(images)).float().softmax(1)
        best = chances.topk(min(options.top, data.classes), dim=1)
        for path, classes, values in zip(
            read, best.indices.tolist(), best.values.tolist(), strict=True
        ):
            yield path, list(zip(classes, values, strict=True))


def _batches(
    files: list[str], protocol: EvalProtocol, batch: int
) -> Iterator[tuple[list[str], Tensor] | DataError]:
    """Files with their images, uint8 (B, H, W, 3); from the first bad one on, all bad ones first.

    Raises DataError when the loader refuses what can be decoded.
    """
    import numpy as np

    from proofrun.data import Shard, open_eval
    from proofrun.data.lists import ImageList
    from proofrun.data.pil import decode
    from proofrun.host import usable_cores

    def error(file: str) -> DataError | None:
        try:
            decode(Path(file))
        except DataError as problem:
            return problem
        return None

    if not files:
        return
    done = 0
    images = ImageList(Path("/"), files, np.zeros(len(files), np.int64), 1)
    shard = Shard(0, 1, min(usable_cores(), len(files) // batch))
    try:
        for found in open_eval("torchvision", images, protocol, batch, shard):
            done += len(found.ids)
            yield [files[index] for index in found.ids.tolist()], found.images
        return
    except DataError as problem:
        refused = problem.with_traceback(None)  # it would keep the loader's processes
    left = files[done:]
    with ThreadPoolExecutor(usable_cores()) as pool:
        errors = list(pool.map(error, left))
    if not any(errors):
        raise refused
    yield from filter(None, errors)
    good = [file for file, bad in zip(left, errors, strict=True) if bad is None]
    yield from _batches(good, protocol, batch)


def main() -> None:
    """Do what the command line says; ProofrunError as `predict` documents, and WriteError."""
    options = parse_args()
    names: list[str] = []
    rows: list[tuple[str, int, int, str, float]] = []
    unread = 0
    for found in predict(options, names):
        if isinstance(found, DataError):
            print(f"predict.py: {printable(str(found))}", file=sys.stderr, flush=True)
            unread += 1
            continue
        image, likeliest = found
        shown = printable(bootstrap.in_checkout(Path(image)))
        said = ", ".join(f"{names[number]} {100 * chance:.2f} %" for number, chance in likeliest)
        print(f"{shown}: {said}", flush=True)
        rows += [
            (shown, place, number, names[number], chance)
            for place, (number, chance) in enumerate(likeliest, 1)
        ]
    if options.csv is not None and rows:
        write(options.csv, rows)
        print(options.csv)
    if unread:
        left = "the others are named" if rows else "none is left"
        raise DataError(f"{unread} of the images cannot be read, {left}", Exit.IMAGE_INVALID)


def write(path: Path, rows: Sequence[tuple[str, int, int, str, float]]) -> None:
    """All rows or none. Raises WriteError."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    early.unfinished.append(str(temporary))
    try:
        with temporary.open("w", encoding="utf-8", newline="") as file:
            table = csv.writer(file)
            table.writerow(("image", "place", "class", "name", "probability"))
            table.writerows([csv_text(cell) for cell in row] for row in rows)
        os.link(temporary, path)  # never over a file that came meanwhile
    except OSError as error:
        raise WriteError(f"{path}: {error.strerror}; give another --csv FILE") from None
    finally:
        temporary.unlink(missing_ok=True)


if __name__ == "__main__":
    main_exit(main, "predict.py")
