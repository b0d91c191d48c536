"""Whether a batch fits into the memory of a device, and which one does."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from proofrun.device import Device
from proofrun.errors import Exit, ProofrunError, out_of_memory

#: The largest batch that is tried out as advice: more brings no speed.
ADVICE = 256


@torch.no_grad()
def check_batch(
    net: nn.Module,
    inputs: nn.Module,
    size: int,
    batch: int,
    device: Device,
    flag: str = "--set batch.per_card=",
) -> None:
    """Run one batch of black images. Raises ProofrunError OUT_OF_MEMORY, naming one that fits.

    `flag`: what is given for another batch.
    """
    if fits(net, inputs, size, batch, device):
        return
    smaller = 1 << (min(batch - 1, ADVICE).bit_length() - 1) if batch > 1 else 0
    while smaller and not fits(net, inputs, size, smaller, device):
        smaller //= 2
    advice = f"{smaller} fit: {flag}{smaller}" if smaller else "not even one fits"
    raise ProofrunError(
        f"{batch} images of {size} px at once do not fit into the memory of {device.name}: "
        f"{advice}",
        Exit.OUT_OF_MEMORY,
    )


@torch.no_grad()
def fits(net: nn.Module, inputs: nn.Module, size: int, batch: int, device: Device) -> bool:
    """Whether one batch of black images goes through; not tried where it clearly cannot."""
    left = device.memory_left()
    black = torch.zeros(1, size, size, 3, dtype=torch.uint8)
    try:
        if left is not None and batch * _bytes_per_image(net, inputs, black, device) > left:
            return False  # an overcommitting system would kill us instead of saying no
        with device.autocast():
            net(inputs(black.expand(batch, -1, -1, -1))).cpu()
    except Exception as error:
        if not out_of_memory(error):
            raise
        return False
    return True


def _bytes_per_image(net: nn.Module, inputs: nn.Module, black: Tensor, device: Device) -> int:
    """What the hungriest layer holds at once, its input and its output, for one image."""
    held = [0]

    def look(_module: nn.Module, given: Any, made: Any) -> None:
        tensors = [t for t in (*given, made) if isinstance(t, Tensor)]
        held[0] = max(held[0], sum(t.numel() * t.element_size() for t in tensors))

    hooks = [module.register_forward_hook(look) for module in net.modules()]
    try:
        with device.autocast():
            net(inputs(black))
    finally:
        for hook in hooks:
            hook.remove()
    return held[0]
