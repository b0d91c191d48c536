"""Numbers in the READMEs: tables are what logs and recipes give, and others can be traced."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from fake_logs import FakeRun

from proofrun.recipe_yaml import load_recipe
from tools._report.readme import READMES, filled
from tools._report.support import table

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize("name", READMES)
def test_tables_are_what_the_logs_give(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    assert filled(text) == text, "run: python -m tools._report.readme"


def test_a_changed_number_is_found():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "98.61" in text
    assert filled(text.replace("98.61", "99.61")) == text


def traceable() -> str:
    """All that a number may come from: claims with their sources, and committed reports."""
    recipes = [r for p in ROOT.glob("recipes/*/recipe.yaml") for r in load_recipe(p).values()]
    claims = [f"{c.value:g}" for recipe in recipes for c in recipe.claims]
    reports = [p.read_text(encoding="utf-8") for p in sorted(ROOT.glob("reports/**/*.md"))]
    return "\n".join([*claims, *reports])


@pytest.mark.parametrize("name", READMES)
def test_accuracies_and_speeds_in_the_text_can_be_traced(name):
    """Every `… %` and `… img/s` outside the generated tables is a claim or stands in a report."""
    text = re.sub(r"<!-- table.*?end of table -->", "", (ROOT / name).read_text(), flags=re.DOTALL)
    known = traceable().replace(",", "")
    for found in re.finditer(r"(\d[\d,.]*\d|\d)(?: and (\d[\d,.]*\d|\d))? (?:%|img/s)", text):
        for number in found.groups():
            if number is not None:
                value = f"{float(number.replace(',', '')):g}"
                assert re.search(rf"(?<![\d.]){re.escape(value)}0*(?!\d)", known), (
                    f"{name}: {found[0]} stands in no report and is no claim"
                )


def test_support_is_only_what_ran_whole(tmp_path):
    """Nothing cut, failed, overridden or synthetic; and no device for another."""
    logs = tmp_path / "reports" / "mine" / "logs"
    FakeRun("GoogLeNet_AMP_300E_8NPUs_Train").write(logs)
    others = {
        "GoogLeNet_FP32_300E_1NPU_Train": {"purpose": "throughput", "max_steps": 20},
        "GoogLeNet_FP32_300E_8NPUs_Train": {"status": "failed"},
        "GoogLeNet_AMP_300E_1NPU_Train": {"overrides": ["schedule.epochs=2"]},
        "Inceptionv2_AMP_100E_1MLU_Train": {"loader": "synthetic"},
    }
    for name, fields in others.items():
        FakeRun(name, windows_per_epoch=1, **fields).write(logs)
    made = table([logs.parent], tmp_path)
    assert made.count("verified") == 1
    assert re.search(r"Ascend NPU \| Train \| 8 \|[^|]*expected[^|]*\| – \| \[verified", made)
    assert made.count("*expected*") == 7  # the other cells of that device and task, but TF32
