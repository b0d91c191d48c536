r"""Measures the bounds, and how often they raise a false alarm. Three steps, each a command.

    python -m tools._align.calibrate measure googlenet --runs all --seeds 0 8 --out A.jsonl
    python -m tools._align.calibrate measure googlenet --runs FP32 --in-turn --seeds 1000 1200 \
        --steps 3 --out B.jsonl
    python -m tools._align.calibrate bounds A.jsonl      writes reports/align/bounds-….json
    python -m tools._align.calibrate alarms B.jsonl      writes reports/align/alarms-….json

`measure` compares harmless runs with the same exercise in FP64, seed by seed: other weights and
other images each. It appends, and may be stopped and called again. The seeds of the alarms must be
none of those of the bounds.
"""

from __future__ import annotations

import argparse
import contextlib
import time
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from proofrun.device import cpu_name
from proofrun.recipe import Recipe, Strict

from . import alarms, bounds, variants
from .engine import AnyPrecision, Session, exercise
from .home import BATCH, bounds_path, find, golden_path
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
SLOW_RUNS = (
    Run("channels-last", "FP16"),
    Run("batch in another order", "FP16", variants.permuted_batch),
)
_PRECISIONS = tuple(dict.fromkeys(run.precision for run in (*RUNS, *SLOW_RUNS)))


class Line(Strict):
    """Deviations of one harmless run: what a file of `measure` has a line of."""

    recipe: str
    data: str
    recipe_hash: str
    seed: int
    steps: int
    precision: str
    run: str
    phases: tuple[bounds.Phase, ...]
    series: alarms.Series | None = None


def trace(of: Exercise, recipe: Recipe, folder: Path, run: Run, steps: int) -> Trace:
    with contextlib.nullcontext() if run.onednn else variants.plain_kernels():
        session = Session(of, recipe, folder, run.precision, "CPU", run.channels_last)
        run.change(session)
        made = session.run(steps, run.name)
    assert made is not None
    return made


def measure(
    recipe: Recipe,
    folder: Path,
    chosen: list[Run],
    in_turn: bool,
    seeds: Iterable[int],
    steps: int,
    out: Path,
) -> None:
    """Append a line for each seed and run; `in_turn`: for each seed, with one run after another."""
    before = {(line.seed, line.precision, line.run) for line in _read(out)} if out.exists() else ()
    for seed in seeds:
        own = [chosen[seed % len(chosen)]] if in_turn else chosen
        own = [run for run in own if (seed, run.precision, run.name) not in before]
        if not own:
            continue
        of = exercise(recipe, folder, seed, steps, BATCH, 1)
        trusted = trace(of, recipe, folder, _EXACT, steps)
        for run in own:
            made = trace(of, recipe, folder, run, steps)
            line = _line(trusted, made, run.name)
            if in_turn:
                line = line.model_copy(update={"series": alarms.pack(trusted, made)})
            with out.open("a", encoding="utf-8") as file:
                file.write(line.model_dump_json() + "\n")
            print(f"{time.strftime('%H:%M:%S')} {seed} {run.precision} {run.name}", flush=True)


def _line(trusted: Trace, other: Trace, run: str) -> Line:
    of = trusted.header.exercise
    return Line(
        recipe=of.recipe,
        data=of.data,
        recipe_hash=of.recipe_hash,
        seed=of.seed,
        steps=other.steps,
        precision=other.header.made.precision,
        run=run,
        phases=bounds.measure(trusted, other),
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
        names = ", ".join(dict.fromkeys(line.run for line in own))
        precisions[precision] = bounds.PrecisionBounds(
            runs=len(own),
            how=f"against FP64, {len({line.seed for line in own})} seeds, "
            f"{max(line.steps for line in own)} steps: {names}",
            phases=tuple(
                bounds.merged([line.phases[i] for line in own if len(line.phases) > i])
                for i in range(max(len(line.phases) for line in own))
            ),
        )
    path = bounds_path(recipe)
    bounds.write(
        path,
        bounds.Bounds(
            schema_=2,
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


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tools._align.calibrate")
    commands = parser.add_subparsers(dest="what", required=True)
    one = commands.add_parser("measure")
    one.add_argument("recipe")
    one.add_argument("--data", default="Digits")
    one.add_argument("--runs", default="all", choices=("all", *_PRECISIONS))
    one.add_argument("--in-turn", action="store_true", help="one run a seed, to judge by the rule")
    one.add_argument("--seeds", type=int, nargs=2, required=True, help="first, and past the last")
    one.add_argument("--steps", type=int, default=2)
    one.add_argument("--out", type=Path, required=True)
    for name in ("bounds", "alarms"):
        commands.add_parser(name).add_argument("files", type=Path, nargs="+")
    given = parser.parse_args()
    if given.what == "measure":
        folder, recipe = find(given.recipe, given.data)
        known = RUNS if given.runs == "all" else (*RUNS, *SLOW_RUNS)
        chosen = [run for run in known if given.runs in ("all", run.precision)]
        seeds = range(*given.seeds)
        measure(recipe, folder, chosen, given.in_turn, seeds, given.steps, given.out)
        return
    lines = [line for file in given.files for line in _read(file)]
    _, recipe = find(lines[0].recipe, lines[0].data)
    if given.what == "bounds":
        print(write_bounds(recipe, lines))
        return
    found: dict[str, dict[int, alarms.Series]] = {}
    for line in lines:
        if line.series:
            found.setdefault(line.precision, {})[line.seed] = line.series
    print(alarms.write(recipe, found))


if __name__ == "__main__":
    main()
