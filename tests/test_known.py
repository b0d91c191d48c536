"""Commands that people bring along: each is a run of ours, and says what it cannot be."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from networks import build_network
from safetensors.torch import save_file

from proofrun import checkpoint, launch
from proofrun.errors import Exit, ProofrunError, UsageError
from proofrun.recipe_yaml import load_recipe
from proofrun.runs import apply_overrides
from tools._known.flags import launch_parser, parse_launch, scoring_parser, training_parser
from tools._known.start import reading_of

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "coming-from.md"
#: As SOURCES and the README of the Ascend recipe give it.
PUBLISHED = (
    "--nproc_per_node=8 --visible_devices=0,1,2,3,4,5,6,7 --env_sh=env.sh --server_id=x "
    "tools/train.py --backbone=googlenet --per_batch_size=256 --data_dir=/data --is_distributed=1 "
    "--lr_scheduler=exponential --lr_epochs=70,140,210,280 --lr_gamma=0.3 --lr=0.1 "
    "--max_epoch=300 --label_smooth=1 --num_classes=1000"
)


def read(line: str):
    options = parse_launch(shlex.split(line))
    return reading_of(options.task, options.arguments, options.nproc_per_node)


def test_the_published_command_is_the_published_run():
    found = read(PUBLISHED)
    assert str(found.run) == "GoogLeNet_AMP_300E_8NPUs_Train"
    assert found.flags == ["--data", "/data"]  # no value is overridden
    assert [note.split(":")[0] for note in found.notes] == ["--is_distributed"]


@pytest.mark.parametrize(
    ("flags", "key", "value"),
    [
        ("--lr=0.05", "optimizer.lr.base", 0.05),
        ("--per_batch_size=128", "batch.per_card", 128),
        ("--max_epoch=320", "schedule.epochs", 320),
        ("--lr_epochs=30,60", "schedule.milestones", [30, 60]),
        ("--lr_gamma=0.1", "schedule.gamma", 0.1),
        ("--warmup_epochs=5", "schedule.warmup_epochs", 5),
        ("--weight_decay=0.0005", "optimizer.weight_decay", 5e-4),
        ("--momentum=0.8", "optimizer.momentum", 0.8),
        ("--loss_scale=512", "precision.amp.loss_scale", 512.0),
        ("--is_dynamic_loss_scale=1", "precision.amp.loss_scale", "dynamic"),
        ("--label_smooth=0", "loss.label_smoothing", 0.0),
        ("--label_smooth=1 --label_smooth_factor=0.2", "loss.label_smoothing", 0.2),
        (
            "--lr_scheduler=cosine_annealing --max_epoch=200 --T_max=200 --eta_min=0.001",
            "schedule",
            {"kind": "cosine", "epochs": 200, "warmup_epochs": 0, "min_lr": 0.001},
        ),
    ],
)
def test_another_value_is_an_override_that_the_recipe_takes(flags, key, value):
    found = reading_of("train", ["--backbone=googlenet", *flags.split()], 8)
    pairs = [word for word in found.flags if word != "--set"]
    assert [pair.split("=")[0] for pair in pairs] == [key]
    recipe = load_recipe(ROOT / "recipes" / "googlenet" / "recipe.yaml")["ImageNet"]
    _, applied = apply_overrides(recipe, pairs)
    assert applied == {key: value}


@pytest.mark.parametrize(
    "flags",
    [
        "--lr=0.1 --lr_scheduler=exponential --lr_epochs=70,140,210,280 --lr_gamma=0.3",
        "--momentum=0.9 --weight_decay=1e-4 --warmup_epochs=0 --label_smooth=1",
        "--loss_scale=1024 --is_dynamic_loss_scale=0 --image_size=224,224",
        "--label_smooth_factor=0.1 --num_classes=1000 --per_batch_size=256 --max_epoch=300",
    ],
)
def test_the_recipes_own_values_are_no_override(flags):
    assert reading_of("train", ["--backbone=googlenet", *flags.split()], 8).flags == []


@pytest.mark.parametrize(
    ("line", "code", "words"),
    [
        ("tools/train.py --backbone=vgg16", Exit.USAGE, "googlenet, inceptionv2"),
        ("tools/train.py", Exit.USAGE, "which network"),
        ("tools/train.py --backbone=googlenet --max_epo=3", Exit.USAGE, "unrecognized"),
        ("tools/train.py --backbone=googlenet --image_size=299,299", Exit.USAGE, "takes 224"),
        ("tools/train.py --backbone=googlenet --image_size=224,200", Exit.USAGE, "square"),
        ("tools/train.py --backbone=googlenet --num_classes=7", Exit.USAGE, "7 classes"),
        ("tools/train.py --backbone=googlenet --pretrained=a.ckpt", Exit.USAGE, "tools/test.py"),
        ("tools/train.py --backbone=googlenet --T_max=100", Exit.USAGE, "ends with the run"),
        ("tools/train.py --backbone=googlenet --lr=fast", Exit.USAGE, "fast"),
        ("tools/train.py --backbone=googlenet --learning_rate=1", Exit.USAGE, "unrecognized"),
        ("tools/report.py", Exit.USAGE, "train.py or tools/test.py"),
        ("--mode test tools/train.py --backbone=googlenet", Exit.USAGE, "does not fit"),
        ("--nproc_per_node=0 tools/train.py", Exit.USAGE, "whole number"),
        ("--nproc_per_node=5 tools/train.py --backbone=googlenet", Exit.NO_SUCH_RUN, "5 cards"),
        ("tools/test.py --backbone=googlenet", Exit.USAGE, "which weights"),
        ("tools/test.py --pretrained=/nothing", Exit.NO_WEIGHTS, "/nothing"),
    ],
)
def test_what_cannot_be_read_says_so_in_one_line(line, code, words):
    with pytest.raises(ProofrunError) as caught:
        read(line)
    assert caught.value.exit_code is code
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_ten_classes_have_two_data_sets():
    words = ["--backbone=googlenet", "--num_classes=10"]
    with pytest.raises(ProofrunError, match="say which with --dataset"):
        reading_of("train", words, 1)
    found = reading_of("train", [*words, "--dataset=Cifar10", "--max_epoch=125"], 8)
    assert str(found.run) == "GoogLeNet-Cifar10_AMP_125E_8NPUs_Train" and found.flags == []


@pytest.mark.parametrize(
    "flags",
    [
        "--dataset=Cifar10",
        "--dataset=ImageNet --num_classes=1000",
        "--dataset=Nonsense",
        "--num_classes=1000",
        "--backbone=inceptionv2",
        "--backbone=googlenet --num_classes=1000",
        "--backbone=googlenet --dataset=Cifar10 --num_classes=10",
        "--run=GoogLeNet_FP16_8GPUs_Infer",
        "--run=Inceptionv2-Digits_FP32_1CPU_Infer",
    ],
)
def test_a_flag_that_contradicts_the_weights(tmp_path, flags):
    """Nothing is scored as something else without a word, on whichever host."""
    state = build_network("googlenet").state_dict()
    name = "GoogLeNet-Digits_FP32_10E_1CPU_Train"
    saved, _ = checkpoint.save(tmp_path, 1, state, {}, {"epoch": 1.0, "run": name})
    fits = ["--backbone=GoogLeNet", "--dataset=Digits", "--num_classes=10"]
    found = reading_of("test", [str(saved), *fits], None)
    assert str(found.run) == "GoogLeNet-Digits_FP32_1CPU_Infer"
    with pytest.raises(UsageError) as caught:
        reading_of("test", [str(saved), *flags.split()], None)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("run", "code"),
    [
        ("GoogLeNet_FP16_8GPUs_Infer", None),
        ("GoogLeNet_FP16_7GPUs_Infer", Exit.NO_SUCH_RUN),
        ("GoogLeNet_AMP_300E_8GPUs_Train", Exit.USAGE),
    ],
)
def test_a_run_named_outright(tmp_path, run, code):
    save_file(build_network("googlenet", num_classes=1000).state_dict(), tmp_path / "w.safetensors")
    words = [str(tmp_path / "w.safetensors"), "--backbone=googlenet", "--run", run]
    if code is None:
        assert str(reading_of("test", words, None).run) == run
        return
    with pytest.raises(ProofrunError) as caught:
        reading_of("test", words, None)
    assert caught.value.exit_code is code


def stub(tmp_path: Path) -> dict[str, str]:
    """An interpreter that prints what it is given, for the run script to call."""
    python = tmp_path / "python3"
    python.write_text('#!/bin/sh\necho "$@"\necho "visible: $ASCEND_RT_VISIBLE_DEVICES $SEEN"\n')
    python.chmod(0o755)
    return {"PYTHON": str(python), "PATH": "/usr/bin:/bin"}


def call(tmp_path: Path, line: str) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, str(ROOT / "tools" / "launch.py"), *shlex.split(line)]
    return subprocess.run(
        words, env=stub(tmp_path), cwd=tmp_path, capture_output=True, text=True, timeout=60
    )


def test_it_becomes_the_run_script_with_the_cards_and_the_environment(tmp_path):
    (tmp_path / "mine.sh").write_text("export SEEN=mine\n")
    done = call(tmp_path, PUBLISHED.replace("--env_sh=env.sh", "--env_sh=mine.sh"))
    assert done.returncode == 0, done.stderr
    assert "launch.py GoogLeNet_AMP_300E_8NPUs_Train --data /data" in done.stdout
    assert "visible: 0,1,2,3,4,5,6,7 mine" in done.stdout
    assert "--server_id: nothing to do" in done.stderr
    launch.parse(["GoogLeNet_AMP_300E_8NPUs_Train", "--data", "/data"])  # and launch takes it


def test_more_processes_than_visible_cards(tmp_path):
    done = call(tmp_path, PUBLISHED.replace("0,1,2,3,4,5,6,7", "0,1"))
    assert done.returncode == Exit.NO_DEVICE and done.stdout == ""
    assert done.stderr == (
        "launch.py: --nproc_per_node=8, but --visible_devices names 2: give as many of both\n"
    )


@pytest.mark.parametrize(
    ("cards", "words"), [("0,0,1,2,3,4,5,6,7", "twice"), ("a,1", "'a'"), ("", "''")]
)
def test_visible_devices_are_cards(tmp_path, cards, words):
    done = call(tmp_path, PUBLISHED.replace("0,1,2,3,4,5,6,7", cards))
    assert done.returncode == Exit.USAGE and done.stdout == ""
    assert words in done.stderr and done.stderr.count("\n") == 1


def test_a_factor_of_no_smoothing_is_said_to_mean_nothing():
    reading = read("tools/train.py --backbone=googlenet --label_smooth=0 --label_smooth_factor=0.2")
    assert any("--label_smooth_factor: nothing to do" in note for note in reading.notes)


def test_help_groups_every_flag():
    for parser in (training_parser(), scoring_parser(), launch_parser()):
        grouped = [action for group in parser._action_groups[2:] for action in group._group_actions]
        assert len(parser._action_groups) > 2 and grouped
        for action in grouped:
            assert action.default in (None, False)  # the recipe is the only source of values
    text = training_parser().format_help()
    assert "accepted, and nothing to do here" in text and "the recipe's values" in text


def commands() -> list[list[str]]:
    """Every command of the page, its continuation lines joined."""
    found = []
    for block in re.findall(r"```bash\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            if line.strip() and not line.startswith(("#", "export ", "cd ")):
                found.append(shlex.split(line, comments=True))
    return found


def test_every_command_of_the_page_is_understood(tmp_path, monkeypatch):
    """New commands parse to a declared run; nothing on the page is for show."""
    save_file(build_network("googlenet", num_classes=1000).state_dict(), tmp_path / "w.safetensors")
    seen = set()
    for words in commands():
        program = words[1]
        if program.startswith("run_scripts/"):
            assert (ROOT / program).exists()
            launch.parse([Path(program).stem, *words[2:]])
        elif program == "tools/launch.py":
            options = parse_launch(words[2:])
            given = [re.sub(r"^--pretrained=.*", f"--pretrained={tmp_path}", w)
                     for w in options.arguments]  # fmt: skip
            found = reading_of(options.task, given, options.nproc_per_node)
            assert (ROOT / "run_scripts" / f"{found.run}.sh").exists()
            launch.parse([str(found.run), *found.flags])
        elif program in ("tools/train.py", "tools/test.py"):
            {"tools/train.py": training_parser, "tools/test.py": scoring_parser}[
                program
            ]().parse_args(words[2:])
        else:
            assert (ROOT / program).exists(), words
        seen.add(program)
    assert {"tools/launch.py", "tools/test.py", "tools/train.py"} <= seen
