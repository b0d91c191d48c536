"""Is this machine fit for a run? A page of green and red lines, each with what to do.

python tools/doctor.py                                        for the rehearsal
python tools/doctor.py Inceptionv2_AMP_100E_8GPUs_Train       for that run
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from proofrun import bootstrap

bootstrap.ensure("numpy", "PIL", "psutil", "pydantic", "yaml", "tqdm")

from _doctor import host, page, software  # noqa: E402

from proofrun.errors import Exit, Parser, ProofrunError, main_exit, one_line  # noqa: E402
from proofrun.runs import find_recipe  # noqa: E402

REHEARSAL = "GoogLeNet-Digits_FP32_10E_1CPU_Train"

#: The exit code for each group of lines, in the order of their weight.
CODES = {"Software": Exit.NOT_INSTALLED, "Machine": Exit.NO_DEVICE, "Data": Exit.NO_DATA}


def main() -> int:
    """Print the page; 0 when nothing that the run needs is bad. Raises RunNameError."""
    parser = Parser(prog="doctor.py", description=__doc__.splitlines()[0])
    parser.add_argument("run", nargs="?", default=REHEARSAL, metavar="RUN_NAME")
    parser.add_argument("--data", type=Path, metavar="DIR", help="data folder (default: env.sh)")
    parser.add_argument("--logs", metavar="DIR", help="log folder (default: env.sh)")
    parser.add_argument("--json", action="store_true", help="the page for programs")
    options = parser.parse_args()
    try:
        run, _, recipe = find_recipe(options.run, bootstrap.ROOT / "recipes")
    except ProofrunError as error:
        if options.json:
            what, _, todo = one_line(error).partition("; ")
            print(page.document(options.run, [page.Line("Run", options.run, "bad", what, todo)]))
        raise
    logs = bootstrap.folder("PROOFRUN_LOGS", "logs", options.logs)
    lines = [
        *software.check(run),
        *host.check(run, recipe, logs),
        *host.check_data(run, logs, options.data and options.data.absolute()),
        *host.check_runs(),
    ]
    bad = [line for line in lines if line.state == "bad"]
    if options.json:
        print(page.document(str(run), lines))
    else:
        print(page.text(lines))
        verdict = f"{len(bad)} lines are bad for it" if bad else "nothing that it needs is bad"
        print(f"\n{run}: {verdict}")
    return CODES[bad[0].group] if bad else Exit.OK


if __name__ == "__main__":
    main_exit(main, "doctor.py")
