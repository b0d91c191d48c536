"""Whether published claims agree with one another, with arithmetic and with other statements.

Needs no run: pure functions of a recipe. An *odd* finding is no verdict on the claim; it says what
a reader should ask its publisher.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

from proofrun.recipe import Claim, Recipe

from . import units

SLACK = 0.02  # relative: figures of one publication that agree this well are consistent

Grade = Literal["consistent", "odd", "impossible"]


class Finding(NamedTuple):
    """What was compared, how it came out, and the numbers in one line."""

    model: str
    data: str
    what: str
    grade: Grade
    numbers: str


def findings(recipe: Recipe) -> list[Finding]:
    """Everything that can be checked of a recipe's claims; [] where nothing can."""
    checks = (_hour, _scaling, _loss_floor, _loss_elsewhere, _scored, _top5, _elsewhere)
    return [
        Finding(recipe.name, recipe.data.name, what, grade, numbers)
        for check in checks
        for what, grade, numbers in check(recipe)
    ]


Found = Iterator[tuple[str, Grade, str]]


def _hour(recipe: Recipe) -> Found:
    """Epochs at a mark x images / seconds, against the throughput claimed for these cards."""
    for mark in _of(recipe, "mark_epoch"):
        assert mark.mark_s is not None
        needed = mark.value * recipe.data.train_images / mark.mark_s
        for rate in _of(recipe, "throughput"):
            if not _same_conditions(mark, rate):
                continue
            epochs = rate.value * mark.mark_s / recipe.data.train_images
            numbers = (
                f"{units.quantity('throughput', rate.value)} for {mark.mark_s:g} s are "
                f"{epochs:.1f} epochs of {recipe.data.train_images:,} images; {mark.value:g} "
                f"epochs need {units.quantity('throughput', needed)}"
            )
            fits = rate.value >= needed * (1 - SLACK)
            yield "throughput against epochs at the mark", "consistent" if fits else "odd", numbers


def _scaling(recipe: Recipe) -> Found:
    rates = _of(recipe, "throughput")
    for one in rates:
        for many in rates:
            if one.cards != 1 or many.cards == 1 or one.precision != many.precision:
                continue
            assert many.cards is not None
            ratio = many.value / (many.cards * one.value)
            one_off, many_off = _grain(one.value), _grain(many.value)
            low = (many.value - many_off) / (many.cards * (one.value + one_off))
            high = (many.value + many_off) / (many.cards * (one.value - one_off))
            numbers = (
                f"{units.number('throughput', many.value)} / ({many.cards} x "
                f"{units.number('throughput', one.value)}) = {100 * ratio:.1f} %; if their "
                f"last zeros are rounding, {100 * low:.1f} to {100 * high:.1f} %"
            )
            if ratio > 1:
                how = "more than rounding explains" if low > 1 else "rounding may explain it"
                numbers = f"super-linear: {numbers}: {how}"
            yield f"scaling on {many.cards} cards", "odd" if ratio > 1 else "consistent", numbers


def _grain(value: float) -> float:
    """Half a unit of the last digit that is not a trailing zero: 1600 is 1550 to 1650."""
    if value != int(value):
        digits = len(f"{value:.10f}".rstrip("0").split(".")[1])
        return float(0.5 * 10**-digits)
    zeros = len(str(int(value))) - len(str(int(value)).rstrip("0"))
    return float(0.5 * 10**zeros)


def loss_floor(smoothing: float, classes: int) -> float:
    """The least smoothed cross entropy (nats): the entropy of the smoothed labels.

    On-value 1 - s, off-value s / (classes - 1), as proofrun.recipe.Loss has it.
    """
    if smoothing == 0:
        return 0.0
    off = smoothing / (classes - 1)
    return -(1 - smoothing) * math.log(1 - smoothing) - smoothing * math.log(off)


def _loss_floor(recipe: Recipe) -> Found:
    smoothing, classes = recipe.loss.label_smoothing, recipe.data.classes
    floor = loss_floor(smoothing, classes)
    for claim in _of(recipe, "mark_loss"):
        numbers = (
            f"loss {claim.value:g} after {_after(claim)}; with label smoothing {smoothing:g} over "
            f"{classes} classes it cannot go under {floor:.3f}, which leaves "
            f"{claim.value - floor:.3f}"
        )
        grade: Grade = "consistent" if claim.value >= floor else "impossible"
        yield "loss against the floor of label smoothing", grade, numbers


def _loss_elsewhere(recipe: Recipe) -> Found:
    """A loss claimed early that a repeated statement gives as the final one."""
    epochs = {claim.mark_s: claim.value for claim in _of(recipe, "mark_epoch")}
    for claim in _of(recipe, "mark_loss"):
        for other in recipe.references:
            if not other.repeats_claim or other.final_loss is None:
                continue
            early = epochs.get(claim.mark_s, 0.0) < 0.5 * recipe.schedule.epochs
            odd = early and claim.value <= other.final_loss
            at = f" (epoch {epochs[claim.mark_s]:g})" if claim.mark_s in epochs else ""
            numbers = (
                f"loss {claim.value:g} is claimed after {_after(claim)}{at}, while {other.system} "
                f"gives {other.final_loss:g} as the final loss of {recipe.schedule.epochs} epochs"
            )
            yield "loss against another statement", "odd" if odd else "consistent", numbers


def _scored(recipe: Recipe) -> Found:
    """Images scored against the set, and what the others could make of the accuracy."""
    for claim in (*_of(recipe, "top1"), *_of(recipe, "top5")):
        scored, listed = claim.scored_images, recipe.data.val_images
        if scored is None:
            continue
        low = claim.value * scored / listed
        high = low + 100 * (listed - scored) / listed
        grade: Grade = "impossible" if scored > listed else "odd"
        grade = "consistent" if scored == listed else grade
        numbers = (
            f"{units.quantity(claim.metric, claim.value)} of {scored:,} images; the set has "
            f"{listed:,}, so over all of them it lies between {low:.2f} and {high:.2f} %"
        )
        yield f"images scored for {claim.metric}", grade, numbers


def _top5(recipe: Recipe) -> Found:
    for prefix in ("", "mark_"):
        for one in _of(recipe, f"{prefix}top1"):
            for five in _of(recipe, f"{prefix}top5"):
                if _same_conditions(one, five) and five.value < one.value:
                    numbers = f"top5 {five.value:g} % is less than top1 {one.value:g} %"
                    yield "top5 against top1", "impossible", numbers


def _elsewhere(recipe: Recipe) -> Found:
    """The same result as stated a second time."""
    for other in recipe.references:
        if not other.repeats_claim:
            continue
        for claim in recipe.claims:
            stated = None
            if claim.metric in ("top1", "top5"):
                stated = getattr(other, claim.metric)
            elif claim.metric == "throughput":
                stated = other.images_per_s.get(claim.cards or 0)
            if stated is None:
                continue
            off = stated / claim.value - 1
            name: str = claim.metric
            allowed = claim.tolerance
            allowed /= 1 if claim.metric == "throughput" else claim.value
            if claim.metric == "throughput":
                name += f" on {claim.cards} card{'s' * (claim.cards != 1)}"
            numbers = (
                f"claimed {units.quantity(claim.metric, claim.value)}, {other.system} gives "
                f"{units.quantity(claim.metric, stated)} ({100 * off:+.1f} %); tolerance "
                f"{100 * allowed:.1f} %"
            )
            grade: Grade = "consistent" if abs(off) <= allowed else "odd"
            yield f"{name} against another statement", grade, numbers


def _of(recipe: Recipe, metric: str) -> Sequence[Claim]:
    return [claim for claim in recipe.claims if claim.metric == metric]


def _same_conditions(one: Claim, other: Claim) -> bool:
    names = ("cards", "precision", "global_batch", "epochs", "eval_protocol", "mark_s", "hardware")
    pairs = [(getattr(one, name), getattr(other, name)) for name in names]
    return all(a is None or b is None or a == b for a, b in pairs)


def _after(claim: Claim) -> str:
    return f"{claim.mark_s:g} s"
