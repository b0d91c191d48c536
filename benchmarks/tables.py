"""The report of the measurements as Markdown, made from their JSON files alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from benchmarks.figures import Group, Ratio, Target, claim, noise_floor, paired_ratio, spread

#: Parts in the order of the report, by the name that `--arms` takes.
PARTS = ("L", "S", "E", "I", "ablation", "start-up", "save", "scaling")

_OPENING = """\
# Speed, beside the peers

Made by `python -m benchmarks`; every figure was measured by the run that its part names. Arms of a
table did the same work by turns, in blocks of random order, after a warm-up whose last two windows
agree within 5 %. *ours / arm* is the median of the ratios of the blocks; its interval is a
bootstrap of 95 %. *ours, again* is the same arm a second time, so what it shows is noise: where its
interval leaves 1, no difference is claimed within as much. *faster* and *slower* (ours is, beside
that arm) need 7 blocks and an interval on one side of 1. Processor time is that of all cores and
child processes, waiting threads' spin included. An arm whose loss or pixels are not the reference's
is thrown out. *Freed memory kept*: malloc gives nothing back to the kernel, so that no arm pays for
what another has left.
"""


def group(data: Mapping[str, Any]) -> Group:
    """A group from its JSON."""
    return Group(**{**data, "targets": [Target(**target) for target in data["targets"]]})


def report(parts: Mapping[str, Mapping[str, Any]]) -> str:
    """The whole report; `parts` are the JSON files by the name of the part."""
    lines = [_OPENING]
    targets = [row for name in PARTS if name in parts for row in _judged(parts[name])]
    if targets:
        lines += ["## Targets", "", *_table("Part", "Target", "Measured", "", rows=targets), ""]
    for name in PARTS:
        if name in parts:
            lines += _part(parts[name])
    return "\n".join(lines).rstrip() + "\n"


def _part(part: Mapping[str, Any]) -> Iterator[str]:
    for data in part.get("groups", []):
        yield from _group(group(data))
    for name, show in _OTHERS.items():
        if name in part:
            yield from show(part[name])
    yield from (f"<sub>{_facts(part['machine'])}</sub>", "")


def _facts(machine: Mapping[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in machine["packages"].items())
    commit = str(machine.get("commit"))[:10] + (", changed" if machine.get("dirty") else "")
    kept = "; freed memory kept" * bool(machine.get("memory_kept"))
    return (
        f"{machine['started']}, {machine['seconds']:.0f} s; {machine['cpu']}; "
        f"{machine['platform']}; Python {machine['python']}; {versions}; commit {commit}; "
        f"`{machine['command']}`{kept}"
    )


def _group(one: Group) -> Iterator[str]:
    floor = noise_floor(one)
    yield from (f"## {one.title}", "", f"Work: {one.work}.", "")
    rows = []
    for name, rates in one.rates.items():
        own, ratio = spread(rates), paired_ratio(one.rates[one.base], rates)
        beside = (
            ("", "", "") if name == one.base else _beside(ratio, own.n, floor, name == one.again)
        )
        cost = f"{spread(one.processor_ms[name]).median:.2f}" if name in one.processor_ms else ""
        quartiles = f"{own.low:.1f} to {own.high:.1f}"
        rows.append((name, f"{own.median:.1f}", quartiles, *beside, cost))
    rows += [(name, "thrown out", why, "", "", "", "") for name, why in one.thrown_out.items()]
    rows += [(name, "n/a", why, "", "", "", "") for name, why in one.absent.items()]
    blocks = len(one.rates[one.base])
    yield from _table(
        "Arm",
        one.unit,
        "quartiles",
        f"{one.base} / arm",
        "95 % interval",
        f"{one.base} is",
        "processor, ms an image",
        rows=rows,
    )
    yield from ("", " ".join(f"{_capital(note)}." for note in (f"{blocks} blocks", *one.notes)))
    if one.checks:
        checks = "; ".join(f"{name}: {values}" for name, values in one.checks.items())
        yield f"Compared before: {checks}."
    yield ""


def _beside(ratio: Ratio, blocks: int, floor: float, again: bool) -> tuple[str, str, str]:
    said = "(noise)" if again else claim(ratio, blocks, floor)
    return f"{ratio.median:.3f}", _interval(ratio), said


def _interval(ratio: Ratio) -> str:
    return f"{ratio.low:.3f} to {ratio.high:.3f}" if math.isfinite(ratio.high) else "–"


def _judged(part: Mapping[str, Any]) -> Iterator[tuple[str, str, str, str]]:
    for data in part.get("groups", []):
        one = group(data)
        for target in one.targets:
            where = f"{target.text} ({target.arm})"
            if target.arm not in one.rates:
                yield one.title, where, "n/a", "not measured"
                continue
            ratio = paired_ratio(one.rates[one.base], one.rates[target.arm])
            found = f"{ratio.median:.3f} ({_interval(ratio)})"
            yield one.title, where, found, _reached(ratio, target)


def _reached(ratio: Ratio, target: Target) -> str:
    if ratio.low >= target.least:
        return "met"
    return "missed" if ratio.high < target.least else "open: the interval holds the target"


def _start_up(found: Mapping[str, Any]) -> Iterator[str]:
    own = spread(found["seconds"])
    yield from ("## Start-up", "")
    yield (
        f"From the call of the launch script to the end of the first step (Inceptionv2 on the "
        f"digits, 64 px, batch 64, FP32, one CPU): {own.median:.1f} s "
        f"({own.low:.1f} to {own.high:.1f}, n = {own.n}), caches warm; "
        f"{found['first_call_s']:.1f} s the first time."
    )
    yield ""


def _save(found: Mapping[str, Any]) -> Iterator[str]:
    yield from ("## Save", "")
    rows = []
    for name, each in found.items():
        own = spread(each["seconds"])
        rows.append((name, f"{own.median:.2f}", f"{own.low:.2f} to {own.high:.2f}",
                     f"{each['bytes'] / 1e6:.1f}"))  # fmt: skip
    yield from _table("Network, state of 8 ranks", "s", "quartiles", "MB", rows=rows)
    yield ""


def _model(found: Mapping[str, Any]) -> Iterator[str]:
    median, low, high = found["efficiency"]
    yield (
        f"All-reduce of {found['gradient_bytes'] / 1e6:.1f} MB between 2 processes, measured "
        f"alone: {1000 * found['all_reduce_s']:.1f} ms; a step of one process: "
        f"{1000 * found['step_s']:.0f} ms. Efficiency on 2: {median:.3f} measured "
        f"({low:.3f} to {high:.3f}), {found['model_without_overlap']:.3f} by the model without "
        f"overlap, {found['model_with_overlap']:.3f} with."
    )
    yield ""


def _projection(rows: list[Mapping[str, Any]]) -> Iterator[str]:
    yield from ("## 8 cards: a *projection*", "")
    yield (
        "GoogLeNet, 256 images a card, from the published rate of one card; a ring all-reduce of "
        "float32 gradients over links whose rate is *assumed*, 20 µs a hop (*assumed*), hidden "
        "behind two thirds of the step or not at all. It knows no jitter, no input, no other "
        "traffic; nothing of it was measured on cards."
    )
    yield ""
    yield from _table(
        "Link", "overlap", "exchange, ms", "efficiency", "img/s", "published img/s",
        rows=[(row["link"], "yes" if row["overlap"] else "no", f"{row['exchange_ms']:.2f}",
               f"{row['efficiency']:.3f}", f"{row['images_per_s']:.0f}", f"{row['published']:g}")
              for row in rows],
    )  # fmt: skip
    yield ""


#: How the parts of a file that are no groups are shown, in this order.
_OTHERS: dict[str, Callable[[Any], Iterator[str]]] = {
    "start_up": _start_up,
    "save": _save,
    "model": _model,
    "projection": _projection,
}


def _table(*heads: str, rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    yield f"| {' | '.join(heads)} |"
    yield f"| {' | '.join('---' for _ in heads)} |"
    for row in rows:
        yield f"| {' | '.join(cell.replace('|', '/') for cell in row)} |"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
