"""Rows of the accuracy table and of the mark table, from groups of repeats."""

from __future__ import annotations

import math
from collections.abc import Sequence

from proofrun.recipe import Claim

from . import measure, standing, units
from .measure import Group, Measure
from .rows import AccuracyRow, MarkRow, add_flag, add_judgement, estimate, flag_repeats, identity
from .verdict import Facts, Verdict


def _facts(group: Group, protocol: str | None, mark_s: float | None = None) -> Facts:
    run = group.last
    epochs = run.plan.recipe.schedule.epochs
    batch = run.global_batch
    world = (run.cards, batch, epochs, protocol, mark_s, run.nodes)
    return Facts(run.device_name, run.plan.precision, *world)


def accuracy_rows(group: Group) -> list[AccuracyRow]:
    recipe = group.last.plan.recipe
    rows = []
    for protocol in recipe.data.eval:
        claims = [
            c
            for c in recipe.claims
            if c.metric in ("top1", "top5") and c.eval_protocol == protocol.name
        ]
        found = measure.accuracy(group, protocol.name)
        if not claims and not found.top1.n:
            continue
        row = AccuracyRow(
            **identity(group),  # type: ignore[arg-type]
            epochs=recipe.schedule.epochs,
            cards=group.last.cards,
            nodes=group.last.nodes,
            global_batch=group.last.global_batch,
            protocol=protocol.name,
            accuracy=found,
        )
        flag_repeats(row, found.top1)
        missing = standing.bars(group.last, timed=False)
        if not found.top1.n:
            missing = f"no evaluation under {protocol.name} after the last epoch"
        elif not found.complete:
            missing = f"scored on {found.count} of {found.listed} images only"
            add_flag(row, f"{found.count} of {found.listed} images")
        for claim in claims:
            value = found.top1 if claim.metric == "top1" else found.top5
            facts = _facts(group, protocol.name)
            measured = estimate(value)._replace(grain=100 / found.count if found.count else 0.0)
            add_judgement(row, claim, facts, measured, missing)
        row.notes += _as_the_source_scores(row, claims)
        rows.append(row)
    return rows


def _as_the_source_scores(row: AccuracyRow, claims: Sequence[Claim]) -> list[str]:
    """Why the claimed number and ours may differ without a fault, with the numbers."""
    scored = row.accuracy.as_source if row.accuracy else None
    if scored is None or row.accuracy is None:
        return []
    listed = row.accuracy.listed
    said = [
        f"as the source scores, each card's last partial batch dropped: top1 "
        f"{units.interval('top1', scored.top1)} on {scored.count:,} of {listed:,} images (assumed: "
        "its shards are blocks or every n-th image)"
    ]
    for claim in claims:
        j = row.judged(claim.metric)
        if claim.metric != "top1" or j is None or j.estimate.value is None:
            continue
        off = j.estimate.value - claim.value
        if off >= 0 or not claim.scored_images or j.verdict == Verdict.NOT_REPRODUCED:
            continue
        p = claim.value / 100
        error = 100 * math.sqrt(p * (1 - p) / claim.scored_images)
        said.append(
            f"{abs(off):.2f} points under the claim are by themselves no failure: the claim was "
            f"scored on {claim.scored_images:,} images (binomial standard error {error:.2f} "
            f"points), and runs differ; the verdict weighs the difference against both runs' spread"
        )
    return said


def mark_rows(group: Group) -> list[MarkRow]:
    run = group.last
    rows = []
    for target in run.plan.recipe.marks_s:
        state = measure.at_mark(group, target)
        n = state.metrics["epoch"].n
        row = MarkRow(
            **identity(group),  # type: ignore[arg-type]
            run=run.plan.run,
            nodes=run.nodes,
            target_s=target,
            n=n,
            at_mark=state,
        )
        flag_repeats(row, state.metrics["epoch"])
        facts = _facts(group, state.protocol, target)
        missing = barred = standing.bars(run, timed=True)
        if not n:
            reached = max(member.log.mark_s for member in group.runs)
            took = f"the run took {reached:.1f} s"
            why = took if reached < target else f"{took}, the lines are missing or rejected"
            missing = f"no state at {units.seconds(target)}: {why}"
            row.notes.append(missing)
        listed = run.plan.recipe.data.val_images
        few = f"scored on {state.count} of {listed} images only" if n else ""
        few = few if state.count != listed else ""
        for claim in [c for c in run.plan.recipe.claims if c.mark_s == target]:
            metric = claim.metric.removeprefix("mark_")
            value = state.metrics.get(metric, Measure())
            scored = metric in ("top1", "top5")
            add_judgement(row, claim, facts, estimate(value), missing or few * scored)
        named = row.judged("mark_epoch")
        if named is not None:
            row.claim_epoch = named.claim.value
            protocol = state.protocol or run.plan.recipe.data.eval[0].name
            row.at_claim = measure.at_epoch(group, named.claim.value, protocol)
            row.notes += [] if barred else _speed_or_learning(row)
        rows.append(row)
    return rows


def _speed_or_learning(row: MarkRow) -> list[str]:
    """Which of the two fell short: the epoch at the mark, and accuracy at the claim's epoch."""
    speed, learning = row.judged("mark_epoch"), row.judged("mark_top1")
    then = row.at_claim.metrics["top1"].value if row.at_claim else None
    if speed is None or learning is None or speed.estimate.value is None or then is None:
        return []
    short_of_epoch = speed.estimate.value < speed.claim.value
    short_of_top1 = then < learning.claim.value - learning.claim.tolerance
    said = (
        f"at epoch {row.claim_epoch:g} top1 is {units.quantity('top1', then)}, "
        f"claimed {units.quantity('top1', learning.claim.value)}; "
        f"at the mark the epoch is {units.number('epoch', speed.estimate.value)}"
    )
    if short_of_epoch and short_of_top1:
        return [f"both speed and learning fall short: {said}"]
    if short_of_epoch:
        return [f"speed falls short, learning does not: {said}"]
    if short_of_top1:
        return [f"learning falls short, speed does not: {said}"]
    return [f"neither speed nor learning falls short: {said}"]
