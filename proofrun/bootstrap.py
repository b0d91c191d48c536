"""Finds an interpreter that has the packages. Standard library only: it runs before they exist.

The run scripts call plain `python3`. Where that one lacks a package and the checkout has a `.venv`,
the same command goes on in there; where nothing is installed, one line says what to run.
"""

from __future__ import annotations

import importlib.util
import os
import re
import sys
from pathlib import Path

from proofrun.errors import Exit, UsageError

ROOT = Path(__file__).resolve().parent.parent
_ENTERED = "PROOFRUN_ENTERED_VENV"


def setting(variable: str) -> str | None:
    """A fact of this machine as the run scripts see it: what is set wins, else what env.sh says."""
    if value := os.environ.get(variable):
        return value
    text = (ROOT / "env.sh").read_text(encoding="utf-8") if (ROOT / "env.sh").is_file() else ""
    said = re.search(rf'^export {variable}="\$\{{{variable}:-([^}}]*)\}}"', text, re.MULTILINE)
    return said[1] if said else None


def folder(variable: str, default: str, given: str | None) -> Path:
    """A folder as a flag gives it, relative to the caller, else as env.sh says, to the checkout.

    Raises UsageError for a URL: it may hold a password, and folders are recorded.
    """
    set_to = setting(variable)
    if "://" in (given or set_to or ""):
        raise UsageError(f"{'a folder flag' if given else variable} is a URL: give a folder")
    if given:
        return Path(os.path.abspath(Path(given).expanduser()))
    return ROOT / (set_to or default)


def in_checkout(path: Path) -> str:
    """A path as a log shows it: relative to the checkout where it lies in there."""
    return str(path.relative_to(ROOT) if path.is_relative_to(ROOT) else path)


def ensure(*packages: str) -> None:
    """Return when every package can be found; else go on in `.venv`, else exit with one line."""
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if not missing:
        return
    python = str(ROOT / ".venv" / "bin" / "python")
    chosen = os.environ.get("PYTHON")  # the user named an interpreter: never leave it silently
    if os.access(python, os.X_OK) and not chosen and _ENTERED not in os.environ:
        os.environ[_ENTERED] = "1"  # an option such as -S may hide the packages in there as well
        os.execv(python, [python, *sys.orig_argv[1:]])  # noqa: S606
    advice = "run `bash tools/setup.sh` once"
    if chosen:
        advice = f"install requirements/run.txt there, or unset PYTHON (it is {chosen})"
    print(f"proofrun: {sys.executable} lacks {', '.join(missing)}: {advice}", file=sys.stderr)
    sys.exit(int(Exit.NOT_INSTALLED))
