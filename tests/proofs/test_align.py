"""A device against a trusted one: planted faults are named, harmless differences are not."""

from __future__ import annotations

import contextlib
import json
import sys
import time

import pytest
from align_faults import FAULTS, judged, replay

from proofrun.errors import Exit
from tools._align import bounds, cli, home, plot, variants
from tools._align.diff import Comparison, compare
from tools._align.trace import load

from .helpers import ROOT, shell

DIGITS = {"googlenet": "GoogLeNet", "inceptionv2": "Inceptionv2"}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name.replace(" ", "_"))
def test_a_planted_fault_is_named(fault, evidence):
    start = time.monotonic()
    made = replay(fault.recipe, fault.plant, fault.steps, fault.precision)
    found = judged(fault.recipe, made)
    assert found.first is not None, f"not found; nearest {found.nearest:.2f}"
    first = found.first
    seconds = time.monotonic() - start
    evidence.figure(
        f"{fault.name} ({DIGITS[fault.recipe]}, {fault.precision})",
        f"step {first.step}, {first.place.direction}, {first.place.kind} {first.place.name}: "
        f"{first.look.sort} ({first.look.says}), {first.excess:.3g} x bound, {seconds:.0f} s",
        f"step {fault.step}, {fault.kind} {fault.place}: {' or '.join(fault.looks)}",
    )
    assert fault.named(first), first.line()


#: (what, change, channels-last, threads)
HARMLESS = (
    ("contiguous instead of channels-last", variants.nothing, False, 1),
    ("optimizer not fused", variants.unfused, True, 1),
    ("two threads", variants.nothing, True, 2),
    ("merged branches", variants.merged_branches, True, 1),
    ("batch in another order", variants.permuted_batch, True, 1),
)


@pytest.mark.parametrize("recipe", DIGITS)
@pytest.mark.parametrize(
    ("what", "change", "last", "threads"), HARMLESS, ids=[each[0] for each in HARMLESS]
)
def test_a_harmless_difference_is_silent(recipe, what, change, last, threads, evidence):
    with variants.threads(threads):
        found = judged(recipe, replay(recipe, change, home.QUICK_STEPS, channels_last=last))
    evidence.figure(
        f"harmless: {what} ({DIGITS[recipe]}, FP32, {home.QUICK_STEPS} steps)",
        said(found), "no alarm",
    )  # fmt: skip
    assert found.aligned, found.first and found.first.line()


def said(found: Comparison) -> str:
    once = f"; out in too few steps for an alarm: {len(found.remarks)} tensors"
    return f"at most {found.nearest:.0%} of a bound" + (once if found.remarks else "")


@pytest.mark.parametrize("precision", ["FP64", "TF32", "BF16"])
def test_every_precision_is_held_in_its_own_bounds(precision, evidence):
    change = variants.tf32 if precision == "TF32" else variants.nothing
    found = judged("googlenet", replay("googlenet", change, home.QUICK_STEPS, precision))
    assert found.aligned, found.first and found.first.line()
    evidence.figure(f"GoogLeNet in {precision}, {home.QUICK_STEPS} steps", said(found), "no alarm")


@pytest.mark.parametrize("recipe", DIGITS.values())
def test_a_replay_takes_minutes(recipe, work, evidence):
    """All steps in FP32 on this CPU, by the command itself; and the three steps of a preflight."""
    for name, flags in (("20 steps", []), ("quick", ["--quick"])):
        out = work / f"{recipe}-{name.replace(' ', '-')}.npz"
        start = time.monotonic()
        line = [sys.executable, ROOT / "tools/align.py", "replay", recipe, "--device", "CPU"]
        printed = shell([*line, "--out", out, *flags], cwd=ROOT)
        spent = time.monotonic() - start
        verdict = json.loads(out.with_suffix(".json").read_text())
        assert verdict["aligned"] and verdict["precision"] == "FP32"
        evidence.figure(f"replay of {recipe}, {name}, with start", f"{spent:.0f} s", "120 s")
        evidence.transcript(f"replay_{recipe}_{name.replace(' ', '_')}", printed)


def test_gradients_of_two_ranks(work, evidence):
    """Recorded and replayed by two processes; summed instead of averaged is called times 2."""
    trusted = work / "two.npz"
    tool = [sys.executable, ROOT / "tools/align.py"]
    printed = shell(
        [*tool, "record", "GoogLeNet", "--ranks", "2", "--steps", "2", "--out", trusted]
    )
    assert "2 ranks" in printed
    again = [*tool, "replay", "GoogLeNet", "--device", "CPU", "--ranks", "2", "--against", trusted]
    shell([*again, "--out", work / "again.npz"])
    assert json.loads((work / "again.json").read_text())["aligned"]
    known = bounds.read(home.REPORTS / "bounds-GoogLeNet-Digits.json")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    for fault, look in (("summed", "scale"), ("own", "scattered")):
        out = work / f"{fault}.npz"
        script = ROOT / "tests/align_rank.py"
        shell([*torchrun, "--nproc-per-node=2", script, fault, trusted, out])
        first = compare(load(trusted), load(out), known, out).first
        assert first is not None
        evidence.figure(
            f"gradient of 2 ranks {'summed' if fault == 'summed' else 'not exchanged'}",
            f"step {first.step}, {first.place.kind} {first.place.name}: {first.look.sort} "
            f"({first.look.says})",
            f"step 0, weight_grad fc.weight: {look}",
        )
        assert (first.step, first.place.kind, first.place.name) == (0, "weight_grad", "fc.weight")
        assert first.look.sort == look


def test_the_table_and_the_plot_of_a_fault(work, evidence, capsys):
    """All steps of a fault that comes late, as a user sees it."""
    (fault,) = [fault for fault in FAULTS if fault.name == "LR one step late"]
    path = work / "late.npz"
    replay(fault.recipe, fault.plant, 8).save(path)
    golden = home.REPORTS / "GoogLeNet-Digits-FP64.npz"
    with contextlib.chdir(work):
        code = cli.main(["diff", str(golden), str(path), "--plot", "late.png"])
    assert code == Exit.VERDICT
    evidence.transcript("late_rate", capsys.readouterr().out)
    assert (work / "late.png").stat().st_size > 20_000
    assert plot.__doc__


@pytest.mark.parametrize("recipe", ["GoogLeNet", "Inceptionv2"])
def test_false_alarms_are_those_that_were_committed(recipe, evidence):
    """Measured by `python -m tools._align.calibrate`, ten minutes; here its result is shown."""
    path = home.REPORTS / f"alarms-{recipe}-Digits.json"
    for precision, cell in json.loads(path.read_text())["precisions"].items():
        evidence.figure(
            f"false alarms, {recipe}, {precision}, {cell['steps']} steps",
            f"{cell['alarms']} of {cell['seeds']} seeds; out of bounds in some step "
            f"{cell['out_in_some_step']}",
            "at most 2 in 100",
        )
        assert cell["seeds"] >= 200
        assert cell["alarms"] <= 0.02 * cell["seeds"]
