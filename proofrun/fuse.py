"""The network as it is run for inference: BatchNorm folded into the convolutions before it."""

from __future__ import annotations

import copy
import math
from itertools import pairwise

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from proofrun.device import Device
from proofrun.errors import CheckpointError
from proofrun.pretrained import Loaded

#: Largest difference between the logits of both forms, relative to the largest logit.
TOLERANCE = 1e-4


def ready(weights: Loaded, model: nn.Module, device: Device) -> tuple[nn.Module, float]:
    """`model` as it is run: fused, channels-last, in the device's precision, on the device.

    Also how far the fused logits are from `model`'s. Raises CheckpointError, see `checked`.
    """
    net, apart = checked(weights, model)
    amp = device.amp
    net = net.to(device.torch_device, getattr(torch, amp.dtype) if amp else torch.float32)
    laid: nn.Module = net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return laid, apart


def checked(weights: Loaded, model: nn.Module) -> tuple[nn.Module, float]:
    """`model`, fused, and how far its logits are from `model`'s, see `difference`.

    Raises CheckpointError when that is more than TOLERANCE, or no number.
    """
    net = fused(model)
    apart = difference(model, net, weights.recipe.data.eval[0].crop)
    if not math.isfinite(apart):
        raise CheckpointError(
            f"{weights.path}: its logits are not finite, though every weight is; check the "
            "training that made it"
        )
    if apart > TOLERANCE:
        raise CheckpointError(
            f"{weights.path}: fusing BatchNorm changes the logits by {apart:.1e}, more than "
            f"{TOLERANCE:g}: its statistics are not usable; check the training that made it"
        )
    return net, apart


def fused(model: nn.Module) -> nn.Module:
    """A copy of a network in eval mode without its BatchNorms: the same function of the input."""
    assert not model.training
    twin = copy.deepcopy(model)
    for chain in [m for m in twin.modules() if isinstance(m, nn.Sequential)]:
        for (first, conv), (second, bn) in pairwise(list(chain.named_children())):
            if isinstance(conv, nn.Conv2d) and isinstance(bn, nn.BatchNorm2d):
                setattr(chain, first, fuse_conv_bn_eval(conv, bn))
                delattr(chain, second)
    return twin


@torch.no_grad()
def difference(one: nn.Module, other: nn.Module, size: int) -> float:
    """Largest difference of two networks' logits on fixed noise, over the largest logit (or 1).

    Both on the CPU, in float32; `size` is the side of their input in pixels.
    """
    noise = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    expected, found = one(noise), other(noise)
    return float((expected - found).abs().max() / expected.abs().max().clamp(min=1))
