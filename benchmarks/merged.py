"""An idea that is measured here and not in the product: 1x1 branches merged into one convolution.

The 1x1 convolutions of an inception module that read the same input become one, over weights that
are joined in each step, so that names in the state dict stay the published ones.
"""

from __future__ import annotations

from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def merge(network: nn.Module) -> nn.Module:
    """The same function of the same weights; every module with a `b3x3` branch is changed."""
    for block in network.modules():
        if isinstance(block, nn.ModuleDict) and "b3x3" in block:
            block.forward = MethodType(_forward, block)
    return network


def _forward(block: Any, x: Tensor) -> Tensor:
    names = [name for name in block if name != "pool"]
    heads = [block[name] if name == "b1x1" else block[name].reduce for name in names]
    joined = _joined(x, heads, block.training)
    widths = [head.conv.out_channels for head in heads]
    outputs = []
    for name, part in zip(names, joined.split(widths, 1), strict=True):
        tail = [] if name == "b1x1" else list(block[name].children())[1:]
        for module in tail:
            part = module(part)
        outputs.append(part)
    return torch.cat([*outputs, block["pool"](x)], 1)


def _joined(x: Tensor, heads: list[Any], training: bool) -> Tensor:
    """Convolution, BatchNorm and ReLU of all heads at once; running statistics go back to each."""
    norms = [head.bn for head in heads]
    weight = torch.cat([head.conv.weight for head in heads])
    biases = [head.conv.bias for head in heads]
    bias = None if biases[0] is None else torch.cat(biases)
    mean = torch.cat([norm.running_mean for norm in norms])
    variance = torch.cat([norm.running_var for norm in norms])
    y = F.batch_norm(
        F.conv2d(x, weight, bias),
        mean, variance,
        torch.cat([norm.weight for norm in norms]), torch.cat([norm.bias for norm in norms]),
        training, norms[0].momentum, norms[0].eps,
    )  # fmt: skip
    if training:
        widths = [norm.num_features for norm in norms]
        for norm, m, v in zip(norms, mean.split(widths), variance.split(widths), strict=True):
            norm.running_mean.copy_(m)
            norm.running_var.copy_(v)
            norm.num_batches_tracked += 1
    return F.relu(y, inplace=True)
