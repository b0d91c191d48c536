"""One process of one run: its training state, and how it speaks to the outside."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from torch import nn

from proofrun.data import Shard, TrainLoader
from proofrun.data.lists import ImageList
from proofrun.device import Device
from proofrun.evaluate import Inputs
from proofrun.heartbeat import Heart
from proofrun.optim import Stepper
from proofrun.progress import Progress
from proofrun.runs import Plan
from proofrun.window import Window
from proofrun.writer import Clock, EventWriter


class Leg(NamedTuple):
    """The part of a run trained by one number of ranks: from `step` and `epoch` on, both done."""

    step: int
    epoch: int
    seed: int  # of its data stream


@dataclass
class TrainState:
    """What changes while training, and all that a checkpoint has to hold."""

    model: nn.Module
    stepper: Stepper
    loader: TrainLoader
    leg: Leg
    step: int = 0
    best_top1: float = -1.0
    marks_done: int = 0


@dataclass
class Job:
    """One process of one run: what does not change, and how it speaks to the outside."""

    plan: Plan
    run_dir: Path
    device: Device
    state: TrainState
    net: nn.Module  # the model, wrapped for gradients over ranks
    inputs: Inputs
    val: ImageList
    shard: Shard
    clock: Clock
    writer: EventWriter | None  # rank 0
    progress: Progress
    window: Window
    signals: list[int]  # filled by the signal handler
    heart: Heart
    lock: object  # held as long as the job lives
    commit: str | None  # of the code that runs
    stop: tuple[int, str] | None = None  # (step, "mark" or "signal"), as announced by rank 0
    first_step: int = 0  # of this process
    owes_epoch_end: bool = False  # saved at an epoch's last step, before its evaluation
    ended_step: int | None = None  # of the last epoch that was evaluated
    saved: tuple[int, int] = (0, 0)  # step and marks done, of the last checkpoint
    look_every: int = 1  # steps between two looks for a signal; the same on all ranks
    failures: list[BaseException] = field(default_factory=list)  # of threads

    @property
    def step(self) -> int:
        """Optimizer steps done."""
        return self.state.step

    @property
    def steps_per_epoch(self) -> int:
        return self.state.loader.steps

    @property
    def schedule_step(self) -> int:
        """Steps done, had this number of ranks trained from the start: what schedules count."""
        leg = self.state.leg
        return leg.epoch * self.steps_per_epoch + self.state.step - leg.step

    @property
    def total_steps(self) -> int:
        left = self.plan.recipe.schedule.epochs * self.steps_per_epoch - self.schedule_step
        full = self.state.step + left
        return full if self.plan.max_steps is None else min(full, self.plan.max_steps)

    @property
    def epoch(self) -> float:
        """Epochs done, with fraction."""
        return self.schedule_step / self.steps_per_epoch

    @property
    def at_epoch_end(self) -> bool:
        return self.schedule_step % self.steps_per_epoch == 0
