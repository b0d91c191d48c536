"""Inline SVG of the curves, drawn by matplotlib and coloured by the page's style sheet.

No text from a log enters an SVG: labels are fixed words and numbers, names stand in the HTML.
"""

from __future__ import annotations

import io
import re
from typing import Any

import matplotlib
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import MaxNLocator

from . import units
from .curves import Panel

PALETTE = 8
TITLES = {
    "loss": "Loss (dashed: plain cross entropy)",
    "accuracy": "Accuracy, % (dashed: top5)",
    "lr": "Learning rate",
    "throughput": "Throughput, img/s",
}
# Stand-ins in the drawing, replaced by CSS variables so that both colour schemes work.
_INK, _MUTED, _GRID, _CLAIM = "#010101", "#020202", "#030303", "#040404"
_SERIES = [f"#05050{i}" for i in range(PALETTE)]


def svg(panel: Panel, salt: str) -> str:
    """One panel as an `<svg>` element; `salt` keeps its ids apart from those of other panels."""
    settings: dict[Any, Any] = {
        "svg.fonttype": "none",  # text stays text: small, sharp and searchable
        "svg.hashsalt": salt,
        "font.size": 9,
        "text.parse_math": False,
        "axes.unicode_minus": True,
    }
    with matplotlib.rc_context(settings):
        canvas = Canvas(figsize=(4.6, 2.7))
        FigureCanvasSVG(canvas)
        _draw(canvas, panel)
        out = io.StringIO()
        canvas.savefig(out, format="svg", transparent=True, metadata={"Date": None})
    return _tidy(out.getvalue(), TITLES[panel.key])


def _draw(canvas: Canvas, panel: Panel) -> None:
    axes = canvas.add_axes((0.11, 0.12, 0.87, 0.84))
    for series in panel.series:
        axes.plot(
            series.x,
            series.y,
            color=_SERIES[series.colour % PALETTE],
            linewidth=1.1 if series.second else 1.5,
            linestyle=(0, (3, 2)) if series.second else "solid",
            marker="o" if series.dots and len(series.x) <= 40 else None,
            markersize=2.6,
            alpha=0.9,
        )
    for value, metric in panel.claims:
        axes.axhline(value, color=_CLAIM, linewidth=1.0, linestyle=(0, (6, 2, 1, 2)))
        label = f"claim {units.title(metric)} {units.number(metric, value)}"
        axes.annotate(
            label,
            (0.005, value),
            xycoords=("axes fraction", "data"),
            xytext=(0, -3),
            textcoords="offset points",
            ha="left",
            va="top",
            fontsize=8,
            color=_CLAIM,
        )
    axes.grid(True, axis="y", color=_GRID, linewidth=0.6)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(_MUTED)
    axes.tick_params(colors=_MUTED, labelcolor=_INK, length=3, width=0.6, labelsize=8.5)
    axes.tick_params(axis="y", length=0)
    axes.margins(x=0.02)
    axes.xaxis.set_major_locator(MaxNLocator(7, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]))
    if panel.key in ("lr", "throughput", "loss"):
        axes.set_ylim(bottom=0)
    if panel.key == "throughput":
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")


def _tidy(text: str, title: str) -> str:
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
    return text.replace("<svg", f'<svg role="img" aria-label="{title}"', 1)
