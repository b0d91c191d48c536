"""How a run ended, and where it came from: `status.json` and `provenance.json`. Torch-free."""

from __future__ import annotations

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
        name = "status.json" if self.rank == 0 else f"status.rank{self.rank}.json"
        text = json.dumps({"status": self.status, **asdict(self)}, indent=1)
        temporary = run_dir / f".{name}.{os.getpid()}"
        try:
            temporary.write_text(text + "\n", encoding="utf-8")
            temporary.rename(run_dir / name)
        except OSError as error:
            print(f"cannot write {run_dir / name}: {error.strerror}", file=sys.stderr)

    @classmethod
    def read(cls, path: Path) -> Status | None:
        """None when there is none, or none that can be read."""
        try:
            raw = json.loads(path.read_text(encoding="utf-8"))
            known = {field.name: raw[field.name] for field in fields(cls) if field.name in raw}
            return cls(**known)
        except (OSError, ValueError, KeyError, TypeError):
            return None


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


def provenance(root: Path, command: list[str]) -> dict[str, Any]:
    """Commit, versions, host and command of a run: an allow-list, nothing else of the host."""
    from proofrun.device import cpu_name

    return {
        **checkout(root),
        "command": command,
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
