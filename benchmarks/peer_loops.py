"""The peers' training loops, written anew after what their trainers do at their own settings.

torchvision: references/classification/train.py of pytorch/vision. timm: train.py of
huggingface/pytorch-image-models. Both train in NCHW unless told otherwise.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.steps import LR, Loop, Problem, peer_network
from proofrun.vision import import_torchvision


def torchvision_loop(task: Problem, name: str, best: bool) -> Loop:
    """torchvision's reference: plain SGD, loss and accuracies read after every step."""
    criterion, autocast, net, layout = _peer(task, best, compiled=False)
    spec = task.recipe.optimizer
    optimizer = torch.optim.SGD(
        net.parameters(), lr=LR, momentum=spec.momentum, weight_decay=spec.weight_decay
    )

    def step(count: int, batch: tuple[Tensor, Tensor]) -> Tensor:
        images, labels = batch[0].contiguous(memory_format=layout), batch[1]
        with autocast():
            output = net(images)
            loss = criterion(output, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.inference_mode():
            hits = output.topk(5, 1).indices == labels[:, None]
            float(hits[:, :1].sum()), float(hits.sum()), float(loss.detach())
        return loss

    return Loop(name, step, task.normalised())


def timm_loop(task: Problem, name: str, best: bool, compiled: bool = False) -> Loop:
    """timm's trainer: decay as the recipe has it, the loss read every 50 steps."""
    import_torchvision()
    from timm.optim import create_optimizer_v2

    criterion, autocast, net, layout = _peer(task, best, compiled)
    spec = task.recipe.optimizer
    optimizer = create_optimizer_v2(
        net, opt="momentum", lr=LR, weight_decay=spec.weight_decay, momentum=spec.momentum,
        filter_bias_and_bn=not spec.decay_bn_and_bias,
    )  # fmt: skip

    def step(count: int, batch: tuple[Tensor, Tensor]) -> Tensor:
        images = batch[0].contiguous(memory_format=layout)
        with autocast():
            loss = criterion(net(images), batch[1])
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if count % 50 == 0:
            float(loss.detach())
        return loss

    return Loop(name, step, task.normalised())


def _peer(task: Problem, best: bool, compiled: bool) -> tuple[Any, Any, Any, torch.memory_format]:
    """Loss, autocast, network and layout; `best`: channels-last, which neither has by default."""
    network = peer_network(task.recipe.name)
    network.load_state_dict(task.start)
    layout = torch.channels_last if best else torch.contiguous_format
    net: Any = network.to(memory_format=layout).train()  # type: ignore[call-overload]
    if compiled:
        net = torch.compile(net)
    smoothing = task.smoothing * 1000 / 999  # the same function, see proofrun.optim.losses
    mixed = task.precision == "BF16"
    return (
        nn.CrossEntropyLoss(label_smoothing=smoothing),
        lambda: torch.autocast("cpu", torch.bfloat16, enabled=mixed),
        net,
        layout,
    )
