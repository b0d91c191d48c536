"""Looks at a network while it trains, and changes nothing of it: statistics of every layer."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from . import streams
from .trace import STATS, Kind, Row, Values

Key = tuple[str, Kind]

#: Modules whose output is their input in another shape.
_NO_LAYERS = (nn.Flatten, nn.Identity)


class Probe:
    """Hooks on every layer of `model`; one row of statistics a tensor and step.

    Sums are in float64 where `device` has it. `order`: how the batch was permuted before it was
    given to the model; statistics are of the batch as it was.
    """

    def __init__(self, model: nn.Module, device: torch.device, exact: bool) -> None:
        self._model = model
        self._device = device
        self._dtype = torch.float64 if exact else torch.float32
        self._vectors: dict[tuple[str, int, int], tuple[Tensor, Tensor, Tensor]] = {}
        self._pending: dict[Key, Tensor] = {}
        self._shapes: dict[Key, tuple[int, ...]] = {}
        self._forward: list[str] = []  # layers in the order in which they first ran
        self._steps: list[dict[Key, Values]] = []
        self.order: Tensor | None = None
        self.scale = 1.0  # by which the loss, and so every gradient, is multiplied
        self.handles = [
            module.register_forward_hook(self._hook(name))
            for name, module in model.named_modules()
            if not any(module.children()) and not isinstance(module, _NO_LAYERS)
        ]

    def _hook(self, name: str) -> Callable[[nn.Module, Any, Tensor], None]:
        def after(_module: nn.Module, _args: Any, output: Tensor) -> None:
            self.activation(name, output)

        return after

    def activation(self, name: str, output: Tensor) -> None:
        """Note an output now, and its gradient when it comes."""
        if name not in self._forward:
            self._forward.append(name)
        self._note(name, "output", output)
        if output.requires_grad:
            # a hook of the tensor: one of the module would forbid the ReLU to work in place
            output.register_hook(lambda grad: self._note(name, "grad", grad, 1 / self.scale))

    def input(self, images: Tensor) -> None:
        """The network's input, whole and by colour."""
        self.activation("input", images)
        for index, colour in enumerate(("R", "G", "B")):
            self.activation(f"input.{colour}", images[:, index : index + 1])

    def gradients(self, optimizer: torch.optim.Optimizer) -> None:
        """Before the optimizer's step: the gradients that it is about to apply, unscaled."""
        scale = getattr(optimizer, "grad_scale", None)  # a fused optimizer divides by it itself
        factor = 1.0 if scale is None else 1 / float(scale)
        for name, parameter in self._model.named_parameters():
            if parameter.grad is not None:
                self._note(name, "weight_grad", parameter.grad, factor)

    def after_step(self, optimizer: torch.optim.Optimizer) -> None:
        """After it: weights, momentum and BN statistics; everything of the step is fetched."""
        for name, parameter in self._model.named_parameters():
            self._note(name, "weight", parameter)
            moment = optimizer.state[parameter].get("momentum_buffer")
            if moment is not None:
                self._note(name, "moment", moment)
        for name, buffer in self._model.named_buffers():
            if buffer.is_floating_point():
                self._note(name, "buffer", buffer)
        keys = list(self._pending)
        values = torch.stack([self._pending[key] for key in keys]).cpu().double().numpy()
        self._steps.append(dict(zip(keys, values, strict=True)))
        self._pending = {}

    @torch.no_grad()
    def _note(self, name: str, kind: Kind, tensor: Tensor, factor: float = 1.0) -> None:
        activation = kind in ("output", "grad")
        if activation and self.order is not None:
            tensor = torch.empty_like(tensor).index_copy_(0, self.order, tensor)
        self._shapes.setdefault((name, kind), tuple(tensor.shape))
        with torch.autocast(tensor.device.type, enabled=False):
            self._pending[name, kind] = self._statistics(name, tensor, activation) * factor
        if factor != 1.0:  # a share is no size
            zeros = STATS.index("zeros")
            self._pending[name, kind][zeros] /= factor

    def _statistics(self, name: str, tensor: Tensor, activation: bool) -> Tensor:
        """The row of STATS of a tensor, on its device."""
        axis = 1 if activation and tensor.ndim > 1 else 0
        # (places, channels): no copy for a map that is channels-last
        table = tensor.movedim(axis, -1).reshape(-1, tensor.shape[axis]).to(self._dtype)
        channels, places, ramp = self._vectors_of(name, table.shape[1], table.shape[0])
        count = table.numel()
        if self._dtype is torch.float64:
            sums = places @ table
        else:  # products of float32 may be rounded in the very way that is to be found
            sums = torch.stack([(row[:, None] * table).sum(0) for row in places])
        plain = (sums * channels).sum(1) / math.sqrt(count)
        ramped = (sums * channels * ramp).sum(1) / math.sqrt(count)
        inner = table.new_zeros(())
        if activation and tensor.ndim == 4 and min(tensor.shape[2:]) > 2:
            inner = _rms(tensor[:, :, 1:-1, 1:-1].to(self._dtype))
        single = torch.stack(
            [
                table.mean(),
                _rms(table),
                table.abs().amax(),
                inner,
                (table == 0).to(self._dtype).mean(),
            ]
        )
        return torch.cat([single, plain, ramped])

    def _vectors_of(self, name: str, channels: int, places: int) -> tuple[Tensor, Tensor, Tensor]:
        shared = "input" if name.startswith("input.") else name  # colours compare with each other
        key = (shared, channels, places)
        if key not in self._vectors:
            made = streams.vectors(*key)
            one, two, three = (
                torch.from_numpy(np.asarray(part)).to(self._device, self._dtype)
                for part in (made.channels, made.places, streams.ramp(channels))
            )
            self._vectors[key] = one, two, three
        return self._vectors[key]

    def rows(self) -> list[Row]:
        """All rows in causal order: forward, backward, update."""
        parameters = [name for name, _ in self._model.named_parameters()]
        buffers = [name for name, _ in self._model.named_buffers()]

        def of(layer: str, names: list[str]) -> list[str]:
            return [name for name in names if name.rpartition(".")[0] == layer]

        keys: list[Key] = []
        for layer in self._forward:
            keys += [(layer, "output"), *((name, "buffer") for name in of(layer, buffers))]
        for layer in reversed(self._forward):
            keys += [(layer, "grad"), *((n, "weight_grad") for n in of(layer, parameters))]
        updates: tuple[Kind, ...] = ("moment", "weight")
        for layer in self._forward:
            keys += [(name, kind) for name in of(layer, parameters) for kind in updates]
        return [
            Row(name=name, kind=kind, shape=self._shapes[name, kind])
            for name, kind in keys
            if (name, kind) in self._shapes
        ]

    def grad_norms(self) -> list[float]:
        """Of each step, the norm of all gradients, from their rms; also of layers that were passed
        by: merged branches use the weights without calling their layers."""
        rms = STATS.index("rms")
        return [
            math.sqrt(
                sum(
                    float(values[rms]) ** 2 * math.prod(self._shapes[key])
                    for key, values in made.items()
                    if key[1] == "weight_grad"
                )
            )
            for made in self._steps
        ]

    def values(self, rows: list[Row]) -> Values:
        """(steps, rows, len(STATS)); NaN where a step did not make a tensor."""
        missing = np.full(len(STATS), np.nan)
        return np.array([[s.get((r.name, r.kind), missing) for r in rows] for s in self._steps])


def _rms(tensor: Tensor) -> Tensor:
    return tensor.square().mean().sqrt()
