"""How fast verify reads a data set, beside a bare libjpeg-turbo loop over the same files.

python -m benchmarks.verifying [--images 20000] [--repeats 3]

The loop reads and decodes to RGB (simplejpeg, in as many processes) and does nothing else; verify
also hashes, looks at modes and EXIF, and finds duplicates. Both find the files in the page cache.
Ends with 1 when verify reaches less than 0.7 of the loop.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import simplejpeg

from benchmarks.pictures import jpegs
from proofrun import device
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


def bare(paths: list[str], processes: int) -> float:
    """Seconds of the bare loop."""
    parts = [paths[at : at + 64] for at in range(0, len(paths), 64)]
    start = time.monotonic()
    with ProcessPoolExecutor(processes) as pool:
        assert sum(pool.map(decode, parts)) == len(paths)
    return time.monotonic() - start


def verify(root: Path, processes: int) -> tuple[float, float]:
    """Seconds of verify as its users call it: (the images alone, by its own clock; all of it)."""
    command = [sys.executable, str(ROOT / "tools/dataset.py"), "verify", str(root)]
    start = time.monotonic()
    done = subprocess.run(
        [*command, "--processes", str(processes)], capture_output=True, text=True, check=True
    )
    whole = time.monotonic() - start
    line = next(line for line in done.stdout.splitlines() if line.startswith("examined"))
    return float(line.split(" in ")[1].split(" s:")[0]), whole


def launches(root: Path) -> Iterator[tuple[str, float]]:
    """What launch adds: reading all of it the first time, then only the stats."""
    for what in ("fingerprint, first launch", "stat pass, next launch"):
        start = time.monotonic()
        names: tuple[Split, ...] = ("train", "val")
        lists = {split: read_split(root, split, CLASSES) for split in names}
        listed = time.monotonic()
        settle(root, lists, OTHER, root / "cache", accept=False)
        yield what, time.monotonic() - listed
    yield "reading the lists", listed - start


def main() -> int:
    """Make the tree, measure by turns, compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    processes = device.usable_cores()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "tree"
        paths = make(root, options.images)
        size = sum(Path(path).stat().st_size for path in paths)
        print(f"{len(paths)} images, {size / 1e6:,.0f} MB, {processes} processes, ", end="")
        print(device.cpu_name())
        bare(paths, processes)  # the page cache
        print("\n| Turn | Bare loop | verify's images | All of verify | Ratio of images/s |")
        print("| ---: | ---: | ---: | ---: | ---: |")
        ratios = []
        for turn in range(options.repeats):
            loop = bare(paths, processes)
            own, whole = verify(root, processes)
            ratios.append(loop / own)
            cells = [f"{len(paths) / seconds:,.0f} images/s" for seconds in (loop, own, whole)]
            print(f"| {turn + 1} | {' | '.join(cells)} | {ratios[-1]:.2f} |", flush=True)
        (root / MANIFEST).unlink()
        print("\n| Part | Seconds | Images/s |\n| --- | ---: | ---: |")
        for what, seconds in launches(root):
            print(f"| {what} | {seconds:.2f} | {len(paths) / seconds:,.0f} |")
    ratio = statistics.median(ratios)
    print(f"\nmedian ratio {ratio:.2f}, target {LEAST}: {'met' if ratio >= LEAST else 'missed'}")
    return int(ratio < LEAST)


if __name__ == "__main__":
    sys.exit(main())
