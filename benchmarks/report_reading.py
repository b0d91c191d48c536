"""How fast the report reads and draws, and in how much memory.

python benchmarks/report_reading.py [--large-gb 1.0]

Writes logs into a temporary folder, runs tools/report.py on each as a user would, and prints wall
seconds and the largest resident memory of that process. Exits with 1 where a target is missed:
300 epochs of 8 cards with every iteration under 5 s; a file of 1 GB in under 500 MB.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

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


def measure(name: str, given: Path, out: Path) -> tuple[float, float]:
    """(wall seconds, peak MB) of one call of the report."""
    command = [sys.executable, str(ROOT / "tools" / "report.py"), str(given), "--out", str(out)]
    start = time.monotonic()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    seconds, peak = time.monotonic() - start, usage.ru_maxrss / 1024
    if process.returncode:
        raise SystemExit(f"{name}: the report ended with {process.returncode}")
    size = sum(p.stat().st_size for p in [given, *given.rglob("*")] if p.is_file())
    print(f"| {name} | {size / 1e6:,.0f} MB | {seconds:.1f} s | {peak:,.0f} MB |", flush=True)
    return seconds, peak


def main() -> int:
    """Make the logs, measure, compare with the targets."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--large-gb", type=float, default=1.0, help="size of the large logs")
    large = int(parser.parse_args().large_gb * 1e9)
    print("| Log | Size | Time | Peak memory |\n| --- | ---: | ---: | ---: |")
    with tempfile.TemporaryDirectory() as folder:
        top = Path(folder)
        small = native(top / "small")
        seconds, _ = measure("300 epochs, 8 cards, every step, ours", small, top / "out1")
        theirs = foreign(top / "foreign.log", 27_000_000)
        their_seconds, _ = measure("the same number of lines, PyTorch's", theirs, top / "out2")
        _, peak = measure("large, ours", native(top / "large", large), top / "out3")
        _, their_peak = measure("large, PyTorch's", foreign(top / "large.log", large), top / "out4")
    missed = max(seconds, their_seconds) >= MAX_SECONDS or max(peak, their_peak) >= MAX_MB
    print(
        f"\ntargets (under {MAX_SECONDS:g} s; under {MAX_MB:g} MB): {'missed' if missed else 'met'}"
    )
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
