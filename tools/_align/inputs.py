"""The loaders' pixels side by side: the same files, the same draws, and what is left between them.

Evaluation is compared as it is: it draws nothing. Training draws a window of each image; here the
window is drawn once, cut out, and every loader resizes it by its own code to the recipe's size.
(Flips are exact, and how each loader jitters colours is held by the tests.)
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from rich.table import Table

from proofrun.alignment import FOLDER
from proofrun.bootstrap import folder, in_checkout
from proofrun.data import LoaderName, Shard, open_eval
from proofrun.data.lists import ImageList, read_split
from proofrun.device import cards_on_host
from proofrun.errors import Exit, ProofrunError, UsageError, WriteError
from proofrun.preflight import DATA_VARIABLE, data_dir
from proofrun.recipe import EvalProtocol, PaddedPlace, Recipe, TrainInput

from . import streams
from .output import metadata

#: Largest mean difference of an image, of any colour's mean, and of a pixel, in steps of 255. Two
#: decoders and two resizers round each on its own; a wrong filter, window or colour is far above.
MEAN, TINT, PIXEL = 1.0, 0.5, 16.0

Pixels = NDArray[np.uint8]


class Pipeline(NamedTuple):
    name: str
    loader: LoaderName
    gpu: int | None = None


class Compared(NamedTuple):
    """Against the reference: largest mean difference of an image, of a colour, of a pixel."""

    protocol: str
    name: str
    mean: float
    tint: float
    pixel: float

    @property
    def aligned(self) -> bool:
        return self.mean <= MEAN and self.tint <= TINT and self.pixel <= PIXEL


def pipelines() -> list[Pipeline]:
    """The reference first; those that this host has."""
    found = [Pipeline("PIL", "torchvision"), Pipeline("DALI CPU", "dali")]
    return [*found, Pipeline("DALI GPU", "dali", 0)] if cards_on_host("GPU") else found


def run(recipe: Recipe, given: str | None, count: int, seed: int, out: Path | None) -> int:
    """Compare, print a table, write the picture. 0, or 1 where a pipeline leaves the bounds.

    Raises DataError, ProofrunError when a loader is not installed, WriteError.
    """
    if not given and not os.environ.get(DATA_VARIABLE[recipe.data.name]):
        raise UsageError(f"which images of {recipe.data.name}? `source env.sh`, or give --dir DIR")
    root = data_dir(recipe.data.name, given)
    images = _some(read_split(root, "val", recipe.data.classes), count, seed)
    path = out or folder("PROOFRUN_LOGS", "logs", None) / FOLDER / f"input-{recipe.name}.png"
    found: list[Compared] = []
    shown: list[tuple[str, dict[str, Pixels]]] = []
    with tempfile.TemporaryDirectory() as work:
        windows = cut_windows(images, recipe.data.train, seed, Path(work))
        parts = [(images, protocol) for protocol in recipe.data.eval]
        parts.append((windows, train_protocol(recipe.data.train)))
        for files, protocol in parts:
            pixels = {p.name: decode(p, files, protocol) for p in pipelines()}
            shown.append((protocol.name, pixels))
            reference = pixels["PIL"]
            found += [
                measured(protocol.name, name, reference, other)
                for name, other in pixels.items()
                if name != "PIL"
            ]
    _show(found, len(images.files))
    if all(is_grey(pixels["PIL"]) for _, pixels in shown):
        print("all of these images are grey: swapped colours would not be seen; give others, --dir")
    draw(shown, path)
    print(f"side by side, with the differences: {in_checkout(path)}")
    return Exit.OK if all(row.aligned for row in found) else Exit.VERDICT


def _some(images: ImageList, count: int, seed: int) -> ImageList:
    """`count` files of a list, drawn by the seed."""
    order = np.argsort(streams.words(len(images.files), "files", seed), kind="stable")[:count]
    chosen = np.sort(order)
    files = [images.files[i] for i in chosen.tolist()]
    return ImageList(images.root, files, images.labels[chosen], images.class_count)


def cut_windows(images: ImageList, spec: TrainInput, seed: int, work: Path) -> ImageList:
    """One training window of each image as a PNG file, so that no loader draws its own."""
    files = []
    for index in range(len(images.files)):
        with Image.open(images.path(index)) as opened:
            image = opened.convert("RGB")
        name = f"{index:04d}.png"
        image.crop(window(image.size, spec, seed, index)).save(work / name)
        files.append(name)
    return ImageList(work, files, images.labels, images.class_count)


def window(
    size: tuple[int, int], spec: TrainInput, seed: int, index: int
) -> tuple[int, int, int, int]:
    """(left, upper, right, lower) in an image of (width, height), as the recipe's crop draws.

    RandomResizedCrop: area and log of the ratio uniform; ten attempts to fit, else all of it. A
    padded crop moves the whole window; what lies outside of the image is black.
    """
    width, height = size
    draws = streams.uniform((10, 4), 0.0, 1.0, "window", seed, index)
    if isinstance(spec.crop, PaddedPlace):
        shifts = (draws[0, :2] * (2 * spec.crop.pixels + 1)).astype(int) - spec.crop.pixels
        left, upper = (int(shift) for shift in shifts)
        return left, upper, left + width, upper + height
    (smallest, largest), (low, high) = spec.crop.area, np.log(spec.crop.ratio)
    for draw in draws:
        area = width * height * (smallest + (largest - smallest) * draw[0])
        ratio = np.exp(low + (high - low) * draw[1])
        w, h = round(float(np.sqrt(area * ratio))), round(float(np.sqrt(area / ratio)))
        if 0 < w <= width and 0 < h <= height:
            left, upper = int(draw[2] * (width - w + 1)), int(draw[3] * (height - h + 1))
            return left, upper, left + w, upper + h
    return 0, 0, width, height


def train_protocol(spec: TrainInput) -> EvalProtocol:
    """The resize of training, of a window that is already cut."""
    return EvalProtocol(
        name="train window",
        resize="squash",
        resize_to=spec.image_size,
        crop=spec.image_size,
        interpolation=spec.interpolation,
        antialias=spec.antialias,
    )


def decode(pipeline: Pipeline, images: ImageList, protocol: EvalProtocol) -> Pixels:
    """(B, H, W, 3), in the order of the list."""
    shard = Shard(rank=0, world=1, threads=0 if pipeline.loader == "torchvision" else 1,
                  device_id=pipeline.gpu)  # fmt: skip
    batches = open_eval(pipeline.loader, images, protocol, len(images.files), shard)
    try:
        (batch,) = batches
    finally:
        batches.close()
    pixels: Pixels = batch.images.cpu().numpy()[np.argsort(batch.ids.numpy())]
    return pixels.copy()


def measured(protocol: str, name: str, reference: Pixels, other: Pixels) -> Compared:
    if reference.shape != other.shape:
        raise ProofrunError(
            f"{name}: made images of {other.shape}, PIL of {reference.shape}: report the file",
            Exit.INTERNAL,
        )
    apart = other.astype(np.int16) - reference
    return Compared(
        protocol,
        name,
        float(np.abs(apart).mean(axis=(1, 2, 3)).max()),
        float(np.abs(apart.mean(axis=(1, 2))).max()),
        float(np.abs(apart).max()),
    )


def is_grey(pixels: Pixels) -> bool:
    """Whether all colours of every pixel are equal."""
    return bool((pixels == pixels[..., :1]).all())


def _show(found: list[Compared], count: int) -> None:
    table = Table(title=f"{count} images against PIL, in steps of 255: the worst image")
    for column in ("protocol", "pipeline", "mean difference", "shift of a colour", "pixel", ""):
        table.add_column(column)
    for row in found:
        said = "aligned" if row.aligned else "not aligned"
        table.add_row(
            row.protocol, row.name, f"{row.mean:.3f}", f"{row.tint:.3f}", f"{row.pixel:.0f}", said
        )
    Console(width=110, highlight=False).print(table)


def _columns(pixels: dict[str, Pixels]) -> Iterator[tuple[str, Pixels]]:
    """Every pipeline, and after it its difference to the reference around grey, 16 times."""
    reference = pixels["PIL"]
    for name, own in pixels.items():
        yield name, own
        if name != "PIL":
            apart = (own.astype(np.int16) - reference) * 16 + 128
            yield f"({name} - PIL) x 16", apart.clip(0, 255).astype(np.uint8)


def draw(shown: list[tuple[str, dict[str, Pixels]]], path: Path, rows: int = 4) -> None:
    """The first images of every protocol, in one picture. Raises WriteError."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot as plt

    wide = max(len(list(_columns(pixels))) for _, pixels in shown)
    figure, grid = plt.subplots(
        rows, wide * len(shown), figsize=(1.7 * wide * len(shown), 1.9 * rows + 0.6),
        squeeze=False, layout="constrained",
    )  # fmt: skip
    for axis in grid.flat:
        axis.set_axis_off()
    for part, (protocol, pixels) in enumerate(shown):
        for column, (name, images) in enumerate(_columns(pixels)):
            axes = grid[:, part * wide + column]
            for axis, image in zip(axes, images, strict=False):
                axis.imshow(image, interpolation="nearest")
            axes[0].set_title(f"{protocol}\n{name}" if column == 0 else f"\n{name}", fontsize=9)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=100, metadata=metadata(path))
    except (OSError, ValueError) as error:
        raise WriteError(f"{path}: cannot be drawn ({error}); give another --out") from None
    finally:
        plt.close(figure)
