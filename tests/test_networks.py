"""The two networks against independent implementations of the same graphs.

Run with `-s` to see the measured differences.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from networks import RECIPES
from networks import build_network as build
from torch import Tensor, nn

from proofrun.errors import RecipeError
from proofrun.models import build_model, load_model_module
from proofrun.recipe import Network
from proofrun.vision import import_torchvision
from proofrun.weights import from_cadene, from_torchvision

AS_TORCHVISION = {"pooling": "ceil", "classifier_bias": True, "bn_eps": 1e-3, "dropout": 0.0}
NETWORKS: list[tuple[str, dict[str, Any]]] = [
    ("inceptionv2", {}),
    ("googlenet", {}),
    ("googlenet", AS_TORCHVISION),
]
TOLERANCE = 1e-5


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(before)


def reference(name: str) -> nn.Module:
    torchvision = import_torchvision()
    with warnings.catch_warnings():  # the package is from 2019
        warnings.simplefilter("ignore")
        import pretrainedmodels
    torch.manual_seed(0)  # again: the imports draw random numbers
    if name == "googlenet":
        return torchvision.models.googlenet(
            aux_logits=False, init_weights=False, num_classes=1000, dropout=0.0
        )
    return pretrainedmodels.bninception(num_classes=1000, pretrained=None)


def randomise(model: nn.Module) -> None:
    """BatchNorm unlike its initial state in every channel, activations and logits of order 1."""
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in norms:
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.normal_(norm.bias, std=0.2)
        norm.momentum = 1.0
    with torch.no_grad():
        model.train()(torch.randn(2, 3, 224, 224))  # so that running statistics fit the weights
        for norm in norms:
            norm.momentum = 0.1
            norm.running_mean += 0.1 * norm.running_var.sqrt() * torch.randn_like(norm.running_mean)
            norm.running_var *= torch.empty_like(norm.running_var).uniform_(0.8, 1.5)
        for linear in (m for m in model.modules() if isinstance(m, nn.Linear)):
            linear.weight.mul_(3)


def pair(name: str) -> tuple[nn.Module, nn.Module, Any]:
    """A randomised reference, our network with its weights, and the renaming between them."""
    theirs = reference(name)
    randomise(theirs)
    rename = from_cadene if name == "inceptionv2" else from_torchvision
    ours = build(name, 1000, **(AS_TORCHVISION if name == "googlenet" else {}))
    ours.load_state_dict(rename(theirs.state_dict()))
    return ours, theirs, rename


def gap(a: Tensor, b: Tensor) -> float:
    return float((a.double() - b.double()).abs().max())


@pytest.mark.parametrize("name", ["inceptionv2", "googlenet"])
def test_parity_with_reference(name: str) -> None:
    """Outputs, running statistics: 1e-5 absolute. Gradients: 1e-5 of the tensor's gradient norm.

    A convolution bias before a train-mode BatchNorm has no influence, so its true gradient is
    zero and what both networks have there is rounding: it is held against the norm of the
    gradient of the BatchNorm's bias, which sums the same terms without the cancellation.
    """
    ours, theirs, rename = pair(name)
    x = torch.randn(2, 3, 224, 224)

    with torch.no_grad():
        expected, got = theirs.eval()(x), ours.eval()(x)
    assert 0.3 < expected.std() < 3
    print(f"\n{name}: eval {gap(got, expected):.1e} (logits' std {expected.std():.2f})", end="")
    assert gap(got, expected) <= TOLERANCE

    direction = torch.randn(2, 1000) / 1000**0.5
    outputs = {}
    for model in (theirs, ours):
        leaf = x.clone().requires_grad_()
        output = model.train()(leaf)
        (output * direction).sum().backward()
        outputs[model] = output.detach(), leaf.grad
    (expected, expected_dx), (got, dx) = outputs[theirs], outputs[ours]
    assert 0.3 < expected.std() < 3
    buffers = rename(theirs.state_dict())
    drift = max(gap(value, buffers[key]) for key, value in ours.named_buffers())
    print(f", train {gap(got, expected):.1e}, running statistics {drift:.1e}", end="")
    assert gap(got, expected) <= TOLERANCE
    assert drift <= TOLERANCE

    gradients = dict(theirs.state_dict()) | {k: p.grad for k, p in theirs.named_parameters()}
    expected_gradients = rename(gradients)
    relative = {"input": float((dx - expected_dx).norm() / expected_dx.norm())}
    for key, parameter in ours.named_parameters():
        before_norm = key.endswith(".conv.bias")
        scale = expected_gradients[key.replace(".conv.bias", ".bn.bias") if before_norm else key]
        relative[key] = float((parameter.grad - expected_gradients[key]).norm() / scale.norm())
    worst = max(relative, key=lambda key: relative[key])
    print(f", gradients (relative) {relative[worst]:.1e} at {worst}")
    assert relative[worst] <= TOLERANCE


@pytest.mark.parametrize(
    ("name", "options", "count"),
    [
        ("inceptionv2", {}, 11_295_240),
        ("googlenet", {}, 6_623_904),
        ("googlenet", {"classifier_bias": True}, 6_624_904),
    ],
)
def test_parameter_count(name: str, options: dict[str, Any], count: int) -> None:
    model = build(name, 1000, **options)
    assert sum(p.numel() for p in model.parameters()) == count
    biased = any(isinstance(m, nn.Conv2d) and m.bias is not None for m in model.modules())
    assert biased == (name == "inceptionv2")


@pytest.mark.parametrize(
    ("pooling", "sizes", "last_kernel"),
    [("valid", [112, 55, 27, 13, 6], 3), ("ceil", [112, 56, 28, 14, 7], 2)],
)
def test_googlenet_pooling_rules(pooling: str, sizes: list[int], last_kernel: int) -> None:
    model = build("googlenet", pooling=pooling)
    seen: dict[str, list[int]] = {}
    for name in ("conv1", "pool1", "pool2", "pool3", "pool4"):

        def record(_m: nn.Module, _in: Any, out: Tensor, name: str = name) -> None:
            seen[name] = list(out.shape[-2:])

        model.get_submodule(f"features.{name}").register_forward_hook(record)
    model.to("meta")(torch.empty(1, 3, 224, 224, device="meta"))
    assert list(seen.values()) == [[size, size] for size in sizes]
    assert model.get_submodule("features.pool4").kernel_size == last_kernel


@pytest.mark.parametrize(("name", "options"), NETWORKS)
def test_any_size_from_64(name: str, options: dict[str, Any]) -> None:
    """Shapes only. Sides of 64 to 95 px have every remainder of 32, the product of all strides."""
    model = build(name, **options).to("meta")
    for side in range(64, 80):
        assert model(torch.empty(2, 3, side, 159 - side, device="meta")).shape == (2, 10)


@pytest.mark.parametrize("shape", [(64, 64), (72, 72), (96, 130), (224, 224)])
@pytest.mark.parametrize(("name", "options"), NETWORKS)
def test_trains_at_several_sizes(
    name: str, options: dict[str, Any], shape: tuple[int, int]
) -> None:
    model = build(name, **options)
    output = model(torch.randn(2, 3, *shape))
    assert output.shape == (2, 10)
    nn.functional.cross_entropy(output, torch.tensor([1, 2])).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    with torch.no_grad():
        assert model.eval()(torch.randn(1, 3, *shape)).isfinite().all()


@pytest.mark.parametrize(("name", "options"), NETWORKS)
def test_channels_last(name: str, options: dict[str, Any]) -> None:
    model = build(name, **options).eval()
    x = torch.randn(2, 3, 96, 96)
    with torch.no_grad():
        expected = model(x)
        model.to(memory_format=torch.channels_last)
        features = model.get_submodule("features")(x.to(memory_format=torch.channels_last))
        got = model(x.to(memory_format=torch.channels_last))
    assert features.is_contiguous(memory_format=torch.channels_last)
    assert gap(got, expected) <= TOLERANCE * max(1.0, float(expected.abs().max()))


def test_odd_maps_halve_like_the_convolution_beside() -> None:
    """The pool of the halving blocks: as the port's on even maps, one window more on odd ones."""
    pool = load_model_module(RECIPES / "inceptionv2").HalvingMaxPool(3, stride=2, ceil_mode=True)
    x = torch.rand(1, 2, 6, 8)
    assert torch.equal(pool(x), nn.MaxPool2d(3, stride=2, ceil_mode=True)(x))
    x = torch.rand(1, 2, 7, 8)
    got = pool(x)
    assert got.shape == (1, 2, 4, 4)
    assert torch.equal(got[:, :, :3], nn.MaxPool2d(3, stride=2, ceil_mode=True)(x))
    assert torch.equal(got[:, :, 3, 0], x[:, :, 6, 0:3].amax(-1))


@pytest.mark.parametrize("name", ["inceptionv2", "googlenet"])
def test_initial_weights(name: str) -> None:
    """Uniform up to the bound that `build` states, which the largest weight nearly reaches."""
    model = build(name, 1000)
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            fan_in = module.weight[0].numel()
            bound = (6 / fan_in) ** 0.5 if name == "googlenet" else fan_in**-0.5
            assert 0.98 * bound < module.weight.abs().max() <= bound
            assert module.weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.05)
        elif isinstance(module, nn.BatchNorm2d):
            assert (module.eps, module.momentum) == (1e-5, 0.1)
            assert (module.weight == 1).all() and (module.bias == 0).all()


def test_dropout_only_in_train_mode() -> None:
    model = build("googlenet", dropout=0.5)
    dropout = model.get_submodule("dropout")
    assert (dropout(torch.ones(1000)) == 0).any()
    model.eval()
    assert (dropout(torch.ones(1000)) == 1).all()
    assert build("googlenet").get_submodule("dropout").p == 0.2
    assert not any(isinstance(m, nn.Dropout) for m in build("inceptionv2").modules())


def test_both_networks_name_their_parts_alike() -> None:
    top, stem = ["features", "pool", "flatten", "fc"], ["conv1", "pool1", "conv2_reduce", "conv2"]
    for name in ("inceptionv2", "googlenet"):
        model = build(name)
        assert [key for key, _ in model.named_children() if key != "dropout"] == top
        features = [key for key, _ in model.get_submodule("features").named_children()]
        assert features[:4] == stem
        assert "features.inception3a.b3x3.reduce.conv.weight" in model.state_dict()


def test_model_py_missing_or_without_the_graph(tmp_path: Path) -> None:
    network = Network(graph="lenet", parameters=1)
    with pytest.raises(RecipeError, match=r"model\.py does not exist"):
        build_model(tmp_path, network, 10)
    (tmp_path / "model.py").write_text("def construct(): ...\n")
    with pytest.raises(RecipeError, match=r"no function 'lenet', which the recipe's model\.graph"):
        build_model(tmp_path, network, 10)


def test_error_inside_model_py_passes_through(tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text("1 / 0\n")
    with pytest.raises(ZeroDivisionError):
        load_model_module(tmp_path)


def test_model_py_may_use_dataclasses(tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text(
        "from __future__ import annotations\nfrom dataclasses import dataclass\n"
        "@dataclass\nclass A:\n    x: int = 1\ndef lenet(num_classes): return A(num_classes)\n"
    )
    assert load_model_module(tmp_path).lenet(3).x == 3


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("googlenet", {"poolin": "ceil"}, "poolin"),
        ("googlenet", {"pooling": "same"}, "give 'valid' or 'ceil'"),
        ("inceptionv2", {"dropout": 0.2}, "dropout"),
    ],
)
def test_options_that_do_not_fit(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        build(name, **options)
