"""Inline SVG of the curves, drawn by matplotlib and coloured by the page's style sheet.

No text from a log enters an SVG: labels are fixed words and numbers, names stand in the HTML.
"""

from __future__ import annotations

import io
import itertools
import re
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import MaxNLocator

from . import units
from .curves import Claimed, Panel, Series
from .words import Say

PALETTE = 8
TITLES = {
    "loss": "Loss (dashed: plain cross entropy)",
    "accuracy": "Accuracy, % (dashed: top5)",
    "time": "top1, % over training time",
    "lr": "Learning rate",
    "throughput": "Throughput, img/s",
    "wait": "Data wait, % of the time",
    "scaling": "Throughput over cards, img/s (dotted: ideal)",
}
#: matplotlib's markers and the characters that stand for them in a legend.
_MARKERS = ("o", "s", "^", "D", "v", "x", "+", "*")
_SIGNS = ("●", "■", "▲", "◆", "▼", "×", "+", "★")
_MARKED = 8  # markers on a line, about
_WORDS = ("at mark", "claim", "mark", "epoch", "cards")
_HEIGHT = 2.7 * 72  # points
# Stand-ins in the drawing, replaced by CSS variables so that both colour schemes work.
_INK, _MUTED, _GRID, _CLAIM = "#010101", "#020202", "#030303", "#040404"
_SERIES = [f"#05050{i}" for i in range(PALETTE)]


def look(colour: int) -> tuple[int, int]:
    """(index of the colour, of the marker): together they differ for 64 series."""
    return colour % PALETTE, (colour + colour // PALETTE) % len(_MARKERS)


def sign(colour: int) -> str:
    """The marker of a series as a character."""
    return _SIGNS[look(colour)[1]]


def svg(panel: Panel, salt: str, say: Say) -> str:
    """One panel as an `<svg>` element; `salt` keeps its ids apart from those of other panels."""
    settings: dict[Any, Any] = {
        "svg.fonttype": "none",  # text stays text: small, sharp and searchable
        "svg.hashsalt": salt,
        "font.size": 9,
        "text.parse_math": False,
        "axes.unicode_minus": True,
    }
    with matplotlib.rc_context(settings):
        canvas = Canvas(figsize=(4.6, _HEIGHT / 72))
        FigureCanvasSVG(canvas)
        _draw(canvas, panel)
        out = io.StringIO()
        canvas.savefig(out, format="svg", transparent=True, metadata={"Date": None})
    return _tidy(out.getvalue(), say(TITLES[panel.key]), say)


def _draw(canvas: Canvas, panel: Panel) -> None:
    room = 0.14 if panel.claims else 0.0  # labels of claims stand beside the curves, not on them
    top = 0.08 if panel.marks else 0.0
    axes = canvas.add_axes((0.11, 0.15, 0.87 - room, 0.81 - top))
    scale, unit = _time_unit(panel) if panel.key == "time" else (1.0, "epoch")
    for number, series in enumerate(panel.series):
        _line(axes, series, number, scale)
    _style(axes, panel, unit)
    _claims(axes, panel.claims, scale)
    for mark in panel.marks:
        _mark(axes, mark / scale, units.seconds(mark))


def _time_unit(panel: Panel) -> tuple[float, str]:
    """(seconds of a unit, its name) that suit the longest run."""
    longest = max(float(np.nanmax(s.x)) for s in panel.series if np.isfinite(s.x).any())
    units_of_time = ((3600.0, "h"), (60.0, "min"))
    return next((u for u in units_of_time if longest >= 2 * u[0]), (1.0, "s"))


def _line(axes: Axes, series: Series, number: int, scale: float) -> None:
    colour, marker = look(series.colour)
    x = series.x / scale
    if series.ideal:
        axes.plot(x, series.y, color=_SERIES[colour], linewidth=1.0, linestyle=(0, (1, 2)))
        return
    step = max(1, len(x) // _MARKED)
    alone = series.repeats == 1
    axes.plot(
        x,
        series.y,
        color=_SERIES[colour],
        linewidth=1.5 if alone and not series.second else 1.0,
        linestyle=(0, (3, 2)) if series.second else "solid",
        marker=_MARKERS[marker],
        markevery=(number * 3 % step, step),
        markersize=3.4,
        markerfacecolor="none" if series.second else _SERIES[colour],
        markeredgewidth=0.9,
        alpha=0.95 if alone else 0.75,
    )
    if series.spread is not None:
        axes.errorbar(x, series.y, series.spread, fmt="none", ecolor=_SERIES[colour], capsize=3)


def _claims(axes: Axes, claims: list[Claimed], scale: float) -> None:
    """Lines and points, each with its label in the margin on the right, clear of the others."""
    right = axes.get_xlim()[1]
    for value, _, x in claims:
        if x is None:
            axes.axhline(value, color=_CLAIM, linewidth=1.0, linestyle=(0, (6, 2, 1, 2)))
        else:
            axes.plot(
                [x / scale], [value], "P", color=_CLAIM, markersize=10, markerfacecolor="none"
            )
            axes.hlines(value, x / scale, right, _CLAIM, linewidth=0.6, linestyle=(0, (1, 3)))
    axes.set_xlim(right=right)
    low, high = axes.get_ylim()
    height = axes.get_position().height * _HEIGHT
    levels = [(claim.value - low) / (high - low) * height for claim in claims]
    for claim, level, place in zip(claims, levels, _apart(levels, 22.0, height), strict=True):
        metric = claim.metric.removeprefix("mark_")
        name = "" if metric == "throughput" else f"{metric} "
        axes.annotate(
            f"{'claim' if metric == claim.metric else 'at mark'}\n"
            f"{name}{units.number(metric, claim.value)}",
            (1.0, claim.value),
            xycoords=("axes fraction", "data"),
            xytext=(6, place - level),
            textcoords="offset points",
            va="center",
            fontsize=7.5,
            linespacing=1.15,
            color=_CLAIM,
            arrowprops={"arrowstyle": "-", "color": _CLAIM, "linewidth": 0.6},
        )


def _apart(levels: list[float], gap: float, height: float) -> list[float]:
    """The same levels, moved as little as keeps `gap` between them, in the same order."""
    order = sorted(range(len(levels)), key=levels.__getitem__)
    places = list(levels)
    for lower, upper in itertools.pairwise(order):
        places[upper] = max(places[upper], places[lower] + gap)
    over = places[order[-1]] - height if order else 0.0
    if over > 0:  # back into the panel, pushing those below
        places[order[-1]] -= over
        for upper, lower in zip(order[::-1], order[-2::-1], strict=False):
            places[lower] = min(places[lower], places[upper] - gap)
    return places


def _mark(axes: Axes, at: float, text: str) -> None:
    """A moment: a vertical line, its label above the curves."""
    left, right = axes.get_xlim()
    axes.axvline(at, color=_MUTED, linewidth=0.9, linestyle=(0, (4, 3)))
    share = (at - left) / (right - left)
    axes.annotate(
        f"mark {text}",
        (at, 1.0),
        xycoords=("data", "axes fraction"),
        xytext=(0, 3),
        textcoords="offset points",
        ha="left" if share < 0.15 else "right" if share > 0.85 else "center",
        fontsize=7.5,
        color=_MUTED,
    )


def _style(axes: Axes, panel: Panel, unit: str) -> None:
    axes.grid(True, axis="y", color=_GRID, linewidth=0.6)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(_MUTED)
    axes.tick_params(colors=_MUTED, labelcolor=_INK, length=3, width=0.6, labelsize=8)
    axes.tick_params(axis="y", length=0)
    axes.margins(x=0.02)
    axes.set_xlabel(
        "cards" if panel.key == "scaling" else unit, fontsize=8, color=_MUTED, labelpad=1
    )
    whole = panel.key == "scaling"
    axes.xaxis.set_major_locator(MaxNLocator(7, steps=[1, 2, 5, 10], integer=whole))
    axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]))
    if panel.key in ("accuracy", "time"):
        for claim in panel.claims:
            axes.update_datalim([(axes.dataLim.x0, claim.value)])
        axes.autoscale_view()
    else:
        axes.set_ylim(bottom=0)
    if panel.key == "wait":
        axes.set_ylim(0, max(1.0, axes.get_ylim()[1]))
    if panel.key in ("throughput", "scaling"):
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    if panel.key == "scaling":
        axes.set_xlim(left=0)


def _tidy(text: str, title: str, say: Say) -> str:
    """Only the element, without what is global to a page: metadata, style rules and plain ids."""
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"<defs>\s*<style[^>]*>.*?</style>\s*</defs>", "", text, flags=re.DOTALL)
    text = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)
    text = re.sub(r' id="[A-Za-z0-9.]+_\d+"', "", text)
    text = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1)
    text = re.sub(r" font-family: [^;\"]*;?", "", text)  # the page's own
    names = {_INK: "ink", _MUTED: "muted", _GRID: "rule", _CLAIM: "claim"}
    names |= {colour: f"c{index}" for index, colour in enumerate(_SERIES)}
    for colour, name in names.items():
        text = text.replace(colour, f"var(--{name})")
    text = re.sub(r"\n\s*", "\n", text)
    # a hundredth of a point is finer than any screen
    text = re.sub(r' (d|x|y)="[^"]*"', lambda at: re.sub(r"(\.\d\d)\d+", r"\1", at[0]), text)
    # Words are put into the reader's language here: matplotlib's font may lack its characters.
    words = rf"\b({'|'.join(_WORDS)})\b(?=[^<>]*</text>)"
    text = re.sub(words, lambda word: say(word[1]), text)
    return text.replace("<svg", f'<svg role="img" aria-label="{title}"', 1)
