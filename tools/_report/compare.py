"""Two runs side by side: what was set differently, what was measured, and where the losses part."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from proofrun.errors import UsageError
from proofrun.text import clean

from . import measure, standing, units
from .cells import NONE
from .differences import differences, shown
from .measure import Group, Sample
from .output import stdout
from .read import Run, read_logs

PART = 0.01  # relative difference of two losses from which curves have parted
EPOCHS_SHOWN = 12

Losses = dict[int, float]  # by step


class Parting(NamedTuple):
    """How two series of losses go: steps compared, first difference in a bit, first above PART."""

    steps: int
    first: int | None
    parted: int | None


def compare(names: Sequence[str], paths: Sequence[Path]) -> None:
    """Print all tables. `names`: run folders, or NAME/NNN below `paths`. Raises UsageError."""
    a, b = (_find(name, paths) for name in names)
    console = stdout()
    console.print(Text(f"A: {clean(a[0].folder)} ({a[0].status})"), soft_wrap=True)
    console.print(Text(f"B: {clean(b[0].folder)} ({b[0].status})"), soft_wrap=True)
    plans = [run.plan.model_dump(mode="json", by_alias=True) for run, _ in (a, b)]
    _table(console, "Set differently (recipe and plan)", _changes(*plans))
    facts = [_provenance(run) for run, _ in (a, b)]
    _table(console, "Run on something else (provenance)", _changes(*facts))
    console.print(Text(f"\nFingerprint of the data: {_same_data(a[0], b[0])}"), soft_wrap=True)
    _table(console, "Measured", _measures(a[0], b[0]), numeric=True)
    _table(console, "At equal epochs", _at_epochs(a[0], b[0]), numeric=True)
    for line in _partings(a, b):
        console.print(Text(line), soft_wrap=True)


def _find(name: str, paths: Sequence[Path]) -> tuple[Run, Path]:
    """The run and its folder."""
    tried = [Path(name), *(path / name for path in paths)]
    folder = next((path for path in tried if name and path.is_dir()), None)
    if folder is None:
        if file := next((path for path in tried if name and path.is_file()), None):
            raise UsageError(
                f"{file}: a file; --compare takes two run folders of ours, no logs of other systems"
            )
        shown_paths = ", ".join(str(path) for path in paths)
        raise UsageError(f"{name}: no such run folder, and none of that name under {shown_paths}")
    logs = read_logs([folder])
    if len(logs.runs) != 1:
        found = ", ".join(f"{run.plan.run}/{run.number}" for run in logs.runs)
        why = f"holds {found}" if found else logs.rejected[0].reason
        raise UsageError(f"{folder}: {why}; name one run, as logs/NAME/001")
    return logs.runs[0], logs.root / logs.runs[0].folder


def _changes(old: Any, new: Any) -> list[tuple[str, ...]]:
    rows = [(clean(d.where), shown(d.old), shown(d.new)) for d in differences(old, new)]
    return [("", "A", "B"), *rows]


def _provenance(run: Run) -> dict[str, Any]:
    """Without what differs between any two runs: the command and the time."""
    start = run.start
    facts = {k: v for k, v in (start.provenance if start else {}).items()
             if k not in ("command", "started")}  # fmt: skip
    world = {"device_name": run.device_name, "cards": run.cards, "nodes": run.nodes}
    amp = {"amp_dtype": start.amp_dtype if start else None}
    return {**facts, **world, **amp, "config_hash": run.config_hash}


def _same_data(a: Run, b: Run) -> str:
    found = [standing.data_of(run).fingerprint for run in (a, b)]
    if found[0] and found[0] == found[1]:
        return f"{clean(found[0])} in both"
    return ", ".join(
        f"{name} {clean(known) or 'not recorded'}" for name, known in zip("AB", found, strict=True)
    )


def _measures(a: Run, b: Run) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = [("", "A", "B", "B - A", "B / A")]
    sides = [_numbers(run) for run in (a, b)]
    for key in dict.fromkeys([*sides[0], *sides[1]]):
        name, metric = key
        rows.append((clean(name), *_pair(metric, *(side.get(key) for side in sides))))
    return rows


def _numbers(run: Run) -> dict[tuple[str, str], float]:
    """{(what, metric): value} of one run."""
    group = Group((run,))
    found: dict[tuple[str, str], float | None] = {}
    for protocol in run.plan.recipe.data.eval:
        accuracy = measure.accuracy(group, protocol.name)
        for metric, measured in (("top1", accuracy.top1), ("top5", accuracy.top5)):
            found[f"{metric} after the last epoch, {protocol.name}, %", metric] = measured.value
    speed = measure.throughput([run])
    if speed:
        found["img/s", "throughput"] = speed.rate.value
        found["data wait, %", "share"] = speed.wait_share
    newest: dict[str, Sample] = measure.so_far(run)
    if "ce" in newest:
        found["last ce", "ce"] = newest["ce"].value
    for target in run.plan.recipe.marks_s:
        state = measure.at_mark(group, target)
        for name in measure.MARK_METRICS:
            metric = f"mark_{name}"
            what = f"{units.title(metric)} at {units.seconds(target)}"
            found[what, metric] = state.metrics[name].value
    found["epochs done", "epoch"] = run.epochs_done
    return {key: value for key, value in found.items() if value is not None}


def _pair(metric: str, a: float | None, b: float | None) -> tuple[str, ...]:
    """Both numbers, their difference and their ratio."""
    told = (units.number(metric, a), units.number(metric, b))
    if a is None or b is None:
        return (*told, NONE, NONE)
    gap = units.number(metric, b - a) if b != a else "equal"
    ratio = units.ratio(b / a) if a and math.isfinite(b / a) else NONE
    return (*told, gap if gap.startswith(("-", "e", "n")) else f"+{gap}", ratio)


def _at_epochs(a: Run, b: Run) -> list[tuple[str, ...]]:
    """Loss and ce of the window that ends with an epoch, top1 after it: where both have them."""
    heads = [f"{name} {side}" for name in ("loss", "ce", "top1 %") for side in ("A", "B")]
    rows: list[tuple[str, ...]] = [("epoch", *heads)]
    done = min(_epochs(a), _epochs(b))
    every = math.ceil(done / EPOCHS_SHOWN) or 1
    for epoch in range(done - (done - 1) // every * every, done + 1, every):
        states = [_after(epoch, run) for run in (a, b)]
        cells = [units.number(name, state.get(name))
                 for name in ("loss", "ce", "top1") for state in states]  # fmt: skip
        if all(states):
            rows.append((str(epoch), *cells))
    return rows


def _epochs(run: Run) -> int:
    """That are done and whole; a log may claim any number."""
    return int(min(run.epochs_done, run.plan.recipe.schedule.epochs))


def _after(epoch: int, run: Run) -> dict[str, float]:
    state = measure.at_epoch(Group((run,)), epoch, run.plan.recipe.data.eval[0].name)
    return {name: m.value for name, m in state.metrics.items() if m.value is not None}


def _partings(a: tuple[Run, Path], b: tuple[Run, Path]) -> Iterator[str]:
    sides = [_iterations(folder / "iters.jsonl") for _, folder in (a, b)]
    yield "\nLosses of single steps (iters.jsonl): " + _said(*sides)
    windows = [{int(w.step): w.loss for w in run.windows} for run, _ in (a, b)]
    yield "Losses of windows (events.jsonl): " + _said(*windows)


def _iterations(path: Path) -> Losses:
    """The loss of every step that was logged; what is no such line is left out."""
    found: Losses = {}
    try:
        with path.open("rb") as file:
            for line in file:
                try:
                    plain = json.loads(line)
                    found[int(plain["step"])] = float(plain["loss"])
                except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
                    continue
    except OSError:
        return {}
    return found


def parting(a: Losses, b: Losses) -> Parting:
    """Where two series part, over the steps that both have."""
    both = sorted(set(a) & set(b))
    first = next((s for s in both if a[s] != b[s] and not math.isnan(a[s] + b[s])), None)
    parted = next((s for s in both if _relative(a[s], b[s]) > PART), None)
    return Parting(len(both), first, parted)


def _relative(a: float, b: float) -> float:
    if a == b or (math.isnan(a) and math.isnan(b)):
        return 0.0
    gap = abs(b - a) / max(abs(a), abs(b))
    return gap if math.isfinite(gap) else math.inf


def _said(a: Losses, b: Losses) -> str:
    found = parting(a, b)
    if not found.steps:
        return "no step that both have"

    def at(step: int) -> str:
        return f"step {step} (A {a[step]!r}, B {b[step]!r}, B - A {b[step] - a[step]:+.3g})"

    if found.first is None and found.parted is None:
        return f"bit-equal at all {found.steps} steps that both have"
    words = []
    if found.first is not None:
        words.append(f"first differ at {at(found.first)}")
    limit = f"more than {100 * PART:g} %"
    if found.parted is not None:
        words.append(f"part by {limit} from {at(found.parted)}")
    else:
        words.append(f"never part by {limit} in {found.steps} steps that both have")
    return "; ".join(words)


def _table(
    console: Console, title: str, rows: Sequence[tuple[str, ...]], numeric: bool = False
) -> None:
    console.print(Text(f"\n{title}", style="bold"))
    if len(rows) < 2:
        console.print(Text("  nothing", style="dim"))
        return
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, header_style="bold")
    for i, head in enumerate(rows[0]):
        table.add_column(head, justify="right" if numeric and i else "left", overflow="fold")
    for row in rows[1:]:
        table.add_row(*(Text(text) for text in row))
    if not console.is_terminal:  # a pipe has no width: every row on one line
        console.width = max(console.width, 400)
    console.print(table)
