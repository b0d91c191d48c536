"""The verdict rule on plain numbers, and what a claim may be judged against."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proofrun.recipe import Claim, Spread
from tools._report.calibrate import CASES, OFFSETS, Case, false_rate, simulate
from tools._report.verdict import (
    Estimate,
    Facts,
    Noise,
    Verdict,
    bounds,
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


def test_equal_repeats_are_not_without_noise():
    """Three runs that all had 355 of 360 right: their spread is that of a rounded number."""
    c = claim(tolerance=0.0)
    same = Estimate(71.86, 3, 0.0, grain=100 / 360)
    judged = judge(c, same, match(c, FACTS))
    assert judged.verdict == Verdict.INCONCLUSIVE and "no less than their rounding" in judged.reason
    margin = 2.920 * 100 / 360 / math.sqrt(12) * math.sqrt(4 / 3)
    assert f"reproduced from {margin:+.2f}" in judged.reason
    assert "rounding" not in judge(c, same._replace(spread=0.2), match(c, FACTS)).reason


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


@given(numbers, st.floats(0, 10), spreads, st.integers(1, 10), st.booleans())
def test_a_better_number_never_gets_a_worse_verdict(d, tol, s, n, two_sided):
    order = [Verdict.NOT_REPRODUCED, Verdict.INCONCLUSIVE, Verdict.REPRODUCED]
    noise = Noise(s, n, n - 1 if n >= 3 else None, "")

    def rank(d, tol):
        return order.index(bounds(tol, noise, two_sided).decide(d))

    assert rank(d + 0.5, tol) >= rank(d, tol)
    assert rank(d, tol + 0.5) >= rank(d, tol)


def test_more_repeats_leave_less_undecided():
    """The bounds close in on the tolerance with n; a spread from three repeats is trusted least."""
    own = [bounds(0.3, Noise(0.11, n, n - 1, "")).upper for n in (3, 5, 10, 1000)]
    assert own == sorted(own, reverse=True)
    assert bounds(0.3, Noise(0.11, 3, None, "")).upper < own[0]
    # known to the last digit: 1.645 * 0.11 * sqrt(2), and Student's 2.920 * 0.11 * sqrt(4/3)
    assert bounds(0.3, Noise(0.11, 1, None, "")).upper == pytest.approx(-0.3 + 0.25588, abs=1e-4)
    assert own[0] == pytest.approx(-0.3 + 0.37088, abs=1e-4)


@given(numbers, numbers)
def test_signs(measured, claimed):
    c = claim(value=claimed)
    low = claim(value=claimed, direction="at_most")
    assert difference(c, measured) == pytest.approx(-difference(low, measured))
    assert difference(claim(value=claimed, direction="equal"), measured) <= 0


@pytest.mark.parametrize("equal", [False, True])
@pytest.mark.parametrize("n", [1, 2, 3, 5, 10])
@pytest.mark.parametrize("offset", [-2.0, 0.0, 2.0])
def test_false_verdicts_are_rare(n, offset, equal):
    """100,000 claims of known truth: at most 5 % are wrong, and so are they of a normal width."""
    draws = 100_000
    rates = simulate(Case("", 0.3, 0.11, 0.11), n, offset, equal, draws)
    assert false_rate(rates, offset) <= 0.05 + 3 * (0.05 * 0.95 / draws) ** 0.5 + 0.0005
    if offset == 0 and not equal:  # and the rule gives nothing away: it is as sharp as 5 % allows
        assert false_rate(rates, offset) >= 0.045


def test_the_committed_calibration_is_what_the_rule_gives():
    """One row of reports/calibration.md, simulated again."""
    committed = (Path(__file__).parent.parent / "reports" / "calibration.md").read_text()
    case = CASES[0]
    cells = [100 * false_rate(simulate(case, 3, o), o) for o in OFFSETS]
    assert f"| {case.name} | 3 | {' | '.join(f'{c:.1f}' for c in cells)} |" in committed


@pytest.mark.parametrize(
    ("word", "code", "said"), [("--help", 0, "usage"), ("--fast", 2, "--fast")]
)
def test_the_calibration_says_what_it_takes(word, code, said):
    command = [sys.executable, "-m", "tools._report.calibrate", word]
    root = Path(__file__).parent.parent
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=60)
    assert done.returncode == code and said in done.stdout + done.stderr
