"""What was run on which device, from committed logs: it cannot claim more than they show."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple, get_args

from proofrun.events import RunEnd
from proofrun.recipe import Precision
from proofrun.runs import DeviceKind, Task

from .read import Run, read_logs

#: Cards of a row: the published recipes', and what the rehearsal has on a CPU.
CARDS: dict[DeviceKind, tuple[int, ...]] = {
    "CPU": (1, 2), "GPU": (1, 8), "NPU": (1, 8), "MLU": (1, 8),
}  # fmt: skip
DEVICES: dict[DeviceKind, str] = {
    "CPU": "CPU", "GPU": "NVIDIA GPU", "NPU": "Ascend NPU", "MLU": "Cambricon MLU",
}  # fmt: skip
PRECISIONS: tuple[Precision, ...] = get_args(Precision)


class Key(NamedTuple):
    """One way to use a device."""

    device: DeviceKind
    task: Task
    cards: int
    precision: Precision


def verified(runs: Iterable[Run]) -> dict[Key, float]:
    """When each combination last finished as its recipe says, in seconds since 1970 UTC."""
    found: dict[Key, float] = {}
    for run in runs:
        ends = [end.t_wall for end, _ in run.of(RunEnd) if end.status == "finished"]
        plan = run.plan
        whole = plan.purpose == "full" and not plan.overrides and plan.loader != "synthetic"
        if run.status != "finished" or not ends or not whole or run.nodes > 1:
            continue
        key = Key(run.name.device, run.name.task, run.cards, run.plan.precision)
        found[key] = max(ends[-1], found.get(key, 0.0))
    return found


def table(reports: Sequence[Path], root: Path) -> str:
    """A row for each device, task and number of cards; a column for each precision.

    `reports` are committed report folders: `logs/` and `report.md` in each.
    """
    where: dict[Key, tuple[float, Path]] = {}
    for report in reports:
        for key, when in verified(read_logs([report / "logs"]).runs).items():
            where[key] = max((when, report), where.get(key, (0.0, report)))
    lines = [
        f"| Device | Task | Cards | {' | '.join(PRECISIONS)} |",
        f"| --- | --- | --- |{' --- |' * len(PRECISIONS)}",
    ]
    for device, cards in CARDS.items():
        for task in get_args(Task):
            for count in cards:
                cells = [
                    _cell(Key(device, task, count, precision), where, root)
                    for precision in PRECISIONS
                ]
                lines.append(f"| {DEVICES[device]} | {task} | {count} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(key: Key, where: dict[Key, tuple[float, Path]], root: Path) -> str:
    if key.precision == "TF32" and key.device != "GPU":  # a mode of NVIDIA's tensor cores
        return "–"
    if key in where:
        when, report = where[key]
        day = time.strftime("%Y-%m-%d", time.gmtime(when))
        return f"[verified {day}]({report.relative_to(root).as_posix()}/report.md)"
    near = any((one.device, one.task) == (key.device, key.task) for one in where)
    return "*expected*" if near else "*untested*"
