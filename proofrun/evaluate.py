"""Evaluation: sums of correct and count over every image once, never means of means."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from proofrun.data import Batch
from proofrun.device import Device
from proofrun.errors import CountError
from proofrun.recipe import Normalize, PartialBatches


class Inputs(nn.Module):
    """uint8 NHWC pixels on the host -> normalised float32 NCHW (channels-last) on the device.

    `bgr`: for networks that want the channels the other way round; `normalize` is in their order.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, normalize: Normalize, device: torch.device, bgr: bool = False) -> None:
        super().__init__()
        self.bgr = bgr
        std = torch.tensor(normalize.std, dtype=torch.float64)
        mean = torch.tensor(normalize.mean, dtype=torch.float64)
        self.register_buffer("scale", (1 / (255 * std)).float().to(device))
        self.register_buffer("shift", (-mean / std).float().to(device))

    def forward(self, images: Tensor) -> Tensor:
        """images: (B, H, W, 3) uint8. Returns (B, 3, H, W) float32."""
        pixels = images.to(self.scale.device, non_blocking=True)
        pixels = pixels.flip(-1) if self.bgr else pixels
        # whole rows: a loop over three channels leaves the vector units of a CPU idle
        width = images.shape[2]
        rows = pixels.float().flatten(2)
        rows.mul_(self.scale.repeat(width)).add_(self.shift.repeat(width))
        return rows.view(pixels.shape).permute(0, 3, 1, 2)


@dataclass(frozen=True)
class Part:
    """Sums over what a source scores that drops partial batches, by one shard rule."""

    shards: str
    correct1: int
    correct5: int
    count: int


@dataclass(frozen=True)
class Score:
    """Sums over the whole list; `prediction_hash` is sha256 over the predicted class of each id."""

    protocol: str
    correct1: int
    correct5: int
    count: int
    loss_sum: float
    prediction_hash: str
    parts: tuple[Part, ...] = ()

    @property
    def top1(self) -> float:
        """Percent."""
        return 100 * self.correct1 / self.count

    @property
    def top5(self) -> float:
        """Percent."""
        return 100 * self.correct5 / self.count

    @property
    def loss(self) -> float:
        """Mean plain cross entropy."""
        return self.loss_sum / self.count


def averaged_model(model: nn.Module, device: Device) -> nn.Module:
    """A copy in eval mode whose BN statistics are the mean over ranks; `model` is not touched."""
    twin = copy.deepcopy(model).eval()
    buffers = [buffer for buffer in twin.buffers() if buffer.is_floating_point()]
    if device.world > 1 and buffers:
        # one message instead of hundreds
        together = torch.cat([buffer.reshape(-1) for buffer in buffers])
        device.mean_(together)
        parts = together.split([buffer.numel() for buffer in buffers])
        for buffer, part in zip(buffers, parts, strict=True):
            buffer.copy_(part.view_as(buffer))
    return twin


@torch.no_grad()
def evaluate(
    model: nn.Module,
    batches: Iterable[Batch],
    expected: int,
    protocol: str,
    inputs: Inputs,
    device: Device,
    drops: PartialBatches | None = None,
) -> Score:
    """Score `batches` of all ranks: `expected` images, ids 0 … expected - 1, each exactly once.

    With `drops`, also what a source scores that leaves out the last partial batch of each card.
    Raises CountError when an image was missed or seen twice.
    """
    assert not model.training
    sums = torch.zeros(3, dtype=torch.float64)
    seen = torch.zeros(expected, dtype=torch.int32)
    predicted = torch.zeros(expected, dtype=torch.int32)
    right = torch.zeros(expected, dtype=torch.int32)  # 2: first guess, 1: among five, 0: neither
    parts: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
    for batch in batches:
        if len(batch.labels) == 0:  # this rank has none left
            continue
        labels = batch.labels.to(device.torch_device, non_blocking=True)
        with device.autocast():
            logits = model(inputs(batch.images))
        logits = logits.float()
        top = logits.topk(min(5, logits.shape[1]), dim=1).indices
        hits = top == labels[:, None]
        loss = F.cross_entropy(logits, labels, reduction="sum")
        parts.append(
            (
                batch.ids.clone(),
                top[:, 0],
                hits[:, 0].int() + hits.any(dim=1).int(),
                torch.stack([hits[:, 0].sum().float(), hits.sum().float(), loss]),
            )
        )
    for ids, classes, guesses, part in parts:  # the card is asked only now: no sync between batches
        sums += part.to("cpu", torch.float64)
        seen.index_add_(0, ids, torch.ones(len(ids), dtype=torch.int32))
        predicted[ids] = classes.to("cpu", torch.int32)
        right[ids] = guesses.to("cpu", torch.int32)
    together = torch.stack([seen, predicted, right])
    device.sum_(together)
    device.sum_(sums)
    seen, predicted, right = together
    _each_once(seen, protocol)
    correct1, correct5, loss_sum = sums.tolist()
    return Score(
        protocol=protocol,
        correct1=int(correct1),
        correct5=int(correct5),
        count=int(seen.sum()),
        loss_sum=loss_sum,
        prediction_hash=hashlib.sha256(predicted.numpy().astype("<i4").tobytes()).hexdigest(),
        parts=_without_partial_batches(right, drops) if drops else (),
    )


def _without_partial_batches(right: Tensor, drops: PartialBatches) -> tuple[Part, ...]:
    """Both ways in use to cut a list for cards: blocks of neighbours, and every n-th image."""
    ids = torch.arange(len(right))
    cuts = {
        "blocks": torch.tensor_split(ids, drops.cards),
        "every n-th": [ids[card :: drops.cards] for card in range(drops.cards)],
    }
    found = []
    for name, shards in cuts.items():
        full = [shard[: len(shard) // drops.per_card * drops.per_card] for shard in shards]
        kept = right[torch.cat(full)]
        hits = int((kept == 2).sum()), int((kept >= 1).sum())
        found.append(Part(name, *hits, len(kept)))
    return tuple(found)


def _each_once(seen: Tensor, protocol: str) -> None:
    wrong = (seen != 1).nonzero().flatten().tolist()
    if wrong:
        raise CountError(
            f"evaluation {protocol}: {len(wrong)} of {len(seen)} images were not scored exactly "
            f"once; the first is number {wrong[0]}, seen {int(seen[wrong[0]])} times"
        )
