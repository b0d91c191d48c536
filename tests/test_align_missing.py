"""A tensor that the compared trace lacks: a finding, but where its layer was passed by."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from test_align import golden

from proofrun.errors import Exit
from tools._align import cli, engine, home, variants
from tools._align.trace import Row, Trace, load

FROZEN = "features.inception4b.b3x3.conv.conv"


def without(path: Path, lacks: Callable[[Row], bool]) -> Path:
    trusted = load(golden())
    kept = [i for i, row in enumerate(trusted.rows) if not lacks(row)]
    header = trusted.header.model_copy(
        update={
            "rows": tuple(trusted.rows[i] for i in kept),
            "made": trusted.header.made.model_copy(update={"precision": "FP32"}),
        }
    )
    Trace(header, trusted.stats[:, :, kept], trusted.scalars).save(path)
    return path


def told(capsys, path: Path) -> tuple[int, str]:
    code = cli.main(["diff", str(golden()), str(path), "--plot", str(path.with_suffix(".png"))])
    return code, " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("kind", "direction"), [("weight_grad", "backward"), ("moment", "update"), ("weight", "update")]
)
def test_a_missing_tensor_is_the_finding(tmp_path, capsys, kind, direction):
    gone = (f"{FROZEN}.weight", kind)
    path = without(tmp_path / "x.npz", lambda row: (row.name, row.kind) == gone)
    code, said = told(capsys, path)
    assert code == Exit.VERDICT and "counterpart" not in said
    assert said.endswith(
        f"not aligned: step 0, {direction}, {kind} {FROZEN}.weight: missing (the trusted trace has "
        f"it, this one does not) plot: {path.with_suffix('.png')}"
    )


@pytest.mark.parametrize(
    ("gone", "words"),
    [
        ([FROZEN, f"{FROZEN}.weight"], f"as their layers were passed by ({FROZEN}, {FROZEN}, "),
        (["input.R"], "1 tensor has no counterpart, as its layer was passed by (input.R): not"),
    ],
)
def test_a_layer_that_was_passed_by_is_said(tmp_path, capsys, gone, words):
    code, said = told(capsys, without(tmp_path / "x.npz", lambda row: row.name in gone))
    assert code == Exit.OK and words in said


def test_an_input_without_its_colours_is_judged(tmp_path, capsys):
    path = without(tmp_path / "x.npz", lambda row: row.name == "input.R")
    trace = load(path)
    Trace(trace.header, trace.stats * 1.1, trace.scalars).save(path)
    code, said = told(capsys, path)
    assert code == Exit.VERDICT and "not aligned: step 0, forward, output input: scale" in said


@pytest.mark.parametrize("frozen", [True, False])
def test_in_a_replay(tmp_path, capsys, frozen):
    """A weight that gets no gradient, and branches whose 1x1 convolutions are one."""

    def freeze(session: engine.Session) -> None:
        session.model.get_parameter(f"{FROZEN}.weight").requires_grad_(False)

    of = load(golden()).header.exercise
    recipe_dir, recipe = home.find("GoogLeNet", "Digits")
    again = engine.exercise(recipe, recipe_dir, of.seed, of.steps, of.batch, 1)
    session = engine.Session(again, recipe, recipe_dir, "FP32", "CPU")
    (freeze if frozen else variants.merged_branches)(session)
    made = session.run(home.QUICK_STEPS)
    assert made is not None
    made.save(tmp_path / "x.npz")
    code, said = told(capsys, tmp_path / "x.npz")
    if frozen:
        assert code == Exit.VERDICT
        assert f"not aligned: step 0, backward, weight_grad {FROZEN}.weight: missing" in said
    else:
        assert code == Exit.OK and "no counterpart, as their layers were passed by" in said
