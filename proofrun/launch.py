"""Run name -> preflight -> torchrun, watched as its parent: `python -m proofrun.launch RUN_NAME`.

Launch owns the run folder, the signals and the restarts. torchrun turns every worker's exit code
into 1, so each rank leaves a status, and launch exits with the code in it.
"""

from __future__ import annotations

import os
import sys

if __package__ in (None, ""):  # called as a file by the run scripts
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.realpath(__file__))))

if __name__ == "__main__":
    from proofrun import early  # before any import that takes time

    early.stop_on_signals()

from proofrun import bootstrap

if __name__ == "__main__":
    bootstrap.ensure("pydantic", "yaml", "psutil", "numpy", "tqdm")

import argparse
import re
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from proofrun import cardcheck, faultpoints, preflight
from proofrun.candidates import chosen
from proofrun.cluster import Nodes, check_port, nodes_of
from proofrun.errors import (
    RESTARTABLE,
    Exit,
    Parser,
    ProofrunError,
    RendezvousError,
    UsageError,
    main_exit,
    printable,
    whole,
)
from proofrun.folders import RunFolder, open_folder, open_node_folder
from proofrun.heartbeat import timeout_of
from proofrun.runs import Plan, World, apply_overrides, find_recipe
from proofrun.status import Status, provenance
from proofrun.torchrun import Signals, check_threads, environment, torchrun


def main(argv: list[str] | None = None) -> int:
    """Do one run, training or inference; the exit code of `proofrun.errors`."""
    options = parse(sys.argv[1:] if argv is None else argv)
    check_threads()
    timeout_of(os.environ)  # refuse a bad one now
    if asked := os.environ.get(faultpoints.VARIABLE):
        print(f"proofrun: a test asks for faults: {faultpoints.VARIABLE}={asked}", flush=True)
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
        if nodes.is_first and cardcheck.is_due(plan, options.align, folder.path):
            cardcheck.check(plan, nodes, folder, logs)
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
        help="restarts after a rank died or hung (default 3)",
    )
    place.add_argument(
        "--stop-at-epoch-end",
        action="store_true",
        help="end with 75 after the current epoch: from there another NNODES may go on",
    )
    place.add_argument(
        "--log-interval",
        type=whole(1),
        default=None,
        metavar="N",
        help="steps between log points (default 10)",
    )
    place.add_argument(
        "--align",
        action=argparse.BooleanOptionalAction,
        help="before a run begins, hold three steps on one card against a trusted trace; what "
        "leaves the bounds is a warning (default: before a full training that is not on a CPU)",
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
    if any(re.search(r"://[^/\s]*@", word) for word in argv):
        raise UsageError(
            "a flag holds a URL with a user or a password in it: the command line is recorded in "
            "the log; give a folder, and leave secrets in the environment, which is not recorded"
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
    skipped: list[str] = []
    weights = chosen(options.weights, logs, name, skipped) if name.task == "Infer" else ()
    for remark in skipped:
        print(printable(f"proofrun: {remark}: skipped"), flush=True)
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
        stop_at_epoch_end=options.stop_at_epoch_end,
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
    before: Status | None = None
    with Signals() as signals:
        for attempt in range(max_restarts + 1):
            status = _attempt(plan, nodes, folder, signals)
            code = Exit(status.code)
            if signals.used or attempt == max_restarts or not _again(plan, status, before):
                break
            said = status.message
            if code is Exit.INTERRUPTED:
                said = "a rank was told to stop, and launch was not"
            print(f"proofrun: {said}; restart {attempt + 1} of {max_restarts}", flush=True)
            before = status
    if code not in (Exit.OK, Exit.INTERRUPTED):
        raise ProofrunError(status.message, code)
    print(f"{plan.run}: {status.message}", flush=True)
    return int(code)


def _again(plan: Plan, status: Status, before: Status | None) -> bool:
    """Whether another attempt may end better.

    A defect that comes again at the same step will come a third time. Where ranks saved because one
    of them got a signal, several nodes cannot tell whose launch was told: there all stop.
    """
    code = Exit(status.code)
    if code is Exit.INTERNAL and before is not None:
        return (status.message, status.step) != (before.message, before.step)
    if code is Exit.INTERRUPTED:
        return plan.world.nodes == 1 and not plan.stop_at_epoch_end
    return code in RESTARTABLE


def _attempt(plan: Plan, nodes: Nodes, folder: RunFolder, signals: Signals) -> Status:
    """One torchrun from start to end; how it ended.

    Among several nodes one may arrive while the others still leave an earlier attempt, so torchrun
    is started again until its ranks live. Raises RendezvousError when that takes too long.
    """
    deadline = time.monotonic() + nodes.timeout_s
    while True:
        folder.clear_status()
        if signals.used:  # between two attempts
            return folder.outcome(stopped=True)
        left = max(1, round(deadline - time.monotonic()))
        ended = torchrun(plan, replace(nodes, timeout_s=left), folder, signals)
        if nodes.count == 1 or signals.used or folder.ranks_started():
            return folder.outcome(signals.used, ended.killed, ended.hang)
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


def _short(path: Path) -> str:
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)


if __name__ == "__main__":
    main_exit(main, "proofrun")
