"""How a number of each metric is written: one place for decimals and units."""

from __future__ import annotations

import math

_SIGN = {"at_least": "≥", "at_most": "≤", "equal": "="}
_TITLE = {"top1": "top1", "top5": "top5", "throughput": "img/s", "scaling": "scaling"}


def number(metric: str, value: float | None) -> str:
    """The bare number; "n/a" for None and "not finite" for NaN and infinities."""
    if value is None:
        return "n/a"
    if not math.isfinite(value):
        return "not finite"
    metric = metric.removeprefix("mark_")
    if metric == "throughput":
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.1f}"
    if metric in ("scaling", "share"):
        return f"{100 * value:.1f}"
    if metric in ("loss", "ce"):
        return f"{value:.3f}"
    return f"{value:.3f}" if metric == "accuracy3" else f"{value:.2f}"


def unit(metric: str) -> str:
    metric = metric.removeprefix("mark_")
    if metric in ("top1", "top5", "scaling", "share"):
        return " %"
    return " img/s" if metric == "throughput" else ""


def quantity(metric: str, value: float | None) -> str:
    """Number with its unit."""
    text = number(metric, value)
    return text if text in ("n/a", "not finite") else text + unit(metric)


def interval(metric: str, values: tuple[float, float]) -> str:
    """`71.80 – 71.83 %`, or one number where both are printed alike."""
    low, high = (number(metric, value) for value in values)
    return (low if low == high else f"{low} – {high}") + unit(metric)


def bound(metric: str, direction: str, value: float) -> str:
    """A claim as a bound: `≥ 71.86 %`."""
    return f"{_SIGN[direction]} {quantity(metric, value)}"


def title(metric: str) -> str:
    """A metric's name in tables; the marks use the source's `top1_acc`."""
    if metric.startswith("mark_top"):
        return f"{metric.removeprefix('mark_')}_acc"
    return _TITLE.get(metric, metric.removeprefix("mark_"))


def ratio(value: float) -> str:
    return f"{value:.2f}×"


def seconds(value: float) -> str:
    return f"{value:g} s"
