"""The smallest honest training: a few of the digits, two epochs of a few steps, every step logged.

What two runs of it left is compared here bit by bit.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch

from proofrun import checkpoint, events

from .helpers import ROOT, read

TRAIN, VAL = 17, 10  # 17: the last batch of an epoch is never full
BATCH = 2


def steps_per_epoch(world: int) -> int:
    return TRAIN // world // BATCH


def tiny_digits(digits: Path, folder: Path) -> Path:
    """A data folder of few images, all ten classes in it."""
    folder.mkdir()
    for split, count in (("train", TRAIN), ("val", VAL)):
        by_class = defaultdict(list)
        for line in (digits / f"{split}.txt").read_text().splitlines():
            by_class[line.rpartition(" ")[2]].append(line)
        turns = [line for turn in zip(*by_class.values(), strict=False) for line in turn]
        (folder / f"{split}.txt").write_text("\n".join(turns[:count]) + "\n")
        (folder / split).symlink_to(digits / split)
    return folder


def flags(epochs: int = 2, seed: int = 7) -> list[str]:
    return [
        "--set", f"data.train_images={TRAIN}", "--set", f"data.val_images={VAL}",
        "--set", f"batch.per_card={BATCH}", "--set", f"schedule.epochs={epochs}",
        "--set", "marks_s=[]", "--seed", str(seed), "--log-interval", "1",
    ]  # fmt: skip


def start(
    host: dict[str, str], run: str, logs: Path, *more: str, root: Path = ROOT, **variables: str
) -> subprocess.Popen[str]:
    """The run script, with these logs, flags and variables."""
    line = ["bash", str(root / f"run_scripts/{run}.sh"), "--logs", str(logs), *more]
    return subprocess.Popen(
        line, env={**host, **variables}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def finish(process: subprocess.Popen[str], code: int = 0, seconds: float = 900) -> str:
    out, _ = process.communicate(timeout=seconds)
    assert process.returncode == code, f"ended with {process.returncode}, not {code}:\n{out}"
    return out


def differences(one: Path, other: Path) -> list[str]:
    """Where the ends of two runs differ, in the last checkpoint or the log; empty: nowhere.

    Weights, BN statistics of every rank, optimizer, scaler, counters, RNG, loader position, best
    accuracy, and every event that counts, but for what tells the time, the place and the restarts.
    """
    found: list[str] = []
    a, b = (checkpoint.load(folder / "checkpoints" / "latest") for folder in (one, other))
    found += _unequal("model", a.model, b.model)
    found += _unequal("train", a.train, b.train)
    metas = [{k: v for k, v in loaded.meta.items() if k in _META} for loaded in (a, b)]
    found += _unequal("meta", *metas)
    found += _unequal("log", *(_counted(folder) for folder in (one, other)))
    return found


_META = ("step", "why", "keep", "epoch_ended", "epoch", "world", "leg", "best_top1", "marks_done")
_TIMES = {"seq", "wall_s", "mark_s", "train_s", "t_wall", "window_s", "data_wait_s", "eval_s",
          "save_s", "bytes", "warmup", "path"}  # fmt: skip


def _counted(folder: Path) -> list[dict[str, Any]]:
    """The events that count, without their times, but for those that tell of a restart."""
    kept = [
        event.model_dump(mode="json", exclude=_TIMES)
        for event in events.effective(read(folder))
        if event.kind in ("train", "eval", "checkpoint", "run_end")
    ]
    return [
        event
        for event in kept
        if not (event["kind"] == "checkpoint" and event["why"] == "signal")
        and not (event["kind"] == "run_end" and event["status"] != "finished")
    ]


def _unequal(where: str, a: Any, b: Any) -> list[str]:
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        same = a.dtype == b.dtype and a.shape == b.shape and _bytes(a) == _bytes(b)
        return [] if same else [where]
    if isinstance(a, dict) and isinstance(b, dict):
        keys = [f"{where}: keys {a.keys() ^ b.keys()}"] if a.keys() != b.keys() else []
        return keys + [u for k in a.keys() & b.keys() for u in _unequal(f"{where}.{k}", a[k], b[k])]
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        short = [f"{where}: {len(a)} and {len(b)}"] if len(a) != len(b) else []
        pairs = enumerate(zip(a, b, strict=False))
        return short + [u for i, (x, y) in pairs for u in _unequal(f"{where}[{i}]", x, y)]
    return [] if type(a) is type(b) and a == b else [f"{where}: {a!r} and {b!r}"[:200]]


def _bytes(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def status(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "status.json").read_text()))


def restarts(folder: Path) -> int:
    log = read(folder) if (folder / "events.jsonl").exists() else []
    return sum(isinstance(event, events.Resume) for event in log)


def lost_steps(folder: Path) -> int:
    """Steps trained again: in the file, and not among those that count."""
    log = read(folder) if (folder / "events.jsonl").exists() else []
    done = sum(e.steps for e in log if isinstance(e, events.Train))
    return done - sum(e.steps for e in events.effective(log) if isinstance(e, events.Train))


def catches(pid: int, number: int) -> bool:
    """Whether the process has a handler for the signal."""
    try:
        found = re.search(r"SigCgt:\s*(\w+)", Path(f"/proc/{pid}/status").read_text())
    except FileNotFoundError:
        return False
    return bool(found and int(found[1], 16) >> (number - 1) & 1)
