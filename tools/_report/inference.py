"""Tables of Infer runs: what weights score, and how long a batch takes. Shown, never judged."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any

from proofrun.events import Eval, Latency

from . import measure, units
from .cells import NONE, Column, Grid, GridRow, cell
from .read import Run


def is_shown(run: Run) -> bool:
    """Whether a run enters these tables."""
    return run.name.task == "Infer" and run.status == "finished"


def inference_grid(runs: Sequence[Run]) -> Grid:
    """A row for each set of weights and protocol, the best of a run first."""
    names = "Run No. Weights BN Protocol top1_% top5_% Images Predictions Device Flags"
    numeric, wrap = {"top1_%", "top5_%", "Images"}, {"Run", "Weights", "Device", "Flags"}
    columns = tuple(
        Column(name.replace("_", " "), name in numeric, name in wrap) for name in names.split()
    )
    grid = Grid("inference", "Inference: accuracy (not judged)", columns, optional=True)
    for run in filter(is_shown, runs):
        for found, source in _ranked(run):
            cells = (
                cell(run.plan.run),
                cell(run.number),
                cell(_short(found.weights), why=f"{found.origin}, sha256 {found.weights_sha256}"),
                cell(found.bn or NONE),
                cell(found.protocol),
                cell(units.number("top1", 100 * found.correct1 / found.count), (source,)),
                cell(units.number("top5", 100 * found.correct5 / found.count), (source,)),
                cell(f"{found.count:,}"),
                cell(found.prediction_hash[:12]),
                cell(run.device_name),
                cell(", ".join(measure.flags(run)) or NONE),
            )
            grid.rows.append(GridRow(cells))
    return grid


def latency_grid(runs: Sequence[Run]) -> Grid:
    """A row for each batch size, with the pixels at hand and with reading and decoding."""
    columns = (
        Column("Run", wrap=True),
        Column("No."),
        Column("Cards", True),
        Column("Device", wrap=True),
        Column("From"),
        Column("Batch", True),
        Column("p50, ms", True),
        Column("p95, ms", True),
        Column("p99, ms", True),
        Column("img/s", True),
        Column("Batches", True),
        Column("Flags"),
    )
    title = "Inference: time of a batch, from its pixels or its files to its logits"
    grid = Grid("latency", title, columns, optional=True)
    for run in filter(is_shown, runs):
        for found, source in run.of(Latency):
            cells = (
                cell(run.plan.run),
                cell(run.number),
                cell(run.cards),
                cell(run.device_name),
                cell("files" if found.pipeline else "pixels"),
                cell(found.batch),
                *(cell(f"{ms:.2f}", (source,)) for ms in _percentiles(found)),
                cell(units.number("throughput", found.images_per_s), (source,)),
                cell(found.batches),
                cell(NONE if found.is_steady else "not steady"),
            )
            grid.rows.append(GridRow(cells))
    return grid


def inference_rows(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """The accuracy table as plain values, percent of `count` images."""
    return [
        {
            "run": run.plan.run,
            "number": run.number,
            "weights": found.weights,
            "weights_sha256": found.weights_sha256,
            "origin": found.origin,
            "bn": found.bn,
            "protocol": found.protocol,
            "top1": 100 * found.correct1 / found.count,
            "top5": 100 * found.correct5 / found.count,
            "loss": found.loss,
            "count": found.count,
            "prediction_hash": found.prediction_hash,
            "device_name": run.device_name,
            "flags": "; ".join(measure.flags(run)),
            "source": source,
        }
        for run in filter(is_shown, runs)
        for found, source in _ranked(run)
    ]


def latency_rows(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """The latency table as plain values: milliseconds, images/s of all cards."""
    keys = ("batch", "pipeline", "batches", "p50_ms", "p95_ms", "p99_ms", "images_per_s", "weights")
    return [
        {
            "run": run.plan.run,
            "number": run.number,
            "cards": run.cards,
            "device_name": run.device_name,
            **{key: getattr(found, key) for key in keys},
            "source": source,
        }
        for run in filter(is_shown, runs)
        for found, source in run.of(Latency)
    ]


def _ranked(run: Run) -> list[tuple[Eval, str]]:
    """Every evaluation that counted images; the recipe's own protocol first, then by accuracy."""
    found = [(e, source) for e, source in run.of(Eval) if e.count]
    order = {protocol.name: i for i, protocol in enumerate(run.plan.recipe.data.eval)}
    return sorted(found, key=lambda f: (order.get(f[0].protocol, 99), -f[0].correct1, f[0].loss))


def _short(path: str | None) -> str:
    """`RUN/001/step-…` of a checkpoint in a run, else the file's name."""
    parts = PurePosixPath(path or "").parts
    if len(parts) >= 4 and parts[-2] == "checkpoints":
        return "/".join((*parts[-4:-2], parts[-1]))
    return parts[-1] if parts else NONE


def _percentiles(found: Latency) -> tuple[float, float, float]:
    return found.p50_ms, found.p95_ms, found.p99_ms
