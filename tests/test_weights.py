"""Published key names to ours: every tensor arrives, and nothing goes silently."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from networks import build_network
from torch import Tensor, nn

from proofrun.errors import CheckpointError, ProofrunError
from proofrun.vision import import_torchvision
from proofrun.weights import convert, from_cadene, from_torchvision

AS_TORCHVISION = {"pooling": "ceil", "classifier_bias": True, "bn_eps": 1e-3}
State = dict[str, Tensor]


def tagged(model: nn.Module) -> State:
    """The state dict with a number of its own in every tensor, so that no two can be confused."""
    return {k: torch.full_like(v, i) for i, (k, v) in enumerate(model.state_dict().items())}


def tag(value: Tensor) -> float:
    return float(value.flatten()[0])


@pytest.fixture(scope="module")
def cadene() -> State:
    import_torchvision()
    with warnings.catch_warnings():  # the package is from 2019
        warnings.simplefilter("ignore")
        import pretrainedmodels
    return tagged(pretrainedmodels.bninception(num_classes=10, pretrained=None))


@pytest.fixture(scope="module")
def torchvision_with_heads() -> State:
    models = import_torchvision().models
    return tagged(models.googlenet(aux_logits=True, init_weights=False, num_classes=10))


@pytest.fixture(scope="module")
def torchvision(torchvision_with_heads: State) -> State:
    return {k: v for k, v in torchvision_with_heads.items() if not k.startswith("aux")}


@pytest.fixture(params=["cadene", "torchvision"])
def published(request: pytest.FixtureRequest) -> tuple[State, str, Callable[..., State]]:
    """A published state dict, the recipe it belongs to, its loader."""
    state = dict(request.getfixturevalue(request.param))
    if request.param == "cadene":
        return state, "Inceptionv2", from_cadene
    return state, "GoogLeNet", from_torchvision


def build(model_name: str) -> nn.Module:
    options: dict[str, Any] = AS_TORCHVISION if model_name == "GoogLeNet" else {}
    return build_network(model_name.lower(), **options)


def test_every_tensor_arrives_once(published: Any) -> None:
    state, name, load = published
    ours = load(state)
    assert len(ours) == len(state)
    build(name).load_state_dict(ours, strict=True)
    # shapes cannot tell a gamma from a beta, the last part of the name can
    leaf = {tag(value): key.rpartition(".")[2] for key, value in state.items()}
    assert {tag(value): key.rpartition(".")[2] for key, value in ours.items()} == leaf


def test_round_trip(published: Any) -> None:
    """What a model gives back is recognised as ours and comes back as it is."""
    state, name, load = published
    model = build(name)
    model.load_state_dict(load(state))
    again = convert(model.state_dict(), name)
    assert list(again) == list(model.state_dict())
    assert all(torch.equal(again[k], v) for k, v in model.state_dict().items())


def test_convert_recognises_the_origin(published: Any) -> None:
    state, name, load = published
    for spelling in (name, name.lower()):
        assert convert(state, spelling) == load(state)  # the very same tensors


def test_input_is_left_alone(published: Any) -> None:
    state, _, load = published
    before = dict(state)
    load(state)
    assert state == before


def test_auxiliary_heads_are_dropped(torchvision: State, torchvision_with_heads: State) -> None:
    assert len(torchvision_with_heads) > len(torchvision)
    got = from_torchvision(torchvision_with_heads)
    assert got == from_torchvision(torchvision)
    assert not any("aux" in key for key in got)


def test_damaged_or_unknown_heads_are_refused(torchvision_with_heads: State) -> None:
    state = dict(torchvision_with_heads)
    del state["aux2.fc1.weight"]
    with pytest.raises(CheckpointError, match=r"1 missing \(aux2\.fc1\.weight\)"):
        from_torchvision(state)
    state = dict(torchvision_with_heads) | {"aux3.fc1.weight": torch.zeros(1)}
    with pytest.raises(CheckpointError, match=r"1 unexpected \(aux3\.fc1\.weight\)"):
        from_torchvision(state)


def test_own_googlenet_without_classifier_bias() -> None:
    state = build_network("googlenet").state_dict()
    assert "fc.bias" not in state
    assert convert(state, "GoogLeNet").keys() == state.keys()


def test_old_files(published: Any) -> None:
    """torch 0.3: no num_batches_tracked, BatchNorm tensors [1, C]."""
    state, name, load = published
    expected = load(state)
    old = {
        key: value[None] if "bn" in key and value.ndim == 1 else value
        for key, value in state.items()
        if not key.endswith("num_batches_tracked")
    }
    got = load(old)
    build(name).load_state_dict(got)
    for key, value in got.items():
        if key.endswith("num_batches_tracked"):
            assert value == 0 and value.dtype == torch.long
        else:
            assert torch.equal(value, expected[key])


def test_one_counter_missing_is_damage(published: Any) -> None:
    state, _, load = published
    del state[next(k for k in state if k.endswith("num_batches_tracked"))]
    with pytest.raises(CheckpointError, match="1 missing"):
        load(state)


@pytest.mark.parametrize("position", [0, 7, -1])
def test_missing_key_is_refused(published: Any, position: int) -> None:
    state, name, load = published
    key = list(state)[position]
    del state[key]
    with pytest.raises(CheckpointError, match="1 missing") as caught:
        load(state)
    assert key in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(CheckpointError):
        convert(state, name)


def test_unexpected_key_is_refused(published: Any) -> None:
    state, name, load = published
    state["inception_9z.weight"] = torch.zeros(1)
    for attempt in (lambda: load(state), lambda: convert(state, name)):
        with pytest.raises(CheckpointError, match=r"1 unexpected \(inception_9z\.weight\)"):
            attempt()


def test_missing_own_key_is_refused() -> None:
    for name in ("Inceptionv2", "GoogLeNet"):
        state = dict(build(name).state_dict())
        del state["features.inception4c.b3x3.conv.bn.running_var"]
        with pytest.raises(CheckpointError, match=f"our {name}: 1 missing"):
            convert(state, name)


def test_another_networks_weights_are_refused(cadene: State, torchvision: State) -> None:
    for state, name in ((cadene, "GoogLeNet"), (torchvision, "Inceptionv2")):
        with pytest.raises(CheckpointError, match=f"no weights of {name}"):
            convert(state, name)
    with pytest.raises(CheckpointError, match="missing"):
        convert(build("GoogLeNet").state_dict(), "Inceptionv2")
    with pytest.raises(CheckpointError, match="missing"):
        from_cadene(torchvision)
    with pytest.raises(CheckpointError, match="missing"):
        from_torchvision(cadene)


@pytest.mark.parametrize("name", ["Inceptionv2", "GoogLeNet"])
def test_foreign_dicts_are_refused(name: str) -> None:
    for state in ({}, {"conv1.weight": torch.zeros(1), "bn1.weight": torch.zeros(1)}):
        with pytest.raises(ProofrunError, match=f"no weights of {name}"):
            convert(state, name)


@pytest.mark.parametrize(
    "state",
    [{"state_dict": {}, "epoch": 3}, {0: torch.zeros(1)}, [torch.zeros(1)], nn.Linear(1, 1)],
    ids=["whole checkpoint", "keys are no names", "list", "module"],
)
def test_what_is_no_state_dict(state: Any) -> None:
    for load in (from_cadene, from_torchvision, lambda state: convert(state, "GoogLeNet")):
        with pytest.raises(CheckpointError, match="expected a state dict"):
            load(state)


def test_unknown_model_name(cadene: State) -> None:
    with pytest.raises(CheckpointError, match="ResNet50"):
        convert(cadene, "ResNet50")
