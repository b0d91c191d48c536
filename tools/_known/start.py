"""From a reading to the run script that does it: everything goes through the one launcher."""

from __future__ import annotations

import argparse
import os
import re
import shlex
import sys
from pathlib import Path
from typing import NoReturn

from proofrun import device
from proofrun.bootstrap import ROOT
from proofrun.candidates import weights_at
from proofrun.errors import CheckpointError, DeviceError, UsageError
from proofrun.recipe import Precision, Recipe
from proofrun.runs import find_recipe

from .flags import parse_launch, scoring_parser, training_parser
from .reading import Reading, read_test, read_train


def main_launch(argv: list[str] | None = None) -> NoReturn:
    """`launch.py … train.py …`: on the visible cards, after the given environment file."""
    options = parse_launch(sys.argv[1:] if argv is None else argv)
    cards = options.nproc_per_node or 1
    reading = reading_of(options.task, options.arguments, cards)
    if options.server_id is not None:
        why = "machines meet by NNODES, NODE_RANK and RDZV_ENDPOINT (env.sh)"
        reading.notes.append(f"--server_id: nothing to do, {why}")
    environment: dict[str, str] = {}
    if options.visible_devices is not None:
        visible = [card.strip() for card in options.visible_devices.split(",")]
        odd = [card for card in visible if not re.fullmatch(r"\d+|(GPU|MIG)-[\w/-]+", card)]
        if odd or len(set(visible)) < len(visible):
            why = f"{odd[0]!r} is no card" if odd else "a card comes twice"
            raise UsageError(
                f"--visible_devices={options.visible_devices}: {why}; give numbers like 0,1"
            )
        if len(visible) < cards:
            raise DeviceError(
                f"--nproc_per_node={cards}, but --visible_devices names {len(visible)}: give as "
                "many of both"
            )
        variable = device.BACKENDS[reading.run.device].visible
        if variable:
            environment[variable] = options.visible_devices
        else:
            reading.notes.append("--visible_devices: nothing to do on a CPU")
    if options.env_sh is not None and not Path(options.env_sh).is_file():
        raise UsageError(f"--env_sh={options.env_sh}: there is no such file")
    start(reading, environment, options.env_sh)


def main_script(task: str, argv: list[str] | None = None) -> NoReturn:
    """`train.py …` or `test.py …` alone: on one card, or as many as test.py is told."""
    start(reading_of(task, sys.argv[1:] if argv is None else argv, None))


def reading_of(task: str, argv: list[str], cards: int | None) -> Reading:
    """What the flags of train.py or test.py mean. Raises ProofrunError."""
    if task == "train":
        return read_train(training_parser().parse_args(argv), cards or 1)
    return _reading_of_test(scoring_parser().parse_args(argv), cards)


def _reading_of_test(options: argparse.Namespace, cards: int | None) -> Reading:
    if (options.weights is None) == (options.pretrained is None):
        raise UsageError("which weights? give a file, a run folder or a folder of checkpoints")
    given = Path(options.weights or options.pretrained).expanduser()
    options.weights = os.path.abspath(given)
    run = find_recipe(options.run, ROOT / "recipes")[0] if options.run else None
    paths = weights_at(Path(options.weights))
    recipe = _recipe_of_first(paths, options.dataset or (run.data if run else None))
    # the Ascend recipe scores in fp16
    usual: tuple[Precision, ...] = ("FP16", "FP32") if options.backbone else ("FP32",)
    precisions = (options.precision,) if options.precision else usual
    return read_test(options, recipe, run, options.nproc_per_node or cards or 1, precisions)


def _recipe_of_first(paths: list[Path], data: str | None) -> Recipe:
    """Of the first weights that can be read: the others are left out, or said to be damaged.

    Raises what `recipe_of` does.
    """
    from proofrun.pretrained import recipe_of  # takes torch

    for path in paths[:-1]:
        try:
            return recipe_of(path, data)[1]
        except CheckpointError:
            continue
    return recipe_of(paths[-1], data)[1]


def start(
    reading: Reading, environment: dict[str, str] | None = None, env_sh: str | None = None
) -> NoReturn:
    """Become the run's script."""
    for note in reading.notes:
        print(note, file=sys.stderr, flush=True)
    script = str(ROOT / "run_scripts" / f"{reading.run}.sh")
    line = ["bash", script, *reading.flags]
    shown = [f"{name}={value}" for name, value in (environment or {}).items()]
    print(
        " ".join(
            ["$", *shown, shlex.join(["bash", f"run_scripts/{reading.run}.sh", *reading.flags])]
        ),
        flush=True,
    )
    if env_sh is not None:
        line = ["bash", "-c", '. "$0" && exec "$@"', os.path.abspath(env_sh), *line]
    own = {"PYTHON": sys.executable, **os.environ, **(environment or {})}
    os.execvpe("bash", line, own)  # noqa: S606
