"""The model card: what the file is, how it is used, what was claimed and measured, where from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from _report.build import build
from _report.document import Document, document
from _report.read import read_logs
from torch import nn

from proofrun.events import Eval
from proofrun.pretrained import Loaded
from proofrun.saved import file_hash
from proofrun.status import read_provenance

from .formats import FACTS, ONNX_OPSET, Check, Format


def card(
    to: Format, weights: Loaded, model: nn.Module, path: Path, name: str, checked: Check
) -> str:
    """Markdown for the file at `path`, which will be called `name`."""
    recipe = weights.recipe
    run = weights.path.resolve().parent.parent
    inside = (run / "events.jsonl").is_file()
    parts = [f"# {recipe.name} for {recipe.data.name}", _facts(to, weights, model, path, name)]
    parts += ["## Input", _input(weights), "## Checked against torch", _checked(to, checked)]
    parts += ["## Accuracy and verdicts", _measured(run) if inside else _NO_RUN]
    parts += ["## Provenance", _provenance(weights, run if inside else None)]
    return "\n\n".join(parts) + "\n"


_NO_RUN = "None: the weights come from a file, not from a run whose log could be read."


def _table(rows: list[tuple[str, Any]]) -> str:
    return "\n".join(["| | |", "| --- | --- |", *(f"| {what} | {said} |" for what, said in rows)])


def _facts(to: Format, weights: Loaded, model: nn.Module, path: Path, name: str) -> str:
    recipe = weights.recipe
    forms = {
        "safetensors": "safetensors: the state dict, BatchNorm as trained",
        "torch.export": "torch.export program, BatchNorm fused: `torch.export.load`; "
        f"provenance in its extra file `{FACTS}`",
        "onnx": f"ONNX, opset {ONNX_OPSET}, BatchNorm fused: `images` to `logits`; "
        "provenance in its metadata",
    }
    parameters = sum(p.numel() for p in model.parameters())
    return _table(
        [
            ("File", f"`{name}`, {path.stat().st_size:,} bytes"),
            ("sha256", f"`{file_hash(path)}`"),
            ("Format", forms[to]),
            ("Network", f"`{recipe.model.graph}` of {recipe.paper}"),
            ("Options", ", ".join(f"{k} {v}" for k, v in recipe.model.options.items()) or "none"),
            ("Parameters", f"{parameters:,} before fusing"),
            ("Output", f"logits [N, {recipe.data.classes}]"),
        ]
    )


def _input(weights: Loaded) -> str:
    data = weights.recipe.data
    protocol = data.eval[0]
    side = "both sides" if protocol.resize == "squash" else "the shorter side"
    order = "BGR" if weights.bgr else "RGB"
    filtered = "with" if protocol.antialias else "without"
    return (
        f"float32 [N, 3, {protocol.crop}, {protocol.crop}], {order}: resize {side} to "
        f"{protocol.resize_to} ({protocol.interpolation}, {filtered} antialiasing), centre crop "
        f"{protocol.crop}, divide by 255, subtract mean {_three(data.normalize.mean)}, divide by "
        f"std {_three(data.normalize.std)} (protocol `{protocol.name}`)."
    )


def _three(values: tuple[float, float, float]) -> str:
    return ", ".join(f"{value:.6g}" for value in values)


def _checked(to: Format, found: Check) -> str:
    runner = {
        "onnx": "onnxruntime",
        "torch.export": "torch.export",
        "safetensors": "the file, read back,",
    }[to]
    return (
        f"{found.images} validation images through {runner} and through torch: same top-1 on "
        f"{found.same_top1} of {found.images}, largest difference of a logit "
        f"{found.max_error:.2e} (largest logit {found.largest:.2f})."
    )


def _measured(run: Path) -> str:
    """The last evaluations of the run, and every claim judged on it, as the report says it."""
    report = build(read_logs([run]))
    log = report.logs.runs[0] if report.logs.runs else None
    scores = [e for e, _ in log.of(Eval) if e.why == "final"] if log else []
    lines = [
        f"- top-1 {e.top1:.2f} %, top-5 {e.top5:.2f} % ({e.correct1} and {e.correct5} of "
        f"{e.count}, `{e.protocol}`, predictions `{e.prediction_hash[:12]}`)"
        for e in scores
    ]
    return "\n".join([*(lines or ["- no final evaluation"]), "", _verdicts(document(report))])


def _verdicts(found: Document) -> str:
    if not found.judgements:
        return "No claim applies to this run."
    rows = [
        f"| {j.claim.metric} {j.claim.direction.replace('_', ' ')} {j.claim.value:g} "
        f"({j.claim.label}) | {'n/a' if j.measured is None else f'{j.measured:.4g}'} | "
        f"**{j.verdict.value}** | {j.reason} |"
        for j in found.judgements
    ]
    return "\n".join(["| Claim | measured | verdict | why |", "| --- | --- | --- | --- |", *rows])


def _provenance(weights: Loaded, run: Path | None) -> str:
    rows: list[tuple[str, Any]] = [
        ("Weights", f"{weights.origin}, `{weights.path.name}`"),
        ("sha256 of the weights", f"`{weights.sha256}`"),
    ]
    if run is not None:
        facts = read_provenance(run)
        packages = facts.get("packages", {})
        rows += [
            ("Run", f"{run.parent.name}, number {run.name}, step {weights.step}"),
            ("Again", f"`bash run_scripts/{run.parent.name}.sh`"),
            ("Commit", f"{facts.get('commit')}{' with changes' * bool(facts.get('dirty'))}"),
            ("Machine", facts.get("cpu")),
            ("torch", packages.get("torch")),
            ("Started", facts.get("started")),
        ]
    return _table(rows)
