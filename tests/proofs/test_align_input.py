"""`align.py input`: DALI's pixels held against PIL's, on the digits."""

from __future__ import annotations

import numpy as np

from proofrun.errors import Exit
from tools._align import cli, home, inputs


def test_pipelines_agree_and_are_drawn(digits, tmp_path, capsys):
    out = tmp_path / "input.png"
    line = ["input", "GoogLeNet", "--dir", str(digits), "--count", "4", "--out", str(out)]
    assert cli.main(line) == Exit.OK
    said = capsys.readouterr().out
    assert "train window" in said and "squash73_crop64" in said and "DALI CPU" in said
    assert "not aligned" not in said
    assert out.read_bytes()[:4] == b"\x89PNG"


def test_a_swapped_colour_or_a_moved_window_is_out_of_bounds():
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (2, 16, 16, 3), np.uint8)
    assert inputs.measured("p", "n", pixels, pixels).aligned
    assert not inputs.measured("p", "n", pixels, pixels[..., ::-1]).aligned
    assert not inputs.measured("p", "n", pixels, np.roll(pixels, 1, axis=2)).aligned


def test_windows_are_drawn_as_the_recipe_says():
    _, recipe = home.find("GoogLeNet", "ImageNet")
    spec = recipe.data.train
    areas, ratios = [], []
    for index in range(400):
        left, upper, right, lower = inputs.window((500, 375), spec, 0, index)
        assert 0 <= left < right <= 500 and 0 <= upper < lower <= 375
        areas.append((right - left) * (lower - upper) / (500 * 375))
        ratios.append((right - left) / (lower - upper))
    assert min(areas) > 0.07 and max(areas) > 0.9
    assert min(ratios) > 0.7 and max(ratios) < 1.4
