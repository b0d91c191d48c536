"""What the long proofs share: the dated report of each, transcripts, runs on the host."""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from proofrun import events
from proofrun.host import cpu_name

ROOT = Path(__file__).resolve().parents[2]
REPORTS = ROOT / "reports" / "proof"


class Evidence:
    """Collects what a proof measured, and writes `reports/proof/<name>.md` and transcripts."""

    def __init__(self, name: str, command: str = "") -> None:
        self.name = name
        self.command = command or f"bash tests/prove.sh {name}"
        self.tables: list[tuple[Sequence[str], Sequence[Sequence[str]]]] = []
        self.figures: list[tuple[str, str, str]] = []
        self.outcomes: list[tuple[str, str, float]] = []
        self.folder = REPORTS / name
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)

    def figure(self, what: str, measured: str, target: str = "") -> None:
        print(f"{what}: {measured}{f' (target {target})' if target else ''}")
        self.figures.append((what, measured, target))

    def table(self, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """A table of its own in the report."""
        self.tables.append((heads, rows))

    def transcript(self, name: str, text: str) -> None:
        """Keep what commands printed, without the folders of this machine."""
        for path, word in ((str(ROOT), "."), (os.path.realpath("/tmp/pytest-of-root"), "/tmp")):
            text = text.replace(path, word)
        (self.folder / f"{name}.txt").write_text(text.rstrip("\n") + "\n", encoding="utf-8")

    def write(self) -> None:
        def git(*words: str) -> str:
            line = ["git", "-C", str(ROOT), *words]
            return subprocess.run(line, capture_output=True, text=True).stdout.strip()

        failed = [name for name, outcome, _ in self.outcomes if outcome != "passed"]
        dirty = ", with changes" if git("status", "--porcelain", "proofrun", "docker") else ""
        lines = [
            f"# Proof: {self.name}",
            "",
            f"{time.strftime('%Y-%m-%d', time.gmtime())}, "
            f"commit {git('rev-parse', '--short', 'HEAD')}{dirty}, "
            f"{cpu_name()}, {platform.system()} {platform.machine()}.",
            f"`{self.command}`"
            + (
                f": {len(self.outcomes) - len(failed)} of {len(self.outcomes)} proofs hold"
                if self.outcomes
                else ""
            )
            + f"{'; **failed**: ' + ', '.join(failed) if failed else ''}.",
            "",
        ]
        outcomes = [(name, how, f"{spent:.1f}") for name, how, spent in self.outcomes]
        for heads, rows in (
            (("Measured", "", "target"), self.figures),
            *self.tables,
            (("Proof", "", "seconds"), outcomes),
        ):
            if rows:
                lines += [f"| {' | '.join(row)} |" for row in (heads, ["---"] * len(heads), *rows)]
                lines.append("")
        lines += [f"- [{p.stem}]({self.name}/{p.name})" for p in sorted(self.folder.glob("*.txt"))]
        (REPORTS / f"{self.name}.md").write_text("\n".join(lines).rstrip() + "\n", encoding="utf-8")
        if not any(self.folder.iterdir()):
            self.folder.rmdir()


def shell(line: Sequence[str | os.PathLike], expect: int | None = 0, **options) -> str:
    """Run to the end; everything it printed. Fails with that where the exit code is another."""
    options.setdefault("timeout", 1200)
    done = subprocess.run(
        [str(word) for word in line],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        **options,
    )
    if expect is not None:
        assert done.returncode == expect, (
            f"{list(line)} ended with {done.returncode}:\n{done.stdout}"
        )
    return done.stdout


def read(folder: Path) -> list[events.AnyEvent]:
    found = [event for _, event in events.read_events(folder / "events.jsonl")]
    assert not [event for event in found if isinstance(event, str)]
    return list(found)


def last(folder: Path) -> events.RunEnd:
    end = read(folder)[-1]
    assert isinstance(end, events.RunEnd), end
    return end


def wait_for(what, seconds: float, process: subprocess.Popen | None = None):
    """The first true value of `what()`; fails when it takes longer or the process ends."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = what()
        if found:
            return found
        if process is not None and process.poll() is not None:
            break
        time.sleep(0.2)
    pytest.fail(f"not within {seconds} s: {what}")


def on_host(host: dict[str, str], run: str, logs: Path, *flags: str) -> Path:
    """Train on this host; the run's folder."""
    shell(["bash", ROOT / f"run_scripts/{run}.sh", "--logs", logs, *flags], env=host)
    return logs / run / "001"


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
