"""What needs an NVIDIA GPU with apex: its FusedSGD against torch's own. Not part of CI."""

from __future__ import annotations

import torch
from torch import nn

from proofrun import preflight
from proofrun.device import Device
from proofrun.optim import Stepper, build_optimizer, build_scaler, losses
from proofrun.recipe_yaml import load_recipe
from proofrun.runs import RunName

from .helpers import ROOT

STEPS = 20


def test_apex_fused_sgd_trains_as_torch_does(evidence):
    preflight.check_apex(RunName.parse("GoogLeNet_FP32_300E_1GPU_Train"))
    recipe = load_recipe(ROOT / "recipes/googlenet/recipe.yaml")["ImageNet"]
    weights = {}
    for implementation in ("torch", "apex"):
        spec = recipe.optimizer.model_copy(update={"implementation": implementation})
        device = Device("GPU", "FP32", recipe.precision)
        torch.manual_seed(0)
        net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(288, 10))
        net.to(device.torch_device)
        optimizer = build_optimizer(net, spec)
        stepper = Stepper(optimizer, build_scaler(device.amp, device), device)
        images = torch.randn(16, 3, 8, 8, device=device.torch_device)
        labels = torch.arange(16, device=device.torch_device) % 10
        for step in range(STEPS):
            stepper.apply(losses(net(images), labels, 0.1)[0], step, 0.05)
        assert stepper.check() == 0
        weights[type(optimizer).__name__] = torch.cat(
            [p.detach().flatten() for p in net.parameters()]
        )
    ours, theirs = weights["SGD"], weights["FusedSGD"]
    worst = float((ours - theirs).abs().max() / ours.abs().max())
    evidence.figure(
        f"apex FusedSGD against torch, {STEPS} steps, worst weight", f"{worst:.1e}", "1e-5"
    )
    assert worst < 1e-5
