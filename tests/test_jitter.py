"""proofrun.data.jitter: torchvision's adjustments, at known draws."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from proofrun.data.jitter import color_jitter
from proofrun.recipe import ColorJitter
from proofrun.vision import import_torchvision
from tests.images import natural

NONE = {"brightness": 0.0, "contrast": 0.0, "saturation": 0.0, "hue": 0.0}
PARTS = tuple(NONE)


def colours() -> Tensor:
    """uint8 (48, 48, 3) with every kind of colour: greys, primaries, mixed."""
    image = np.array(natural(48, 48, 9))
    image[:8, :8] = [[[0, 0, 0]], [[255, 255, 255]], [[255, 0, 0]], [[0, 255, 0]]] * 2
    image[8:16, :8] = [[[0, 0, 255]], [[255, 255, 0]], [[0, 255, 255]], [[255, 0, 255]]] * 2
    return torch.from_numpy(image)


@pytest.mark.parametrize("part", PARTS)
def test_each_part_equals_torchvisions(part):
    """A batch, each image with a draw of its own; torchvision cuts fractions off, of grey too."""
    adjust = getattr(import_torchvision().transforms.functional, f"adjust_{part}")
    width = 0.5 if part == "hue" else 0.9
    draws = torch.tensor([-1.0, -0.4, 0.0, 0.06, 0.3, 1.0])
    every = torch.zeros(len(draws), len(PARTS))
    every[:, PARTS.index(part)] = draws
    image = colours()
    made = color_jitter(
        image.expand(len(draws), -1, -1, -1), every, ColorJitter(**NONE | {part: width})
    )
    for one, draw in zip(made, draws.tolist(), strict=True):
        value = draw * width + (0 if part == "hue" else 1)
        theirs = adjust(image.permute(2, 0, 1), value).permute(1, 2, 0)
        assert (one.int() - theirs.int()).abs().max() <= 2


def test_the_parts_come_in_order():
    """As torchvision's one after the other, but for the fractions that it cuts off each time."""
    functional = import_torchvision().transforms.functional
    image = colours()
    draws = torch.tensor([[0.5, -0.5, 0.7, -0.3]])
    made = color_jitter(image[None], draws, ColorJitter(**NONE | dict.fromkeys(PARTS, 0.4)))[0]
    theirs = image.permute(2, 0, 1)
    for part, draw in zip(PARTS, draws[0].tolist(), strict=True):
        value = draw * 0.4 + (0 if part == "hue" else 1)
        theirs = getattr(functional, f"adjust_{part}")(theirs, value)
    apart = (made.int() - theirs.permute(1, 2, 0).int()).abs()
    assert apart.float().mean() < 1.5 and apart.max() <= 6


def test_draws_of_nothing_change_nothing():
    image = colours()[None]
    all_parts = ColorJitter(**NONE | dict.fromkeys(PARTS, 0.4))
    made = color_jitter(image, torch.zeros(1, 4), all_parts)
    assert torch.equal(made, image) and made.is_contiguous()
    assert made.data_ptr() != image.data_ptr()
