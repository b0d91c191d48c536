"""Bad input ends before anything is written: own exit code, one line, no traceback."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from proofrun.errors import Exit

ROOT = Path(__file__).resolve().parent.parent
RUN = "GoogLeNet-Digits_FP32_10E_1CPU_Train"
CIFAR = "GoogLeNet-Cifar10_FP32_125E_1CPU_Train"


@pytest.fixture
def broken(digits, tmp_path) -> Path:
    """A copy of the digits to break."""
    return Path(shutil.copytree(digits, tmp_path / "data set"))


def first_image(data: Path, split: str = "train") -> Path:
    line = (data / f"{split}.txt").read_text().splitlines()[0]
    path = data / line.rsplit(maxsplit=1)[0]
    return path if path.exists() else data / split / line.rsplit(maxsplit=1)[0]


def missing(data: Path) -> str:
    shutil.rmtree(data)
    return str(data)


def empty(data: Path) -> str:
    shutil.rmtree(data)
    data.mkdir()
    return str(data)


def zero_bytes(data: Path) -> str:
    first_image(data).write_bytes(b"")
    return first_image(data).name


def truncated(data: Path) -> str:
    path = first_image(data, "val")
    path.write_bytes(path.read_bytes()[:-300])
    return path.name


def no_image(data: Path) -> str:
    first_image(data).write_text("this is no image, though it is long enough to be one" * 9)
    return first_image(data).name


def missing_file(data: Path) -> str:
    first_image(data).unlink()
    return "train.txt"


def edit(data: Path, change) -> str:
    path = data / "train.txt"
    path.write_text("\n".join(change(path.read_text().splitlines())) + "\n")
    return "train.txt"


def label_out_of_range(data: Path) -> str:
    return edit(data, lambda lines: [lines[0].rsplit(maxsplit=1)[0] + " 10", *lines[1:]])


def negative_label(data: Path) -> str:
    return edit(data, lambda lines: [*lines[:-1], lines[-1].rsplit(maxsplit=1)[0] + " -1"])


def fewer_classes(data: Path) -> str:
    return edit(data, lambda lines: [line for line in lines if not line.endswith(" 3")])


def fewer_images(data: Path) -> str:
    edit(data, lambda lines: lines[::2])
    return "--set data.train_images=719"


def no_label(data: Path) -> str:
    return edit(data, lambda lines: [lines[0].rsplit(maxsplit=1)[0], *lines[1:]])


@pytest.mark.parametrize(
    ("damage", "code"),
    [
        (missing, Exit.NO_DATA),
        (empty, Exit.NO_DATA),
        (zero_bytes, Exit.IMAGE_TRUNCATED),
        (truncated, Exit.IMAGE_TRUNCATED),
        (no_image, Exit.IMAGE_INVALID),
        (missing_file, Exit.LIST_MISSING_FILE),
        (label_out_of_range, Exit.LABEL_OUT_OF_RANGE),
        (negative_label, Exit.LABEL_OUT_OF_RANGE),
        (fewer_classes, Exit.CLASS_COUNT),
        (no_label, Exit.BAD_LIST),
        (fewer_images, Exit.IMAGE_COUNT),
    ],
)
def test_bad_data(script, broken, tmp_path, damage, code):
    named = damage(broken)
    before = sorted(tmp_path.rglob("*"))
    process = script(RUN, "--data", str(broken))
    out, err = process.communicate(timeout=60)
    assert process.returncode == code, out + err
    assert out == "" and err.count("\n") == 1 and named in err, err
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("run", "flags", "code", "says"),
    [
        ("Inceptionv2_AMP_100E_8MLUs_Train", [], Exit.NO_DEVICE, "Inceptionv2-Digits_AMP_6E_1CPU"),
        ("GoogLeNet_FP32_300E_1NPU_Train", [], Exit.NO_DEVICE, "GoogLeNet-Digits_FP32_10E_1CPU"),
        (CIFAR.replace("CPU", "NPU"), [], Exit.NO_DEVICE, f"run: bash run_scripts/{CIFAR}.sh"),
        (CIFAR, ["--data", "/nowhere"], Exit.NO_DATA, "/nowhere"),
        (CIFAR, ["--set", "data.train.crop_area=[0.5, 1]"], Exit.BAD_OVERRIDE, "crop_padding"),
        (RUN, ["--set", "optimizer.lr.bas=1"], Exit.BAD_OVERRIDE, "did you mean"),
        (RUN, ["--set", "batch.per_card=5000"], Exit.BAD_OVERRIDE, "smaller batch"),
        (RUN, ["--set", "data.classes"], Exit.BAD_OVERRIDE, "--set data.classes"),
        (RUN, ["--set", "optimizer.lr.base=2020-01-01"], Exit.BAD_OVERRIDE, "in quotes"),
        (RUN, ["--set", "optimizer={[a]: 1}"], Exit.BAD_OVERRIDE, "no YAML value"),
        (RUN, ["--set", f"optimizer={'[' * 9999}"], Exit.BAD_OVERRIDE, "no YAML value"),
        (RUN, ["--set", "data.train.crop_area=[1.0, 0.5]"], Exit.BAD_OVERRIDE, "crop_area"),
        (RUN, ["--data", "/" + "x" * 300], Exit.NO_DATA, "too long"),
        (RUN, ["--throughput", "0"], Exit.USAGE, "from 1 up"),
        (RUN, ["--throughput", "5", "--max-steps", "3"], Exit.USAGE, "give one"),
        (RUN, ["--throughput", "x"], Exit.USAGE, "--throughput"),
        (RUN, ["--max-steps", "0"], Exit.USAGE, "--max-steps"),
        (RUN, ["--max-restarts", "-1"], Exit.USAGE, "--max-restarts"),
        (RUN, ["--seed", "-3"], Exit.USAGE, "--seed"),
        (RUN, ["--seed", "٣"], Exit.USAGE, "--seed"),
        (RUN, ["--logs", "/proc/nowhere"], Exit.CANNOT_WRITE, "--logs"),
        (RUN, ["--nonsense"], Exit.USAGE, "--nonsense"),
    ],
)
def test_bad_commands(script, tmp_path, run, flags, code, says):
    process = script(run, *flags)
    out, err = process.communicate(timeout=60)
    assert process.returncode == code, out + err
    assert says in err and "Traceback" not in err
    assert err.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["OMP_NUM_THREADS", "PROOFRUN_LOADER_THREADS"])
@pytest.mark.parametrize("value", ["abc", "0", "-1"])
def test_bad_thread_variables(script, tmp_path, name, value):
    process = script(RUN, **{name: value})
    _, err = process.communicate(timeout=60)
    assert process.returncode == Exit.USAGE
    assert f"{name}={value}" in err and err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_an_interpreter_that_hides_its_packages(tmp_path):
    """-S hides them in .venv as well: said once, not tried for ever."""
    for chosen in ({}, {"PYTHON": sys.executable}):
        done = subprocess.run(
            [sys.executable, "-S", str(ROOT / "tools" / "report.py"), str(tmp_path)],
            env={"PATH": "/usr/bin:/bin", **chosen},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == Exit.NOT_INSTALLED
        assert done.stderr.count("\n") == 1
        assert ("unset PYTHON" in done.stderr) == bool(chosen)


def test_an_unknown_run_and_a_wrong_type_in_a_recipe(environment, checkout):
    copy = checkout
    for name in ("GoogLeNet-Digits_FP32_9E_1CPU_Train", RUN.replace("1CPU", "1CPUs"), "nonsense"):
        stranger = copy / "run_scripts" / f"{name}.sh"
        shutil.copy(copy / "run_scripts" / f"{RUN}.sh", stranger)
        done = subprocess.run(
            ["bash", str(stranger)], env=environment, capture_output=True, text=True
        )
        assert done.returncode == Exit.NO_SUCH_RUN
        assert name == "nonsense" or RUN in done.stderr
        assert done.stderr.count("\n") == 1

    recipe = copy / "recipes" / "googlenet" / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("momentum: 0.9", "momentum: high", 1))
    line = recipe.read_text()[: recipe.read_text().index("momentum: high")].count("\n") + 1
    done = subprocess.run(
        ["bash", str(copy / "run_scripts" / f"{RUN}.sh")],
        env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == Exit.BAD_RECIPE
    assert f"recipe.yaml:{line}: optimizer.momentum" in done.stderr
    assert done.stderr.count("\n") == 1
