"""The run name, printed and parsed; scripts are exactly the declared runs."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proofrun import early
from proofrun.errors import Exit, RunNameError
from proofrun.recipe_yaml import load_recipe
from proofrun.runs import Plan, RunName, World, find_recipe

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = sorted((ROOT / "run_scripts").glob("*_Train.sh")) + sorted(
    (ROOT / "run_scripts").glob("*_Infer.sh")
)

words = st.text("ABCDEFxyz0123456789", min_size=1, max_size=9)
names = st.builds(
    lambda model, data, precision, epochs, cards, device, task: RunName(
        model, data, precision, epochs if task == "Train" else None, cards, device, task
    ),
    words,
    words | st.just("ImageNet"),
    st.sampled_from(["FP32", "TF32", "AMP", "BF16", "FP16"]),
    st.integers(1, 1000),
    st.integers(1, 64),
    st.sampled_from(["MLU", "NPU", "GPU", "CPU"]),
    st.sampled_from(["Train", "Infer"]),
)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_the_plan_of_every_script_is_read_as_it_was_written(script, tmp_path):
    name, recipe_dir, recipe = find_recipe(script.stem, ROOT / "recipes")
    plan = Plan(
        run=script.stem,
        recipe_dir=str(recipe_dir),
        recipe=recipe,
        precision=name.precision,
        world=World(cards=name.cards),
        device=name.device,
        seed=1,
        overrides={"loader": "1e-3"},
        data_dir="data",
        data_hash="1e5",
    )
    (tmp_path / "recipe.yaml").write_text(plan.to_yaml())
    assert Plan.load(tmp_path / "recipe.yaml") == plan


@given(names)
def test_a_name_is_read_as_it_was_printed(name):
    assert RunName.parse(str(name)) == name


@given(st.text(max_size=60))
def test_anything_else_is_refused_in_one_line(text):
    try:
        assert str(RunName.parse(text)) == text
    except RunNameError as error:
        assert "\n" not in str(error)


@pytest.mark.parametrize(
    "text",
    [
        "Inceptionv2_AMP_100E_8MLU_Train",
        "Inceptionv2_AMP_100E_1MLUs_Train",
        "Inceptionv2_AMP_8MLUs_Train",
        "Inceptionv2_AMP_100E_8MLUs_Infer",
        "Inceptionv2_AMP_100E_0MLUs_Train",
        "Inceptionv2-ImageNet_AMP_100E_8MLUs_Train",
        "Inceptionv2_INT8_100E_8MLUs_Train",
        "../Inceptionv2_AMP_100E_8MLUs_Train",
        "",
    ],
)
def test_one_spelling_only(text):
    with pytest.raises(RunNameError):
        RunName.parse(text)


def test_published_names():
    name = RunName.parse("Inceptionv2_AMP_100E_8MLUs_Train")
    assert name == ("Inceptionv2", "ImageNet", "AMP", 100, 8, "MLU", "Train")
    assert RunName.parse("GoogLeNet-Digits_FP32_10E_1CPU_Train").data == "Digits"
    assert RunName.parse("Inceptionv2_FP16_1MLU_Infer").epochs is None


def test_scripts_are_exactly_the_declared_runs_and_byte_identical():
    declared = set()
    for path in (ROOT / "recipes").glob("*/recipe.yaml"):
        for data, recipe in load_recipe(path).items():
            for run in recipe.runs:
                name = RunName.parse(run)
                assert (name.model, name.data) == (recipe.name, data)
                assert name.task == "Infer" or name.epochs == recipe.schedule.epochs
                declared.add(run)
    assert {path.stem for path in SCRIPTS} == declared
    assert len({path.read_bytes() for path in SCRIPTS}) == 1


@pytest.mark.parametrize("model", ["Inceptionv2", "GoogLeNet"])
@pytest.mark.parametrize("precision", ["FP32", "AMP"])
@pytest.mark.parametrize("cards", [1, 8])
def test_the_published_device_and_gpus_have_scripts(model, precision, cards):
    device, epochs = {"Inceptionv2": ("MLU", 100), "GoogLeNet": ("NPU", 300)}[model]
    stems = {path.stem for path in SCRIPTS}
    for kind in (device, "GPU"):
        assert str(RunName(model, "ImageNet", precision, epochs, cards, kind, "Train")) in stems


def test_every_script_returns_the_interpreters_exit_code(tmp_path):
    """From another folder, through a checkout whose path has spaces, with a stub python3."""
    checkout = tmp_path / "a check out"
    checkout.mkdir()
    for name in ("env.sh", "run_scripts", "proofrun"):
        (checkout / name).symlink_to(ROOT / name)
    stub = tmp_path / "bin" / "python3"
    stub.parent.mkdir()
    stub.write_text('#!/bin/sh\necho "$@"\nexit 3\n')
    stub.chmod(0o755)
    assert len(SCRIPTS) >= 32
    for script in SCRIPTS:
        done = subprocess.run(
            ["bash", str(checkout / "run_scripts" / script.name), "--flag", "a b"],
            cwd=tmp_path,
            env={"PATH": f"{stub.parent}:/usr/bin:/bin"},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 3, done.stderr
        assert done.stdout.strip().endswith(f"launch.py {script.stem} --flag a b")


def test_a_link_to_a_script_is_that_run(tmp_path):
    stub = tmp_path / "python3"
    stub.write_text('#!/bin/sh\necho "$@"\n')
    stub.chmod(0o755)
    (tmp_path / "mine.sh").symlink_to(SCRIPTS[0])
    done = subprocess.run(
        ["bash", str(tmp_path / "mine.sh")],
        env={"PATH": f"{tmp_path}:/usr/bin:/bin"}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.stdout.strip().endswith(f"launch.py {SCRIPTS[0].stem}"), done.stderr


def test_before_installation_a_script_says_what_to_run(tmp_path):
    """A bare interpreter without the packages, in a checkout without .venv."""
    for name in ("env.sh", "run_scripts", "proofrun", "recipes"):
        subprocess.run(["cp", "-r", str(ROOT / name), str(tmp_path / name)], check=True)
    subprocess.run(["python3", "-m", "venv", "--without-pip", str(tmp_path / "bare")], check=True)
    done = subprocess.run(
        ["bash", str(tmp_path / "run_scripts" / SCRIPTS[0].name)],
        env={"PATH": f"{tmp_path / 'bare' / 'bin'}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 14
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1 and "bash tools/setup.sh" in done.stderr


def test_an_early_stop_has_the_code_of_any_other():
    assert early.INTERRUPTED == Exit.INTERRUPTED


def test_unknown_run_names_the_nearest():
    with pytest.raises(RunNameError, match="Inceptionv2_AMP_100E_8MLUs_Train"):
        find_recipe("Inceptionv2_AMP_90E_8MLUs_Train", ROOT / "recipes")
