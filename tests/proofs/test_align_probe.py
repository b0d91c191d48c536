"""The probe sees what numpy computes, and changes nothing of the training that it looks at."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from align_faults import FAULTS, judged, replay
from test_align import statistics
from torch import nn

from proofrun.checkpoint import state_hash
from proofrun.device import Device
from proofrun.optim import Stepper, build_optimizer
from proofrun.recipe_yaml import load_recipe
from tools._align import home, variants
from tools._align.engine import Session, exercise
from tools._align.probe import Probe
from tools._align.trace import STATS

RECIPE = load_recipe(home.ROOT / "recipes/googlenet/recipe.yaml")["Digits"]


def network() -> nn.Module:
    torch.manual_seed(0)
    layers = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(inplace=True), nn.Flatten(),
        nn.Linear(8 * 36, 4),
    )  # fmt: skip
    return layers.to(memory_format=torch.channels_last)


def step(model: nn.Module, watched: bool) -> tuple[Probe | None, dict[str, torch.Tensor]]:
    """One training step; the gradients of all parameters, by name."""
    torch.manual_seed(1)
    device = Device("CPU", "FP32", RECIPE.precision)
    stepper = Stepper(build_optimizer(model, RECIPE.optimizer), None, device)
    probe = Probe(model, torch.device("cpu"), exact=True) if watched else None
    grads: dict[str, torch.Tensor] = {}

    def keep(optimizer, _args, _kwargs):
        grads.update({n: p.grad.clone() for n, p in model.named_parameters()})
        if probe:
            probe.gradients(optimizer)

    stepper.optimizer.register_step_pre_hook(keep)
    images = torch.randn(4, 3, 6, 6).to(memory_format=torch.channels_last)
    stepper.apply(model(images).square().mean(), 0, 0.1)
    if probe:
        probe.after_step(stepper.optimizer)
    return probe, grads


def test_a_watched_step_is_bit_equal():
    free, watched = network(), network()
    step(free, False)
    step(watched, True)
    assert state_hash(free.state_dict()) == state_hash(watched.state_dict())


def test_statistics_are_those_of_numpy():
    model = network()
    outputs: dict[str, torch.Tensor] = {}
    bn = model.get_submodule("1")
    bn.register_forward_hook(lambda _m, _a, out: outputs.update(bn=out.detach().clone()))
    probe, grads = step(model, True)
    assert probe is not None
    rows = probe.rows()
    values = dict(zip([(r.name, r.kind) for r in rows], probe.values(rows)[0], strict=True))
    for name, grad in grads.items():
        expected = statistics(grad.numpy(), name, 0)
        expected[3] = 0  # a kernel has no border
        np.testing.assert_allclose(values[name, "weight_grad"], expected, rtol=1e-6, atol=1e-12)
    # before the ReLU worked in its place
    expected = statistics(outputs["bn"].numpy(), "1", 1)
    np.testing.assert_allclose(values["1", "output"], expected, rtol=1e-6, atol=1e-12)
    kinds = [row.kind for row in rows]
    assert kinds[:4] == ["output", "output", "buffer", "buffer"]
    assert kinds.index("grad") > kinds.index("buffer") and kinds[-1] == "weight"


def test_a_relu_in_place_leaves_the_gradient_of_what_it_overwrote():
    """BN's output gradient is the masked one, ReLU's the one that arrives."""
    probe, _ = step(network(), True)
    assert probe is not None
    rows = probe.rows()
    values = dict(zip([(r.name, r.kind) for r in rows], probe.values(rows)[0], strict=True))
    zeros = STATS.index("zeros")
    assert values["1", "grad"][zeros] > 0.2 and values["2", "grad"][zeros] < 0.01


@pytest.mark.parametrize("recipe", ["googlenet", "inceptionv2"])
def test_merged_branches_are_the_same_mathematics(recipe):
    folder, spec = home.find(recipe, "Digits")
    of = exercise(spec, folder, 3, 1, 4, 1)
    outputs = []
    for change in (variants.nothing, variants.merged_branches):
        session = Session(of, spec, folder, "FP64", "CPU")
        change(session)
        torch.manual_seed(0)
        images = torch.randn(4, 3, 64, 64, dtype=torch.float64)
        outputs.append(session.model(images).detach().numpy())
    np.testing.assert_allclose(outputs[0], outputs[1], rtol=1e-9)


def test_rounding_leaves_ten_bits():
    x = torch.tensor([1 + 2.0**-10, 1 + 2.0**-11, 1 + 3 * 2.0**-11, -(1 + 2.0**-12), 3.0])
    ten = torch.tensor([1 + 2.0**-10, 1.0, 1 + 2.0**-9, -1.0, 3.0])
    assert torch.equal(variants.rounded(x), ten)


@pytest.mark.parametrize("name", ["BN momentum 0.9", "count_include_pad flipped"])
def test_a_planted_fault_is_found(name):
    """All of them: bash tests/prove.sh align."""
    (fault,) = [fault for fault in FAULTS if fault.name == name]
    found = judged(fault.recipe, replay(fault.recipe, fault.plant, fault.steps, fault.precision))
    assert found.first is not None
    assert fault.named(found.first), found.first.line()


def test_another_thread_count_is_silent():
    with variants.threads(2):
        found = judged("googlenet", replay("googlenet", variants.nothing))
    assert found.aligned, found.first and found.first.line()
