"""Differences that are harmless: other orders of summation, the same mathematics."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from . import streams
from .engine import Session

Change = Callable[[Session], None]

#: Mantissa bits of TF32, as of float16.
TF32_BITS = 10


def permuted_batch(session: Session) -> None:
    """Every sum over the batch in another order."""
    draw = streams.words(session.exercise.batch, "order", session.exercise.seed)
    session.order = torch.from_numpy(np.argsort(draw, kind="stable"))


def unfused(session: Session) -> None:
    """The optimizer as a loop over tensors."""
    session.make_stepper(fused=False)


def merged_branches(session: Session) -> None:
    """The 1x1 convolutions that share a block's input are one convolution, its output cut."""
    for module in session.model.modules():
        if isinstance(module, nn.ModuleDict):
            module.forward = _merged(module)


def _merged(block: nn.ModuleDict) -> Callable[[Tensor], Tensor]:
    def forward(x: Tensor) -> Tensor:
        together: list[tuple[str, Any, Any]] = []
        others: list[tuple[str, Any, Any]] = []
        for name, branch in block.items():
            first = getattr(branch, "reduce", branch)
            merge = isinstance(getattr(first, "conv", None), nn.Conv2d)
            (together if merge else others).append((name, branch, first))
        convs: list[Any] = [first.conv for _, _, first in together]
        bias = None if convs[0].bias is None else torch.cat([c.bias for c in convs])
        cut = F.conv2d(x, torch.cat([c.weight for c in convs]), bias)
        pieces = cut.split([conv.out_channels for conv in convs], 1)
        parts = {name: part for (name, *_), part in zip(together, pieces, strict=True)}
        made = {name: branch(x) for name, branch, _ in others}
        for name, branch, first in together:
            part = first.relu(first.bn(parts[name]))
            for after, layer in branch.named_children() if first is not branch else ():
                if after != "reduce":
                    part = layer(part)
            made[name] = part
        return torch.cat([made[name] for name in block], 1)

    return forward


class _Rounded(torch.autograd.Function):
    """Rounds to `TF32_BITS` of mantissa, to nearest even, forward and backward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return rounded(x)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        return rounded(grads[0])


def rounded(x: Tensor, bits: int = TF32_BITS) -> Tensor:
    """float32 with `bits` of mantissa left."""
    drop = 23 - bits
    words = x.view(torch.int32)
    even = (words >> drop) & 1
    words = (words + (1 << (drop - 1)) - 1 + even) >> drop << drop
    return words.view(torch.float32)


def round_layer(layer: nn.Conv2d | nn.Linear) -> None:
    """Let one layer multiply as TF32 does: both operands rounded, and the gradient that comes."""

    def forward(x: Tensor) -> Tensor:
        weight = _Rounded.apply(layer.weight)
        if isinstance(layer, nn.Linear):
            out = _Backward.apply(F.linear(_Rounded.apply(x), weight))
            return out if layer.bias is None else out + layer.bias
        out = F.conv2d(_Rounded.apply(x), weight, None, layer.stride, layer.padding)
        out = _Backward.apply(out)
        return out if layer.bias is None else out + layer.bias[:, None, None]

    layer.forward = forward  # type: ignore[method-assign, assignment]


class _Backward(torch.autograd.Function):
    """The output as it is (it was summed in float32), its gradient rounded."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        return rounded(grads[0])


def tf32(session: Session) -> None:
    """Every product as TF32 hardware makes it, on hardware that has none."""
    for module in session.model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            round_layer(module)


def nothing(session: Session) -> None:
    """As it is."""


@contextlib.contextmanager
def plain_kernels() -> Iterator[None]:
    """Convolutions by another algorithm: torch's own instead of oneDNN's."""
    with torch.backends.mkldnn.flags(enabled=False):
        yield


@contextlib.contextmanager
def threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
