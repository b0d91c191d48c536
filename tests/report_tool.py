"""report.py as a user calls it, in this process: an interpreter for each call takes seconds.

What must be a process of its own (without torch, a closed pipe, a signal) starts one itself.
"""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
from pathlib import Path
from unittest import mock

from proofrun.errors import ProofrunError, one_line
from tools._report import cli, plots


def report(
    *words: object, cwd: Path | str = "/", draw: bool = False
) -> subprocess.CompletedProcess[str]:
    """Exit code, stdout and stderr of `python tools/report.py words…` in the folder `cwd`.

    Without `draw` the page has an empty drawing for each panel: they take most of the time.
    """
    out, err = io.StringIO(), io.StringIO()
    line = ["report.py", *map(str, words)]
    before = Path.cwd()
    try:
        os.chdir(cwd)
        with (
            mock.patch.object(sys, "argv", line),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
            contextlib.nullcontext() if draw else mock.patch.object(plots, "svg", _empty),
        ):
            try:
                code = int(cli.main())
            except ProofrunError as error:
                print(f"report.py: {one_line(error)}", file=err)
                code = int(error.exit_code)
            except SystemExit as ended:  # a wrong command line
                code = int(ended.code or 0)
    finally:
        os.chdir(before)
    return subprocess.CompletedProcess(line, code, out.getvalue(), err.getvalue())


def _empty(*_: object) -> str:
    return "<svg></svg>"
