"""The command line of `tools/align.py`."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast, get_args

from rich.console import Console

from proofrun.alignment import DATA, FOLDER, Alignment, trace_name
from proofrun.bootstrap import ensure, folder, in_checkout
from proofrun.errors import Exit, Parser, UsageError, WriteError, whole
from proofrun.recipe import Precision, Recipe
from proofrun.runs import DeviceKind, RunName
from proofrun.saved import file_hash

from . import bounds, home, output, rule, table
from .diff import Comparison, compare
from .ranks import fan_out, threads
from .trace import MOST_RANKS, MOST_STEPS, Trace, check_same, load

_DESCRIPTION = """\
Compare a device's arithmetic with that of a trusted machine, layer by layer, in a few steps.

  python tools/align.py replay GoogLeNet --device GPU --precision FP32
  python tools/align.py replay GoogLeNet_AMP_300E_8NPUs_Train --quick   model, precision, device
  python tools/align.py diff reports/align/GoogLeNet-Digits-FP64.npz TRACE.npz --plot OUT.png
  python tools/align.py record GoogLeNet --ranks 2                      a trace to trust, on the CPU
  python tools/align.py input GoogLeNet --dir data/digits               the loaders' pixels
"""


def main(words: Sequence[str] | None = None) -> int:
    """Raises ProofrunError. 0: aligned, or done; 1: out of bounds."""
    given = _parser().parse_args(words)
    ensure(*given.needs, *["matplotlib"] * bool(getattr(given, "plot", None)))
    return int(given.call(given))


def _parser() -> Parser:
    parser = Parser(
        prog="align.py",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="record | replay | diff | input")
    record = commands.add_parser("record", help="the trace of a machine to trust")
    replay = commands.add_parser("replay", help="the same on another, and the verdict")
    for command in (record, replay):
        command.add_argument("model", help="a network, or the name of a run")
        command.add_argument("--data", default=DATA, help="sets image size and classes")
        command.add_argument("--ranks", type=whole(1, MOST_RANKS), default=1)
        command.add_argument("--out", type=Path, help="the trace")
    record.set_defaults(call=_record, needs=("torch", "psutil"))
    record.add_argument("--precision", default="FP64", choices=("FP64", "FP32"))
    record.add_argument("--steps", type=whole(rule.LEAST_STEPS, MOST_STEPS), default=home.STEPS)
    record.add_argument("--batch", type=whole(2), default=home.BATCH, help="images per rank")
    record.add_argument("--seed", type=whole(0), default=0)
    record.add_argument("--force", action="store_true", help="replace a trace that is there")
    replay.set_defaults(call=_replay, needs=("torch", "psutil"))
    replay.add_argument("--precision", choices=("FP64", *get_args(Precision)))
    replay.add_argument("--device", choices=get_args(DeviceKind))
    replay.add_argument("--quick", action="store_true", help=f"{home.QUICK_STEPS} steps")
    replay.add_argument("--against", type=Path, help="the trusted trace")
    replay.add_argument("--plot", type=Path, help="layers x steps, .png or .svg")
    diff = commands.add_parser("diff", help="where two traces part")
    diff.set_defaults(call=_diff, needs=())
    diff.add_argument("trusted", type=Path)
    diff.add_argument("trace", type=Path)
    diff.add_argument("--plot", type=Path, help="layers x steps, .png or .svg")
    pixels = commands.add_parser("input", help="the loaders' pixels side by side")
    needs = ("torch", "torchvision", "PIL", "psutil", "matplotlib")
    pixels.set_defaults(call=_input, needs=needs)
    pixels.add_argument("model")
    pixels.add_argument("--data", default=DATA)
    pixels.add_argument("--dir", help="data folder; else as env.sh says")
    pixels.add_argument("--count", type=whole(1), default=8, help="images")
    pixels.add_argument("--seed", type=whole(0), default=0)
    pixels.add_argument("--out", type=Path, help="the picture, .png")
    return parser


def _record(given: Any) -> int:
    recipe_dir, recipe = home.find(given.model, given.data)
    path = given.out or home.golden_path(recipe, given.precision, given.ranks)
    output.check_record(path, given.force)
    if fan_out(given.ranks, "CPU"):
        return Exit.OK
    from . import engine

    with threads():
        of = engine.exercise(recipe, recipe_dir, given.seed, given.steps, given.batch, given.ranks)
        session = engine.Session(of, recipe, recipe_dir, given.precision, "CPU")
        made = session.run(given.steps, output.RECORDED)
        session.device.close()
    if made is not None:
        made.save(path)
        size = path.stat().st_size / 1e6
        print(
            f"{in_checkout(path)}: {made.steps} steps, {len(made.rows)} tensors, {given.ranks} "
            f"rank{'s' * (given.ranks > 1)}, {given.precision}, {size:.2f} MB, "
            f"{made.header.made.took_s:.0f} s"
        )
    return Exit.OK


def _replay(given: Any) -> int:
    model, precision, device = _named(given)
    recipe_dir, recipe = home.find(model, given.data)
    golden = home.golden_path(recipe, "FP64", given.ranks)
    trusted_path = given.against or golden
    elsewhere = trusted_path.resolve() != golden.resolve()
    name = trace_name(
        recipe.name, given.data, precision, device, given.ranks, given.quick, elsewhere
    )
    path = given.out or folder("PROOFRUN_LOGS", "logs", None) / FOLDER / name
    if not given.against and not trusted_path.exists():
        raise UsageError(
            f"there is no trusted trace {in_checkout(trusted_path)}; make it on a CPU: python "
            f"tools/align.py record {recipe.name} --data {given.data} --ranks {given.ranks}"
        )
    trusted = load(trusted_path)
    output.check_replay(path, trusted_path)
    output.check_picture("--plot", given.plot)
    if fan_out(given.ranks, device):
        made = load(path)  # rank 0 wrote it
        return _judge(given, trusted, trusted_path, made, path, recipe)
    from . import engine

    steps = min(home.QUICK_STEPS, trusted.steps) if given.quick else trusted.steps
    old = trusted.header.exercise
    with threads():
        of = engine.exercise(recipe, recipe_dir, old.seed, old.steps, old.batch, given.ranks)
        check_same(old, of, path)
        session = engine.Session(
            of, recipe, recipe_dir, cast(engine.AnyPrecision, precision), device
        )
        trace = session.run(steps, "replayed")
        session.device.close()
    if trace is None:
        return Exit.OK
    try:
        trace.save(path)
    except WriteError:
        if given.ranks == 1:  # what was computed is said all the same
            known = bounds.read(home.bounds_path(recipe))
            _show(compare(trusted, trace, known, path), trusted, trace, given.plot)
        raise
    if given.ranks > 1:
        return Exit.OK
    return _judge(given, trusted, trusted_path, trace, path, recipe)


def _named(given: Any) -> tuple[str, str, DeviceKind]:
    """(network, precision, device): of the flags, of the run that was named, of the host."""
    from proofrun.device import kind_on_host

    name = RunName.parse(given.model) if "_" in given.model else None
    precision = given.precision or (name.precision if name else "FP32")
    device = given.device or (name.device if name else kind_on_host())
    return (name.model if name else given.model), precision, device


def _judge(
    given: Any, trusted: Trace, trusted_path: Path, made: Trace, path: Path, recipe: Recipe
) -> int:
    found = compare(trusted, made, bounds.read(home.bounds_path(recipe)), path)
    _show(found, trusted, made, given.plot)
    written = path.with_suffix(".json")
    of, by = made.header.exercise, made.header.made
    Alignment(
        schema_=1,
        recipe=of.recipe,
        data=of.data,
        precision=by.precision,
        device=by.device,
        device_name=by.device_name,
        torch=by.torch,
        ranks=of.ranks,
        steps=min(trusted.steps, made.steps),
        aligned=found.aligned,
        nearest=min(found.nearest, 1e12),
        finding=found.first.line() if found.first else None,
        remark=found.remarks[0].line() if found.remarks else None,
        trusted=trusted_path.name,
        trusted_sha256=file_hash(trusted_path),
        t_wall=time.time(),
    ).write(written)
    print(f"{in_checkout(path)} and {written.name} beside it")
    return Exit.OK if found.aligned else Exit.VERDICT


def _diff(given: Any) -> int:
    output.check_picture("--plot", given.plot)
    trusted, other = load(given.trusted), load(given.trace)
    of = trusted.header.exercise
    _, recipe = home.find(of.recipe, of.data)
    found = compare(trusted, other, bounds.read(home.bounds_path(recipe)), given.trace)
    _show(found, trusted, other, given.plot)
    return Exit.OK if found.aligned else Exit.VERDICT


def _show(found: Comparison, trusted: Trace, other: Trace, picture: Path | None) -> None:
    console = Console(width=None if sys.stdout.isatty() else 120, highlight=False)
    table.show(console, found, trusted, other)
    if picture is not None:
        from . import plot

        plot.draw(found, trusted, other, picture)
        print(f"plot: {in_checkout(picture)}")


def _input(given: Any) -> int:
    output.check_picture("--out", given.out)
    from . import inputs

    _, recipe = home.find(given.model, given.data)
    return inputs.run(recipe, given.dir, given.count, given.seed, given.out)
