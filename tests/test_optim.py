"""Schedules against the published figures, losses against their definition, masked steps."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import nn

from proofrun.device import Device, amp_rule
from proofrun.errors import NonFiniteError
from proofrun.optim import (
    MAX_SKIPPED_IN_A_ROW,
    Stepper,
    build_optimizer,
    build_scaler,
    learning_rate,
    losses,
)
from proofrun.recipe import CosineSchedule, PrecisionRules
from proofrun.recipe_yaml import load_recipe
from proofrun.runs import RunName

ROOT = Path(__file__).resolve().parent.parent
INCEPTION = load_recipe(ROOT / "recipes/inceptionv2/recipe.yaml")["ImageNet"]
GOOGLENET, _, CIFAR = load_recipe(ROOT / "recipes/googlenet/recipe.yaml").values()


@pytest.mark.parametrize(
    ("recipe", "world", "epoch", "rate"),
    [
        # Inceptionv2: 0.02 at global batch 512, times 0.1 every 30 epochs
        (INCEPTION, 8, 0, 0.02),
        (INCEPTION, 8, 29, 0.02),
        (INCEPTION, 8, 30, 0.002),
        (INCEPTION, 8, 59, 0.002),
        (INCEPTION, 8, 60, 0.0002),
        (INCEPTION, 8, 90, 0.00002),
        (INCEPTION, 8, 99, 0.00002),
        (INCEPTION, 1, 0, 0.0025),
        # GoogLeNet: 0.1 on 1 and 8 cards, times 0.3 at 70, 140, 210, 280
        (GOOGLENET, 1, 0, 0.1),
        (GOOGLENET, 8, 0, 0.1),
        (GOOGLENET, 8, 69, 0.1),
        (GOOGLENET, 8, 70, 0.03),
        (GOOGLENET, 8, 139, 0.03),
        (GOOGLENET, 8, 140, 0.009),
        (GOOGLENET, 8, 210, 0.0027),
        (GOOGLENET, 8, 280, 0.00081),
        (GOOGLENET, 8, 299, 0.00081),
    ],
)
def test_rates_at_each_boundary(recipe, world, epoch, rate):
    per_epoch = 1_281_167 // (recipe.batch.on(world) * world)
    peak = recipe.optimizer.lr.at(recipe.batch.on(world) * world)
    for step in (epoch * per_epoch, (epoch + 1) * per_epoch - 1):
        found = learning_rate(recipe.schedule, peak, step, per_epoch)
        assert found == pytest.approx(rate, rel=1e-12)


@pytest.mark.parametrize("world", [1, 8])
def test_rates_of_cifar10_change_by_the_share_of_steps(world):
    """At 0.3, 0.6 and 0.8 of all steps, the first of them amid epoch 37; 390 steps on one card."""
    per_epoch = 50_000 // world // 128
    steps = 125 * per_epoch
    rates = [learning_rate(CIFAR.schedule, 0.1, step, per_epoch) for step in range(steps)]
    assert len(rates) == {1: 48_750, 8: 6_000}[world]
    for step, rate in enumerate(rates):
        passed = (step >= 0.3 * steps) + (step >= 0.6 * steps) + (step >= 0.8 * steps)
        assert rate == pytest.approx(0.1 * 0.1**passed, rel=1e-12)


def test_cosine_with_warmup():
    schedule = CosineSchedule(kind="cosine", epochs=10, warmup_epochs=2, min_lr=0.001)
    rates = [learning_rate(schedule, 0.1, step, 5) for step in range(50)]
    assert rates[:10] == pytest.approx([0.01 * (i + 1) for i in range(10)])
    for epoch in range(2, 10):
        expected = 0.001 + 0.099 * (1 + math.cos(math.pi * epoch / 10)) / 2
        assert rates[5 * epoch : 5 * epoch + 5] == pytest.approx([expected] * 5)


@pytest.mark.parametrize("classes", [10, 1000])
def test_smoothing_is_the_published_one(classes):
    """On-value 1 - s, off-value s / (K - 1), written out."""
    logits, labels = torch.randn(8, classes), torch.randint(classes, (8,))
    target = torch.full((8, classes), 0.1 / (classes - 1))
    target[torch.arange(8), labels] = 0.9
    by_hand = -(target * logits.log_softmax(1)).sum(1).mean()
    loss, plain = losses(logits, labels, 0.1)
    assert float(loss) == pytest.approx(float(by_hand), rel=1e-5)
    assert float(plain) == pytest.approx(float(nn.functional.cross_entropy(logits, labels)))
    assert not plain.requires_grad


def test_smoothed_loss_has_the_floor_of_the_sources():
    """1.016 at 1000 classes: the entropy of the smoothed target."""
    floor = -(0.9 * math.log(0.9) + 0.1 * math.log(0.1 / 999))
    assert floor == pytest.approx(1.016, abs=5e-4)


def cpu(precision="FP32", scale: float | str | None = None) -> Device:
    rules = GOOGLENET.precision
    if scale is not None:
        rules = PrecisionRules.model_validate({"amp": {"dtype": "float16", "loss_scale": scale}})
    return Device("CPU", precision, rules)


def test_amp_means_bf16_on_a_cpu_and_the_recipes_elsewhere():
    rules = GOOGLENET.precision
    assert amp_rule("FP32", rules, "GPU") is None
    assert amp_rule("TF32", rules, "GPU") is None
    for kind in ("GPU", "MLU", "NPU"):
        amp = amp_rule("AMP", rules, kind)
        assert amp is not None and (amp.dtype, amp.loss_scale) == ("float16", 1024)
    on_cpu = amp_rule("AMP", rules, "CPU")
    assert on_cpu is not None and (on_cpu.dtype, on_cpu.loss_scale) == ("bfloat16", None)
    half = amp_rule("FP16", INCEPTION.precision, "CPU")
    assert half is not None and (half.dtype, half.loss_scale) == ("float16", "dynamic")


def test_fp32_turns_tf32_off():
    torch.set_float32_matmul_precision("high")
    cpu("FP32")
    assert torch.get_float32_matmul_precision() == "highest"
    cpu("TF32")
    assert torch.get_float32_matmul_precision() == "high"
    torch.set_float32_matmul_precision("highest")


def small_net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 10))


def test_groups_without_decay_where_the_recipe_says_so():
    net = small_net()
    both = build_optimizer(net, INCEPTION.optimizer).param_groups
    assert [group["weight_decay"] for group in both] == [1e-4]
    split = build_optimizer(net, GOOGLENET.optimizer).param_groups
    assert [group["weight_decay"] for group in split] == [1e-4, 0.0]
    assert all(p.ndim == 1 for p in split[1]["params"]) and len(split[1]["params"]) == 4


def test_the_first_step_equals_plain_sgd():
    """Momentum starts as zeros here and as the gradient in torch: the same numbers."""
    ours, theirs = small_net(), small_net()
    stepper = Stepper(build_optimizer(ours, INCEPTION.optimizer), None, cpu())
    plain = torch.optim.SGD(theirs.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
    images, labels = torch.randn(4, 3, 8, 8), torch.randint(10, (4,))
    for step in range(3):
        stepper.apply(losses(ours(images), labels, 0.0)[0], step, 0.1)
        plain.zero_grad()
        losses(theirs(images), labels, 0.0)[0].backward()
        plain.step()
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("bad_step", [0, 1, 3])
def test_a_bad_step_changes_nothing_and_is_named(bad_step):
    net = small_net()
    stepper = Stepper(build_optimizer(net, INCEPTION.optimizer), None, cpu())
    images, labels = torch.randn(4, 3, 8, 8), torch.randint(10, (4,))
    for step in range(5):
        before = [p.detach().clone() for p in net.parameters()]
        loss = losses(net(images), labels, 0.0)[0]
        stepper.apply(loss * math.nan if step == bad_step else loss, step, 0.1)
        changed = any(not torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True))
        assert changed == (step != bad_step)
        assert all(bool(torch.isfinite(p).all()) for p in net.parameters())
    with pytest.raises(NonFiniteError, match=f"step {bad_step + 1} on rank 0"):
        stepper.check()


@pytest.mark.parametrize("scale", ["dynamic", 1024.0])
def test_fp16_scaler_paths_for_real(scale):
    """fp16 autocast with GradScaler on the CPU: steps, skips on inf, and the scale's own rule."""
    device = cpu("FP16", scale)
    net = small_net()
    scaler = build_scaler(device.amp, device)
    assert scaler is not None
    stepper = Stepper(build_optimizer(net, GOOGLENET.optimizer), scaler, device)
    images, labels = torch.randn(4, 3, 8, 8), torch.randint(10, (4,))
    start = stepper.scale()
    assert start == (65536 if scale == "dynamic" else 1024)

    def forward() -> torch.Tensor:
        with device.autocast():
            logits = net(images)
        assert logits.dtype == torch.float16
        return losses(logits, labels, 0.1)[0]

    first = forward().item()
    for step in range(20):
        stepper.apply(forward(), step, 0.05)
    skipped = stepper.check()
    assert forward().item() < first
    for step in range(20, 22):
        before = [p.detach().clone() for p in net.parameters()]
        stepper.apply(forward() * 1e38, step, 0.05)
        assert all(torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True))
    assert stepper.check() == skipped + 2
    assert stepper.scale() == (1024 if scale != "dynamic" else start / 4 / 2**skipped)


def test_skipping_for_ever_is_given_up():
    device = cpu("FP16", 1024.0)
    net = small_net()
    stepper = Stepper(
        build_optimizer(net, GOOGLENET.optimizer), build_scaler(device.amp, device), device
    )
    images, labels = torch.randn(4, 3, 8, 8), torch.randint(10, (4,))
    for step in range(MAX_SKIPPED_IN_A_ROW):
        stepper.apply(losses(net(images), labels, 0.0)[0] * math.inf, step, 0.1)
        if step < MAX_SKIPPED_IN_A_ROW - 1:
            stepper.check()
    with pytest.raises(NonFiniteError, match=f"{MAX_SKIPPED_IN_A_ROW} steps in a row"):
        stepper.check()


def test_every_declared_run_has_a_learning_rate():
    for path in (ROOT / "recipes").glob("*/recipe.yaml"):
        for recipe in load_recipe(path).values():
            for run in recipe.runs:
                cards = RunName.parse(run).cards
                assert recipe.optimizer.lr.at(recipe.batch.on(cards) * cards) > 0
