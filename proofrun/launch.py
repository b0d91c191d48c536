"""Run name -> preflight -> torchrun, watched as its parent: `python -m proofrun.launch RUN_NAME`.

Launch owns the run folder, the signals and the restarts. torchrun turns every worker's exit code
into 1, so each rank leaves a status, and launch exits with the code in it.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

if __package__ in (None, ""):  # called as a file by the run scripts
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from proofrun import bootstrap

if __name__ == "__main__":
    bootstrap.stop_on_signals()
    bootstrap.ensure("pydantic", "yaml", "psutil", "numpy")

import argparse
import re
import shlex
import subprocess
import threading
import time
from collections.abc import Callable
from typing import IO, Any

import psutil

from proofrun import device, preflight
from proofrun.errors import RESTARTABLE, Exit, Parser, ProofrunError, UsageError, main_exit
from proofrun.folders import RunFolder, open_folder
from proofrun.process import stop_with_parent
from proofrun.runs import Plan, World, apply_overrides, find_recipe
from proofrun.status import Status, provenance


def main(argv: list[str] | None = None) -> int:
    """Run one training; the exit code of `proofrun.errors`."""
    options = parse(sys.argv[1:] if argv is None else argv)
    check_threads()
    plan = make_plan(options)
    folder = open_folder(bootstrap.folder("PROOFRUN_LOGS", "logs", options.logs), plan, options.new)
    with folder:
        folder.write_plan(provenance(bootstrap.ROOT, ["proofrun.launch", *options.argv]))
        print(f"{plan.run}: {folder.state} in {_short(folder.path)}", flush=True)
        if plan.overrides:
            print(f"overridden: {plan.overrides}: kept out of the headline tables", flush=True)
        return run(plan, folder, options.max_restarts)


def parse(argv: list[str]) -> argparse.Namespace:
    """The command line. Flags that change a result are recorded as overrides."""
    parser = Parser(
        prog="proofrun",
        description="Train one run. Without flags it is the published recipe, and nothing else.",
    )
    parser.add_argument("run", metavar="RUN_NAME", help="e.g. Inceptionv2_AMP_100E_8MLUs_Train")
    place = parser.add_argument_group("where and how (recorded, no overrides)")
    place.add_argument("--data", metavar="DIR", help="data folder (default: env.sh)")
    place.add_argument("--logs", metavar="DIR", help="log folder (default: env.sh)")
    place.add_argument(
        "--new", action="store_true", help="a new number, leaving the last run as is"
    )
    place.add_argument(
        "--max-restarts",
        type=whole(0),
        default=3,
        metavar="N",
        help="restarts after a rank died (default 3)",
    )
    place.add_argument(
        "--log-interval",
        type=whole(1),
        default=None,
        metavar="N",
        help="steps between log points (default 10)",
    )
    place.add_argument(
        "--throughput",
        type=whole(1),
        metavar="STEPS",
        help="only measure: so many steps, for the throughput table alone",
    )
    change = parser.add_argument_group("overrides (recorded; the row is marked *overridden*)")
    change.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a recipe key, e.g. --set optimizer.lr.base=0.02",
    )
    change.add_argument("--loader", choices=["dali", "torchvision", "synthetic"], default="dali")
    change.add_argument("--max-steps", type=whole(1), metavar="N", help="end after N steps")
    change.add_argument(
        "--seed",
        type=whole(0),
        metavar="N",
        help="default: the number of the run",
    )
    options = parser.parse_args(argv)
    if options.throughput and options.max_steps:
        raise UsageError("--throughput and --max-steps both set the number of steps: give one")
    options.argv = argv
    return options


def whole(least: int) -> Callable[[str], int]:
    """A reader of whole numbers from `least` to 2**31 - 1, as argparse wants it."""

    def read(text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,10}", text) or not least <= int(text) < 2**31:
            raise argparse.ArgumentTypeError(f"{text!r} is no whole number from {least} up")
        return int(text)

    return read


def make_plan(options: argparse.Namespace) -> Plan:
    """The run as it will be, after every check that needs no card. Raises ProofrunError."""
    name, recipe_dir, recipe = find_recipe(options.run, bootstrap.ROOT / "recipes")
    preflight.check_device(name)
    recipe, overrides = apply_overrides(recipe, options.set)
    if options.loader != "dali":
        overrides["loader"] = options.loader
    for flag in ("max_steps", "seed"):
        if getattr(options, flag) is not None:
            overrides[flag] = getattr(options, flag)
    data_dir = preflight.data_dir(name.data, options.data)
    data_hash = (
        "synthetic"
        if options.loader == "synthetic"
        else preflight.check_data(data_dir, recipe.data)
    )
    steps = options.throughput or options.max_steps
    plan = Plan(
        run=str(name),
        recipe_dir=bootstrap.in_checkout(recipe_dir),
        recipe=recipe,
        precision=name.precision,
        world=World(cards=name.cards),
        device=name.device,
        seed=-1 if options.seed is None else options.seed,
        loader=options.loader,
        purpose="throughput" if options.throughput else "full",
        max_steps=steps,
        log_interval=options.log_interval or (2 if options.throughput else 10),
        overrides=overrides,
        data_dir=bootstrap.in_checkout(data_dir),
        data_hash=data_hash,
    )
    preflight.check_batch(plan)
    return plan


def run(plan: Plan, folder: RunFolder, max_restarts: int) -> int:
    """Start torchrun until the run ends for good; its exit code."""
    for attempt in range(max_restarts + 1):
        status = _attempt(plan, folder)
        code = Exit(status.code)
        again = code in RESTARTABLE and attempt < max_restarts
        if not again:
            break
        print(f"proofrun: {status.message}; restart {attempt + 1} of {max_restarts}", flush=True)
    if code not in (Exit.OK, Exit.INTERRUPTED):
        raise ProofrunError(status.message, code)
    print(f"{plan.run}: {status.message}", flush=True)
    return int(code)


def command(plan: Plan, run_dir: Path) -> list[str]:
    """The torchrun command line. 127.0.0.1 by name: resolving a host name may take minutes."""
    return [
        sys.executable, "-m", "torch.distributed.run",
        "--nnodes=1", f"--nproc-per-node={plan.world.cards}", "--max-restarts=0",
        "--rdzv-backend=c10d", "--rdzv-endpoint=127.0.0.1:0", "--local-addr=127.0.0.1",
        "-m", "proofrun.worker", str(run_dir),
    ]  # fmt: skip


def environment(plan: Plan) -> dict[str, str]:
    """What the ranks get besides the caller's environment."""
    share = max(1, device.usable_cores() // plan.world.cards)
    own = {
        "PROOFRUN_STARTED": repr(time.monotonic()),
        "PROOFRUN_PROGRESS": "bar" if sys.stdout.isatty() else "lines",
        "PYTHONPATH": os.pathsep.join(
            [str(bootstrap.ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        ),
        "PYTHONUNBUFFERED": "1",
    }
    if sys.stdout.isatty():
        own["COLUMNS"] = str(os.get_terminal_size().columns or 100)
    for name in THREADS:
        if not os.environ.get(name):
            own[name] = str(share)
    return own


THREADS = ("OMP_NUM_THREADS", "PROOFRUN_LOADER_THREADS")


def check_threads() -> None:
    """Raises UsageError when a thread variable of the caller is no number of threads."""
    for name in THREADS:
        if not re.fullmatch(r"|0*[1-9][0-9]{0,4}", text := os.environ.get(name, "")):
            raise UsageError(f"{name}={text}: give a whole number from 1 up, or unset it")


def _attempt(plan: Plan, folder: RunFolder) -> Status:
    """One torchrun from start to end; how it ended."""
    folder.clear_status()
    line = command(plan, folder.path)
    own = environment(plan)
    shown = [f"{name}={own[name]}" for name in THREADS if name in own]
    print(" ".join(["$", *shown, shlex.join(line)]), flush=True)
    with folder.open_log() as log:
        process = subprocess.Popen(
            line,
            env={**os.environ, **own},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,  # tracebacks are for the log; users get one line
            start_new_session=True,  # Ctrl-C reaches launch alone, which passes it on once
            preexec_fn=stop_with_parent,
        )
        relay = threading.Thread(target=_relay, args=(process.stdout, log), daemon=True)
        relay.start()
        with _Forward(process) as forward:
            process.wait()
        relay.join(timeout=60)  # ranks that outlive torchrun still save and print
    return folder.outcome(stopped=forward.used, killed=process.returncode < 0)


class _Forward:
    """While entered, SIGTERM and SIGINT go to the ranks: torchrun itself would kill them early."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self._before: dict[int, Any] = {}
        self.used = False

    def __enter__(self) -> _Forward:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            if number == signal.SIGHUP and signal.getsignal(number) is signal.SIG_IGN:
                continue  # nohup: the terminal may close
            self._before[number] = signal.signal(number, self._forward)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _forward(self, number: int, _frame: object) -> None:
        if not self.used:
            print("proofrun: stopping; ranks that train save first", file=sys.stderr, flush=True)
        self.used = True
        try:
            ranks = psutil.Process(self._process.pid).children()
        except psutil.NoSuchProcess:
            return
        for rank in ranks:
            rank.send_signal(signal.SIGTERM)
        if not ranks:  # too early: torchrun has not started them yet
            self._process.send_signal(signal.SIGTERM)


def _relay(source: IO[bytes] | None, log: IO[bytes]) -> None:
    """Copy what the ranks print to our stdout and, without the bar's redrawn lines, to the log."""
    assert source is not None
    rest = b""
    while chunk := os.read(source.fileno(), 65536):
        sys.stdout.buffer.write(chunk)
        sys.stdout.buffer.flush()
        *lines, rest = (rest + chunk).split(b"\n")
        log.writelines(line.rpartition(b"\r")[2] + b"\n" for line in lines)
        log.flush()


def _short(path: Path) -> str:
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)


if __name__ == "__main__":
    main_exit(main, "proofrun")
