"""How fast the report reads and draws, and in how much memory.

python benchmarks/report_reading.py [--large-gb 1.0] [--repeats 3]

Writes logs into a temporary folder, runs tools/report.py on each as a user would, and prints wall
and processor seconds (of the repeats the median, and the range), the load average before each, and
the largest resident memory of that process. Exits with 1 where a target is missed: 300 epochs of 8
cards with every iteration under 5 s; a file of 1 GB in under 500 MB.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from fake_logs import FakeRun  # noqa: E402

EPOCHS, STEPS = 300, 625  # 1,281,167 images / (8 cards x 256)
MAX_SECONDS, MAX_MB = 5.0, 500.0


def native(folder: Path, bytes_wanted: int = 0) -> Path:
    """Our own log of GoogLeNet's 300 epochs on 8 cards, a window each step, repeated to a size."""
    run = FakeRun("GoogLeNet_AMP_300E_8NPUs_Train", images_per_s=13000, device_name="Ascend910")
    made = run.write(folder)
    log = made / "events.jsonl"
    lines = log.read_text().splitlines()
    windows = [json.loads(line) for line in lines if '"kind":"train"' in line]
    start, end = lines[0], lines[-1]
    sample = windows[len(windows) // 2] | {"steps": 1, "images": 2048, "warmup": False}
    text = json.dumps(sample, separators=(",", ":"))
    steps = max(EPOCHS * STEPS, bytes_wanted // (len(text) + 1))
    evaluation = json.loads(next(line for line in lines if '"kind":"eval"' in line))
    with log.open("w", encoding="utf-8") as file:
        file.write(start + "\n")
        seq = 0
        for step in range(1, steps + 1):
            seq += 1
            epoch = step / steps * EPOCHS
            seconds = step * 0.1575
            sample |= {"seq": seq, "step": step, "epoch": round(epoch, 6), "lr": 0.1 / (1 + epoch)}
            sample |= {"loss": 7 / (1 + epoch), "ce": 6.5 / (1 + epoch), "window_s": 0.1575}
            sample |= {"mark_s": seconds, "train_s": seconds, "wall_s": seconds}
            file.write(json.dumps(sample, separators=(",", ":")) + "\n")
            if step * EPOCHS % steps < EPOCHS:
                seq += 1
                evaluation |= {"seq": seq, "step": step, "epoch": round(epoch, 6)}
                evaluation |= {"mark_s": seconds, "train_s": seconds, "wall_s": seconds}
                file.write(json.dumps(evaluation, separators=(",", ":")) + "\n")
        last = json.loads(end) | {"seq": seq + 1, "step": steps, "epoch": float(EPOCHS)}
        file.write(json.dumps(last, separators=(",", ":")) + "\n")
    os.utime(made / "status.json")
    return folder


def foreign(path: Path, bytes_wanted: int) -> Path:
    """A log of PyTorch's imagenet example."""
    steps = 5005
    with path.open("w", encoding="utf-8") as file:
        file.write("=> creating model 'resnet50'\n")
        epoch = 0
        while file.tell() < bytes_wanted:
            for step in range(0, steps, 1 if bytes_wanted > 1 << 26 else 8):
                file.write(
                    f"Epoch: [{epoch}][{step:5d}/{steps}]\tTime  0.465 ( 0.471)"
                    f"\tData  0.001 ( 0.002)\tLoss {7 / (1 + epoch):.4e} ({7 / (1 + epoch):.4e})"
                    "\tAcc@1  50.00 ( 49.10)"
                    "\tAcc@5  75.00 ( 74.20)\n"
                )
            file.write(f" * Acc@1 {min(76.0, 10 + epoch):.3f} Acc@5 {min(93.0, 30 + epoch):.3f}\n")
            epoch += 1
    return path


class Call(NamedTuple):
    """One call of the report: wall and processor seconds, peak MB, load average before it."""

    seconds: float
    cpu_s: float
    peak_mb: float
    load: float


def call(name: str, given: Path, out: Path) -> Call:
    """Run the report as a user would."""
    command = [sys.executable, str(ROOT / "tools" / "report.py"), str(given), "--out", str(out)]
    load, start = os.getloadavg()[0], time.monotonic()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{name}: the report ended with {process.returncode}")
    cpu = usage.ru_utime + usage.ru_stime
    return Call(time.monotonic() - start, cpu, usage.ru_maxrss / 1024, load)


def measure(name: str, given: Path, out: Path, repeats: int) -> Call:
    """Medians of `repeats` calls, and the largest peak; prints their row."""
    calls = [call(name, given, out) for _ in range(repeats)]
    size = sum(p.stat().st_size for p in [given, *given.rglob("*")] if p.is_file())
    found = Call(*(statistics.median(column) for column in zip(*calls, strict=True)))
    found = found._replace(peak_mb=max(each.peak_mb for each in calls))
    ranges = [f"{min(column):.1f} – {max(column):.1f}" for column in zip(*calls, strict=True)]
    print(
        f"| {name} | {size / 1e6:,.0f} MB | {found.seconds:.1f} s ({ranges[0]}) "
        f"| {found.cpu_s:.1f} s ({ranges[1]}) | {found.peak_mb:,.0f} MB | {ranges[3]} |",
        flush=True,
    )
    return found


def main() -> int:
    """Make the logs, measure, compare with the targets."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--large-gb", type=float, default=1.0, help="size of the large logs")
    parser.add_argument("--repeats", type=int, default=3, help="calls for each log")
    args = parser.parse_args()
    large, repeats = int(args.large_gb * 1e9), args.repeats
    print("| Log | Size | Wall | Processor | Peak memory | Load |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    with tempfile.TemporaryDirectory() as folder:
        top = Path(folder)
        small = native(top / "small")
        ours = measure("300 epochs, 8 cards, every step, ours", small, top / "1", repeats)
        theirs = foreign(top / "foreign.log", 27_000_000)
        small_ones = (ours, measure("as large, PyTorch's", theirs, top / "2", repeats))
        large_ones = (
            measure("large, ours", native(top / "large", large), top / "3", 1),
            measure("large, PyTorch's", foreign(top / "large.log", large), top / "4", 1),
        )
    missed = any(each.seconds >= MAX_SECONDS for each in small_ones)
    missed |= any(each.peak_mb >= MAX_MB for each in large_ones)
    print(
        f"\ntargets (under {MAX_SECONDS:g} s; under {MAX_MB:g} MB): {'missed' if missed else 'met'}"
    )
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
