"""The embedded data set: scikit-learn's handwritten digits as JPEG files in the ImageNet layout.

Source: E. Alpaydin, C. Kaynak, Optical Recognition of Handwritten Digits, UCI, 1998 (CC BY 4.0):
1797 real images of 8 x 8 pixels in 17 shades, in the package `scikit-learn`: no download.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from proofrun.data.lists import Split, check_images, list_hash, read_split
from proofrun.errors import DataError, Exit, ProofrunError, WriteError

CLASSES = 10
COUNTS: dict[Split, int] = {"train": 1437, "val": 360}

#: Side of the written images and of the digit in their middle, in pixels.
SIDE, DIGIT_SIDE = 96, 64

_SPLIT_SEED = 0
_MAX_SHADE = 16


def prepare(dst: Path) -> str:
    """Write the data set to the folder `dst`; returns one line that says what is there now.

    A complete set is left as it is. The new one is built beside `dst` and renamed when it is whole.
    Raises WriteError when `dst` holds anything else or cannot be written, ProofrunError when
    scikit-learn is missing.
    """
    dst = Path(os.path.abspath(dst))
    if (there := _existing(dst)) is not None:
        return there
    try:
        dst.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{dst.name}.partial-", dir=dst.parent))
        try:
            _write(partial)
            partial.chmod(0o777 & ~_umask())  # mkdtemp makes it private
            try:
                partial.rename(dst)
            except OSError:
                if (there := _existing(dst)) is not None:  # another process was faster
                    return there
                raise
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    except OSError as error:
        raise WriteError(
            f"{dst}: cannot be written ({error.strerror}); free the disk or give another --dst"
        ) from None
    return f"{dst}: wrote {_summary(dst)}"


def _existing(dst: Path) -> str | None:
    """What to say about a complete set in `dst`; None if the place is free, WriteError else."""
    try:
        if not dst.exists() or (dst.is_dir() and not any(dst.iterdir())):
            return None
        return f"{dst}: is complete, nothing to do: {_summary(dst)}"
    except DataError as error:
        why = str(error).partition(";")[0]  # without its advice, which is for a reader of the data
        raise WriteError(
            f"{dst}: is there already and is not a complete digits set ({why}); move it away or "
            "give another --dst"
        ) from None
    except OSError as error:
        raise WriteError(
            f"{dst}: cannot be read ({error.strerror}); mend it or give another --dst"
        ) from None


def _summary(dst: Path) -> str:
    """Counts and hash of a set; DataError if anything is missing or damaged."""
    hashes = []
    for split, count in COUNTS.items():
        images = read_split(dst, split, CLASSES)
        if len(images.files) != count:
            raise DataError(
                f"{split}.txt has {len(images.files)} images, not {count}", Exit.NO_DATA
            )
        check_images(images, sample=None)
        hashes.append(list_hash(images)[:12])
    counts = ", ".join(f"{count} {split}" for split, count in COUNTS.items())
    return f"{counts} images of {CLASSES} digits, lists {' '.join(hashes)}"


def _write(folder: Path) -> None:
    pixels, labels = _load()
    names = [f"digit_{label}" for label in range(CLASSES)]
    lines: dict[Split, list[str]] = {"train": [], "val": []}
    held_out = validation_part(labels)
    for index, label in enumerate(labels.tolist()):
        split: Split = "val" if index in held_out else "train"
        name = f"{split}/{names[label]}/{names[label]}_{index:04d}.JPEG"
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        _picture(pixels[index]).save(folder / name, "JPEG", quality=95)
        lines[split].append(f"{name} {label}\n")
    (folder / "classes.txt").write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
    for split, text in lines.items():
        (folder / f"{split}.txt").write_text("".join(sorted(text)), encoding="utf-8")


def _load() -> tuple[np.ndarray, np.ndarray]:
    """uint8 (1797, 8, 8) shades 0 … 16, and int64 (1797,) labels."""
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise ProofrunError(
            "the digits come with the package scikit-learn, which is not installed; run "
            "`bash run_scripts/quickstart.sh`, or pip install scikit-learn",
            Exit.NOT_INSTALLED,
        ) from None
    digits = load_digits()
    return digits.images.astype(np.uint8), digits.target.astype(np.int64)


def validation_part(labels: np.ndarray) -> set[int]:
    """Positions of the validation images: each class by its share, drawn by a seeded hash.

    A hash, since the streams of random generators may change between versions of a package.
    """

    def draw(index: int) -> bytes:
        return hashlib.sha256(f"{_SPLIT_SEED}:{index}".encode()).digest()

    want = COUNTS["val"]
    share = np.bincount(labels, minlength=CLASSES) * want / len(labels)
    quota = np.floor(share).astype(int)
    for label in np.argsort(quota - share, kind="stable")[: want - quota.sum()]:
        quota[label] += 1  # largest remainders
    held_out: set[int] = set()
    for label in range(CLASSES):
        members = sorted(np.flatnonzero(labels == label).tolist(), key=draw)
        held_out.update(members[: quota[label]])
    return held_out


def _picture(shades: np.ndarray) -> Image.Image:
    """One digit, white on black, in the middle of a larger RGB image."""
    grey = Image.fromarray((shades.astype(np.uint16) * 255 // _MAX_SHADE).astype(np.uint8))
    digit = grey.resize((DIGIT_SIDE, DIGIT_SIDE), Image.Resampling.BICUBIC)
    picture = Image.new("RGB", (SIDE, SIDE))
    picture.paste(digit.convert("RGB"), ((SIDE - DIGIT_SIDE) // 2,) * 2)
    return picture


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
