"""How a run ended, and where it came from: `status.json` and `provenance.json`. Torch-free."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

from proofrun.errors import Exit

#: Ends after which the same command starts a new number; after any other end it goes on.
_FAILED = frozenset({Exit.NON_FINITE, Exit.BAD_COUNT})


@dataclass(frozen=True)
class Status:
    """How one rank ended. `t_wall` in seconds since 1970 tells which of several ranks was first.

    `step`: steps done; `lost_peer`: it ended only because another rank did; `attempt`: the
    torchrun that it belonged to, as ranks of a killed launch may end during the next one.
    """

    code: int
    message: str
    rank: int
    t_wall: float
    step: int = 0
    lost_peer: bool = False
    attempt: str = ""

    @property
    def status(self) -> Literal["finished", "failed", "interrupted"]:
        if self.code == Exit.OK:
            return "finished"
        return "failed" if self.code in _FAILED else "interrupted"

    def write(self, run_dir: Path) -> None:
        """Rank 0 owns status.json; another rank leaves its own beside it for launch to read."""
        final, temporary = _paths(run_dir, self.rank)
        if Status.read(final) == self:  # a full disk has no room to write it twice
            return
        text = json.dumps({"status": self.status, **asdict(self)}, indent=1)
        try:
            with temporary.open("r+" if temporary.exists() else "w", encoding="utf-8") as file:
                file.write(text + "\n")
                file.truncate()
            temporary.rename(final)
        except OSError as error:
            with contextlib.suppress(OSError):  # stderr may be a file on the same full disk
                print(f"cannot write {final}: {error.strerror}", file=sys.stderr, flush=True)

    @classmethod
    def read(cls, path: Path) -> Status | None:
        """None when there is none, or none that can be read."""
        try:
            raw = json.loads(path.read_text(encoding="utf-8"))
            known = {field.name: raw[field.name] for field in fields(cls) if field.name in raw}
            return cls(**known)
        except (OSError, ValueError, KeyError, TypeError):
            return None


def reserve(run_dir: Path, rank: int) -> None:
    """Take a block of the disk for this process's status, which must still fit when all is full."""
    with contextlib.suppress(OSError):
        _paths(run_dir, rank)[1].write_text(" " * 4096, encoding="utf-8")


def _paths(run_dir: Path, rank: int) -> tuple[Path, Path]:
    """(where a rank's status goes, the temporary of this process)."""
    name = "status.json" if rank == 0 else f"status.rank{rank}.json"
    return run_dir / name, run_dir / f".{name}.{os.getpid()}"


#: The only environment variables that are recorded: none of them can hold a secret.
ENVIRONMENT = (
    "OMP_NUM_THREADS",
    "PROOFRUN_LOADER_THREADS",
    "CUDA_VISIBLE_DEVICES",
    "MLU_VISIBLE_DEVICES",
    "ASCEND_RT_VISIBLE_DEVICES",
)
PACKAGES = (
    "torch",
    "torchvision",
    "nvidia-dali-cuda130",
    "nvidia-dali-cuda120",
    "numpy",
    "pillow",
    "pydantic",
    "safetensors",
    "torch-npu",
    "torch-mlu",
    "apex",
)


def provenance(root: Path, command: list[str], data: dict[str, Any] | None) -> dict[str, Any]:
    """Commit, versions, host, command and data of a run: an allow-list, nothing else of the host.

    `data` is None for synthetic batches.
    """
    from proofrun.host import cpu_name

    return {
        **checkout(root),
        "command": command,
        **({"data": data} if data else {}),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": cpu_name(),
        "packages": {name: v for name in PACKAGES if (v := _version(name))},
        "environment": {name: os.environ[name] for name in ENVIRONMENT if name in os.environ},
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def checkout(root: Path) -> dict[str, Any]:
    """`commit` of the files of this program and whether they are changed; None: not known."""
    changed = _git(root, "status", "--porcelain", "--untracked-files=no")
    return {
        "commit": _git(root, "rev-parse", "HEAD") or os.environ.get("PROOFRUN_COMMIT"),
        "dirty": None if changed is None else bool(changed),
    }


def read_provenance(run_dir: Path) -> dict[str, Any]:
    try:
        return dict(json.loads((run_dir / "provenance.json").read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _git(root: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=20
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
