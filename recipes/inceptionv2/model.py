"""Inceptionv2: BN-Inception, the Caffe network in the form of Cadene's `bninception` port.

Paper: Ioffe and Szegedy, "Batch Normalization" (arXiv:1502.03167). The graph was checked against
`bninception` of the package `pretrainedmodels` 0.7.4. (TF-slim's "Inception v2", with a
separable stem, is another network.)

Every convolution keeps its bias although BatchNorm follows: the published weights have it.
11,295,240 parameters at 1000 classes.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Widths = tuple[int, int, int, int, int, int, str]
# Output channels of each block: 1x1 | 3x3 reduce, 3x3 | double 3x3 reduce, both 3x3 | pool
# projection, and the pool. A block without a 1x1 branch halves the map: its last convolutions
# have stride 2 and its pool goes into the output as it is.
BLOCKS: dict[str, Widths] = {
    "inception3a": (64, 64, 64, 64, 96, 32, "avg"),
    "inception3b": (64, 64, 96, 64, 96, 64, "avg"),
    "inception3c": (0, 128, 160, 64, 96, 0, "max"),
    "inception4a": (224, 64, 96, 96, 128, 128, "avg"),
    "inception4b": (192, 96, 128, 96, 128, 128, "avg"),
    "inception4c": (160, 128, 160, 128, 160, 128, "avg"),
    "inception4d": (96, 128, 192, 160, 192, 128, "avg"),
    "inception4e": (0, 128, 192, 192, 256, 0, "max"),
    "inception5a": (352, 192, 320, 160, 224, 128, "avg"),
    "inception5b": (352, 192, 320, 192, 224, 128, "max"),
}


def bn_inception(num_classes: int = 1000) -> nn.Module:
    """The network, in train mode, in float32, with fresh weights from torch's global RNG.

    Input: float [N, 3, H, W], normalised as the recipe says, H and W 64 or more.
    Output: logits [N, num_classes].
    Initial weights are PyTorch's defaults, as in Cadene's port: convolutions and classifier
    uniform in +/- 1/sqrt(fan_in), weight and bias; BatchNorm gamma 1, beta 0 (eps 1e-5,
    momentum 0.1).
    """
    layers: list[tuple[str, nn.Module]] = [
        ("conv1", conv_bn_relu(3, 64, 7, stride=2)),
        ("pool1", nn.MaxPool2d(3, stride=2, ceil_mode=True)),
        ("conv2_reduce", conv_bn_relu(64, 64, 1)),
        ("conv2", conv_bn_relu(64, 192, 3)),
        ("pool2", nn.MaxPool2d(3, stride=2, ceil_mode=True)),
    ]
    channels = 192
    for name, widths in BLOCKS.items():
        block = Inception(channels, widths)
        layers.append((name, block))
        channels = block.out_channels
    parts: list[tuple[str, nn.Module]] = [
        ("features", nn.Sequential(OrderedDict(layers))),
        # global where the port has 7x7: the same at 224 px, and any other size works
        ("pool", nn.AdaptiveAvgPool2d(1)),
        ("flatten", nn.Flatten()),
        ("fc", nn.Linear(channels, num_classes)),
    ]
    return nn.Sequential(OrderedDict(parts))


class Inception(nn.ModuleDict):
    """One block: [N, in_channels, H, W] to [N, out_channels, H', W'], branches side by side.

    H' = H, or half of it, rounded up, in the two blocks without a 1x1 branch.
    """

    def __init__(self, in_channels: int, widths: Widths) -> None:
        one, reduce, single, reduce_double, double, projection, pool = widths
        stride = 1 if one else 2
        branches: dict[str, nn.Module] = {}
        if one:
            branches["b1x1"] = conv_bn_relu(in_channels, one, 1)
        branches["b3x3"] = chain(
            reduce=conv_bn_relu(in_channels, reduce, 1),
            conv=conv_bn_relu(reduce, single, 3, stride),
        )
        branches["double3x3"] = chain(
            reduce=conv_bn_relu(in_channels, reduce_double, 1),
            conv1=conv_bn_relu(reduce_double, double, 3),
            conv2=conv_bn_relu(double, double, 3, stride),
        )
        if projection:
            pooling = nn.AvgPool2d if pool == "avg" else nn.MaxPool2d
            branches["pool"] = chain(
                pool=pooling(3, stride=1, padding=1),  # the average counts the padding, as in Caffe
                proj=conv_bn_relu(in_channels, projection, 1),
            )
        else:
            branches["pool"] = HalvingMaxPool(3, stride=2, ceil_mode=True)
        super().__init__(branches)
        self.out_channels = one + single + double + (projection or in_channels)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self.values()], 1)


class HalvingMaxPool(nn.MaxPool2d):
    """3x3/2 max-pool that rounds up as the padded 3x3/2 convolutions beside it do.

    Ceil mode alone gives one row less on odd maps, which 224 px never has and 72 px does.
    """

    def forward(self, x: Tensor) -> Tensor:
        odd_h, odd_w = x.shape[-2] % 2, x.shape[-1] % 2
        if odd_h or odd_w:
            x = F.pad(x, (0, odd_w, 0, odd_h))  # zeros never win: x comes out of ReLUs
        pooled: Tensor = super().forward(x)
        return pooled


def conv_bn_relu(in_channels: int, out_channels: int, kernel: int, stride: int = 1) -> nn.Module:
    return chain(
        conv=nn.Conv2d(in_channels, out_channels, kernel, stride, padding=kernel // 2),
        bn=nn.BatchNorm2d(out_channels),
        relu=nn.ReLU(inplace=True),  # BatchNorm's backward needs its input, not its output
    )


def chain(**modules: nn.Module) -> nn.Module:
    return nn.Sequential(OrderedDict(modules))
