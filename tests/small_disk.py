"""A real disk of a few megabytes, which a test can fill. Needs no root rights."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path


class SmallDisk:
    """A tmpfs that only processes started by `command` see at `folder`."""

    def __init__(self, folder: Path, keeper: int) -> None:
        self.folder = folder
        self.outside = Path(f"/proc/{keeper}/root{folder}")  # the same, for this process
        self._enter = ["nsenter", "-t", str(keeper), "--user", "--mount", "--preserve-credentials"]

    def command(self, *words: str | Path) -> list[str]:
        return [*self._enter, *map(str, words)]

    def resize(self, options: str) -> None:
        line = self.command("mount", "-o", f"remount,{options}", self.folder)
        subprocess.run(line, check=True)


@contextmanager
def small_disk(folder: Path, options: str) -> Iterator[SmallDisk]:
    """`options` of tmpfs: size=8m, nr_inodes=100."""
    folder.mkdir(parents=True)
    mount = f"mount -t tmpfs -o {options} tmpfs '{folder}' && echo ready && exec sleep 3600"
    line: Sequence[str] = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", mount]
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True) as keeper:
        assert keeper.stdout is not None and keeper.stdout.readline() == "ready\n"
        try:
            yield SmallDisk(folder, keeper.pid)
        finally:
            keeper.kill()
