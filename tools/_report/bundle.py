"""One archive with all that a third party needs to judge again: logs, report.json, manifest.

The files are copied first and the report is made from the copies, so a run that is still being
written gives a bundle that agrees with itself.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from proofrun.archive import DamagedError, bad_name
from proofrun.bootstrap import ROOT
from proofrun.errors import UsageError, WriteError, one_line
from proofrun.status import checkout

from .archive import Content, content, pack, unpack
from .build import Report, build
from .document import to_json
from .find import find
from .output import show
from .read import read_logs
from .render import write_text

#: What is packed of a run: what the report reads, and what tells where it came from.
FILES = (
    "events.jsonl",
    "events.jsonl.gz",
    "iters.jsonl",
    "recipe.yaml",
    "provenance.json",
    "status.json",
)
MANIFEST, REPORT, LOGS = "manifest.json", "report.json", "logs"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Tool(_Strict):
    """What made a bundle."""

    version: str | None
    commit: str | None
    dirty: bool | None


class Entry(_Strict):
    """One file of a bundle."""

    path: str
    bytes: int
    sha256: str = Field(pattern="^[0-9a-f]{64}$")


class Manifest(_Strict):
    """Every file of a bundle but this one. `running`: runs whose status.json was out of date."""

    proofrun_bundle: Literal[1] = 1
    tool: Tool
    running: tuple[str, ...]
    files: tuple[Entry, ...]

    @property
    def contents(self) -> dict[str, Content]:
        return {entry.path: Content(entry.bytes, entry.sha256) for entry in self.files}


def write_bundle(paths: Sequence[Path], out: Path) -> None:
    """Pack the runs under `paths` into `out` (.tar.gz); print their tables and the digest.

    Raises UsageError and WriteError.
    """
    if not out.name.endswith((".tar.gz", ".tgz")):
        raise UsageError(f"--bundle {out}: the name must end in .tar.gz")
    with tempfile.TemporaryDirectory(prefix="proofrun-") as name:
        root = Path(name)
        _copy(paths, root / LOGS)
        report = judged_again(root / LOGS)
        write_text(root / REPORT, to_json(report))
        packed = [REPORT, *sorted(p.relative_to(root).as_posix() for p in _files(root / LOGS))]
        manifest = Manifest(
            tool=this_tool(),
            running=tuple(
                (report.logs.root / run.folder).resolve().relative_to(root.resolve()).as_posix()
                for run in report.logs.runs
                if run.status == "running"
            ),
            files=tuple(
                Entry(path=path, bytes=found.bytes, sha256=found.sha256)
                for path, found in ((path, content(root / path)) for path in packed)
            ),
        )
        write_text(root / MANIFEST, manifest.model_dump_json(indent=1) + "\n")
        _pack(out, root, [MANIFEST, *packed])
        show(report)
        print(f"Bundle: {out}, {len(packed)} files, {out.stat().st_size:,} bytes")
        print(f"Bundle digest: {digest((root / MANIFEST).read_bytes())}")


def digest(manifest: bytes) -> str:
    """What a publisher states elsewhere: it covers the hash of every file."""
    return hashlib.sha256(manifest).hexdigest()


def judged_again(logs: Path) -> Report:
    """The report of a bundle's logs: without claims that no run has met."""
    return build(read_logs([logs]))


def this_tool() -> Tool:
    """Version and commit of this checkout."""
    try:
        project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
        version = str(project["project"]["version"])
    except (OSError, ValueError, KeyError):
        version = None
    return Tool(version=version, **checkout(ROOT))


def _copy(paths: Sequence[Path], target: Path) -> None:
    """The runs' files, in their folders below what the runs have in common."""
    folders = list(dict.fromkeys(folder.resolve() for folder in find(paths).folders))
    if not folders or not all(path.exists() for path in paths):
        read_logs(paths)  # says what is wrong with them
        raise UsageError("no run of ours in there: logs of other systems are not packed")
    common = Path(os.path.commonpath([folder.parent.parent for folder in folders]))
    for folder in folders:
        place = folder.relative_to(common)
        for name in FILES:
            source = folder / name
            if not source.is_file():
                continue
            if reason := bad_name(f"{LOGS}/{place}/{name}"):
                raise UsageError(f"{source}: {reason}; rename the folder")
            try:
                (target / place).mkdir(parents=True, exist_ok=True)
                shutil.copy2(source, target / place / name)
            except OSError as error:
                raise UsageError(f"{source}: cannot be copied ({error.strerror})") from None


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def _pack(out: Path, root: Path, names: Sequence[str]) -> None:
    """Whole or not at all."""
    part = out.with_name(f".{out.name}.part")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as file:
            pack(file, root, names)
        with part.open("rb") as file:  # within the limits of those who verify it
            unpack(file, root / "unpacked", {})
        os.replace(part, out)
    except OSError as error:
        raise WriteError(f"cannot write {out}: {error.strerror}; choose another place") from None
    except (DamagedError, ValueError) as error:
        raise UsageError(f"--bundle: {one_line(error)}; pack fewer runs") from None
    finally:
        part.unlink(missing_ok=True)
