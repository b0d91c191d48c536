"""Log folders to `Run` objects: what was planned, which events count, which line each stands on.

Nothing here raises for what a file holds: a damaged line or folder becomes a `Rejected` that the
report shows. Wrong paths on the command line are a `UsageError`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple, NoReturn, TypeVar

from pydantic import ValidationError

from proofrun import alignment
from proofrun.errors import ProofrunError, UsageError, one_line
from proofrun.events import AnyEvent, Event, Fault, RunEnd, RunStart
from proofrun.runs import Plan, RunName

from .eventlog import EventFile, EventLog, Located, Windows, read_event_file
from .find import Found, find
from .foreign.logs import ForeignLog, read_foreign

Status = Literal["finished", "failed", "interrupted", "running"]
E = TypeVar("E", bound=Event)


class Rejected(NamedTuple):
    """A line (or a whole file: line 0) that could not be used, and why."""

    file: str
    line: int
    reason: str

    @property
    def source(self) -> str:
        return f"{self.file}:{self.line}" if self.line else self.file


@dataclass(frozen=True, eq=False)
class Run:
    """One run folder, called `folder` in the report; `file` is its event log, named alike."""

    folder: str
    number: str
    name: RunName
    plan: Plan
    log: EventLog
    file: str
    status: Status
    message: str
    changed: tuple[str, ...] = ()  # what recipe.yaml states otherwise than the log, a field each
    damaged: str = ""  # why the event log could not be read to its end

    @property
    def windows(self) -> Windows:
        """The windows of training that count, as columns."""
        return self.log.windows

    def of(self, kind: type[E]) -> list[tuple[E, str]]:
        """(event, "file:line") of every event of one kind but train, in order."""
        return [(e, self.at(n)) for e, n in self.log.events if isinstance(e, kind)]

    def at(self, line: int) -> str:
        """ "file:line"."""
        return f"{self.file}:{line}"

    def between(self, first: int, last: int) -> str:
        """ "file:line-line"."""
        return f"{self.file}:{first}-{last}"

    @property
    def start(self) -> RunStart | None:
        """The run_start of the last process, or None before the first."""
        starts = self.of(RunStart)
        return starts[-1][0] if starts else None

    @property
    def device_name(self) -> str:
        """As the driver calls it; two hosts in one run give both names."""
        names = dict.fromkeys(start.device_name for start, _ in self.of(RunStart))
        return " + ".join(names) or self.plan.device

    @property
    def cards(self) -> int:
        """Of all nodes."""
        return self.start.world_size if self.start else self.plan.world.size

    @property
    def nodes(self) -> int:
        return self.start.nodes if self.start else self.plan.world.nodes

    @property
    def global_batch(self) -> int:
        return self.start.global_batch if self.start else self.plan.global_batch

    @property
    def config_hash(self) -> str:
        return self.start.config_hash if self.start else self.plan.config_hash()

    @property
    def epochs_done(self) -> float:
        return self.log.epochs_done


class Logs(NamedTuple):
    """Everything that was found under the given paths."""

    root: Path
    runs: list[Run]
    rejected: list[Rejected]
    foreign: list[ForeignLog]
    alignments: list[alignment.Alignment]


def read_logs(paths: Sequence[Path]) -> Logs:
    """All runs under `paths`: log folders, run folders, logs of other systems.

    Raises UsageError where nothing is found.
    """
    found = find(paths)
    root = _root(found)
    runs: list[Run] = []
    rejected = [
        Rejected(_shown(Path(error.filename), root), 0, error.strerror or "unreadable")
        for error in found.closed
    ]
    for folder in found.folders:
        read, refused = _read_run(folder, _shown(folder, root))
        runs += read
        rejected += refused
    runs = _without_copies(runs, rejected)
    foreign = []
    for path in (*found.named, *found.files):
        log = read_foreign(path, _shown(path, root))
        foreign += log.logs
        if path in found.named and not log.logs and not log.rejected:
            rejected.append(Rejected(_shown(path, root), 0, "no format is recognised in it"))
        # a file that lies there may be anything; one that was named should have been a log
        rejected += [Rejected(*each) for each in log.rejected if log.logs or path in found.named]
    if not found.folders and not foreign:
        _nothing(paths, found, rejected)
    alignments, unread = alignment.read_all(root)
    rejected += [
        Rejected(_shown(p, root), 0, "no verdict of align.py: replay again") for p in unread
    ]
    runs.sort(key=lambda run: (run.plan.run, run.number))
    return Logs(root, runs, rejected, foreign, alignments)


def _without_copies(runs: Sequence[Run], rejected: list[Rejected]) -> list[Run]:
    """Each run once: two that started and ended at the very same times are one, copied."""
    kept: dict[tuple[object, ...], Run] = {}
    for run in runs:
        times = run.start.t_wall if run.start else id(run), run.log.last and run.log.last.t_wall
        key = (run.plan.run, run.config_hash, *times, len(run.windows))
        if key in kept:
            first = kept[key]
            why = f"a copy of {first.folder} ({first.number}): it counts once"
            rejected.append(Rejected(run.file, 0, why))
        else:
            kept[key] = run
    return list(kept.values())


def _root(found: Found) -> Path:
    """What names in the report are relative to: the folder of logs, or that of the files."""
    if found.folders:  # `.` in a given path must not hide the two folder levels above a run
        return found.folders[0].resolve().parent.parent
    files = [path.resolve().parent for path in (*found.named, *found.files)]
    return Path(os.path.commonpath(files)) if files else Path.cwd()


def _shown(path: Path, root: Path) -> str:
    return Path(os.path.relpath(path.resolve(), root)).as_posix()


def _nothing(paths: Sequence[Path], found: Found, rejected: Sequence[Rejected]) -> NoReturn:
    shown = ", ".join(str(p) for p in paths)
    if found.closed:
        raise UsageError(f"{found.closed[0].filename}: cannot be read ({found.closed[0].strerror})")
    if found.named:
        why = rejected[0].reason if rejected else "no format is recognised in it"
        raise UsageError(
            f"{found.named[0]}: {why}; what can be read: tools/_report/foreign/README.md"
        )
    raise UsageError(
        f"{shown}: no run found (logs/<run name>/<NNN>/events.jsonl) and no log of another system; "
        "make one with `bash run_scripts/quickstart.sh`"
    )


def _read_run(folder: Path, shown: str) -> tuple[list[Run], list[Rejected]]:
    """The run of a folder called `shown` in the report; several if their logs were put together."""
    rejected: list[Rejected] = []
    path = next(
        (p for p in (folder / "events.jsonl", folder / "events.jsonl.gz") if p.exists()), None
    )
    file = f"{shown}/{path.name if path else 'events.jsonl'}"
    read = EventFile([EventLog()])
    try:
        if path is not None:  # else launch made the folder and no rank has come to its first line
            read = read_event_file(path)
    except OSError as error:
        rejected.append(Rejected(file, 0, error.strerror or "cannot be read"))
    rejected += [Rejected(file, line, reason) for line, reason in read.rejected]
    if read.damaged:
        rejected.append(Rejected(file, 0, read.damaged))
    hidden = read.rejected_count - len(read.rejected)
    if hidden:
        rejected.append(Rejected(file, 0, f"{hidden} more lines rejected"))
    runs = []
    for part, log in enumerate(read.logs, 1):
        try:
            plan = plan_of(folder if len(read.logs) == 1 else None, log.events)
            logged = _logged_plan(log.events)
            changed = _differing(plan, logged) if logged else ()
            if logged and changed:
                reason = f"not what the log says was run ({', '.join(changed)}): changed, or of "
                reason += "another run; the log counts, and no claim is judged"
                rejected.append(Rejected(f"{shown}/recipe.yaml", 0, reason))
                plan = logged
            name = RunName.parse(plan.run)
            assert plan.global_batch
        except (ProofrunError, ValidationError) as error:
            rejected.append(Rejected(f"{shown}/recipe.yaml", 0, one_line(error)[:300]))
            continue
        number = Path(shown).name if len(read.logs) == 1 else f"{Path(shown).name} ({part})"
        faults = [e.message for e, _ in log.events if isinstance(e, Fault)]
        status, message = status_of(folder, log.last, faults)
        doubts = (changed, read.damaged)
        runs.append(Run(shown, number, name, plan, log, file, status, message, *doubts))
    return runs, rejected


def _differing(one: Plan, other: Plan) -> tuple[str, ...]:
    """The fields in which two plans differ."""
    return tuple(name for name in Plan.model_fields if getattr(one, name) != getattr(other, name))


def plan_of(folder: Path | None, events: Sequence[Located]) -> Plan:
    """From recipe.yaml, else from run_start, which carries a copy."""
    try:
        if folder is None or not (folder / "recipe.yaml").is_file():
            raise ProofrunError("no recipe.yaml, and no run_start")
        return Plan.load(folder / "recipe.yaml")
    except ProofrunError:
        logged = _logged_plan(events)
        if logged is None:
            raise
        return logged


def _logged_plan(events: Sequence[Located]) -> Plan | None:
    """The copy that the last run_start carries; None where there is none that can be read."""
    starts = [e for e, _ in events if isinstance(e, RunStart)]
    try:
        return Plan.model_validate_json(json.dumps(starts[-1].plan)) if starts else None
    except (ProofrunError, ValidationError, ValueError):
        return None


def status_of(
    folder: Path, last: AnyEvent | None, faults: Sequence[str] = ()
) -> tuple[Status, str]:
    """The run's status and message: what rank 0 wrote last, and what launch left in status.json."""
    file = folder / "status.json"
    noted: tuple[Status, str] | None = None
    stale = False
    try:
        if not file.is_file():
            raise FileNotFoundError
        plain = json.loads(file.read_text(encoding="utf-8", errors="replace"))
        if plain["status"] in ("finished", "failed", "interrupted"):
            noted = (plain["status"], str(plain.get("message", "")))
        # A process that goes on after an interruption writes events and leaves the old file.
        stale = file.stat().st_mtime < (folder / "events.jsonl").stat().st_mtime
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        pass
    if isinstance(last, RunEnd):
        if last.status == "finished" and noted and noted[0] == "failed":
            return noted  # another rank died after rank 0 had finished
        return last.status, last.message
    if noted and not stale:
        # "finished" without its last line: the file is incomplete, so the run is not evidence.
        unfinished: Status = "interrupted" if noted[0] == "finished" else noted[0]
        return unfinished, noted[1]
    return "running", faults[-1] if faults else ""
