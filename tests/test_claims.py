"""Claims against themselves, and measures as the published systems would print them."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path

import pytest
import torch
from fake_logs import FakeRun, imagenet

from proofrun.evaluate import _without_partial_batches
from proofrun.recipe import PartialBatches
from proofrun.recipe_yaml import load_recipe
from tools._report.build import build
from tools._report.consistency import findings, loss_floor
from tools._report.grids import grids
from tools._report.read import read_logs

ROOT = Path(__file__).resolve().parent.parent
GOOGLENET = load_recipe(ROOT / "recipes" / "googlenet" / "recipe.yaml")["ImageNet"]


def found(recipe=GOOGLENET):
    return {f.what: f for f in findings(recipe)}


def test_the_oddities_of_the_googlenet_claim_are_found():
    """What a careful reader of the two publications notices, from the recipe's numbers alone."""
    said = found()
    assert said["throughput against epochs at the mark"].grade == "consistent"
    assert "36.5 epochs" in said["throughput against epochs at the mark"].numbers
    assert "12,812 img/s" in said["throughput against epochs at the mark"].numbers
    assert said["scaling on 8 cards"].grade == "odd"
    assert "= 101.6 %" in said["scaling on 8 cards"].numbers
    assert "under 1.016" in said["loss against the floor of label smoothing"].numbers
    assert said["loss against another statement"].grade == "odd"
    assert said["images scored for top1"].grade == "odd"
    assert "between 70.64 and 72.34 %" in said["images scored for top1"].numbers
    assert said["throughput on 8 cards against another statement"].grade == "odd"
    assert said["top1 against another statement"].grade == "consistent"


def changed(**values):
    """The recipe with one value of each named metric's claims changed."""
    claims = tuple(
        c.model_copy(update={"value": values[c.metric]}) if c.metric in values else c
        for c in GOOGLENET.claims
    )
    return GOOGLENET.model_copy(update={"claims": claims})


def test_what_cannot_be_is_called_impossible():
    assert found(changed(mark_loss=1.0))["loss against the floor of label smoothing"].grade == (
        "impossible"
    )
    assert found(changed(mark_loss=1.1))["loss against the floor of label smoothing"].grade == (
        "consistent"
    )
    assert found(changed(top5=70.0))["top5 against top1"].grade == "impossible"
    assert found(changed(mark_epoch=40))["throughput against epochs at the mark"].grade == "odd"


def test_super_linear_scaling_is_told_from_rounding():
    rates = {1: 1601.0, 8: 13001.0}
    claims = tuple(
        c.model_copy(update={"value": rates[c.cards]}) if c.metric == "throughput" else c
        for c in GOOGLENET.claims
    )
    exact = found(GOOGLENET.model_copy(update={"claims": claims}))["scaling on 8 cards"]
    assert exact.grade == "odd" and exact.numbers.endswith("more than rounding explains")
    assert found()["scaling on 8 cards"].numbers.endswith("rounding may explain it")
    assert found(changed(throughput=1601.0))["scaling on 8 cards"].grade == "consistent"


def test_the_loss_floor_is_the_least_loss():
    """Against torch: no logits give less, and the smoothed labels themselves give it."""
    s, k = 0.1, 1000
    target = torch.full((k,), s / (k - 1), dtype=torch.float64)
    target[0] = 1 - s
    best = -(target * target.log()).sum()
    assert loss_floor(s, k) == pytest.approx(float(best), abs=1e-12)
    assert loss_floor(0.0, 10) == 0.0


@pytest.mark.parametrize(
    ("images", "cards", "batch"), [(50_000, 8, 128), (50_000, 1, 128), (360, 2, 128), (37, 3, 4)]
)
def test_dropped_batches_are_scored_by_both_rules(images, cards, batch):
    """By hand, image by image, for both ways to cut a list."""
    right = torch.randint(0, 3, (images,), generator=torch.Generator().manual_seed(1)).int()
    parts = _without_partial_batches(right, PartialBatches(cards=cards, per_card=batch))
    ids = list(range(images))
    size, more = divmod(images, cards)
    starts = [card * size + min(card, more) for card in range(cards + 1)]
    by_hand = {
        "blocks": [ids[a:b] for a, b in itertools.pairwise(starts)],
        "every n-th": [ids[card::cards] for card in range(cards)],
    }
    assert [part.shards for part in parts] == list(by_hand)
    for part in parts:
        kept = [i for s in by_hand[part.shards] for i in s[: len(s) // batch * batch]]
        assert part.count == len(kept)
        assert part.correct1 == sum(int(right[i]) == 2 for i in kept)
        assert part.correct5 == sum(int(right[i]) >= 1 for i in kept)
    if images == 50_000:
        assert parts[0].count == {8: 49_152, 1: 49_920}[cards]  # as published


def report(logs):
    return build(read_logs([logs]))


def shown(built, key):
    (grid,) = [g for g in grids(built) if g.key == key]
    return [[" / ".join(s.text for s in c) for c in row.cells] for row in grid.rows], grid.reasons


def test_a_little_under_the_claim_is_explained(tmp_path):
    imagenet(tmp_path, top1=71.66)
    rows, reasons = shown(report(tmp_path), "accuracy")
    dropped = [row for row in rows if "as the source scores (assumed shards)" in row]
    assert dropped and all("49,152 of 50,000" in row for row in dropped)
    assert any("standard" in row[10] or row[10] == "shorter256_crop224" for row in rows)
    said = [why for _, _, why in reasons if "by themselves no failure" in why]
    assert said and all(why.startswith("0.20 points under") for why in said)


def test_claims_of_cifar10_are_judged_on_cifar10_alone(tmp_path):
    """Equal accuracies on both sets: each row meets the claims of its own set and no other."""
    imagenet(tmp_path, top1=92.9)
    fields = {"top1": 92.9, "device_name": "Ascend910"}
    for run in ("AMP_125E_1NPU", "AMP_125E_8NPUs", "FP32_125E_1NPU"):
        FakeRun(f"GoogLeNet-Cifar10_{run}_Train", **fields).write(tmp_path)
    built = build(read_logs([tmp_path]), ROOT / "recipes")
    judged = {
        (row.data, row.precision, row.cards): [(j.claim.value, str(j.verdict)) for j in of_row]
        for row in built.accuracy
        if (of_row := [j for j in row.judgements if j.claim.metric == "top1"])
        and row.accuracy is not None
    }
    assert judged == {
        ("Cifar10", "AMP", 1): [(93.4, "inconclusive")],
        ("Cifar10", "AMP", 8): [(92.17, "reproduced")],
        ("ImageNet", "AMP", 8): [(71.86, "reproduced")],
    }
    (whole,) = [row for row in built.accuracy if (row.data, row.precision) == ("Cifar10", "FP32")]
    assert "precision is FP32, claimed for AMP" in " ".join(whole.notes)
    assert {row.data for row in built.throughput if row.judgements} == {"ImageNet", "Digits"}
    assert whole.accuracy.as_source.count == 9984


def test_throughput_as_the_source_prints_it(tmp_path):
    """Whole epochs after the first, on the clock that leaves out evaluation, rounded to cents."""
    run = "GoogLeNet-Digits_AMP_10E_1CPU_Train"
    FakeRun(run, images_per_s=250.0).write(tmp_path)
    (logs,) = read_logs([tmp_path]).runs
    (row,) = report(tmp_path).throughput
    ends = {}
    images = {}
    for window in logs.windows:
        epoch = math.ceil(window.epoch - 1e-6)
        images[epoch] = images.get(epoch, 0) + window.images
        ends[epoch] = window.mark_s
    rates = [round(images[e] / (ends[e] - ends[e - 1]), 2) for e in range(2, 11)]
    assert row.one.as_source.value == pytest.approx(sum(rates) / 9, abs=0.0051)
    assert row.one.as_source.value != row.one.rate.value


def test_a_median_that_hides_lost_time_is_remarked_on(tmp_path):
    """Half of the time outside the windows: all images over all the time is half the median."""
    folder = FakeRun("GoogLeNet-Digits_AMP_10E_1CPU_Train", images_per_s=250.0).write(tmp_path)
    assert not any("all images" in note for note in report(tmp_path).throughput[0].notes)
    log = folder / "events.jsonl"
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    log.write_text("".join(json.dumps(e | {"mark_s": 2 * e["mark_s"]}) + "\n" for e in lines))
    (note,) = [n for n in report(tmp_path).throughput[0].notes if "all images" in n]
    rate = float(note.split("are ")[1].split(" img/s")[0])
    assert rate == pytest.approx(125, rel=0.05)


@pytest.mark.parametrize(
    ("share", "said"), [(0.02, "compute-bound"), (0.05, "partly input-bound"), (0.4, "input-bound")]
)
def test_what_sets_the_speed_is_named(tmp_path, share, said):
    FakeRun("GoogLeNet-Digits_AMP_10E_1CPU_Train", wait_share=share, images_per_s=60).write(
        tmp_path
    )
    built = report(tmp_path)
    rows, reasons = shown(built, "throughput")
    assert said in rows[0][9].split(" / ")
    (why,) = [why for _, _, why in reasons if "waits for data" in why]
    assert why.startswith(f"1 card: {said}: {100 * share:.1f} %")
    if share == 0.4:
        rate = built.throughput[0].one.rate.value
        assert f"{rate / 0.6:.1f} img/s at most" in why
