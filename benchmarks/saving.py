"""What a checkpoint costs: seconds and bytes of both published networks, and their share of a run.

python benchmarks/saving.py [--folder DIR] [--repeats 5]

Saves each network with 1000 classes as an 8-card run does (weights, momentum, and BN buffers and
RNG of eight ranks) onto the disk of DIR. The share of the published run's time is a *projection*:
seconds measured here, images per second as published, one save an epoch and one a mark. Exits with
1 where it is not under 1 %.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT)]

from proofrun import checkpoint  # noqa: E402
from proofrun.device import Device  # noqa: E402
from proofrun.evaluate import averaged_model  # noqa: E402
from proofrun.host import cpu_name  # noqa: E402
from proofrun.models import build_model  # noqa: E402
from proofrun.optim import Stepper, build_optimizer  # noqa: E402
from proofrun.recipe import Recipe  # noqa: E402
from proofrun.recipe_yaml import load_recipe  # noqa: E402

CARDS = 8
MAX_SHARE = 0.01


def measure(
    recipe: Recipe, recipe_dir: Path, folder: Path, repeats: int
) -> tuple[list[float], list[float], int]:
    """(seconds of each save, of them the processor, bytes of one)."""
    device = Device("CPU", "FP32", recipe.precision)
    model = build_model(recipe_dir, recipe.model, recipe.data.classes)
    stepper = Stepper(build_optimizer(model, recipe.optimizer), None, device)
    seconds, busy, size = [], [], 0
    for step in range(repeats):
        start, own = time.monotonic(), time.process_time()
        stepper.check_state(model, step)
        state = averaged_model(model, device).state_dict()
        ranks = [
            {"buffers": {n: b.clone() for n, b in model.named_buffers()}, "rng": device.rng_state()}
            for _ in range(CARDS)
        ]
        train = {"stepper": stepper.state(), "ranks": ranks}
        _, size = checkpoint.save(folder, step, state, train, {"seq": step}, best=step == 0)
        seconds.append(time.monotonic() - start)
        busy.append(time.process_time() - own)
    return seconds, busy, size


def share(recipe: Recipe, save_s: float, images_per_s: float) -> float:
    """Of the run's time: one save an epoch and one a mark, over all images of all epochs."""
    run_s = recipe.schedule.epochs * recipe.data.train_images / images_per_s
    return (recipe.schedule.epochs + len(recipe.marks_s)) * save_s / run_s


def main() -> int:
    """Measure, project, print; 1 where a projection misses the target."""
    parser = argparse.ArgumentParser(description="What a checkpoint costs")
    parser.add_argument("--folder", type=Path, default=None, help="on the disk to measure")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    print(f"{cpu_name()}; median of {options.repeats} saves, the slowest in brackets")
    missed = False
    for name in ("googlenet", "inceptionv2"):
        recipe_dir = ROOT / "recipes" / name
        recipe = load_recipe(recipe_dir / "recipe.yaml")["ImageNet"]
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            seconds, busy, size = measure(recipe, recipe_dir, Path(folder), options.repeats)
        middle, slowest = statistics.median(seconds), max(seconds)
        own = statistics.median(busy)
        print(
            f"{recipe.name}: {middle:.2f} s ({slowest:.2f} s), of them processor {own:.2f} s; "
            f"{size / 1e6:.1f} MB a save"
        )
        claims = [claim for claim in recipe.claims if claim.metric == "throughput"]
        for claim in claims:
            part = share(recipe, middle, claim.value)
            missed |= part >= MAX_SHARE
            print(
                f"  projection: {100 * part:.3f} % of {recipe.schedule.epochs} epochs at the "
                f"published {claim.value:g} img/s on {claim.cards} x {claim.hardware}"
            )
        limit = MAX_SHARE * recipe.data.train_images / middle
        rates = "" if claims else " (no rate is published)"
        print(f"  projection: under 1 % up to {limit:.0f} img/s{rates}")
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
