"""Optimizer, learning rate and loss of a recipe, and one masked training step."""

from __future__ import annotations

import importlib
import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from proofrun.device import Device
from proofrun.errors import Exit, NonFiniteError, ProofrunError, one_line
from proofrun.faultpoints import poisoned
from proofrun.recipe import (
    Amp,
    CosineSchedule,
    MultiStepSchedule,
    Optimizer,
    Schedule,
    StepSchedule,
)

#: Steps skipped in a row before a run with a loss scale is given up: enough for a dynamic scale to
#: fall from 65536 to under 1, where no scale can help any more.
MAX_SKIPPED_IN_A_ROW = 20


def learning_rate(schedule: Schedule, peak: float, step: int, steps_per_epoch: int) -> float:
    """The rate of one step (counted from 0). Rates change at epochs, or at a milestone within one.

    Warm-up rises linearly to `peak` over `warmup_epochs`, step by step. The cosine is per epoch, as
    in the Ascend source: min + (peak - min) * (1 + cos(pi * epoch / epochs)) / 2.
    """
    warmup = schedule.warmup_epochs * steps_per_epoch
    if step < warmup:
        return peak * (step + 1) / warmup
    epoch = step // steps_per_epoch
    match schedule:
        case StepSchedule():
            return peak * schedule.gamma ** (epoch // schedule.every_epochs)
        case MultiStepSchedule():
            passed = sum(step >= m * steps_per_epoch for m in schedule.milestones)
            return peak * schedule.gamma**passed
        case CosineSchedule():
            half = (1 + math.cos(math.pi * epoch / schedule.epochs)) / 2
            return schedule.min_lr + (peak - schedule.min_lr) * half
    raise AssertionError(schedule)


def build_optimizer(model: nn.Module, spec: Optimizer) -> torch.optim.Optimizer:
    """SGD over one or two parameter groups, fused where there is such a kernel.

    Without `decay_bn_and_bias`, one-dimensional parameters (BN gamma, beta, biases) get no decay.
    """
    decayed = [p for p in model.parameters() if p.ndim > 1 or spec.decay_bn_and_bias]
    others = [p for p in model.parameters() if p.ndim <= 1 and not spec.decay_bn_and_bias]
    groups: list[dict[str, Any]] = [{"params": decayed, "weight_decay": spec.weight_decay}]
    if others:
        groups.append({"params": others, "weight_decay": 0.0})
    optimizer = _apex_sgd(groups, spec) if spec.implementation == "apex" else _sgd(groups, spec)
    # A fused first step that is masked would leave its momentum uninitialised; zeros give the same
    # first step as no buffer at all.
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return optimizer


def _sgd(groups: list[dict[str, Any]], spec: Optimizer) -> torch.optim.Optimizer:
    try:
        return torch.optim.SGD(groups, lr=0.0, momentum=spec.momentum, fused=True)
    except RuntimeError:  # torch has no fused SGD for this device
        return torch.optim.SGD(groups, lr=0.0, momentum=spec.momentum)


def _apex_sgd(groups: list[dict[str, Any]], spec: Optimizer) -> torch.optim.Optimizer:
    """FusedSGD of NVIDIA's apex: one kernel over all tensors. Raises ProofrunError.

    It takes no mask: a step with a non-finite loss is left out by a look from the host.
    """
    try:
        fused_sgd = importlib.import_module("apex.optimizers").FusedSGD
        optimizer: torch.optim.Optimizer = fused_sgd(groups, lr=0.0, momentum=spec.momentum)
    except Exception as error:  # built for another torch, or without its CUDA extension
        raise ProofrunError(
            f"apex.optimizers.FusedSGD cannot be used: {one_line(error)}; build apex with its CUDA "
            "extensions for this torch, or give --set optimizer.implementation=torch",
            Exit.NOT_INSTALLED,
        ) from None
    return optimizer


def build_scaler(amp: Amp | None, device: Device) -> torch.amp.GradScaler | None:
    """The gradient scaler of the precision, or None where there is no loss scale."""
    if amp is None or amp.loss_scale is None:
        return None
    start = 65536.0 if amp.loss_scale == "dynamic" else amp.loss_scale
    return torch.amp.GradScaler(device.backend.torch_type, init_scale=start)


def losses(logits: Tensor, labels: Tensor, smoothing: float) -> tuple[Tensor, Tensor]:
    """(smoothed loss to minimise, plain cross entropy without gradient), float32 means or better.

    Published smoothing puts s / (K - 1) on each wrong class; torch's puts e / K on all: equal at
    e = s * K / (K - 1).
    """
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    classes = logits.shape[1]
    if smoothing == 0:
        loss = F.cross_entropy(logits, labels)
        return loss, loss.detach()
    loss = F.cross_entropy(logits, labels, label_smoothing=smoothing * classes / (classes - 1))
    return loss, F.cross_entropy(logits.detach(), labels)


class Stepper:
    """Applies gradients, masks the step of a non-finite loss, and counts, without a host sync."""

    def __init__(
        self, optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler | None, device: Device
    ) -> None:
        self.optimizer = optimizer
        self.scaler = scaler
        self._device = device
        self._fixed_scale = (
            float(device.amp.loss_scale)
            if device.amp and isinstance(device.amp.loss_scale, int | float)
            else None
        )
        # [steps skipped, steps skipped in a row, first bad step + 1, its rank + 1]
        self.counts = torch.zeros(4, dtype=torch.int64, device=device.torch_device)
        self._bad = torch.zeros(1, dtype=torch.int64, device=device.torch_device)
        self._step = 0
        self._fused = bool(optimizer.defaults.get("fused"))
        optimizer.register_step_pre_hook(self._count)

    def apply(self, loss: Tensor, step: int, lr: float) -> None:
        """Backward and update at `step` (from 0). A step bad on any rank changes nothing."""
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self._step = step
        if poisoned("loss", step=step, rank=self._device.rank):
            loss.mul_(math.nan)
        finite = torch.isfinite(loss.detach())
        self._bad = torch.where(finite, 0, self._device.rank + 1).reshape(1)
        self._device.max_(self._bad)
        (loss if self.scaler is None else self.scaler.scale(loss)).backward()
        if poisoned("gradient", step=step, rank=self._device.rank):
            self.optimizer.param_groups[0]["params"][0].grad.fill_(math.inf)
        if self.scaler is None:
            if self._fused:
                self.optimizer.found_inf = (self._bad > 0).float()  # type: ignore[attr-defined]
                self.optimizer.step()
            elif not bool(self._bad):  # no fused kernel, no mask: this device pays a host sync
                self.optimizer.step()
            else:
                self._note(torch.ones(1, device=self._bad.device))
        else:
            self.scaler.step(self.optimizer)
            if not self._fused:  # the scaler skipped by a host check, past the hook
                self._note(sum(self.scaler._found_inf_per_device(self.optimizer).values()))
            self.scaler.update(self._fixed_scale)
        # not optimizer.zero_grad: apex's takes no set_to_none
        torch.optim.Optimizer.zero_grad(self.optimizer, set_to_none=True)

    def _count(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        found = getattr(optimizer, "found_inf", None)
        if found is not None:
            self._note(found.reshape(1))

    def _note(self, found: Tensor) -> None:
        skipped = (found > 0).long()
        counts = self.counts
        first = (counts[2:3] == 0) & (self._bad > 0)
        counts[0:1] += skipped
        counts[1:2] = (counts[1:2] + skipped) * skipped
        counts[2:3] = torch.where(first, self._step + 1, counts[2:3])
        counts[3:4] = torch.where(first, self._bad, counts[3:4])

    def scale(self) -> float | None:
        """The loss scale, or None. A host sync: log points only."""
        return None if self.scaler is None else float(self.scaler.get_scale())

    def check(self) -> int:
        """Steps skipped so far. A host sync: log points, and before a save, mark or evaluation.

        Raises NonFiniteError naming step and rank: without a scaler at the first bad loss, with one
        when skipping does not help.
        """
        skipped, in_a_row, bad_step, bad_rank = self.counts.tolist()
        where = f"at step {bad_step} on rank {bad_rank - 1}"
        if self.scaler is None and bad_step:
            raise NonFiniteError(
                f"the loss is not finite {where}; its update was masked and the last checkpoint is "
                "good: lower the learning rate or look at the input of that step"
            )
        scale = self.scale()
        if scale is not None and (in_a_row >= MAX_SKIPPED_IN_A_ROW or scale < 1):
            raise NonFiniteError(
                f"{in_a_row} steps in a row were skipped for inf or nan gradients (loss scale "
                f"{scale:g}{', first bad loss ' + where if bad_step else ''}); try BF16 or FP32"
            )
        return int(skipped)

    def check_state(self, model: nn.Module, step: int) -> None:
        """Raises NonFiniteError on every rank where any rank's state at `step` is not finite.

        Gradients that overflow under a finite loss, and BN statistics, which a forward pass changes
        whether or not the update is masked, are not seen by `check`. A host sync.
        """
        tensors = {name: t for name, t in model.state_dict().items() if t.is_floating_point()}
        for name, parameter in model.named_parameters():
            tensors[f"momentum of {name}"] = self.optimizer.state[parameter]["momentum_buffer"]
        bad = torch.stack([~torch.isfinite(tensor).all() for tensor in tensors.values()])
        first = 1 + int(bad.int().argmax()) if bool(bad.any()) else 0
        ranks = range(self._device.world)
        firsts = self._device.sum([first * (rank == self._device.rank) for rank in ranks])
        names = list(tensors)
        for rank, number in enumerate(firsts):
            if number:
                raise NonFiniteError(
                    f"{names[int(number) - 1]} is not finite at step {step} on rank {rank}; "
                    "this state is not saved and the last checkpoint is good: lower the learning "
                    "rate, or try BF16 or FP32"
                )

    def state(self) -> dict[str, Any]:
        return {
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict() if self.scaler else None,
            "counts": self.counts.cpu(),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        self.optimizer.load_state_dict(state["optimizer"])
        if self.scaler is not None:
            self.scaler.load_state_dict(state["scaler"])
        self.counts.copy_(state["counts"])
