"""FusedSGD of NVIDIA's apex, by a stand-in of its interface; the real one: proofs/test_gpu."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import nn

from proofrun import preflight
from proofrun.device import Device
from proofrun.errors import DeviceError, Exit, NonFiniteError, ProofrunError
from proofrun.optim import Stepper, build_optimizer, build_scaler, losses
from proofrun.recipe import PrecisionRules
from proofrun.recipe_yaml import load_recipe
from proofrun.runs import RunName, apply_overrides

ROOT = Path(__file__).resolve().parent.parent
RECIPE = load_recipe(ROOT / "recipes/googlenet/recipe.yaml")["ImageNet"]


class FusedSGD(torch.optim.Optimizer):
    """What callers see of apex's: no `fused`, no mask, a bare `zero_grad()`, the same update."""

    def __init__(self, params, lr, momentum=0.0, dampening=0.0, weight_decay=0.0, nesterov=False):
        rule = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay}
        super().__init__(params, {**rule, "dampening": dampening, "nesterov": nesterov})

    def zero_grad(self):
        super().zero_grad()

    @torch.no_grad()
    def step(self, closure=None):
        assert closure is None
        for group in self.param_groups:
            for p in [p for p in group["params"] if p.grad is not None]:
                grad = p.grad + group["weight_decay"] * p
                momentum = self.state[p].setdefault("momentum_buffer", torch.zeros_like(p))
                momentum.mul_(group["momentum"]).add_(grad, alpha=1 - group["dampening"])
                p.sub_(group["lr"] * momentum)


@pytest.fixture
def apex(monkeypatch):
    module = ModuleType("apex.optimizers")
    module.FusedSGD = FusedSGD
    monkeypatch.setitem(sys.modules, "apex", ModuleType("apex"))
    monkeypatch.setitem(sys.modules, "apex.optimizers", module)


def small_net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 10))


def trained(implementation: str, precision: str, bad_step: int | None = None):
    """(weights after six steps, the stepper); GoogLeNet's rule, with weight decay in one group."""
    spec = RECIPE.optimizer.model_copy(update={"implementation": implementation})
    rules = PrecisionRules.model_validate({"amp": {"dtype": "float16", "loss_scale": 1024.0}})
    device = Device("CPU", precision, rules)
    net = small_net()
    optimizer = build_optimizer(net, spec)
    assert type(optimizer).__name__ == ("FusedSGD" if implementation == "apex" else "SGD")
    stepper = Stepper(optimizer, build_scaler(device.amp, device), device)
    images, labels = torch.randn(4, 3, 8, 8), torch.randint(10, (4,))
    for step in range(6):
        with device.autocast():
            logits = net(images)
        loss = losses(logits, labels, 0.1)[0]
        stepper.apply(loss * math.inf if step == bad_step else loss, step, 0.05)
    return torch.cat([p.detach().flatten() for p in net.parameters()]), stepper


@pytest.mark.parametrize("precision", ["FP32", "FP16"])
def test_it_trains_as_torch_does(apex, precision):
    theirs, stepper = trained("apex", precision)
    ours, _ = trained("torch", precision)
    # fp16 products round a difference in the last bit of a weight to one of their own
    torch.testing.assert_close(theirs, ours, rtol=1e-6, atol=1e-7 if precision == "FP32" else 1e-5)
    assert stepper.check() == 0


@pytest.mark.parametrize("precision", ["FP32", "FP16"])
def test_a_bad_step_is_left_out(apex, precision):
    weights, stepper = trained("apex", precision, bad_step=5)
    assert bool(torch.isfinite(weights).all())
    if precision == "FP16":
        assert stepper.check() == 1  # a loss scale may overflow: counted, not fatal
    else:
        with pytest.raises(NonFiniteError, match="step 6 on rank 0"):
            stepper.check()


def test_its_state_survives_a_checkpoint(apex):
    _, stepper = trained("apex", "FP32")
    _, other = trained("apex", "FP32")
    for state in other.optimizer.state.values():
        state["momentum_buffer"].zero_()
    other.load_state(stepper.state())
    pairs = zip(stepper.optimizer.state.values(), other.optimizer.state.values(), strict=True)
    assert all(torch.equal(a["momentum_buffer"], b["momentum_buffer"]) for a, b in pairs)


def test_a_flag_asks_for_it_and_no_recipe_does():
    changed, said = apply_overrides(RECIPE, ["optimizer.implementation=apex"])
    assert changed.optimizer.implementation == "apex"
    assert said == {"optimizer.implementation": "apex"}
    for path in (ROOT / "recipes").glob("*/recipe.yaml"):
        assert {r.optimizer.implementation for r in load_recipe(path).values()} == {"torch"}


def package(root: Path, *files: str) -> None:
    for file in files:
        path = root / "apex" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("raise ImportError('looked at, never imported')\n")


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ((), "apex is not installed"),
        (("__init__.py", "lib.py"), "not NVIDIA's apex: PyPI's package of that name"),
        (("__init__.py", "optimizers/__init__.py", "optimizers/fused_sgd.py"), None),
    ],
)
def test_the_wrong_apex_is_told_from_the_right_one(tmp_path, monkeypatch, files, said):
    package(tmp_path, *files)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "apex", raising=False)
    name = RunName.parse("GoogLeNet_FP32_300E_1GPU_Train")
    if said is None:
        preflight.check_apex(name)
        return
    with pytest.raises(ProofrunError, match=said) as caught:
        preflight.check_apex(name)
    assert caught.value.exit_code == Exit.NOT_INSTALLED


def test_it_is_for_nvidia_only():
    with pytest.raises(DeviceError, match="apex is for NVIDIA GPUs"):
        preflight.check_apex(RunName.parse("GoogLeNet_FP32_300E_1NPU_Train"))


def test_one_that_does_not_load_is_one_line(monkeypatch):
    """As where its CUDA extension was built for another torch."""
    monkeypatch.setitem(sys.modules, "apex.optimizers", None)
    spec = RECIPE.optimizer.model_copy(update={"implementation": "apex"})
    with pytest.raises(ProofrunError, match="FusedSGD cannot be used: ") as caught:
        build_optimizer(small_net(), spec)
    assert caught.value.exit_code == Exit.NOT_INSTALLED
