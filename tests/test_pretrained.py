"""Weights from anywhere: what is recognised, how it is used, and what is refused in one line."""

from __future__ import annotations

import json
import os
import shutil
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from networks import RECIPES, build_network
from safetensors.torch import save_file
from torch import nn

from proofrun import checkpoint
from proofrun.candidates import last_training, weights_at
from proofrun.device import Device
from proofrun.errors import CheckpointError, Exit, UsageError
from proofrun.evaluate import Inputs
from proofrun.fuse import TOLERANCE, difference, fused, ready
from proofrun.pretrained import load, recipe_of
from proofrun.recipe import Recipe
from proofrun.recipe_yaml import load_recipe
from proofrun.runs import RunName
from proofrun.vision import import_torchvision


def recipe(name: str, data: str = "Digits") -> Recipe:
    return load_recipe(RECIPES / name / "recipe.yaml")[data]


def shaken(model: nn.Module) -> nn.Module:
    """With BatchNorm statistics as after some training, so that fusing is no identity."""
    generator = torch.Generator().manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor, low in (
                (module.running_mean, -0.3), (module.running_var, 0.5),
                (module.weight.data, 0.5), (module.bias.data, -0.3),
            ):  # fmt: skip
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + low)
    return model.eval()


@pytest.fixture(scope="module")
def theirs() -> dict[str, nn.Module]:
    """The two published networks as their own packages build them, for ten classes."""
    models = import_torchvision().models
    with warnings.catch_warnings():  # the package is from 2019
        warnings.simplefilter("ignore")
        import pretrainedmodels
    cadene = pretrainedmodels.bninception(num_classes=10, pretrained=None)
    cadene.global_pool = nn.AdaptiveAvgPool2d(1)  # theirs is for 224 px alone
    torchvision = models.googlenet(aux_logits=True, init_weights=False, num_classes=10)
    return {"inceptionv2": shaken(cadene), "googlenet": shaken(torchvision)}


@pytest.mark.parametrize(
    ("name", "origin"),
    [("inceptionv2", "Cadene's bninception"), ("googlenet", "torchvision's googlenet")],
)
def test_published_weights_give_the_logits_of_their_own_package(theirs, tmp_path, name, origin):
    """Also from the file format of their time, and through our pixels and input rule."""
    path = tmp_path / "weights.pth"
    torch.save(theirs[name].state_dict(), path, _use_new_zipfile_serialization=False)
    folder, found = recipe_of(path, "Digits")
    assert (folder, found.name) == (RECIPES / name, recipe(name).name)
    weights = load(path, found)
    assert weights.origin == origin and len(weights.sha256) == 64

    pixels = torch.randint(0, 256, (2, 224, 224, 3), dtype=torch.uint8)
    ours = weights.build(folder)
    inputs = Inputs(weights.recipe.data.normalize, torch.device("cpu"), weights.bgr)
    plain = pixels.permute(0, 3, 1, 2).float()
    if name == "inceptionv2":  # pretrained_settings: BGR, 0 to 255, minus 104, 117, 128
        expected = plain.flip(1) - torch.tensor([104.0, 117.0, 128.0]).view(1, 3, 1, 1)
    else:  # transform_input: what it makes of ImageNet's normalisation
        expected = plain / 255 * 2 - 1
    assert torch.allclose(inputs(pixels), expected, atol=1e-3)
    with torch.no_grad():
        assert torch.allclose(ours(expected), theirs[name](expected), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("bgr", [False, True])
@pytest.mark.parametrize("rows", [0, 3])
def test_pixels_are_normalised_to_the_bit_as_channel_by_channel(rows, bgr):
    inputs = Inputs(recipe("googlenet").data.normalize, torch.device("cpu"), bgr)
    pixels = torch.randint(0, 256, (rows, 31, 37, 3), dtype=torch.uint8)
    plain = pixels.permute(0, 3, 1, 2).float()
    plain = plain.flip(1) if bgr else plain
    made = inputs(pixels)
    assert torch.equal(made, plain * inputs.scale[:, None, None] + inputs.shift[:, None, None])
    assert made.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("name", ["inceptionv2", "googlenet"])
def test_our_files_bare_or_wrapped(tmp_path, name):
    model = build_network(name)
    state = model.state_dict()
    save_file(state, tmp_path / "a.safetensors")
    torch.save({"epoch": 3, "state_dict": {f"module.{k}": v for k, v in state.items()}},
               tmp_path / "b.pth")  # fmt: skip
    for path in weights_at(tmp_path):
        found = load(path, recipe(name))
        assert found.origin.startswith("our ") and not found.bgr
        assert checkpoint.state_hash(found.build(RECIPES / name).state_dict()) == (
            checkpoint.state_hash(state)
        )


@pytest.mark.parametrize("name", ["inceptionv2", "googlenet"])
def test_fusing_keeps_the_function(name):
    model = shaken(build_network(name))
    net = fused(model)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in net.modules())
    assert any(isinstance(module, nn.BatchNorm2d) for module in model.modules())
    assert 0 < difference(model, net, 64) <= TOLERANCE


def test_statistics_that_cannot_be_fused_are_refused(tmp_path):
    """A mean so large that only a fused bias can take it back; a variance below zero."""
    device = Device("CPU", "FP32", recipe("googlenet").precision)
    for changes, said in (
        ({"running_mean": 1e6, "bias": 1e6}, "statistics are not usable"),
        ({"running_var": -1.0}, "its logits are not finite, though every weight is"),
    ):
        model = build_network("googlenet")
        for name, value in changes.items():
            getattr(model.features.conv2.bn, name).data.fill_(value)
        path = tmp_path / "odd.safetensors"
        save_file(model.state_dict(), path)
        weights = load(path, recipe("googlenet"))
        with pytest.raises(CheckpointError, match=said):
            ready(weights, weights.build(RECIPES / "googlenet"), device)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("fc.weight", float("nan")),
        ("features.conv2.conv.weight", float("inf")),
        ("features.conv2.bn.running_var", float("nan")),
    ],
)
def test_a_number_that_is_not_finite_is_named(tmp_path, key, value):
    """In a file, in a checkpoint, and in what rank 0 alone had."""
    state = build_network("googlenet").state_dict()
    bad = {name: t.clone() for name, t in state.items()}
    bad[key].view(-1)[0] = value
    save_file(bad, tmp_path / "bad.safetensors")
    buffers = [{"buffers": {key: bad[key]}}] * 2
    whole, _ = checkpoint.save(tmp_path / "c", 1, bad, {}, {"epoch": 1.0})
    rank0, _ = checkpoint.save(tmp_path / "d", 1, state, {"ranks": buffers}, {"epoch": 1.0})
    for path in (tmp_path / "bad.safetensors", whole, rank0):
        with pytest.raises(CheckpointError, match=f"{key} holds a NaN or an infinity") as caught:
            load(path, recipe("googlenet"))
        assert caught.value.exit_code is Exit.BAD_CHECKPOINT


class Payload:
    """What a hostile file would do when unpickled."""

    def __reduce__(self) -> Any:
        return exec, ("raise SystemExit('code of a file was run')",)


def truncated(folder: Path) -> Path:
    path = folder / "cut.safetensors"
    save_file(build_network("googlenet").state_dict(), path)
    path.write_bytes(path.read_bytes()[:100_000])
    return path


def hostile(folder: Path) -> Path:
    torch.save({"conv1.conv.weight": Payload()}, folder / "code.pth")
    return folder / "code.pth"


def text(folder: Path) -> Path:
    (folder / "words.pth").write_text("these are no weights")
    return folder / "words.pth"


def other_network(folder: Path) -> Path:
    save_file(build_network("inceptionv2").state_dict(), folder / "other.safetensors")
    return folder / "other.safetensors"


def no_network(folder: Path) -> Path:
    torch.save({"weight": torch.zeros(3)}, folder / "tensor.pt")
    return folder / "tensor.pt"


def more_classes(folder: Path) -> Path:
    save_file(build_network("googlenet", num_classes=1000).state_dict(), folder / "k.safetensors")
    return folder / "k.safetensors"


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (truncated, Exit.BAD_CHECKPOINT),
        (hostile, Exit.BAD_CHECKPOINT),
        (text, Exit.BAD_CHECKPOINT),
        (other_network, Exit.FOREIGN_WEIGHTS),
        (no_network, Exit.FOREIGN_WEIGHTS),
        (more_classes, Exit.WEIGHTS_CLASSES),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_what_cannot_be_used_says_so_in_one_line(tmp_path, make, code):
    path = make(tmp_path)
    with pytest.raises(CheckpointError) as caught:
        load(path, recipe("googlenet"))
    assert caught.value.exit_code is code
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


RUN = "GoogLeNet-Digits_FP32_10E_1CPU_Train"


def run_of_two(logs: Path) -> list[Path]:
    """A run folder's two checkpoints, whole, as training leaves them but for the plan."""
    folder = logs / RUN / "001" / "checkpoints"
    state = build_network("googlenet").state_dict()
    for step in (22, 44):
        checkpoint.save(folder, step, state, {}, {"epoch": step / 22, "run": RUN})
    return checkpoint.all_in(folder)


@pytest.mark.parametrize("place", ["weights", "meta"])
def test_of_a_run_the_newest_good_checkpoint_is_meant(tmp_path, place):
    first, second = run_of_two(tmp_path)
    run = first.parent.parent
    assert weights_at(run) == [second]
    if place == "weights":
        file = second / "model.safetensors"
        file.write_bytes(file.read_bytes()[:-5000])
    else:
        (second / "meta.json").write_text("{")
    skipped: list[str] = []
    assert weights_at(run, skipped) == [first] == weights_at(run.parent)
    assert len(skipped) == 1 and str(second) in skipped[0] and "damaged" in skipped[0]
    assert weights_at(second.parent) == [first, second]  # a folder of them: each is judged
    (first / "meta.json").write_text("{")
    assert weights_at(run) == [second]  # who reads it says what is wrong
    with pytest.raises(CheckpointError, match="damaged"):
        load(second, recipe("googlenet"))


def test_a_checkpoint_says_its_run_wherever_it_lies(tmp_path):
    """By its own file, renamed, copied elsewhere; and what is scored on other data is refused."""
    _, second = run_of_two(tmp_path)
    (elsewhere,) = weights_at(Path(shutil.copytree(second, tmp_path / "mine")))
    for path in (second, elsewhere):
        (found,) = weights_at(path / "model.safetensors")
        assert found == path
        folder, own = recipe_of(found)
        assert (folder, own.data.name) == (RECIPES / "googlenet", "Digits")
        assert load(found, own).step == 44
        with pytest.raises(CheckpointError, match="weights of GoogLeNet for Digits") as caught:
            load(found, recipe("googlenet", "Cifar10"))
        assert caught.value.exit_code is Exit.FOREIGN_WEIGHTS
    (elsewhere / "meta.json").unlink()  # then it is a file like any other
    with pytest.raises(UsageError, match="say which: --dataset Digits or Cifar10"):
        recipe_of(*weights_at(elsewhere / "model.safetensors"))


def test_a_data_set_that_contradicts_the_weights_is_refused(tmp_path):
    _, last = run_of_two(tmp_path)
    assert recipe_of(last, "Digits")[1].data.name == "Digits"
    for data, said in (("Cifar10", "trained on Digits, not on Cifar10"), ("Nonsense", "one of")):
        with pytest.raises(UsageError, match=said):
            recipe_of(last, data)


def test_what_is_neither_file_nor_folder(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (Path("/dev/null"), tmp_path / "pipe"):
        with pytest.raises(CheckpointError, match="neither a file nor a folder") as caught:
            weights_at(path)
        assert caught.value.exit_code is Exit.NO_WEIGHTS


def test_what_a_path_names(tmp_path):
    run = tmp_path / "GoogLeNet-Digits_FP32_10E_1CPU_Train" / "001"
    for step in (22, 44):
        folder = run / "checkpoints" / f"step-{step:010d}"
        folder.mkdir(parents=True)
        (folder / "meta.json").touch()
    (run / "checkpoints" / "latest").symlink_to("step-0000000044")
    last = run / "checkpoints" / "step-0000000044"
    assert weights_at(run) == [last] == weights_at(run.parent)
    assert weights_at(run / "checkpoints") == sorted((run / "checkpoints").glob("step-*"))
    assert weights_at(run / "checkpoints" / "latest") == [run / "checkpoints" / "latest"]
    for wrong in (tmp_path / "nothing", run / "checkpoints" / ".." / ".." / "002"):
        with pytest.raises(CheckpointError) as caught:
            weights_at(wrong)
        assert caught.value.exit_code is Exit.NO_WEIGHTS
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match="no weights in there"):
        weights_at(tmp_path / "empty")

    infer = RunName.parse("GoogLeNet-Digits_FP32_1CPU_Infer")
    with pytest.raises(CheckpointError, match="no finished training"):
        last_training(tmp_path, infer)
    status = {"status": "finished", "code": 0, "message": "", "rank": 0, "t_wall": 5.0}
    (run / "status.json").write_text(json.dumps(status))
    assert last_training(tmp_path, infer) == run
    with pytest.raises(CheckpointError, match="no finished training"):
        last_training(tmp_path, RunName.parse("GoogLeNet_FP32_1NPU_Infer"))
