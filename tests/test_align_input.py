"""`align.py input` on grey and on coloured images, by the command."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from proofrun.errors import Exit
from tools._align import cli


@pytest.mark.parametrize("grey", [True, False])
def test_grey_images_cannot_show_swapped_colours_and_it_says_so(digits, tmp_path, capsys, grey):
    root = digits
    if not grey:
        root = tmp_path / "coloured"
        draw = np.random.default_rng(0)
        for index in range(10):
            folder = root / "val" / f"digit_{index}"
            folder.mkdir(parents=True)
            small = Image.fromarray(draw.integers(0, 256, (8, 8, 3), np.uint8))
            small.resize((80, 80), Image.Resampling.BICUBIC).save(folder / "a.JPEG", quality=95)
    line = ["input", "GoogLeNet", "--dir", str(root), "--count", "2"]
    assert cli.main([*line, "--out", str(tmp_path / "p.png")]) == Exit.OK
    assert ("all of these images are grey: swapped" in capsys.readouterr().out) is grey
