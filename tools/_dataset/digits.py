"""The embedded data set: scikit-learn's handwritten digits as JPEG files in the ImageNet layout.

Source: E. Alpaydin, C. Kaynak, Optical Recognition of Handwritten Digits, UCI, 1998 (CC BY 4.0):
1797 real images of 8 x 8 pixels in 17 shades, in the package `scikit-learn`: no download.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from proofrun.data.lists import Split
from proofrun.errors import Exit, ProofrunError

from . import build
from .split import validation_part

SET = "digits"
CLASSES = 10
COUNTS: dict[Split, int] = {"train": 1437, "val": 360}

#: Side of the written images and of the digit in their middle, in pixels.
SIDE, DIGIT_SIDE = 96, 64

_SPLIT_SEED = 0
_MAX_SHADE = 16


def prepare(dst: Path) -> str:
    """Make the set in the folder `dst`; one line that says what is there now.

    Raises WriteError when `dst` holds anything else or cannot be written, ProofrunError when
    scikit-learn is missing.
    """
    unrecorded = build.Record(set=SET, images=COUNTS, classes=CLASSES, lists={})
    return build.make(dst, SET, _write, unrecorded=unrecorded)


def _write(work: build.Work) -> build.Contents:
    pixels, labels = _load()
    names = [f"digit_{label}" for label in range(CLASSES)]
    images: dict[Split, list[tuple[str, int]]] = {"train": [], "val": []}
    held_out = validation_part(
        labels, [str(index) for index in range(len(labels))], COUNTS["val"], _SPLIT_SEED
    )
    for index, label in enumerate(labels):
        split: Split = "val" if index in held_out else "train"
        name = f"{split}/{names[label]}/{names[label]}_{index:04d}.JPEG"
        (work.folder / name).parent.mkdir(parents=True, exist_ok=True)
        _picture(pixels[index]).save(work.folder / name, "JPEG", quality=95)
        images[split].append((name, label))
    return build.Contents(classes=names, images=images)


def _load() -> tuple[np.ndarray, list[int]]:
    """uint8 (1797, 8, 8) shades 0 … 16, and the labels."""
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise ProofrunError(
            "the digits come with the package scikit-learn, which is not installed; run "
            "`bash tools/setup.sh`, or pip install scikit-learn",
            Exit.NOT_INSTALLED,
        ) from None
    digits = load_digits()
    return digits.images.astype(np.uint8), digits.target.tolist()


def _picture(shades: np.ndarray) -> Image.Image:
    """One digit, white on black, in the middle of a larger RGB image."""
    grey = Image.fromarray((shades.astype(np.uint16) * 255 // _MAX_SHADE).astype(np.uint8))
    digit = grey.resize((DIGIT_SIDE, DIGIT_SIDE), Image.Resampling.BICUBIC)
    picture = Image.new("RGB", (SIDE, SIDE))
    picture.paste(digit.convert("RGB"), ((SIDE - DIGIT_SIDE) // 2,) * 2)
    return picture
