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
    bootstrap.ensure("pydantic", "yaml", "psutil", "numpy", "tqdm")

import argparse
import re
import shlex
import subprocess
import threading
import time
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import IO, Any

import psutil

from proofrun import device, preflight
from proofrun.candidates import chosen
from proofrun.cluster import Nodes, check_port, interface_of, nodes_of, own_address
from proofrun.errors import (
    RESTARTABLE,
    Exit,
    Parser,
    ProofrunError,
    RendezvousError,
    UsageError,
    main_exit,
    whole,
)
from proofrun.folders import RunFolder, open_folder, open_node_folder
from proofrun.process import stop_with_parent
from proofrun.runs import Plan, World, apply_overrides, find_recipe
from proofrun.status import Status, provenance


def main(argv: list[str] | None = None) -> int:
    """Do one run, training or inference; the exit code of `proofrun.errors`."""
    options = parse(sys.argv[1:] if argv is None else argv)
    check_threads()
    nodes = nodes_of(os.environ)
    logs = bootstrap.folder("PROOFRUN_LOGS", "logs", options.logs)
    plan, data = make_plan(options, nodes, logs)
    if nodes.is_first:
        check_port(nodes)
        folder = open_folder(logs, plan, options.new)
    else:  # node 0 keeps the run; here lie only this node's own words
        folder = open_node_folder(logs, plan, nodes.rank)
    with folder:
        preflight.check_space(plan, folder.path)
        folder.write_plan(provenance(bootstrap.ROOT, ["proofrun.launch", *options.argv], data))
        print(f"{plan.run}: {folder.state} in {_short(folder.path)}", flush=True)
        if nodes.count > 1:
            print(
                f"node {nodes.rank} of {nodes.count}: meeting at {nodes.endpoint}, waiting "
                f"{nodes.timeout_s} s at most (NODES_TIMEOUT)",
                flush=True,
            )
        if plan.weights:
            print(f"weights: {', '.join(plan.weights)}", flush=True)
        if plan.overrides:
            print(f"overridden: {plan.overrides}: kept out of the headline tables", flush=True)
        return run(plan, nodes, folder, options.max_restarts)


def parse(argv: list[str]) -> argparse.Namespace:
    """The command line. Flags that change a result are recorded as overrides."""
    parser = Parser(
        prog="proofrun",
        description="Do one run. Without flags it is the published recipe, and nothing else.",
    )
    parser.add_argument("run", metavar="RUN_NAME", help="e.g. Inceptionv2_AMP_100E_8MLUs_Train")
    infer = parser.add_argument_group("Infer runs (recorded, no overrides)")
    infer.add_argument(
        "--weights",
        metavar="PATH",
        help="a file of weights, a checkpoint, a run folder, or a folder of checkpoints: all are "
        "scored and ranked (default: the last finished training of this model and data)",
    )
    infer.add_argument("--no-latency", action="store_true", help="accuracy alone")
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
    change.add_argument(
        "--accept-changed-data",
        action="store_true",
        help="train though the data is not what was fingerprinted",
    )
    options = parser.parse_args(argv)
    if options.throughput and options.max_steps:
        raise UsageError("--throughput and --max-steps both set the number of steps: give one")
    options.argv = argv
    return options


def make_plan(
    options: argparse.Namespace, nodes: Nodes, logs: Path
) -> tuple[Plan, dict[str, Any] | None]:
    """The run as it will be and what it records of its data, after every check without a card.

    Raises ProofrunError.
    """
    name, recipe_dir, recipe = find_recipe(options.run, bootstrap.ROOT / "recipes")
    preflight.check_flags(name, options)
    preflight.check_device(name)
    weights = chosen(options.weights, logs, name) if name.task == "Infer" else ()
    recipe, overrides = apply_overrides(recipe, options.set)
    if recipe.optimizer.implementation == "apex":
        preflight.check_apex(name)
    if options.loader != "dali":
        overrides["loader"] = options.loader
    for flag in ("max_steps", "seed"):
        if getattr(options, flag) is not None:
            overrides[flag] = getattr(options, flag)
    data_dir = preflight.data_dir(name.data, options.data)
    accept = options.accept_changed_data
    if accept:
        overrides["accept_changed_data"] = True
    seen = None
    if options.loader != "synthetic":
        cache = preflight.cache_dir(logs)
        seen = preflight.check_data(data_dir, recipe.data, cache, options.loader, accept)
    steps = options.throughput or options.max_steps
    plan = Plan(
        run=str(name),
        recipe_dir=bootstrap.in_checkout(recipe_dir),
        recipe=recipe,
        precision=name.precision,
        world=World(cards=name.cards, nodes=nodes.count),
        device=name.device,
        seed=-1 if options.seed is None else options.seed,
        loader=options.loader,
        purpose="throughput" if options.throughput else "full",
        max_steps=steps,
        log_interval=options.log_interval or (2 if options.throughput else 10),
        overrides=overrides,
        data_dir=bootstrap.in_checkout(data_dir),
        data_hash=seen.hash if seen else "synthetic",
        weights=tuple(map(bootstrap.in_checkout, weights)),
        latency=not options.no_latency,
    )
    preflight.check_batch(plan)
    threads = (os.environ | environment(plan, nodes))["PROOFRUN_LOADER_THREADS"]
    preflight.check_shared_memory(plan, int(threads))
    return plan, seen.provenance() if seen else None


def run(plan: Plan, nodes: Nodes, folder: RunFolder, max_restarts: int) -> int:
    """Start torchrun until the run ends for good; its exit code."""
    for attempt in range(max_restarts + 1):
        status = _attempt(plan, nodes, folder)
        code = Exit(status.code)
        again = code in RESTARTABLE and attempt < max_restarts
        if not again:
            break
        print(f"proofrun: {status.message}; restart {attempt + 1} of {max_restarts}", flush=True)
    if code not in (Exit.OK, Exit.INTERRUPTED):
        raise ProofrunError(status.message, code)
    print(f"{plan.run}: {status.message}", flush=True)
    return int(code)


def command(plan: Plan, nodes: Nodes, run_dir: Path) -> list[str]:
    """The torchrun command line. 127.0.0.1 by name: resolving a host name may take minutes."""
    meet = ["--local-addr=127.0.0.1"]
    if nodes.count > 1:
        wait = f"join_timeout={nodes.timeout_s},read_timeout={nodes.timeout_s}"
        meet = ["--rdzv-id=proofrun", f"--rdzv-conf=is_host={int(nodes.is_first)},{wait}"]
        if address := own_address(nodes):
            meet.append(f"--local-addr={address}")
    return [
        sys.executable, "-m", "torch.distributed.run",
        f"--nnodes={nodes.count}", f"--nproc-per-node={plan.world.cards}", "--max-restarts=0",
        "--rdzv-backend=c10d", f"--rdzv-endpoint={nodes.endpoint}", *meet,
        "-m", "proofrun.worker", str(run_dir),
    ]  # fmt: skip


def environment(plan: Plan, nodes: Nodes) -> dict[str, str]:
    """What the ranks get besides the caller's environment."""
    share = max(1, device.usable_cores() // plan.world.cards)
    own = {
        "PROOFRUN_STARTED": repr(time.monotonic()),
        "PROOFRUN_PROGRESS": "bar" if sys.stdout.isatty() else "lines",
        "PYTHONPATH": os.pathsep.join(
            [str(bootstrap.ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        ),
        "PYTHONUNBUFFERED": "1",
        "PROOFRUN_NODE_RANK": str(nodes.rank),
        "PROOFRUN_NODES_TIMEOUT": str(nodes.timeout_s),
    }
    if nodes.count > 1 and (address := own_address(nodes)) and (card := interface_of(address)):
        own |= {name: card for name in device.INTERFACE_VARIABLES if not os.environ.get(name)}
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


def _attempt(plan: Plan, nodes: Nodes, folder: RunFolder) -> Status:
    """One torchrun from start to end; how it ended.

    Among several nodes one may arrive while the others still leave an earlier attempt, so torchrun
    is started again until its ranks live. Raises RendezvousError when that takes too long.
    """
    deadline = time.monotonic() + nodes.timeout_s
    while True:
        folder.clear_status()
        left = max(1, round(deadline - time.monotonic()))
        forward, killed = _torchrun(plan, replace(nodes, timeout_s=left), folder)
        if nodes.count == 1 or forward.used or folder.ranks_started():
            return folder.outcome(stopped=forward.used, killed=killed)
        if time.monotonic() >= deadline - 1:
            said = (
                f"node {nodes.rank}: the {nodes.count} nodes did not meet at {nodes.endpoint} "
                f"within {nodes.timeout_s} s (NODES_TIMEOUT): start the same command on each of "
                "them, with the same NNODES and RDZV_ENDPOINT and a NODE_RANK of its own; see "
                f"{folder.path / 'stdout.log'}"
            )
            Status(int(Exit.NO_RENDEZVOUS), said, 0, time.time()).write(folder.path)
            raise RendezvousError(said)
        time.sleep(1)


def _torchrun(plan: Plan, nodes: Nodes, folder: RunFolder) -> tuple[_Forward, bool]:
    """Run it, passing signals on and output through: (the signals, whether it was killed)."""
    line = command(plan, nodes, folder.path)
    own = environment(plan, nodes)
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
            preexec_fn=partial(stop_with_parent, alone=nodes.count == 1),
        )
        relay = threading.Thread(target=_relay, args=(process.stdout, log), daemon=True)
        relay.start()
        with _Forward(process) as forward:
            process.wait()
        relay.join(timeout=60)  # ranks that outlive torchrun still save and print
    return forward, process.returncode < 0


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
        with suppress(OSError):  # a full disk ends the ranks, which need a reader until then
            log.write(b"".join(line.rpartition(b"\r")[2] + b"\n" for line in lines))


def _short(path: Path) -> str:
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)


if __name__ == "__main__":
    main_exit(main, "proofrun")
