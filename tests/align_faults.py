"""Planted faults: each changes the network, the optimizer or the loss as a faulty machine would."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

from proofrun.recipe import Amp
from tools._align import bounds, home
from tools._align.diff import Comparison, Finding, compare
from tools._align.engine import AnyPrecision, Session, exercise
from tools._align.trace import Exercise, Trace, load
from tools._align.variants import round_layer


class Fault(NamedTuple):
    """What is done, and what must be said of it: the place (a pattern where the fault is in many),
    its kind, the looks that are right."""

    name: str
    recipe: str
    plant: Callable[[Session], None]
    place: str
    kind: str
    looks: tuple[str, ...]
    step: int = 0
    precision: AnyPrecision = "FP32"
    steps: int = home.QUICK_STEPS

    def named(self, found: Finding) -> bool:
        """Whether the step, the place and the look are those of this fault."""
        place = self.place if "\\" in self.place else re.escape(self.place)
        return (
            (found.step, found.place.kind) == (self.step, self.kind)
            and re.fullmatch(place, found.place.name) is not None
            and found.look.sort in self.looks
        )


def modules(session: Session, kind: type[nn.Module]) -> list[nn.Module]:
    return [m for m in session.model.modules() if isinstance(m, kind)]


def bn_momentum(session: Session) -> None:
    for bn in modules(session, nn.BatchNorm2d):
        bn.momentum = 0.9


def bn_eps(session: Session) -> None:
    for bn in modules(session, nn.BatchNorm2d):
        bn.eps = 1e-3


def pooling_rounded_up(session: Session) -> None:
    session.model.get_submodule("features.pool1").ceil_mode = True


def count_include_pad(session: Session) -> None:
    for pool in modules(session, nn.AvgPool2d):
        pool.count_include_pad = not pool.count_include_pad


def decay_on_bn(session: Session) -> None:
    optimizer = session.recipe.optimizer.model_copy(update={"decay_bn_and_bias": True})
    session.recipe = session.recipe.model_copy(update={"optimizer": optimizer})
    session.make_stepper()


def label_smoothing(session: Session) -> None:
    classes = session.exercise.classes
    session.smoothing *= (classes - 1) / classes


def without_bias(session: Session) -> None:
    conv = session.model.get_submodule("features.inception4a.b3x3.conv.conv")
    conv.forward = lambda x: F.conv2d(x, conv.weight, None, conv.stride, conv.padding)


def bgr(session: Session) -> None:
    inputs = session.inputs
    session.inputs = lambda pixels: inputs(pixels.flip(-1))


def normalisation(session: Session) -> None:
    std = torch.tensor(session.recipe.data.normalize.std)
    session.inputs.shift[2] = -session.recipe.data.normalize.mean[1] / std[2]


def loss_scale(session: Session) -> None:
    session.device.amp = Amp(dtype="bfloat16", loss_scale=1024.0)
    session.make_stepper()

    def forget(optimizer, _args, _kwargs) -> None:
        optimizer.grad_scale = None

    session.stepper.optimizer.register_step_pre_hook(forget)


def dropout_left_on(session: Session) -> None:
    for dropout in modules(session, nn.Dropout):
        dropout.train()


def late_rate(session: Session) -> None:
    on_time = session.lr
    session.lr = lambda step: on_time(max(0, step - 1))


def one_rounded_layer(session: Session) -> None:
    round_layer(session.model.get_submodule("features.inception4b.b3x3.conv.conv"))


def nesterov(session: Session) -> None:
    for group in session.stepper.optimizer.param_groups:
        group["nesterov"] = True


def relu_missing(session: Session) -> None:
    session.model.get_submodule("features.inception4c.b1x1.relu").forward = lambda x: x


def turned_gradient(session: Session) -> None:
    conv = session.model.get_submodule("features.inception4d.b3x3.conv.conv")
    conv.weight.register_hook(lambda grad: -grad)


def dead_channel(session: Session) -> None:
    def kill(_module, _args, output):
        return output * (torch.arange(output.shape[1]) != 17)[:, None, None]

    conv = session.model.get_submodule("features.inception3b.b3x3.conv.conv")
    conv.register_forward_hook(kill)


def shifted_layer(session: Session) -> None:
    conv = session.model.get_submodule("features.inception3b.b1x1.conv")
    conv.register_forward_hook(lambda _module, _args, output: output + 0.01)


def mirrored_padding(session: Session) -> None:
    conv = session.model.get_submodule("features.inception3a.b3x3.conv.conv")

    def forward(x):
        padded = F.pad(x, (1, 1, 1, 1), mode="reflect")
        return F.conv2d(padded, conv.weight, conv.bias)

    conv.forward = forward


def weights_in_bf16(session: Session) -> None:
    """The optimizer leaves one layer's weights with 7 bits."""
    weight = session.model.get_parameter("features.inception4b.b1x1.conv.weight")

    def cut(_optimizer, _args, _kwargs):
        with torch.no_grad():
            weight.copy_(weight.bfloat16().float())

    session.stepper.optimizer.register_step_post_hook(cut)


def creeping_layer(session: Session) -> None:
    """One layer's weights move a little too far in every step."""
    weight = session.model.get_parameter("features.inception4b.b1x1.conv.weight")

    def further(_optimizer, _args, _kwargs):
        with torch.no_grad():
            weight.mul_(1 + 5e-7)

    session.stepper.optimizer.register_step_post_hook(further)


_OUT = "output"
FAULTS = (
    Fault("BN momentum 0.9", "googlenet", bn_momentum,
          "features.conv1.bn.running_mean", "buffer", ("scale",)),
    Fault("BN eps 1e-3", "googlenet", bn_eps,
          "features.conv1.bn", _OUT, ("scale", "scale and offset")),
    Fault("pooling rounded up", "googlenet", pooling_rounded_up,
          "features.pool1", _OUT, ("shape",)),
    Fault("count_include_pad flipped", "inceptionv2", count_include_pad,
          "features.inception3a.pool.pool", _OUT, ("borders",)),
    Fault("weight decay on BN", "googlenet", decay_on_bn,
          r"features\.\w+\.(\w+\.)*bn\.(weight|bias)", "moment", ("offset",)),
    Fault("label smoothing off by K/(K-1)", "googlenet", label_smoothing,
          "loss", "loss", ("value",)),
    Fault("one convolution without bias", "inceptionv2", without_bias,
          "features.inception4a.b3x3.conv.conv", _OUT, ("offset in each channel",)),
    Fault("RGB swapped to BGR", "googlenet", bgr,
          "input", _OUT, ("colours swapped",)),
    Fault("normalisation off by one channel", "inceptionv2", normalisation,
          "input", _OUT, ("one channel",)),
    Fault("loss scale not undone", "googlenet", loss_scale,
          "fc.weight", "weight_grad", ("scale",), precision="BF16"),
    Fault("dropout left on", "googlenet", dropout_left_on,
          "dropout", _OUT, ("zeros",)),
    Fault("LR one step late", "googlenet", late_rate,
          "lr", "lr", ("value",), step=2),
    Fault("Nesterov's momentum", "inceptionv2", nesterov,
          "features.conv1.conv.weight", "weight", ("scale of the update",)),
    Fault("one layer rounded to 10 bits", "googlenet", one_rounded_layer,
          "features.inception4b.b3x3.conv.conv", _OUT, ("rounding",)),
    Fault("ReLU missing", "googlenet", relu_missing,
          "features.inception4c.b1x1.relu", _OUT, ("zeros",)),
    Fault("sign of one gradient turned", "googlenet", turned_gradient,
          "features.inception4d.b3x3.conv.conv.weight", "weight_grad", ("sign",)),
    Fault("one channel of a convolution dead", "inceptionv2", dead_channel,
          "features.inception3b.b3x3.conv.conv", _OUT, ("one channel",)),
    Fault("a constant added to one layer", "googlenet", shifted_layer,
          "features.inception3b.b1x1.conv", _OUT, ("offset",)),
    Fault("padding mirrored instead of zero", "googlenet", mirrored_padding,
          "features.inception3a.b3x3.conv.conv", _OUT, ("borders",)),
    Fault("one layer's weights kept in bf16", "inceptionv2", weights_in_bf16,
          "features.inception4b.b1x1.conv.weight", "weight", ("rounding",)),
)  # fmt: skip


@functools.cache
def golden(recipe: str) -> tuple[Path, Trace]:
    _, spec = home.find(recipe, "Digits")
    path = home.golden_path(spec, "FP64", 1)
    return path, load(path)


@functools.cache
def again(recipe: str) -> Exercise:
    """The committed exercise, as this checkout makes it."""
    folder, spec = home.find(recipe, "Digits")
    of = golden(recipe)[1].header.exercise
    return exercise(spec, folder, of.seed, of.steps, of.batch, 1)


def replay(
    recipe: str,
    change: Callable[[Session], None],
    steps: int = home.QUICK_STEPS,
    precision: AnyPrecision = "FP32",
    channels_last: bool = True,
) -> Trace:
    """The committed exercise on this CPU, with something changed."""
    folder, spec = home.find(recipe, "Digits")
    session = Session(again(recipe), spec, folder, precision, "CPU", channels_last)
    change(session)
    made = session.run(steps)
    assert made is not None
    return made


def judged(recipe: str, made: Trace) -> Comparison:
    _, spec = home.find(recipe, "Digits")
    path, trusted = golden(recipe)
    return compare(trusted, made, bounds.read(home.bounds_path(spec)), path)
