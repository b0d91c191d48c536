"""Trains a few steps exactly as a run does, under a probe: the trace of one machine."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import nn

from proofrun.device import Device
from proofrun.errors import UsageError
from proofrun.evaluate import Inputs
from proofrun.models import build_model
from proofrun.optim import Stepper, build_optimizer, build_scaler, learning_rate, losses
from proofrun.recipe import Precision, PrecisionRules, Recipe
from proofrun.runs import DeviceKind
from proofrun.session import wrap

from . import streams
from .probe import Probe
from .trace import Exercise, Header, Made, Trace

#: Also float64, which no run trains in: the reference.
AnyPrecision = Literal["FP64", Precision]

#: A dynamic loss scale is held here: a step that one machine skips and another does not would part
#: them for no fault of either.
LOSS_SCALE = 1024.0

#: Of the recipe's rate. At the full one the rounding of float32 grows into another trajectory
#: within three steps (forward 5e-6, 5e-5, 4e-2), and no bound could tell a fault from it.
LR_SHARE = 0.01


def exercise(
    recipe: Recipe, recipe_dir: Path, seed: int, steps: int, batch: int, ranks: int
) -> Exercise:
    """The exercise of these numbers, with the hashes of what it is made from."""
    facts = recipe.model_dump(
        mode="json", include={"model", "optimizer", "schedule", "loss"}, by_alias=True
    )
    facts["optimizer"].pop("implementation")  # that may differ
    facts["normalize"] = recipe.data.normalize.model_dump(mode="json")
    size, classes = recipe.data.train.image_size, recipe.data.classes
    model = build_model(recipe_dir, recipe.model, classes)
    images: dict[str, np.ndarray] = {}
    for step in range(steps):
        for rank in range(ranks):
            made = streams.batch(step, rank, batch, size, classes, seed)
            images |= {f"{step}/{rank}": made.pixels, f"{step}/{rank}/labels": made.labels}
    return Exercise(
        recipe=recipe.name,
        data=recipe.data.name,
        recipe_hash=hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest(),
        weights_hash=streams.digest(_weights(model, seed)),
        images_hash=streams.digest(images),
        seed=seed,
        steps=steps,
        batch=batch,
        ranks=ranks,
        image_size=size,
        classes=classes,
    )


def _weights(model: nn.Module, seed: int) -> dict[str, np.ndarray]:
    return {
        name: streams.weight(name, tuple(parameter.shape), seed)
        for name, parameter in model.named_parameters()
    }


class Session:
    """One rank of an exercise. What a fault or a harmless variant changes is an attribute here.

    Raises DeviceError; UsageError when the world is not that of the exercise.
    """

    def __init__(
        self,
        of: Exercise,
        recipe: Recipe,
        recipe_dir: Path,
        precision: AnyPrecision,
        kind: DeviceKind,
        channels_last: bool = True,
    ) -> None:
        self.exercise, self.recipe, self.precision = of, recipe, precision
        self.device = Device(
            kind, "FP32" if precision == "FP64" else precision, _held(recipe.precision)
        )
        if self.device.world != of.ranks:
            raise UsageError(f"{self.device.world} ranks run an exercise of {of.ranks}")
        place = self.device.torch_device
        self.dtype = torch.float64 if precision == "FP64" else torch.float32
        self.layout = torch.channels_last if channels_last else torch.contiguous_format
        self.model = build_model(recipe_dir, recipe.model, of.classes)
        with torch.no_grad():
            for name, value in _weights(self.model, of.seed).items():
                self.model.get_parameter(name).copy_(torch.from_numpy(value))
        self.model.to(place, self.dtype).to(memory_format=self.layout)  # type: ignore[call-overload]
        self.model.train()
        for module in self.model.modules():
            if isinstance(module, nn.modules.dropout._DropoutNd):
                module.eval()  # no two machines draw the same mask
        self.inputs: Callable[[torch.Tensor], torch.Tensor] = Inputs(recipe.data.normalize, place)
        self.smoothing = recipe.loss.label_smoothing
        self.make_stepper()
        self.net = wrap(self.model, self.device)
        self.order: torch.Tensor | None = None
        self.probe: Probe | None = None

    def make_stepper(self, fused: bool = True) -> None:
        optimizer = build_optimizer(self.model, self.recipe.optimizer)
        if not fused:
            state = optimizer.state
            optimizer = torch.optim.SGD(
                optimizer.param_groups, momentum=self.recipe.optimizer.momentum, fused=False
            )
            optimizer.state = state
            for group in optimizer.param_groups:
                group["fused"] = False
        scaler = build_scaler(self.device.amp, self.device)
        self.stepper = Stepper(optimizer, scaler, self.device)

    def lr(self, step: int) -> float:
        """The rate of a step: the exercise walks through the whole schedule of the recipe."""
        schedule = self.recipe.schedule
        peak = self.recipe.optimizer.lr.at(self.exercise.batch * self.exercise.ranks) * LR_SHARE
        return learning_rate(schedule, peak, step * schedule.epochs // self.exercise.steps, 1)

    def run(self, steps: int, note: str = "") -> Trace | None:
        """The first `steps` steps; the trace of all ranks on rank 0, None elsewhere."""
        start = time.monotonic()
        exact = self.device.kind in ("CPU", "GPU")  # the others may lack float64
        probe = Probe(self.model, self.device.torch_device, exact)
        self.probe, probe.order = probe, self.order
        optimizer = self.stepper.optimizer
        hook = optimizer.register_step_pre_hook(lambda o, _args, _kwargs: probe.gradients(o))
        scalars = [self._step(step, probe) for step in range(steps)]
        for handle in [*probe.handles, hook]:
            handle.remove()
        rows = probe.rows()
        stats = probe.values(rows)
        norms = probe.grad_norms()
        own = np.array([[loss, norm, lr] for (loss, lr), norm in zip(scalars, norms, strict=True)])
        ranks = self.device.gather((stats, own))
        if not ranks:
            return None
        header = Header(
            schema_=1,
            exercise=self.exercise,
            made=Made(
                precision=self.precision,
                device=self.device.kind,
                device_name=self.device.name,
                torch=torch.__version__,
                numpy=np.__version__,
                date=time.strftime("%Y-%m-%d", time.gmtime()),
                took_s=round(time.monotonic() - start, 1),
                note=note,
            ),
            rows=tuple(rows),
        )
        return Trace(header, np.stack([r[0] for r in ranks]), np.stack([r[1] for r in ranks]))

    def _step(self, step: int, probe: Probe) -> tuple[float, float]:
        """One step of the training loop; (loss, learning rate that the optimizer was given)."""
        device, of = self.device, self.exercise
        made = streams.batch(step, device.rank, of.batch, of.image_size, of.classes, of.seed)
        pixels, labels = torch.from_numpy(made.pixels), torch.from_numpy(made.labels)
        if self.order is not None:
            pixels, labels = pixels[self.order], labels[self.order]
        labels = labels.to(device.torch_device)
        images = self.inputs(pixels).to(self.dtype)
        images = images.contiguous(memory_format=self.layout)
        probe.input(images)
        scaler = self.stepper.scaler
        probe.scale = 1.0 if scaler is None else float(scaler.get_scale())
        with device.autocast():
            logits = self.net(images)
        loss, _ = losses(logits, labels, self.smoothing)
        self.stepper.apply(loss, step, self.lr(step))
        probe.after_step(self.stepper.optimizer)
        return float(loss.detach()), float(self.stepper.optimizer.param_groups[0]["lr"])


def _held(rules: PrecisionRules) -> PrecisionRules:
    if rules.amp.loss_scale != "dynamic":
        return rules
    return PrecisionRules(amp=rules.amp.model_copy(update={"loss_scale": LOSS_SCALE}))
