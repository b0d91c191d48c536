"""proofrun.data.resize: the pixels of PIL and of torchvision, in any number of threads."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from proofrun.data.resize import resizer
from proofrun.vision import import_torchvision
from tests.images import natural

functional = import_torchvision().transforms.functional

SIZES = [(224, 224), (37, 51), (300, 8), (1, 1), (375, 500)]


def images() -> list[np.ndarray]:
    shapes = [(500, 375), (64, 48), (9, 300), (1, 1), (375, 500)]
    return [np.array(natural(500, 500, i))[:h, :w].copy() for i, (w, h) in enumerate(shapes)]


@pytest.mark.parametrize("threads", [1, 3, 8])
@pytest.mark.parametrize("antialias", [True, False])
def test_pixels_are_those_of_pil_and_torchvision(threads, antialias):
    made = resizer(threads, antialias)(images(), [np.array(size, np.int32) for size in SIZES])
    for image, size, found in zip(images(), SIZES, made, strict=True):
        height, width = size
        if antialias:
            picture = Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR)
            expected = np.asarray(picture)
        else:
            tensor = torch.from_numpy(image).permute(2, 0, 1)
            sized = functional.resize(tensor, [height, width], antialias=False)
            expected = sized.permute(1, 2, 0).numpy()
        assert found.shape == (height, width, 3) and found.dtype == np.uint8
        assert np.abs(found.astype(int) - expected).max() <= 1


def test_an_error_in_a_thread_is_the_callers():
    whole = np.zeros((4, 4, 3), np.uint8)
    with pytest.raises(RuntimeError, match=r"channels|size"):
        resizer(2, True)([whole, np.zeros((4, 4, 4), np.uint8)], [np.array([2, 2])] * 2)


def test_the_rest_of_the_process_keeps_its_threads():
    """In a process of its own, where nothing has asked torch for its threads before."""
    count = "print(torch.get_num_threads())\n"
    make = "from proofrun.data.resize import resizer\nresizer(2, True)\n"
    after = "threading.Thread(target=lambda: print(torch.get_num_threads())).start()\n"

    def threads(code: str) -> list[str]:
        line = [sys.executable, "-c", f"import threading, torch\n{code}"]
        done = subprocess.run(line, capture_output=True, text=True, check=True)
        return done.stdout.split()

    assert threads(make + count + after) == threads(count) * 2
