"""A comparison as a picture: layers x steps, how much of its bound every tensor used."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("agg")

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.colors import LinearSegmentedColormap, TwoSlopeNorm

from proofrun.errors import WriteError

from .diff import Comparison, Direction, Place
from .output import metadata
from .table import headline
from .trace import Trace

#: The scale of the colours: log10 of deviation / bound, the bound in the middle.
_LOW, _HIGH = -2.0, 3.0

_COLOURS = LinearSegmentedColormap.from_list(
    "bounds",
    [(0, "#f4f6f8"), (0.45, "#a9bccb"), (0.5, "#ffd166"), (0.7, "#ef6c33"), (1, "#7a0c1e")],
)

_TITLES: dict[Direction, str] = {
    "forward": "forward: outputs, BN buffers, loss",
    "backward": "backward: gradients (first layer of the\nbackward pass on top)",
    "update": "update: momentum, weights, rate",
}


def draw(found: Comparison, trusted: Trace, other: Trace, path: Path) -> None:
    """Write the picture, .png or .svg by the name. Of several ranks the worst is shown.

    Raises WriteError.
    """
    excess = found.excess.max(axis=0)
    logs = np.clip(np.log10(np.maximum(excess, 1e-12)), _LOW, _HIGH)
    figure, axes = plt.subplots(1, 3, figsize=(13, 9), layout="constrained")
    norm = TwoSlopeNorm(0.0, _LOW, _HIGH)
    picture: Any = None
    for axis, direction in zip(axes, _TITLES, strict=True):
        columns = [i for i, place in enumerate(found.places) if place.direction == direction]
        picture = axis.imshow(
            logs[:, columns].T, aspect="auto", cmap=_COLOURS, norm=norm, interpolation="nearest"
        )
        _label(axis, [found.places[i] for i in columns], len(logs))
        axis.set_title(_TITLES[direction], fontsize=10, pad=12)  # above the ring
        if found.first is not None and found.first.place.direction == direction:
            _mark(axis, columns.index(found.places.index(found.first.place)), found.first.step)
        quiet = [r for r in found.remarks if found.aligned and r.place.direction == direction]
        if quiet:
            rows = [columns.index(found.places.index(r.place)) for r in quiet]
            axis.plot([r.step for r in quiet], rows, "x", color="#444b54", markersize=6,
                      clip_on=False, label="out of bounds, no alarm")  # fmt: skip
            axis.legend(loc="lower right", fontsize=8)
    bar = figure.colorbar(picture, ax=axes, shrink=0.6, pad=0.01, extend="both")
    bar.set_ticks([-2, -1, 0, 1, 2, 3], labels=["1/100", "1/10", "bound", "x10", "x100", "x1000"])
    mine, theirs = trusted.header, other.header
    figure.suptitle(
        f"{mine.exercise.recipe} at {mine.exercise.image_size} px: {theirs.made.precision} on "
        f"{theirs.made.device} against {mine.made.precision} on {mine.made.device}\n"
        + "\n".join(_wrapped(headline(found))),
        fontsize=11, color="black" if found.aligned else "#7a0c1e", x=0.01, ha="left",
        parse_math=False,
    )  # fmt: skip
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=110, metadata=metadata(path))
    except (OSError, ValueError) as error:
        raise WriteError(f"{path}: cannot be drawn ({error}); give another --plot") from None
    finally:
        plt.close(figure)


def _label(axis: Any, places: list[Place], steps: int) -> None:
    """A tick where a block of the network begins, a line above it."""
    blocks = [_block(place) for place in places]
    starts = [i for i, block in enumerate(blocks) if i == 0 or block != blocks[i - 1]]
    ends = [*starts[1:], len(blocks)]
    middles = [(start + end - 1) / 2 for start, end in zip(starts, ends, strict=True)]
    axis.set_yticks(
        spread(middles, len(blocks) / 55, len(blocks) - 1),
        [blocks[start] for start in starts], fontsize=8, parse_math=False,
    )  # fmt: skip
    for start in starts[1:]:
        axis.axhline(start - 0.5, color="white", linewidth=0.8)
    axis.set_xticks(range(0, steps, max(1, steps // 10)))
    axis.set_xlabel("step")
    axis.tick_params(length=0)
    axis.tick_params(axis="y", pad=8)  # room for the ring around a first step


def spread(middles: list[float], gap: float, last: float) -> list[float]:
    """The places nearest `middles`, rising, that are `gap` apart, the last at most at `last`."""
    found: list[float] = []
    for at in middles:
        found.append(max(at, found[-1] + gap) if found else at)
    for i in reversed(range(len(found))):
        found[i] = min(found[i], last if i + 1 == len(found) else found[i + 1] - gap)
    return found


def _block(place: Place) -> str:
    parts = place.name.split(".")
    return parts[1] if parts[0] == "features" else parts[0]


def _mark(axis: Any, row: int, step: int) -> None:
    """The first place out of bounds."""
    axis.plot(
        [step], [row], marker="o", markersize=16, markerfacecolor="none",
        markeredgecolor="#0b3d91", markeredgewidth=2.2, clip_on=False,
    )  # fmt: skip
    right = step < axis.get_xlim()[1] / 2
    axis.annotate(
        "first", (step, row), xytext=(14 if right else -14, 0), textcoords="offset points",
        color="#0b3d91", fontsize=10, fontweight="bold", va="center",
        ha="left" if right else "right",
        bbox={"boxstyle": "round,pad=0.15", "facecolor": "white", "edgecolor": "none"},
    )  # fmt: skip


def _wrapped(text: str, width: int = 150) -> list[str]:
    return textwrap.wrap(text, width)
