"""Weights from files, read without trust, and published ones of the two networks renamed to ours.

Strict: a missing or an unexpected key is an error that names it. Tensors are not copied.
What is accepted beside the exact key names, because published files need it:
- files from before torch 0.4.1 lack every `num_batches_tracked`: zeros are put in
  (only used where BatchNorm's momentum is None, which it is not here);
- files from torch 0.3 (Cadene's among them) hold BatchNorm tensors as [1, C]: made [C].
"""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from proofrun.errors import CheckpointError, out_of_memory

#: A key that only weights of this origin have.
CADENE_MARK = "conv1_7x7_s2.weight"
TORCHVISION_MARK = "conv1.conv.weight"

_COUNTER = "num_batches_tracked"
_BN = ("weight", "bias", "running_mean", "running_var", _COUNTER)

_CADENE_BLOCKS = ("3a", "3b", "3c", "4a", "4b", "4c", "4d", "4e", "5a", "5b")
_CADENE_HALVING = ("3c", "4e")  # these have neither a 1x1 branch nor a pool projection
# our module -> theirs, here and below
_CADENE_STEM = {
    "conv1": "conv1_7x7_s2",
    "conv2_reduce": "conv2_3x3_reduce",
    "conv2": "conv2_3x3",
}
_CADENE_BRANCHES = {
    "b1x1": "1x1",
    "b3x3.reduce": "3x3_reduce",
    "b3x3.conv": "3x3",
    "double3x3.reduce": "double_3x3_reduce",
    "double3x3.conv1": "double_3x3_1",
    "double3x3.conv2": "double_3x3_2",
    "pool.proj": "pool_proj",
}
_TORCHVISION_BLOCKS = ("3a", "3b", "4a", "4b", "4c", "4d", "4e", "5a", "5b")
_TORCHVISION_STEM = {"conv1": "conv1", "conv2_reduce": "conv2", "conv2": "conv3"}
_TORCHVISION_BRANCHES = {
    "b1x1": "branch1",
    "b3x3.reduce": "branch2.0",
    "b3x3.conv": "branch2.1",
    "b5x5.reduce": "branch3.0",
    "b5x5.conv": "branch3.1",
    "pool.proj": "branch4.1",
}


def read_weights(path: Path) -> dict[str, Tensor]:
    """The state dict in a file, on the CPU: safetensors by its name's end, else torch's own.

    Raises CheckpointError.
    """
    state = read_plain(path)
    _check_state_dict(state)
    return dict(state)


def read_plain(path: Path) -> Any:
    """Tensors and plain values from a file: no code that a foreign file may hold is ever run.

    Raises CheckpointError.
    """
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with warnings.catch_warnings():  # a foreign file's oddities; what matters is an error
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise CheckpointError(
            f"{path}: not a file of tensors, or one with more in it; nothing of it was run: give "
            "the state dict of the network alone, best as safetensors"
        ) from None
    except Exception as error:
        if out_of_memory(error):
            raise  # of the machine, not of the file
        why = error.strerror if isinstance(error, OSError) and error.strerror else None
        why = why or "damaged, cut short, or no state dict of torch"
        raise CheckpointError(
            f"{path}: cannot be read: {why}; give a checkpoint, a state dict or safetensors"
        ) from None


def from_cadene(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of `pretrainedmodels.bninception` as a state dict of recipes/inceptionv2.

    The network stays what it was trained as: Cadene's published file wants BGR input, 0 to 255,
    minus 104, 117, 128 (`pretrainedmodels.models.bninception.pretrained_settings`).
    Raises CheckpointError for what is no state dict and for missing or unexpected keys.
    """
    _check_state_dict(state)
    return _rename(state, _cadene_keys(), "Cadene's bninception")


def from_torchvision(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of `torchvision.models.googlenet` as a state dict of recipes/googlenet.

    The auxiliary heads are dropped, if they are there. The classifier has a bias, so build with
    `pooling="ceil", classifier_bias=True, bn_eps=1e-3`. torchvision's published file wants RGB
    in [0, 1] normalised with mean 0.5 and std 0.5 (its `transform_input`).
    Raises CheckpointError for what is no state dict and for missing or unexpected keys.
    """
    _check_state_dict(state)
    heads = {key for key in state if key.startswith(("aux1.", "aux2."))}
    if heads:
        _check_keys(heads, _auxiliary_keys(), "torchvision's googlenet, auxiliary heads")
        state = {key: value for key, value in state.items() if key not in heads}
    return _rename(state, _torchvision_keys(), "torchvision's googlenet")


def convert(state: Mapping[str, Tensor], model_name: str) -> dict[str, Tensor]:
    """Weights of a known origin as a state dict of the recipe `model_name`.

    `model_name` is `Inceptionv2` (ours or Cadene's weights) or `GoogLeNet` (ours or
    torchvision's), in any case of letters. Our own GoogLeNet may have a classifier bias or not.
    Raises CheckpointError for another name, for what is no state dict, for weights of another
    origin or network, and for missing or unexpected keys.
    """
    _check_state_dict(state)
    known = {
        "inceptionv2": ("Cadene's bninception", CADENE_MARK, _cadene_keys, from_cadene),
        "googlenet": (
            "torchvision's googlenet",
            TORCHVISION_MARK,
            _torchvision_keys,
            from_torchvision,
        ),
    }
    if model_name.lower() not in known:
        raise CheckpointError(f"no weights are known for {model_name!r}: Inceptionv2 or GoogLeNet")
    origin, mark, keys, load = known[model_name.lower()]
    if mark in state:
        return load(state)
    if any(key.startswith("features.") for key in state):
        own = {key: key for key in keys().values()}
        if keys is _torchvision_keys and "fc.bias" not in state:
            del own["fc.bias"]
        return _rename(state, own, f"our {model_name}")
    raise CheckpointError(
        f"these are no weights of {model_name}: keys are {_some(state)}, "
        f"neither our names nor those of {origin}"
    )


def _check_state_dict(state: Mapping[str, Tensor]) -> None:
    if not isinstance(state, Mapping):
        raise CheckpointError(f"expected a state dict, got {type(state).__name__}")
    for key, value in state.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            raise CheckpointError(
                f"expected a state dict (names to tensors), found {key!r}: {type(value).__name__}; "
                "give the state dict of the network alone"
            )


def _rename(state: Mapping[str, Tensor], keys: Mapping[str, str], origin: str) -> dict[str, Tensor]:
    """`state` with each key of `keys` replaced by its value, in `state`'s own order."""
    _check_keys(state, keys, origin)
    renamed = {keys[key]: value for key, value in state.items()}
    for key in keys.values():
        module, _, leaf = key.rpartition(".")
        if leaf == _COUNTER:
            renamed.setdefault(key, torch.zeros((), dtype=torch.long))
        elif module.endswith(".bn") and renamed[key].ndim == 2 and renamed[key].shape[0] == 1:
            renamed[key] = renamed[key][0]
    return renamed


def _check_keys(found: Iterable[str], expected: Iterable[str], origin: str) -> None:
    found, expected = set(found), set(expected)
    if not any(key.endswith(_COUNTER) for key in found):
        expected = {key for key in expected if not key.endswith(_COUNTER)}
    faults = [
        f"{len(keys)} {kind} ({_some(keys)})"
        for kind, keys in (("missing", expected - found), ("unexpected", found - expected))
        if keys
    ]
    if faults:
        raise CheckpointError(
            f"weights of {origin}: {' and '.join(faults)} of {len(expected)} keys"
        )


def _some(keys: Iterable[str]) -> str:
    names = sorted(map(str, keys))
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "") if names else "none"


def _cadene_keys() -> dict[str, str]:
    """Cadene's key -> ours."""
    modules = {theirs: f"features.{ours}" for ours, theirs in _CADENE_STEM.items()}
    for block in _CADENE_BLOCKS:
        for ours, theirs in _CADENE_BRANCHES.items():
            if block not in _CADENE_HALVING or ours not in ("b1x1", "pool.proj"):
                modules[f"inception_{block}_{theirs}"] = f"features.inception{block}.{ours}"
    keys = {f"last_linear.{leaf}": f"fc.{leaf}" for leaf in ("weight", "bias")}
    for theirs, ours in modules.items():
        keys |= {f"{theirs}.{leaf}": f"{ours}.conv.{leaf}" for leaf in ("weight", "bias")}
        keys |= {f"{theirs}_bn.{leaf}": f"{ours}.bn.{leaf}" for leaf in _BN}
    return keys


def _torchvision_keys() -> dict[str, str]:
    """torchvision's key -> ours."""
    modules = {theirs: f"features.{ours}" for ours, theirs in _TORCHVISION_STEM.items()}
    for block in _TORCHVISION_BLOCKS:
        for ours, theirs in _TORCHVISION_BRANCHES.items():
            modules[f"inception{block}.{theirs}"] = f"features.inception{block}.{ours}"
    keys = {f"fc.{leaf}": f"fc.{leaf}" for leaf in ("weight", "bias")}
    for theirs, ours in modules.items():
        for leaf in ("conv.weight", *(f"bn.{leaf}" for leaf in _BN)):
            keys[f"{theirs}.{leaf}"] = f"{ours}.{leaf}"
    return keys


def _auxiliary_keys() -> set[str]:
    linear = {f"{layer}.{leaf}" for layer in ("fc1", "fc2") for leaf in ("weight", "bias")}
    leaves = {"conv.conv.weight", *(f"conv.bn.{leaf}" for leaf in _BN), *linear}
    return {f"aux{n}.{leaf}" for n in (1, 2) for leaf in leaves}
