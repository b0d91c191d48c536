"""The pure parts of `python -m benchmarks`: ratios and their intervals, warm-up, claims, tables."""

from __future__ import annotations

import copy
import json
import math
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import __main__ as command
from benchmarks import tables
from benchmarks.figures import (
    Group,
    Ratio,
    Target,
    agree,
    best,
    claim,
    efficiency,
    loss_fault,
    noise_floor,
    paired_ratio,
    ring_all_reduce_s,
    spread,
)
from benchmarks.merged import merge
from benchmarks.turns import Arm, Cost, Turns, measure
from proofrun.models import load_model_module

ROOT = Path(__file__).resolve().parent.parent
REPORT = ROOT / "reports" / "speed"


def group(**changes: object) -> Group:
    values = {
        "title": "S: a step", "work": "a step", "unit": "img/s", "base": "ours",
        "again": "ours, again",
        "rates": {
            "ours": [20.0, 22.0, 18.0, 20.0, 21.0, 19.0, 20.0],
            "ours, again": [20.1, 21.9, 18.0, 20.0, 21.0, 19.1, 19.9],
            "peer": [10.0, 11.0, 9.0, 10.0, 10.5, 9.5, 10.0],
        },
        "targets": [Target("at least 1.5 x", "peer", 1.5), Target("at least 3 x", "peer", 3.0)],
    }  # fmt: skip
    return Group(**(values | changes))


def test_quartiles():
    found = spread([4.0, 1.0, 3.0, 2.0, 5.0])
    assert (found.low, found.median, found.high, found.n) == (2.0, 3.0, 4.0, 5)
    with pytest.raises(ValueError, match="no rates"):
        spread([])


def test_pairs_cancel_what_a_block_suffers():
    """Both arms slow down by up to 8 times together: the ratio stays, with no width."""
    load = [1.0, 8.0, 2.0, 1.0, 4.0, 1.0, 3.0]
    found = paired_ratio([20 / x for x in load], [10 / x for x in load])
    assert found == Ratio(2.0, 2.0, 2.0)
    assert paired_ratio([3.0], [2.0]) == Ratio(1.5, -math.inf, math.inf)
    for bad in ([], [1.0, 2.0]):
        with pytest.raises(ValueError, match="cannot be paired"):
            paired_ratio(bad, [1.0])


def test_the_interval_covers_the_true_ratio():
    """Noise of 10 % on both arms, 7 blocks: at least 85 of 100 intervals hold 1 (nominal 95)."""
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(60):
        ours, theirs = np.exp(0.1 * rng.standard_normal((2, 7)))
        found = paired_ratio(ours.tolist(), theirs.tolist())
        held += found.low <= 1 <= found.high
    assert held >= 51


@pytest.mark.parametrize(
    ("rates", "ended"),
    [([], False), ([10.0], False), ([10.0, 12.0], False), ([5.0, 12.0, 12.4], True)],
)
def test_a_warm_up_ends_when_windows_agree(rates, ended):
    assert agree(rates) is ended


@pytest.mark.parametrize(
    ("ratio", "blocks", "floor", "said"),
    [
        (Ratio(1.5, 1.4, 1.6), 7, 1.0, "faster"),
        (Ratio(1.5, 1.4, 1.6), 6, 1.0, "too few blocks"),
        (Ratio(1.1, 0.99, 1.2), 7, 1.0, "no difference shown"),
        (Ratio(1.02, 1.01, 1.03), 7, 1.02, "no difference shown"),
        (Ratio(0.7, 0.6, 0.8), 7, 1.02, "slower"),
    ],
)
def test_a_win_needs_an_interval_beyond_one(ratio, blocks, floor, said):
    assert claim(ratio, blocks, floor) == said


def test_the_same_arm_twice_is_the_floor():
    assert noise_floor(group()) == 1.0
    drifted = group(
        rates={**group().rates, "ours, again": [19.0, 20.9, 17.1, 19.0, 20.0, 18.0, 19.0]}
    )
    assert 1.04 < noise_floor(drifted) < 1.06
    assert noise_floor(group(again=None)) == 1.0


def test_another_loss_throws_an_arm_out():
    assert loss_fault([6.9, 6.5], [6.9, 6.504], 1e-3) is None
    assert loss_fault([6.9, 6.5], [6.9, 6.3], 1e-3) == (
        "loss 6.3000 after 1 steps, the reference has 6.5000 (allowed: 0.1 %)"
    )
    assert loss_fault([6.9, 6.5], [6.9, math.nan], 1e-3) is not None


def test_arms_take_turns_in_random_order_after_the_warm_up():
    calls = []

    def arm(name: str, rates: list[float]) -> Arm:
        left = iter(rates)

        def window() -> Cost:
            calls.append(name)
            return Cost(next(left), 1.0)

        return Arm(name, window)

    rates, processor, notes = measure(
        [arm("a", [1.0, 2.0, 2.0] + [2.0] * 5), arm("b", [1.0, 3.0, 9.0, 1.0, 1.0, 1.0, 1.0, 1.0])],
        Turns(blocks=5, warm_up=3),
    )
    assert rates == {"a": [2.0] * 5, "b": [1.0] * 5}
    assert processor == {"a": [1.0] * 5, "b": [1.0] * 5}
    assert calls[:6] == ["a"] * 3 + ["b"] * 3
    blocks = [calls[at : at + 2] for at in range(6, len(calls), 2)]
    assert all(sorted(block) == ["a", "b"] for block in blocks)
    assert ["a", "b"] in blocks and ["b", "a"] in blocks
    assert [note.split(":")[0] for note in notes] == ["b", "load average during the blocks"]


def test_a_ring_takes_what_its_bytes_and_hops_take():
    assert ring_all_reduce_s(8e9, 8, 1e9, 0.0) == pytest.approx(14.0)
    assert ring_all_reduce_s(0, 8, 1e9, 1e-5) == pytest.approx(14e-5)
    assert efficiency(1.0, 0.25, 0.0) == pytest.approx(0.8)
    assert efficiency(1.0, 0.25, 0.5) == 1.0


def test_the_best_peer_is_chosen_by_its_median():
    assert best(group().rates, ["peer", "ours"]) == "ours"


@pytest.mark.parametrize(
    ("recipe", "block", "more"),
    [
        ("inceptionv2", "inception3a", ()),
        ("inceptionv2", "inception3c", ()),  # without a 1x1 branch
        ("googlenet", "inception3a", (1e-5,)),
    ],
)
def test_merged_branches_are_the_same_function_of_the_same_weights(recipe, block, more):
    torch.manual_seed(0)
    module = load_model_module(ROOT / "recipes" / recipe)
    plain = torch.nn.Sequential(module.Inception(192, module.BLOCKS[block], *more))
    joined = merge(copy.deepcopy(plain))
    x = torch.randn(2, 192, 8, 8).relu()
    with torch.no_grad():
        assert torch.allclose(plain(x), joined(x), atol=1e-4)
    expected, found = plain.state_dict(), joined.state_dict()
    assert list(expected) == list(found)
    assert all(torch.allclose(expected[key], found[key], atol=1e-4) for key in expected)


def test_the_report_shows_arms_claims_and_targets():
    machine = {
        "started": "2026-01-01T00:00:00Z", "seconds": 1.0, "cpu": "CPU", "platform": "Linux",
        "python": "3.11", "packages": {"torch": "2"}, "commit": "0123456789ab", "dirty": False,
        "command": "python -m benchmarks",
    }  # fmt: skip
    one = group(
        thrown_out={"wrong": "loss 1"},
        absent={"gone": "does not load"},
        notes=["batch 2"],
        processor_ms={"ours": [90.0]},
    )
    text = tables.report(
        {"S": json.loads(json.dumps({"machine": machine, "groups": [asdict(one)]}))}
    )
    assert "| ours | 20.0 | 19.5 to 20.5 |  |  |  | 90.00 |" in text
    assert "| ours, again | 20.0 | " in text and " | 1.000 | 0.995 to 1.005 | (noise) |" in text
    assert "| peer | 10.0 | 9.8 to 10.2 | 2.000 | 2.000 to 2.000 | faster |  |" in text
    assert "| wrong | thrown out | loss 1 |" in text and "| gone | n/a | does not load |" in text
    assert "| S: a step | at least 1.5 x (peer) | 2.000 (2.000 to 2.000) | met |" in text
    assert "| S: a step | at least 3 x (peer) | 2.000 (2.000 to 2.000) | missed |" in text
    assert "7 blocks. Batch 2." in text and "commit 0123456789" in text


def test_the_committed_report_is_made_from_its_files():
    found = {p.stem: json.loads(p.read_text(encoding="utf-8")) for p in REPORT.glob("*.json")}
    assert found, "no measurement is committed"
    assert tables.report(found) == (REPORT / "report.md").read_text(encoding="utf-8")


def test_memory_is_kept():
    """In a process of its own: large blocks that are freed and asked for again cost no page."""
    code = """
import resource, torch
from benchmarks.turns import keep_memory
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        torch.zeros(20_000_000) + 1
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
first, kept, _ = faults(), keep_memory(), faults()
print(kept, first, faults())
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    kept, before, after = done.stdout.split()
    assert kept == "True" and int(before) > 10_000, (done.stdout, done.stderr)
    assert int(after) < int(before) / 10, done.stdout  # a few of others in the process


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--networks", "nosuch"], "--networks: nosuch: choose from inceptionv2, googlenet"),
        (["--precisions", "FP99"], "--precisions: FP99: choose from FP32, BF16"),
        (["--blocks", "0"], "--blocks: '0' is no whole number"),
        (["--out", "/proc/x"], "--out /proc/x: cannot be written"),
        (["--arms", "X"], "--arms: X: choose from L, S, E"),
    ],
)
def test_a_wrong_flag_ends_it_before_it_measures(monkeypatch, capsys, words, said):
    monkeypatch.setattr(command, "PEERS", ())
    monkeypatch.setattr(sys, "argv", ["benchmarks", "--quick", *words])
    with pytest.raises(SystemExit) as caught:
        command.main()
    assert caught.value.code == 2 and said in capsys.readouterr().err


def test_a_peer_that_is_not_installed_ends_it_before_it_measures(monkeypatch, capsys):
    monkeypatch.setattr(command, "PEERS", ("no_such_package",))
    monkeypatch.setattr(sys, "argv", ["benchmarks", "--quick"])
    with pytest.raises(SystemExit):
        command.main()
    assert "no_such_package not installed: see Speed in README.md" in capsys.readouterr().err
