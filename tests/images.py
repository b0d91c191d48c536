"""Small generated images for the tests of the input pipeline."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from proofrun.data.lists import ImageList
from proofrun.recipe import ColorJitter, EvalProtocol, TrainInput


def natural(width: int, height: int, seed: int = 0) -> Image.Image:
    """RGB noise with the 1/f spectrum of photographs: smooth, with some fine detail."""
    rng = np.random.default_rng(seed)
    spectrum = np.fft.rfft2(rng.standard_normal((3, height, width)))
    radius = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    pixels = np.fft.irfft2(spectrum / (0.01 + radius) ** 1.2, s=(height, width))
    pixels -= pixels.mean((1, 2), keepdims=True)
    pixels *= 50 / pixels.std((1, 2), keepdims=True)
    return Image.fromarray((pixels + 120).clip(0, 255).astype(np.uint8).transpose(1, 2, 0))


def ramp(side: int = 256) -> Image.Image:
    """Red is the column and green is the row: a crop's place and size can be read from it."""
    line = np.arange(side, dtype=np.uint8)
    zero = np.zeros((side, side), np.uint8)
    return Image.fromarray(np.stack([zero + line, zero + line[:, None], zero], axis=2))


def image_list(root: Path, count: int, classes: int = 3, side: int = 40) -> ImageList:
    """`count` different JPEG files in the folder layout, with a list sorted by class."""
    labels = np.sort(np.arange(count) % classes)
    files = []
    for index, label in enumerate(labels):
        name = f"train/class_{label}/{index:03d}.JPEG"
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        natural(side + index % 7, side + index % 5, index).save(root / name, quality=95)
        files.append(name)
    return ImageList(root, files, labels.astype(np.int64), classes)


def head(images: ImageList, count: int) -> ImageList:
    """The first `count` images of a list."""
    return ImageList(images.root, images.files[:count], images.labels[:count], images.class_count)


def repeated(path: Path, count: int) -> ImageList:
    """A list that has one file `count` times, to see many random draws on it."""
    return ImageList(path.parent, [path.name] * count, np.zeros(count, np.int64), 1)


def train_input(**changes: object) -> TrainInput:
    """Published-like augmentation at 32 px."""
    values = {
        "image_size": 32,
        "crop_area": (0.08, 1.0),
        "crop_ratio": (0.75, 4 / 3),
        "interpolation": "bilinear",
        "antialias": True,
        "flip_probability": 0.5,
        "color_jitter": ColorJitter(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1),
    }
    return TrainInput.model_validate(values | changes)


#: For `train_input`: a window as large as the image, from the image with a black border of 4.
PADDED = {"crop_area": None, "crop_ratio": None, "crop_padding": 4}


def windows(image: Image.Image, pixels: int = 4) -> list[Image.Image]:
    """Every crop of `image`'s own size from it with a black border, row by row, then mirrored."""
    wide = Image.new("RGB", (image.width + 2 * pixels, image.height + 2 * pixels))
    wide.paste(image, (pixels, pixels))
    places = [(x, y) for y in range(2 * pixels + 1) for x in range(2 * pixels + 1)]
    cut = [wide.crop((x, y, x + image.width, y + image.height)) for x, y in places]
    return cut + [window.transpose(Image.Transpose.FLIP_LEFT_RIGHT) for window in cut]


def protocol(**changes: object) -> EvalProtocol:
    """Published-like evaluation at 32 px: the shorter side to 37, which leaves odd margins."""
    values = {
        "name": "test",
        "resize": "shorter_side",
        "resize_to": 37,
        "crop": 32,
        "interpolation": "bilinear",
        "antialias": True,
    }
    return EvalProtocol.model_validate(values | changes)


#: What a verified set may hold besides RGB JPEGs, by the name of the file: how to write it.
ODDITIES: dict[str, Callable[[Image.Image, Path], None]] = {
    "cmyk.JPEG": lambda image, path: image.convert("CMYK").save(path, quality=95),
    "grey.JPEG": lambda image, path: image.convert("L").save(path, quality=95),
    "grey.png": lambda image, path: image.convert("L").save(path),
    "black and white.png": lambda image, path: image.convert("1").save(path),
    "png.JPEG": lambda image, path: image.save(path, "PNG"),
    "jpeg.png": lambda image, path: image.save(path, "JPEG", quality=95),
    "palette.png": lambda image, path: image.quantize(64).save(path),
    "transparent palette.png": lambda image, path: image.quantize(64).save(path, transparency=3),
    "alpha.png": lambda image, path: _with_alpha(image).save(path),
    "grey with alpha.png": lambda image, path: _with_alpha(image.convert("L")).save(path),
    "1x1.JPEG": lambda image, path: image.resize((1, 1)).save(path, quality=95),
    "500x1.png": lambda image, path: image.resize((500, 1)).save(path),
}


def _with_alpha(image: Image.Image) -> Image.Image:
    image = image.copy()
    image.putalpha(Image.linear_gradient("L").resize(image.size))
    return image
