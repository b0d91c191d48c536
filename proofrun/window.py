"""One window of steps: losses that stay on the device until a log point reads them at once."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from proofrun.errors import WriteError


class Window:
    """Losses of some steps, kept on the device until a log point reads them in one transfer."""

    def __init__(self, size: int, device: torch.device, iters: Path | None) -> None:
        """`iters`: where rank 0 writes every iteration of the first epoch."""
        self._values = torch.zeros(size, 2, device=device)
        self._size = size
        self._iters = iters
        self._rows: list[tuple[float, int, float, float]] = []  # lr, images, wait_s, time

    def start(self) -> None:
        """A new window begins now."""
        self._rows.clear()
        self._start = time.monotonic()

    def add(self, loss: Tensor, ce: Tensor, lr: float, images: int, wait_s: float) -> None:
        self._values[len(self._rows)] = torch.stack([loss.detach(), ce])
        self._rows.append((lr, images, wait_s, time.monotonic()))

    @property
    def steps(self) -> int:
        return len(self._rows)

    @property
    def full(self) -> bool:
        return self.steps == self._size

    def read(self) -> dict[str, Any]:
        """Mean loss and ce of this rank, lr, steps, images, window_s, data_wait_s. A host sync."""
        values = self._values[: len(self._rows)].cpu().double()
        seconds = time.monotonic() - self._start
        mean = values.mean(0).tolist()
        return {
            "values": values,
            "loss": mean[0],
            "ce": mean[1],
            "lr": self._rows[-1][0],
            "steps": len(self._rows),
            "images": sum(row[1] for row in self._rows),
            "window_s": seconds,
            "data_wait_s": sum(row[2] for row in self._rows),
        }

    def write_iterations(self, values: Tensor, last_step: int) -> None:
        """Append each iteration of the window to iters.jsonl (this rank's losses).

        Raises WriteError.
        """
        if self._iters is None:
            return
        before = self._start
        first = last_step - len(self._rows) + 1
        lines = []
        for index, (lr, images, wait_s, at) in enumerate(self._rows):
            loss, ce = values[index].tolist()
            row = {
                "step": first + index,
                "loss": loss if math.isfinite(loss) else str(loss),
                "ce": ce if math.isfinite(ce) else str(ce),
                "lr": lr,
                "images": images,
                "iter_s": round(at - before, 6),
                "data_wait_s": round(wait_s, 6),
            }
            lines.append(json.dumps(row) + "\n")
            before = at
        try:
            with self._iters.open("a", encoding="utf-8") as file:
                file.writelines(lines)
        except OSError as error:
            raise WriteError(
                f"cannot write {self._iters}: {error.strerror}; free space, then run the same again"
            ) from None
