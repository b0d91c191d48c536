"""The verdict rule on plain numbers, and what a claim may be judged against."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proofrun.recipe import Claim, Spread
from tools._report.verdict import (
    Estimate,
    Facts,
    Verdict,
    decide,
    difference,
    judge,
    match,
    same_hardware,
)

FACTS = Facts("Ascend 910", "AMP", 8, 2048, 300, "squash256_crop224")


def claim(**changes) -> Claim:
    fields = {
        "metric": "top1", "value": 71.86, "direction": "at_least", "tolerance": 0.3, "epochs": 300,
        "global_batch": 2048, "eval_protocol": "squash256_crop224", "hardware": "Ascend 910",
        "source": "readme", "prior_spread": Spread(value=0.11, source="elsewhere"),
    }  # fmt: skip
    return Claim(**(fields | changes))


def verdict(measured, *, n=1, spread=None, facts=FACTS, missing="", **changes) -> Verdict:
    c = claim(**changes)
    return judge(c, Estimate(measured, n, spread), match(c, facts), missing).verdict


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (71.86, Verdict.REPRODUCED),
        (75.00, Verdict.REPRODUCED),  # better than claimed passes
        (71.66, Verdict.INCONCLUSIVE),  # 0.2 under: not by itself a failure
        (71.40, Verdict.INCONCLUSIVE),
        (71.20, Verdict.NOT_REPRODUCED),
        (None, Verdict.NA),
        (math.nan, Verdict.NA),
    ],
)
def test_published_accuracy_with_one_run(value, expected):
    assert verdict(value) == expected


def test_directions():
    assert verdict(70.0, direction="at_most") == Verdict.REPRODUCED
    assert verdict(75.0, direction="at_most") == Verdict.NOT_REPRODUCED
    assert verdict(75.0, direction="equal") == Verdict.NOT_REPRODUCED
    assert verdict(71.86, direction="equal") == Verdict.REPRODUCED


def test_without_a_spread_nothing_is_decided():
    assert verdict(80.0, prior_spread=None) == Verdict.INCONCLUSIVE
    assert verdict(80.0, prior_spread=None, n=2, spread=0.1) == Verdict.INCONCLUSIVE
    assert verdict(80.0, prior_spread=None, n=3, spread=0.1) == Verdict.REPRODUCED


def test_missing_data_is_never_a_pass():
    assert verdict(99.0, missing="scored on 49152 of 50000 images only") == Verdict.NA


def test_speed_is_judged_on_the_claimed_hardware_only():
    speed = {
        "metric": "throughput", "value": 13000.0, "tolerance": 0.05, "cards": 8,
        "prior_spread": Spread(value=0.01, source="elsewhere"),
    }  # fmt: skip
    assert verdict(13100.0, **speed) == Verdict.REPRODUCED
    assert verdict(11000.0, **speed) == Verdict.NOT_REPRODUCED
    elsewhere = FACTS._replace(device_name="NVIDIA H100")
    assert verdict(99000.0, facts=elsewhere, **speed) == Verdict.DIFFERENT_HARDWARE
    assert verdict(71.86, facts=elsewhere) == Verdict.REPRODUCED  # accuracy is not tied to it


@pytest.mark.parametrize(
    "change", [{"global_batch": 256}, {"epochs": 320}, {"eval_protocol": "shorter256_crop224"}]
)
def test_other_conditions_are_another_row(change):
    assert match(claim(), FACTS._replace(**change)).differs


def test_hardware_names():
    assert same_hardware("Ascend 910", "Ascend910")
    assert same_hardware("any", "whatever")
    assert not same_hardware("Ascend 910", "Ascend 910B")
    assert not same_hardware("Ascend 910", "Intel(R) Xeon(R) Processor, 2 cores")


numbers = st.floats(-1e3, 1e3)
spreads = st.floats(0, 10)


@given(numbers, st.floats(0, 10), spreads)
def test_a_better_number_never_gets_a_worse_verdict(d, tol, s):
    order = [Verdict.NOT_REPRODUCED, Verdict.INCONCLUSIVE, Verdict.REPRODUCED]
    assert order.index(decide(d + 0.5, tol, s)) >= order.index(decide(d, tol, s))
    assert order.index(decide(d, tol + 0.5, s)) >= order.index(decide(d, tol, s))


@given(numbers, numbers)
def test_signs(measured, claimed):
    c = claim(value=claimed)
    low = claim(value=claimed, direction="at_most")
    assert difference(c, measured) == pytest.approx(-difference(low, measured))
    assert difference(claim(value=claimed, direction="equal"), measured) <= 0


@pytest.mark.parametrize("truth", [-0.3, -0.31, 0.0, -1.0])
def test_false_verdicts_are_rare(truth):
    """200,000 claims of known truth, spread 0.11 on both sides: at most 5 % are wrong."""
    draw = np.random.default_rng(1)
    d = truth + draw.normal(0, 0.11, 200_000) - draw.normal(0, 0.11, 200_000)
    wrong = Verdict.NOT_REPRODUCED if truth >= -0.3 else Verdict.REPRODUCED
    rate = np.mean([decide(x, 0.3, 0.11) == wrong for x in d])
    assert rate <= 0.05 + 3 * (0.05 * 0.95 / 200_000) ** 0.5  # the draw's own error
