"""torchvision's ColorJitter on a batch, on any device, by draws that come from elsewhere.

Always in the order brightness, contrast, saturation, hue (torchvision draws the order), without
rounding in between, where PIL rounds. Contrast is about the grey mean of each image, and hue is
turned in HSV.
"""

from __future__ import annotations

import torch
from torch import Tensor

from proofrun.recipe import ColorJitter

#: ITU-R BT.601 luma, as PIL's conversion to grey.
LUMA = (0.299, 0.587, 0.114)
#: Draws an image: one for each part.
DRAWS = 4


def color_jitter(images: Tensor, draws: Tensor, jitter: ColorJitter) -> Tensor:
    """Images uint8 (N, H, W, 3) changed as `draws`, float32 (N, 4), say: a new tensor of the kind.

    The draws are uniform in -1 to 1, one for each of brightness, contrast, saturation and hue. A
    draw of d is the factor 1 + d * width, and for the hue d * width turns.
    """
    planes = images.permute(3, 0, 1, 2).float().contiguous()  # (3, N, H, W)
    brightness, contrast, saturation, hue = draws.to(images.device).view(-1, DRAWS, 1, 1).unbind(1)
    if jitter.brightness:
        planes.mul_(1 + brightness * jitter.brightness).clamp_(max=255)
    if jitter.contrast:
        _blend(planes, _grey(planes).mean((1, 2), keepdim=True), contrast, jitter.contrast)
    if jitter.saturation:
        _blend(planes, _grey(planes), saturation, jitter.saturation)
    if jitter.hue:
        _turn(planes, hue * jitter.hue)
    return planes.round_().to(torch.uint8).permute(1, 2, 3, 0).contiguous()


def _grey(planes: Tensor) -> Tensor:
    r, g, b = planes
    return (r * LUMA[0]).add_(g, alpha=LUMA[1]).add_(b, alpha=LUMA[2])


def _blend(planes: Tensor, other: Tensor, draw: Tensor, width: float) -> None:
    """Away from `other` where the draw is positive, towards it where negative; in place."""
    factor = 1 + draw * width
    planes.mul_(factor).add_(other * (1 - factor)).clamp_(0, 255)


def _turn(planes: Tensor, turns: Tensor) -> None:
    """Turn the HSV hue by a fraction of a turn, in place.

    Each channel of a colour with value v, chroma c and hue h (in sixths of a turn) is
    v - c * clamp(min(k, 4 - k), 0, 1) with k = (n + h) mod 6 and n = 5, 3, 1 for R, G, B.
    """
    r, g, b = planes
    value = torch.maximum(torch.maximum(r, g), b)
    chroma = value - torch.minimum(torch.minimum(r, g), b)
    times_chroma = torch.where(
        value == r, g - b, torch.where(value == g, b - r + 2 * chroma, r - g + 4 * chroma)
    )
    sixths = times_chroma / chroma.clamp(min=1e-6)  # grey has no hue: 0
    sixths.add_(turns * 6)
    for channel, n in zip(planes, (5, 3, 1), strict=True):
        k = (sixths + n).remainder_(6)
        torch.minimum(k, 4 - k, out=k)
        torch.sub(value, k.clamp_(0, 1).mul_(chroma), out=channel)
