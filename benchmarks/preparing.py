"""How fast ImageNet is prepared, beside what bounds it.

python -m benchmarks.preparing [--images 20000] [--rounds 3] [--folder DIR]

Writes archives with the structure of ILSVRC2012 (500 x 375 pixels, the spectrum of photographs) to
a temporary folder, and in each round, in turn, from memory where they fit: a copy of the archives,
their MD5s, plain `tar -x` of the train archive, of the archives in it and of the val archive, and
tools/dataset.py as a user would call it. Prints the medians, and the medians of the ratios.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.pictures import jpegs

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from archives import ilsvrc  # noqa: E402

CLASSES, VAL_PER_CLASS = 100, 10
TRAIN, VAL = "ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar"
OURS, TAR, MD5, COPY = "prepare imagenet", "tar -x", "md5sum", "cp"


def run(*line: str | Path, cwd: Path | None = None) -> None:
    subprocess.run([str(word) for word in line], check=True, stdout=subprocess.DEVNULL, cwd=cwd)


def copy(src: Path, out: Path) -> None:
    run("cp", src / TRAIN, src / VAL, out)


def md5(src: Path, out: Path) -> None:
    run("md5sum", src / TRAIN, src / VAL)


def tar(src: Path, out: Path) -> None:
    """Every file once: the archives in the archive go through a pipe."""
    inner = 'mkdir "train_$TAR_FILENAME" && tar -xf - -C "train_$TAR_FILENAME"'
    run("tar", "-xf", src / TRAIN, f"--to-command={inner}", cwd=out)
    run("tar", "-xf", src / VAL, cwd=out)


def ours(src: Path, out: Path) -> None:
    tool = ROOT / "tools" / "dataset.py"
    line = [sys.executable, tool, "prepare", "imagenet", "--any-archives", "--src", src]
    run(*line, "--dst", out / "set")


def cpu_seconds() -> float:
    """Of all processes that were waited for, since the start of this one."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def measure(work: Callable[[Path, Path], None], src: Path, out: Path) -> tuple[float, float]:
    """Wall and CPU seconds into an empty folder, after earlier writing has reached the disk."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    os.sync()
    start, used = time.monotonic(), cpu_seconds()
    work(src, out)
    return time.monotonic() - start, cpu_seconds() - used


def main() -> int:
    """Make the archives, measure in turn, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where to work (default: the temporary one)")
    args = parser.parse_args()
    works = {COPY: copy, MD5: md5, TAR: tar, OURS: ours}
    spent: dict[str, list[float]] = {name: [] for name in works}
    used: dict[str, list[float]] = {name: [] for name in works}
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        src, out = Path(folder) / "src", Path(folder) / "out"
        per_class = args.images // CLASSES - VAL_PER_CLASS
        count = CLASSES * (per_class + VAL_PER_CLASS)
        ilsvrc(src, CLASSES, per_class, VAL_PER_CLASS, jpegs(count))
        size = sum((src / name).stat().st_size for name in (TRAIN, VAL))
        for _ in range(args.rounds):
            for name, work in works.items():
                wall, cpu = measure(work, src, out)
                spent[name].append(wall)
                used[name].append(cpu)
                print(f"{name}: {wall:.1f} s, CPU {cpu:.1f} s", file=sys.stderr, flush=True)
    cores = len(os.sched_getaffinity(0))
    print(f"{count:,} images, {size / 1e9:.2f} GB, {args.rounds} rounds, {cores} cores\n")
    print(f"| | seconds | CPU s | images/s | MB/s | prepare / this |\n| --- |{' --: |' * 5}")
    for name, seconds in spent.items():
        middle = statistics.median(seconds)
        ratio = statistics.median(
            theirs / mine for theirs, mine in zip(seconds, spent[OURS], strict=True)
        )
        print(
            f"| {name} | {middle:.1f} | {statistics.median(used[name]):.1f} "
            f"| {count / middle:,.0f} | {size / middle / 1e6:,.0f} | {ratio:.2f} |"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
