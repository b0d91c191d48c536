"""How fast verify reads a data set, beside a bare libjpeg-turbo loop over the same files.

python -m benchmarks.verifying [--images 20000] [--repeats 3]

The loop reads and decodes to RGB (simplejpeg, in as many processes) and does nothing else; verify
also hashes, looks at modes and EXIF, and finds duplicates. Both find the files in the page cache,
and take turns. Ends with 1 when verify reaches less than 0.7 of the loop, start-up included: by
processor time, which the load of a shared machine changes less than the clock on the wall.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import simplejpeg

from benchmarks.pictures import jpegs
from proofrun import host
from proofrun.data.fingerprint import MANIFEST, settle
from proofrun.data.identity import OTHER
from proofrun.data.lists import Split, read_split

ROOT = Path(__file__).resolve().parent.parent
CLASSES, VAL_SHARE, LEAST = 200, 10, 0.7


def make(root: Path, count: int) -> list[str]:
    """A tree of `count` different images in `CLASSES` classes, a tenth of them in val."""
    paths = []
    for index, data in enumerate(jpegs(count)):
        split = "val" if index // CLASSES % VAL_SHARE == 0 else "train"
        path = root / split / f"class_{index % CLASSES:03d}" / f"{index:06d}.JPEG"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        paths.append(str(path))
    return paths


def decode(paths: Sequence[str]) -> int:
    """The bare loop: read, decode to RGB."""
    for path in paths:
        with open(path, "rb") as file:
            simplejpeg.decode_jpeg(file.read())
    return len(paths)


class Cost(NamedTuple):
    """Seconds on the wall, and of processors, this process and its ended children together."""

    wall: float
    processor: float


@contextmanager
def measured(costs: list[Cost]) -> Iterator[None]:
    """Append what the block costs."""
    wall, before = time.monotonic(), os.times()
    yield
    after = os.times()
    costs.append(Cost(time.monotonic() - wall, sum(after[:4]) - sum(before[:4])))


def bare(paths: list[str], processes: int) -> None:
    """The bare loop in parallel."""
    parts = [paths[at : at + 64] for at in range(0, len(paths), 64)]
    with ProcessPoolExecutor(processes) as pool:
        assert sum(pool.map(decode, parts)) == len(paths)


def verify(root: Path, processes: int) -> None:
    """verify, as its users call it."""
    command = [sys.executable, str(ROOT / "tools/dataset.py"), "verify", str(root)]
    subprocess.run([*command, "--processes", str(processes)], capture_output=True, check=True)


def launches(root: Path) -> Iterator[tuple[str, Cost]]:
    """What launch adds: reading all of it the first time, then only the stats."""
    names: tuple[Split, ...] = ("train", "val")
    costs: list[Cost] = []
    with measured(costs):
        lists = {split: read_split(root, split, CLASSES) for split in names}
    yield "lists read", costs[-1]
    for what in ("fingerprint, first launch", "stat pass, next launch"):
        with measured(costs):
            settle(root, lists, OTHER, root / "cache", accept=False)
        yield what, costs[-1]


def main() -> int:
    """Make the tree, measure by turns, compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    processes = host.usable_cores()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "tree"
        paths = make(root, options.images)
        size = sum(Path(path).stat().st_size for path in paths)
        print(f"{len(paths)} images, {size / 1e6:,.0f} MB, {processes} processes, ", end="")
        print(host.cpu_name())
        bare(paths, processes)  # the page cache
        print("\n| Turn | Load | Bare loop | verify | Ratio, wall | Ratio, processor time |")
        print("| ---: | ---: | ---: | ---: | ---: | ---: |")
        ratios = []
        for turn in range(options.repeats):
            costs: list[Cost] = []
            with measured(costs):
                bare(paths, processes)
            with measured(costs):
                verify(root, processes)
            loop, ours = costs
            ratios.append(loop.processor / ours.processor)
            rates = [f"{len(paths) / cost.wall:,.0f} images/s" for cost in costs]
            print(
                f"| {turn + 1} | {os.getloadavg()[0]:.1f} | {' | '.join(rates)} "
                f"| {loop.wall / ours.wall:.2f} | {ratios[-1]:.2f} |",
                flush=True,
            )
        (root / MANIFEST).unlink()
        print("\n| Part | Wall | Processor time | Images/s of processor time |")
        print("| --- | ---: | ---: | ---: |")
        for what, cost in launches(root):
            rate = f"{len(paths) / cost.processor:,.0f}"
            print(f"| {what} | {cost.wall:.2f} s | {cost.processor:.2f} s | {rate} |")
    ratio = statistics.median(ratios)
    print(f"\nmedian ratio {ratio:.2f}, target {LEAST}: {'met' if ratio >= LEAST else 'missed'}")
    return int(ratio < LEAST)


if __name__ == "__main__":
    sys.exit(main())
