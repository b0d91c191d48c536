"""A training step: what all loops are given, ours, and the networks of the peers.

The loops are written anew after the settings of torchvision's classification reference and of
timm's trainer (benchmarks.peer_loops).
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from benchmarks.turns import Cost, Stopwatch
from proofrun.data import Batch
from proofrun.device import Device
from proofrun.evaluate import Inputs
from proofrun.models import build_model
from proofrun.optim import Stepper, build_optimizer, build_scaler, losses
from proofrun.recipe import Recipe
from proofrun.recipe_yaml import load_recipe
from proofrun.vision import import_torchvision
from proofrun.weights import convert
from proofrun.window import Window

ROOT = Path(__file__).resolve().parent.parent
Precision = Literal["FP32", "BF16"]

#: Small, so that rounding does not grow into another loss within the checked steps.
LR = 0.001
#: Steps whose losses are compared before anything is timed.
CHECKED_STEPS = 3
#: The largest difference of a loss, relative to the reference's.
LOSS_WITHIN: dict[Precision, float] = {"FP32": 5e-3, "BF16": 2e-2}
#: Ours built as torchvision's network; the same function of its weights. (Dropout would draw.)
AS_TORCHVISION = {"pooling": "ceil", "classifier_bias": True, "bn_eps": 1e-3, "dropout": 0.0}


@dataclass
class Problem:
    """One network, its weights at the start, and batches of uint8 (B, H, W, 3) with labels."""

    recipe: Recipe
    recipe_dir: Path
    start: dict[str, Tensor]
    batches: list[Batch]
    precision: Precision

    @property
    def smoothing(self) -> float:
        return self.recipe.loss.label_smoothing

    def normalised(self) -> list[tuple[Tensor, Tensor]]:
        """The batches as peers' loaders hand them over: float32 NCHW."""
        inputs = Inputs(self.recipe.data.normalize, torch.device("cpu"))
        return [(inputs(b.images).contiguous(), b.labels) for b in self.batches]


class Loop:
    """A training loop of one contender, a step at a time."""

    def __init__(self, name: str, step: Callable[[int, Any], Tensor], batches: Sequence[Any]):
        self.name = name
        self._step = step
        self._batches = itertools.cycle(batches)
        self._count = 0

    def step(self, batch: Any = None) -> Tensor:
        """Train on `batch`, or the next of its own; returns the loss, which is not waited for."""
        loss = self._step(self._count, next(self._batches) if batch is None else batch)
        self._count += 1
        return loss.detach()

    def window(self, steps: int, batch: int) -> Cost:
        """`steps` of `batch` images."""
        watch = Stopwatch()
        for _ in range(steps):
            last = self.step()
        float(last)
        return watch.window(steps * batch)


def peer_network(name: str) -> nn.Module:
    """The peers' network of a recipe, with 1000 classes and fresh weights of seed 0."""
    vision = import_torchvision()
    with warnings.catch_warnings():  # pretrainedmodels is from 2019
        warnings.simplefilter("ignore")
        import pretrainedmodels
    torch.manual_seed(0)
    if name == "GoogLeNet":
        network = vision.models.googlenet(aux_logits=False, init_weights=False, dropout=0.0)
        for conv in (m for m in network.modules() if isinstance(m, nn.Conv2d)):
            nn.init.kaiming_uniform_(conv.weight, nonlinearity="relu")
        return network
    return pretrainedmodels.bninception(num_classes=1000, pretrained=None)


def problem(recipe_dir: Path, precision: Precision, batches: list[Batch]) -> Problem:
    """A network with weights that its peers share."""
    recipe = load_recipe(recipe_dir / "recipe.yaml")["ImageNet"]
    if recipe.name == "GoogLeNet":
        network = recipe.model.model_copy(update={"options": AS_TORCHVISION})
        recipe = recipe.model_copy(update={"model": network})
    return Problem(recipe, recipe_dir, peer_network(recipe.name).state_dict(), batches, precision)


def ours(
    task: Problem,
    name: str = "ours",
    layout: torch.memory_format = torch.channels_last,
    fused: bool = True,
    sync: bool = False,
    change: Callable[[nn.Module], nn.Module] = lambda network: network,
) -> Loop:
    """The product's step, as `proofrun.train.train` does it; the flags undo one choice each."""
    recipe = task.recipe
    device = Device("CPU", task.precision, recipe.precision)
    model = build_model(task.recipe_dir, recipe.model, 1000)
    model.load_state_dict(convert(task.start, recipe.name))
    model = model.to(memory_format=layout)  # type: ignore[call-overload]
    optimizer = build_optimizer(model, recipe.optimizer)
    if not fused:
        groups = [{k: g[k] for k in ("params", "weight_decay")} for g in optimizer.param_groups]
        optimizer = torch.optim.SGD(groups, lr=0.0, momentum=recipe.optimizer.momentum)
    stepper = Stepper(optimizer, build_scaler(device.amp, device), device)
    inputs = Inputs(recipe.data.normalize, device.torch_device)
    window = Window(10, device.torch_device, None)
    net = change(model).train()
    window.start()

    def step(count: int, batch: Batch) -> Tensor:
        with device.autocast():
            logits = net(inputs(batch.images).contiguous(memory_format=layout))
        loss, ce = losses(logits, batch.labels, task.smoothing)
        stepper.apply(loss, count, LR)
        window.add(loss, ce, LR, len(batch.labels), 0.0)
        if sync:
            float(loss.detach())
        if window.full:
            window.read()
            stepper.check()
            window.start()
        return loss

    return Loop(name, step, task.batches)


def first_losses(loop: Loop, steps: int = CHECKED_STEPS) -> list[float]:
    """Losses of the first steps from the common weights."""
    return [float(loop.step()) for _ in range(steps)]
