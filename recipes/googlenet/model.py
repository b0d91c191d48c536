"""GoogLeNet (Inception v1) with BatchNorm, as published for Ascend 910.

Paper: Szegedy et al., "Going Deeper with Convolutions" (arXiv:1409.4842). As in the published
recipe, BatchNorm follows every convolution, the "5x5" branch has a 3x3 kernel, there are no
auxiliary heads, and neither convolutions nor classifier have a bias.

With `pooling="ceil", classifier_bias=True, bn_eps=1e-3` this is torchvision's `googlenet`
without its auxiliary heads. 6,623,904 parameters at 1000 classes (6,624,904 with the bias).
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Literal

import torch
from torch import Tensor, nn

Widths = tuple[int, int, int, int, int, int]
# Output channels of each block: 1x1 | 3x3 reduce, 3x3 | "5x5" reduce, "5x5" | pool projection.
BLOCKS: dict[str, Widths] = {
    "inception3a": (64, 96, 128, 16, 32, 32),
    "inception3b": (128, 128, 192, 32, 96, 64),
    "inception4a": (192, 96, 208, 16, 48, 64),
    "inception4b": (160, 112, 224, 24, 64, 64),
    "inception4c": (128, 128, 256, 24, 64, 64),
    "inception4d": (112, 144, 288, 32, 64, 64),
    "inception4e": (256, 160, 320, 32, 128, 128),
    "inception5a": (256, 160, 320, 32, 128, 128),
    "inception5b": (384, 192, 384, 48, 128, 128),
}


def googlenet_bn(
    num_classes: int = 1000,
    pooling: Literal["valid", "ceil"] = "valid",
    classifier_bias: bool = False,
    dropout: float = 0.2,
    bn_eps: float = 1e-5,
) -> nn.Module:
    """The network, in train mode, in float32, with fresh weights from torch's global RNG.

    Input: float [N, 3, H, W], normalised as the recipe says, H and W 64 or more.
    Output: logits [N, num_classes].
    `pooling` is the rule of the four stride-2 max-pools. "valid" (Ascend) drops what no full
    window covers: 224 px gives maps of 112, 55, 27, 13, 6. "ceil" (torchvision) rounds up and
    makes the last window 2x2: 112, 56, 28, 14, 7. No weight depends on it.
    Initial weights: convolutions He-uniform over fan-in with ReLU's gain (+/- sqrt(6/fan_in));
    He-uniform is published, its fan is not. BatchNorm gamma 1, beta 0, momentum 0.1. The
    classifier has PyTorch's default (+/- 1/sqrt(1024)).
    Raises ValueError for another `pooling`.
    """
    if pooling not in ("valid", "ceil"):
        raise ValueError(f"pooling is {pooling!r}: give 'valid' or 'ceil'")
    ceil = pooling == "ceil"

    def pool(kernel: int = 3) -> nn.Module:
        return nn.MaxPool2d(kernel, stride=2, ceil_mode=ceil)

    layers: list[tuple[str, nn.Module]] = [
        ("conv1", conv_bn_relu(3, 64, 7, bn_eps, stride=2)),
        ("pool1", pool()),
        ("conv2_reduce", conv_bn_relu(64, 64, 1, bn_eps)),
        ("conv2", conv_bn_relu(64, 192, 3, bn_eps)),
        ("pool2", pool()),
    ]
    channels = 192
    for name, widths in BLOCKS.items():
        block = Inception(channels, widths, bn_eps)
        layers.append((name, block))
        channels = block.out_channels
        if name == "inception3b":
            layers.append(("pool3", pool()))
        elif name == "inception4e":
            layers.append(("pool4", pool(2 if ceil else 3)))
    parts: list[tuple[str, nn.Module]] = [
        ("features", nn.Sequential(OrderedDict(layers))),
        ("pool", nn.AdaptiveAvgPool2d(1)),
        ("flatten", nn.Flatten()),
        ("dropout", nn.Dropout(dropout)),
        ("fc", nn.Linear(channels, num_classes, bias=classifier_bias)),
    ]
    return nn.Sequential(OrderedDict(parts))


class Inception(nn.ModuleDict):
    """One block: [N, in_channels, H, W] to [N, out_channels, H, W], branches side by side."""

    def __init__(self, in_channels: int, widths: Widths, bn_eps: float) -> None:
        one, reduce3, three, reduce5, five, projection = widths
        branches: dict[str, nn.Module] = {
            "b1x1": conv_bn_relu(in_channels, one, 1, bn_eps),
            "b3x3": chain(
                reduce=conv_bn_relu(in_channels, reduce3, 1, bn_eps),
                conv=conv_bn_relu(reduce3, three, 3, bn_eps),
            ),
            "b5x5": chain(  # the paper's name: published code and torchvision use 3x3 here
                reduce=conv_bn_relu(in_channels, reduce5, 1, bn_eps),
                conv=conv_bn_relu(reduce5, five, 3, bn_eps),
            ),
            "pool": chain(
                pool=nn.MaxPool2d(3, stride=1, padding=1),
                proj=conv_bn_relu(in_channels, projection, 1, bn_eps),
            ),
        }
        super().__init__(branches)
        self.out_channels = one + three + five + projection

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self.values()], 1)


def conv_bn_relu(
    in_channels: int, out_channels: int, kernel: int, bn_eps: float, stride: int = 1
) -> nn.Module:
    conv = nn.Conv2d(in_channels, out_channels, kernel, stride, padding=kernel // 2, bias=False)
    nn.init.kaiming_uniform_(conv.weight, mode="fan_in", nonlinearity="relu")
    return chain(
        conv=conv,
        bn=nn.BatchNorm2d(out_channels, eps=bn_eps, momentum=0.1),
        relu=nn.ReLU(inplace=True),  # BatchNorm's backward needs its input, not its output
    )


def chain(**modules: nn.Module) -> nn.Module:
    return nn.Sequential(OrderedDict(modules))
