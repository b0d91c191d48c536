"""Measures the bounds, and how often they raise a false alarm. Three steps, each a command.

    python -m tools._align.calibrate measure googlenet --runs all --seeds 1 5 --out A.jsonl
    python -m tools._align.calibrate measure googlenet --runs FP32 --seeds 1000 1200 --out B.jsonl
    python -m tools._align.calibrate bounds A.jsonl      writes reports/align/bounds-….json
    python -m tools._align.calibrate alarms B.jsonl      writes reports/align/alarms-….json

`measure` compares harmless runs with the same exercise in FP64, seed by seed: other weights and
other images each. It appends, and may be stopped and called again. The seeds of the alarms must be
none of those of the bounds.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import time
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from proofrun.device import cpu_name
from proofrun.errors import UsageError
from proofrun.recipe import Recipe, Strict

from . import bounds, variants
from .engine import AnyPrecision, Session, exercise
from .home import BATCH, REPORTS, bounds_path, find, golden_path
from .trace import Exercise, Trace, load


class Run(NamedTuple):
    """A harmless way to compute an exercise."""

    name: str
    precision: AnyPrecision
    change: variants.Change = variants.nothing
    channels_last: bool = True
    onednn: bool = True


_EXACT = Run("as it is", "FP64")
RUNS = (
    Run("channels-last", "FP32"),
    Run("contiguous", "FP32", channels_last=False),
    Run("torch's own kernels", "FP32", channels_last=False, onednn=False),
    Run("batch in another order", "FP32", variants.permuted_batch),
    Run("channels-last", "BF16"),
    Run("operands rounded to 10 bits, emulated", "TF32", variants.tf32),
    Run("batch in another order", "BF16", variants.permuted_batch),
    Run("batch in another order", "FP64", variants.permuted_batch),
)
#: fp16 has no arithmetic of its own on most CPUs and takes a minute a step there.
SLOW_RUNS = (Run("channels-last", "FP16"),)


class Line(Strict):
    """Deviations of one harmless run: what a file of `measure` has a line of."""

    recipe: str
    data: str
    recipe_hash: str
    seed: int
    steps: int
    precision: str
    run: str
    rows: dict[str, tuple[float, ...]]
    scalars: dict[str, float]


def trace(of: Exercise, recipe: Recipe, folder: Path, run: Run, steps: int) -> Trace:
    with contextlib.nullcontext() if run.onednn else variants.plain_kernels():
        session = Session(of, recipe, folder, run.precision, "CPU", run.channels_last)
        run.change(session)
        made = session.run(steps, run.name)
    assert made is not None
    return made


def measure(
    recipe: Recipe, folder: Path, runs: str, seeds: Iterable[int], steps: int, out: Path
) -> None:
    """Append a line for each seed and run; of `FP32` alone one run a seed, in turn."""
    known = [*RUNS, *SLOW_RUNS]
    chosen = list(RUNS) if runs == "all" else [r for r in known if r.precision == runs]
    before = {(line.seed, line.precision, line.run) for line in _read(out)} if out.exists() else ()
    for seed in seeds:
        own = chosen if runs == "all" else [chosen[seed % len(chosen)]]
        own = [run for run in own if (seed, run.precision, run.name) not in before]
        if not own:
            continue
        of = exercise(recipe, folder, seed, steps, BATCH, 1)
        trusted = trace(of, recipe, folder, _EXACT, steps)
        for run in own:
            line = _line(trusted, trace(of, recipe, folder, run, steps), run.name)
            with out.open("a", encoding="utf-8") as file:
                file.write(line.model_dump_json() + "\n")
            print(f"{time.strftime('%H:%M:%S')} {seed} {run.precision} {run.name}", flush=True)


def _line(trusted: Trace, other: Trace, run: str) -> Line:
    of = trusted.header.exercise
    rows, scalars = bounds.measure(trusted, other)
    return Line(
        recipe=of.recipe,
        data=of.data,
        recipe_hash=of.recipe_hash,
        seed=of.seed,
        steps=other.steps,
        precision=other.header.made.precision,
        run=run,
        rows={key: tuple(float(f"{v:.3g}") for v in row) for key, row in rows.items()},
        scalars={key: float(f"{v:.3g}") for key, v in scalars.items()},
    )


def _committed(recipe: Recipe) -> list[Line]:
    """The two traces under reports/: one more run in FP32, over all of the steps."""
    exact, single = (load(golden_path(recipe, name, 1)) for name in ("FP64", "FP32"))
    return [_line(exact, single, "channels-last")]


def _read(path: Path) -> list[Line]:
    lines = path.read_text(encoding="utf-8").splitlines()
    return [Line.model_validate_json(line) for line in lines]


def write_bounds(recipe: Recipe, lines: list[Line]) -> Path:
    """The largest deviation of every pool, precision by precision."""
    lines = [*_committed(recipe), *lines]
    precisions = {}
    for precision in dict.fromkeys(line.precision for line in lines):
        own = [line for line in lines if line.precision == precision]
        keys = dict.fromkeys(key for line in own for key in line.rows)
        names = ", ".join(dict.fromkeys(line.run for line in own))
        precisions[precision] = bounds.PrecisionBounds(
            runs=len(own),
            how=f"against FP64, {len({line.seed for line in own})} seeds, "
            f"{max(line.steps for line in own)} steps: {names}",
            rows={
                key: tuple(np.max([line.rows[key] for line in own], axis=0).tolist())
                for key in keys
            },
            scalars={key: max(line.scalars[key] for line in own) for key in own[0].scalars},
        )
    path = bounds_path(recipe)
    bounds.write(
        path,
        bounds.Bounds(
            schema_=1,
            recipe=recipe.name,
            data=recipe.data.name,
            recipe_hash=lines[0].recipe_hash,
            machine=cpu_name(),
            margin=bounds.MARGIN,
            seeds=tuple(sorted({line.seed for line in lines})),
            precisions=precisions,
        ),
    )
    return path


def write_alarms(recipe: Recipe, lines: list[Line]) -> Path:
    """How many of the seeds left the bounds, and how near the others came; a table for people."""
    known = bounds.read(bounds_path(recipe))
    if shared := {line.seed for line in lines} & set(known.seeds):
        raise UsageError(f"the bounds were made from seed {min(shared)}: take others for alarms")
    found = {}
    for precision in dict.fromkeys(line.precision for line in lines):
        own = [line for line in lines if line.precision == precision]
        used = {line.seed: bounds.share_used(line.rows, line.scalars, known, precision)
                for line in own}  # fmt: skip
        shares = np.array([share for share, _ in used.values()])
        found[precision] = {
            "seeds": len(own),
            "steps": max(line.steps for line in own),
            "alarms": int((shares > 1).sum()),
            "share_of_bound_median": round(float(np.median(shares)), 3),
            "share_of_bound_largest": round(float(shares.max()), 3),
            "alarms_at_margin": {
                f"{margin:g}": int((shares * known.margin / margin > 1).sum())
                for margin in (1, 1.5, 2, 3, 4, 6, 8)
            },
            "which": [f"seed {s}: {where}" for s, (share, where) in used.items() if share > 1],
        }
    path = REPORTS / f"alarms-{recipe.name}-{recipe.data.name}.json"
    plain = {
        "recipe": recipe.name,
        "data": recipe.data.name,
        "batch": BATCH,
        "margin": known.margin,
        "machine": cpu_name(),
        "precisions": found,
    }
    path.write_text(json.dumps(plain, indent=1) + "\n", encoding="utf-8")
    return path


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tools._align.calibrate")
    commands = parser.add_subparsers(dest="what", required=True)
    one = commands.add_parser("measure")
    one.add_argument("recipe")
    one.add_argument("--data", default="Digits")
    one.add_argument("--runs", default="all", choices=("all", "FP32", "BF16", "FP16"))
    one.add_argument("--seeds", type=int, nargs=2, required=True, help="first, and past the last")
    one.add_argument("--steps", type=int, default=2)
    one.add_argument("--out", type=Path, required=True)
    for name in ("bounds", "alarms"):
        commands.add_parser(name).add_argument("files", type=Path, nargs="+")
    given = parser.parse_args()
    if given.what == "measure":
        folder, recipe = find(given.recipe, given.data)
        measure(recipe, folder, given.runs, range(*given.seeds), given.steps, given.out)
        return
    lines = [line for file in given.files for line in _read(file)]
    _, recipe = find(lines[0].recipe, lines[0].data)
    print((write_bounds if given.what == "bounds" else write_alarms)(recipe, lines))


if __name__ == "__main__":
    main()
