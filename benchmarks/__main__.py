"""Speed beside the peers, in one run: python -m benchmarks [--arms L,S,…] [--quick]

Writes a JSON file a part and the report of all parts that lie there. What peers need besides the
packages of a run: requirements/benchmarks.txt.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from proofrun.errors import whole

ROOT = Path(__file__).resolve().parent.parent

PACKAGES = (
    "torch", "torchvision", "timm", "pretrainedmodels", "nvidia-dali-cuda130", "pillow",
    "simplejpeg", "numpy", "scipy",
)  # fmt: skip

#: Those of PACKAGES that no run needs.
PEERS = ("timm", "pretrainedmodels", "simplejpeg")

NETWORKS = ("inceptionv2", "googlenet")
PRECISIONS = ("FP32", "BF16")


def main() -> int:
    """Measure the parts asked for, write them, write the report."""
    from benchmarks import tables
    from benchmarks.turns import keep_memory

    options = _parse(tables.PARTS)
    kept = keep_memory()
    folder: Path = options.out
    if options.arms:
        with tempfile.TemporaryDirectory() as place:
            work = _work(options, Path(place))
            for name in tables.PARTS:
                if name in options.arms:
                    start = time.time()
                    found = work[name]()
                    part = {"machine": {**_machine(start), "memory_kept": kept}, **found}
                    path = folder / f"{name}.json"
                    path.write_text(json.dumps(part, indent=1) + "\n", encoding="utf-8")
    parts = {
        name: json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
        for name in tables.PARTS
        if (folder / f"{name}.json").exists()
    }
    text = tables.report(parts)
    (folder / "report.md").write_text(text, encoding="utf-8")
    print(text)
    return 0


def _parse(parts: tuple[str, ...]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "--arms", default=",".join(parts), metavar="A,B",
        help=f"of {', '.join(parts)} (default: all); empty: only write the report anew",
    )  # fmt: skip
    parser.add_argument("--images", type=whole(1), default=1024, help="files of L (default 1024)")
    parser.add_argument(
        "--blocks", type=whole(1), default=7, help="blocks of each table (default 7)"
    )
    parser.add_argument("--batch", type=whole(1), default=16, help="images of a step (default 16)")
    parser.add_argument("--steps", type=whole(1), default=3, help="of a window (default 3)")
    parser.add_argument(
        "--networks", default=",".join(NETWORKS), metavar="A,B",
        help=f"for S, E and I, of {', '.join(NETWORKS)} (default: both)",
    )  # fmt: skip
    parser.add_argument(
        "--precisions", default=",".join(PRECISIONS), metavar="A,B",
        help=f"for S, E, I and the ablation, of {', '.join(PRECISIONS)} (default: both)",
    )  # fmt: skip
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
    parser.add_argument(
        "--quick", action="store_true", help="one block of the smallest sizes, to try the command"
    )
    parser.add_argument("--out", type=Path, help="default: reports/speed; --quick: a new folder")
    options = parser.parse_args()
    for flag, known in (("arms", parts), ("networks", NETWORKS), ("precisions", PRECISIONS)):
        named = [name for name in getattr(options, flag).split(",") if name]
        if unknown := set(named) - set(known):
            parser.error(f"--{flag}: {', '.join(sorted(unknown))}: choose from {', '.join(known)}")
        if not named and flag != "arms":
            parser.error(f"--{flag}: choose from {', '.join(known)}")
        setattr(options, flag, named)
    if options.quick:
        options.images, options.blocks, options.batch, options.steps = 160, 1, 2, 1
        options.no_compile = True
    if options.out is None:
        options.out = Path(tempfile.mkdtemp()) if options.quick else ROOT / "reports/speed"
    if options.images < LEAST_IMAGES:
        parser.error(f"--images: at least {LEAST_IMAGES}")
    absent = [name for name in PEERS if importlib.util.find_spec(name) is None]
    if options.arms and absent:
        parser.error(f"{', '.join(absent)} not installed: see Speed in README.md")
    try:
        options.out.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=options.out).close()
    except OSError as error:
        parser.error(f"--out {options.out}: cannot be written ({error.strerror})")
    return options


#: Files of a loader's epoch at least: 16 batches, of which the middle is timed.
LEAST_IMAGES = 160
#: Images of a batch where the loader is measured alone: as the recipe trains on one card.
LOADER_BATCH = 64


def _work(options: argparse.Namespace, place: Path) -> dict[str, Callable[[], dict[str, Any]]]:
    """What each part does; files are written, and batches made of them, when first needed."""
    from benchmarks import ablation, costs, inference, loader_arms, loaders, step_arms, steps, whole
    from benchmarks.pictures import jpegs
    from benchmarks.turns import Turns
    from proofrun.recipe_yaml import load_recipe

    turns = Turns(options.blocks, warm_up=2 if options.quick else 6)
    count: int = options.steps
    recipe = load_recipe(ROOT / "recipes/inceptionv2/recipe.yaml")["ImageNet"]
    precisions: list[steps.Precision] = options.precisions

    def task(batch: int) -> loaders.Task:
        root = place / "images"
        if not root.exists():
            for index, data in enumerate(jpegs(options.images)):
                path = root / "train" / f"class_{index % 16:02d}" / f"{index:06d}.JPEG"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)
        spec = recipe.data.train.model_copy(update={"color_jitter": None})
        return loaders.Task(root, spec, recipe.data.normalize, batch)

    def problem(network: str, precision: steps.Precision) -> steps.Problem:
        source = loaders.ours(task(options.batch))
        batches = [batch for batch, _ in zip(source.passes(), range(4), strict=False)]
        return steps.problem(ROOT / "recipes" / network, precision, batches)

    def step() -> dict[str, Any]:
        return _groups(
            step_arms.compare(problem(network, precision), count, turns, not options.no_compile)
            for network in options.networks
            for precision in precisions
        )

    def loader() -> dict[str, Any]:
        googlenet = load_recipe(ROOT / "recipes/googlenet/recipe.yaml")["ImageNet"]
        jitter = googlenet.data.train.color_jitter
        assert jitter is not None
        batch = min(LOADER_BATCH, options.images // 16)
        return _groups(loader_arms.measure_all(task(batch), jitter, turns))

    def whole_way() -> dict[str, Any]:
        return _groups(
            whole.compare(task(options.batch), problem(network, precision), count, turns)
            for network in options.networks
            for precision in reversed(precisions)
        )

    def infer() -> dict[str, Any]:
        return _groups(
            inference.compare(
                ROOT / "recipes" / network, precision, batch, turns, not options.no_compile
            )
            for network in options.networks
            for precision in precisions
            for batch in dict.fromkeys((1, options.batch))
        )

    def choices() -> dict[str, Any]:
        found = [
            ablation.step(problem("inceptionv2", each), count, turns, not options.no_compile)
            for each in reversed(precisions)
        ]
        return _groups(
            [*found, ablation.loader(task(min(LOADER_BATCH, options.images // 16)), turns)]
        )

    def scaling() -> dict[str, Any]:
        group, model = costs.scaling(turns, 20 if options.quick else 30)
        return {**_groups([group]), "model": model, "projection": costs.projection()}

    repeats = 1 if options.quick else options.blocks
    return {
        "L": loader,
        "S": step,
        "E": whole_way,
        "I": infer,
        "ablation": choices,
        "start-up": lambda: {"start_up": costs.start_up(repeats)},
        "save": lambda: {"save": costs.save(repeats)},
        "scaling": scaling,
    }


def _groups(groups: Any) -> dict[str, Any]:
    return {"groups": [asdict(group) for group in groups]}


def _machine(start: float) -> dict[str, Any]:
    """Where and with what a part was measured; no names of hosts or paths."""
    from proofrun import host
    from proofrun.status import checkout

    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "missing"
    return {
        **checkout(ROOT),
        "cpu": host.cpu_name(),
        "platform": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "packages": versions,
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(start)),
        "seconds": time.time() - start,
        "command": " ".join(["python -m benchmarks", *sys.argv[1:]]),
    }


if __name__ == "__main__":
    sys.exit(main())
