"""The event vocabulary, the JSON-lines writer and reader, and the resumable clock. Torch-free.

This file is the only meeting point of training and report. `python -m proofrun.events` prints the
JSON schema of one line; `proofrun/events.schema.json` is its committed copy for other programs.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, cast

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from proofrun.errors import WriteError

SCHEMA = 1


class Event(BaseModel):
    """What every line says.

    `step`: optimizer steps done; `epoch`: epochs done, with fraction; `wall_s`: since the process
    started, summed over restarts; `mark_s`: since the start of the first step without evaluations;
    `train_s`: sum of step windows; `t_wall`: seconds since 1970, for people only.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="strings")

    schema_: int = Field(default=SCHEMA, alias="schema")
    seq: int = Field(ge=0)
    step: int = Field(ge=0)
    epoch: float = Field(ge=0)
    wall_s: float
    mark_s: float
    train_s: float
    t_wall: float


class RunStart(Event):
    """First event of every process of a run; `recipe` is the plan as resolved."""

    kind: Literal["run_start"] = "run_start"
    run: str
    number: int
    plan: dict[str, Any]
    overrides: dict[str, Any]
    config_hash: str
    provenance: dict[str, Any]
    world_size: int
    nodes: int
    device: str = Field(description="kind: MLU, NPU, GPU or CPU")
    device_name: str
    per_card_batch: int
    global_batch: int
    lr: float
    steps_per_epoch: int
    parameters: int
    amp_dtype: str | None = Field(description="autocast type, or null without mixed precision")


class Train(Event):
    """One window of steps up to `step`. Losses are means over the window and over all ranks."""

    kind: Literal["train"] = "train"
    loss: float = Field(description="with label smoothing: what is minimised")
    ce: float = Field(description="plain cross entropy")
    lr: float = Field(description="at the window's last step")
    steps: int
    images: int = Field(description="of all ranks in the window")
    window_s: float
    data_wait_s: float = Field(description="of rank 0, inside window_s")
    warmup: bool = Field(description="left out of throughput")
    scale: float | None = Field(default=None, description="loss scale, if there is a scaler")
    skipped: int = Field(default=0, description="steps of the run skipped for inf gradients")


class EvalPart(BaseModel):
    """Sums over the images left when each card drops its last partial batch, by one shard rule."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    shards: str
    correct1: int
    correct5: int
    count: int


class Eval(Event):
    """Sums over every image once; percentages are of `count`."""

    kind: Literal["eval"] = "eval"
    why: Literal["epoch", "final", "mark", "infer"]
    protocol: str
    top1: float
    top5: float
    loss: float = Field(description="plain cross entropy")
    correct1: int
    correct5: int
    count: int
    expected: int = Field(description="length of the list; equal to count, or the run failed")
    prediction_hash: str
    eval_s: float
    parts: list[EvalPart] = Field(default=[], description="as a source scores that drops images")
    weights: str | None = Field(default=None, description="infer: file or checkpoint that was read")
    weights_sha256: str | None = Field(default=None, description="infer: of that file")
    origin: str | None = Field(default=None, description="infer: whose weights these are")
    bn: Literal["averaged", "rank 0"] | None = Field(
        default=None, description="infer: BatchNorm statistics: mean over ranks, or those of rank 0"
    )


class Latency(Event):
    """How long a batch takes, from its pixels on the host to its logits there; over all ranks.

    With the input pipeline: from one batch's logits to the next one's, files read and decoded on
    the way.
    """

    kind: Literal["latency"] = "latency"
    batch: int = Field(description="images per card")
    pipeline: bool = Field(description="whether files are read and decoded for every batch")
    batches: int = Field(description="timed, of all ranks")
    p50_ms: float
    p95_ms: float
    p99_ms: float
    images_per_s: float = Field(description="of all ranks together")
    weights: str


class Mark(Event):
    """The state after `target_s` on the mark clock: losses of the last window, then evaluated."""

    kind: Literal["mark"] = "mark"
    target_s: float
    loss: float
    ce: float
    top1: float
    top5: float
    count: int
    protocol: str


class Checkpoint(Event):
    kind: Literal["checkpoint"] = "checkpoint"
    why: Literal["epoch", "mark", "signal", "final"]
    path: str
    bytes: int
    save_s: float


class Resume(Event):
    """Goes on from a checkpoint; events after `from_seq` and before this one no longer count."""

    kind: Literal["resume"] = "resume"
    from_seq: int
    from_step: int
    path: str
    remarks: list[str] = []
    world_before: int | None = Field(default=None, description="ranks, where that changed here")
    world_after: int | None = None


class Fault(Event):
    kind: Literal["fault"] = "fault"
    code: int
    name: str
    message: str
    rank: int | None = None


class RunEnd(Event):
    kind: Literal["run_end"] = "run_end"
    status: Literal["finished", "failed", "interrupted"]
    code: int
    message: str
    weights_hash: str | None = Field(default=None, description="sha256 over the final state dict")


AnyEvent = Annotated[
    RunStart | Train | Eval | Latency | Mark | Checkpoint | Resume | Fault | RunEnd,
    Field(discriminator="kind"),
]
_ADAPTER: TypeAdapter[AnyEvent] = TypeAdapter(AnyEvent)


def parse_event(line: str | bytes) -> AnyEvent:
    """One line of events.jsonl. Raises pydantic.ValidationError."""
    return _ADAPTER.validate_json(line)


def read_events(path: Path) -> Iterator[tuple[int, AnyEvent | str]]:
    """(line number from 1, event, or the reason why the line is none) for each line of a file."""
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                yield number, parse_event(line)
            except ValidationError as error:
                yield number, why_not(error)


def why_not(error: ValidationError) -> str:
    """`field: what is wrong with it`, of a line that is no event."""
    first = error.errors(include_input=False, include_url=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    return f"{where or 'line'}: {first['msg']}"


def survives(event: Event, resume: Resume, last_start: RunStart | None) -> bool:
    """Whether an event before `resume` still counts: all up to its checkpoint, and one more.

    That is the run_start of the resumed process, which comes just before its resume.
    """
    return event.seq <= resume.from_seq or event is last_start


def effective(events: Iterable[AnyEvent]) -> list[AnyEvent]:
    """The events that count: what was trained again after a kill is dropped by `resume`."""
    kept: list[AnyEvent] = []
    for event in events:
        if isinstance(event, Resume):
            last_start = next((e for e in reversed(kept) if isinstance(e, RunStart)), None)
            kept = [e for e in kept if survives(e, event, last_start)]
        kept.append(event)
    return kept


class Clock:
    """Three monotonic clocks that go on after a restart.

    `wall_s` runs from process start; `mark_s` from the start of the first step, standing still in
    evaluations; `train_s` is the sum of step windows. Down time counts in none of them.
    """

    def __init__(self, process_start: float | None = None) -> None:
        """`process_start`: a time.monotonic() reading, by default now."""
        self._wall_from = time.monotonic() if process_start is None else process_start
        self._wall_base = 0.0
        self._mark_base = 0.0
        self._mark_from: float | None = None
        self.train_s = 0.0

    @property
    def wall_s(self) -> float:
        return self._wall_base + time.monotonic() - self._wall_from

    @property
    def mark_s(self) -> float:
        running = 0.0 if self._mark_from is None else time.monotonic() - self._mark_from
        return self._mark_base + running

    def start_mark(self) -> None:
        """Let the mark clock run: at the first step and after each evaluation."""
        if self._mark_from is None:
            self._mark_from = time.monotonic()

    def stop_mark(self) -> None:
        self._mark_base = self.mark_s
        self._mark_from = None

    def go_on_from(self, wall_s: float, mark_s: float, train_s: float) -> None:
        """Add what earlier processes of the run spent, as their last event says."""
        self._wall_base += wall_s
        self._mark_base += mark_s
        self.train_s += train_s

    def readings(self) -> dict[str, float]:
        """The clock fields of an event, in seconds."""
        return {
            "wall_s": round(self.wall_s, 6),
            "mark_s": round(self.mark_s, 6),
            "train_s": round(self.train_s, 6),
            "t_wall": round(time.time(), 3),
        }


class Losses(NamedTuple):
    """Of one window of training."""

    seq: int
    loss: float
    ce: float


class EventWriter:
    """Appends events to a file, one os.write a line, numbered in order. Rank 0 only."""

    def __init__(self, path: Path, clock: Clock) -> None:
        self._path = path
        self._clock = clock
        self.next_seq = 0
        self.last: AnyEvent | None = None
        self._losses: list[Losses] = []
        torn = False
        if path.exists():
            for _, event in read_events(path):
                if not isinstance(event, str):
                    self._remember(event)
                    self.next_seq = max(self.next_seq, event.seq + 1)
            torn = path.stat().st_size > 0 and path.read_bytes()[-1:] != b"\n"
        try:
            self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        except OSError as error:
            raise WriteError(f"cannot write {path}: {error.strerror}; check the folder") from None
        if torn:  # a kill in the middle of a line: close it, so that ours starts on its own
            self._write(b"\n")

    def write(self, kind: type[Event], *, step: int, epoch: float, **fields: Any) -> Any:
        """Build an event of `kind`, stamp it with the clock, append it and return it."""
        event = kind(
            seq=self.next_seq, step=step, epoch=round(epoch, 6), **self._clock.readings(), **fields
        )
        self._write(event.model_dump_json(by_alias=True).encode() + b"\n")
        self.next_seq += 1
        self._remember(cast(AnyEvent, event))
        return event

    def _remember(self, event: AnyEvent) -> None:
        self.last = event
        if isinstance(event, Train):
            self._losses.append(Losses(event.seq, event.loss, event.ce))
        if isinstance(event, Resume):
            while self._losses and self._losses[-1].seq > event.from_seq:
                self._losses.pop()

    @property
    def losses(self) -> Losses | None:
        """Of the last window that counts: none that a resume dropped."""
        return self._losses[-1] if self._losses else None

    def _write(self, line: bytes) -> None:
        try:
            written = os.write(self._fd, line)
        except OSError as error:
            raise WriteError(
                f"cannot write {self._path}: {error.strerror}; free space, then run the same again"
            ) from None
        if written != len(line):  # take the half line back: one is whole or not there
            os.ftruncate(self._fd, os.fstat(self._fd).st_size - written)
            raise WriteError(f"{self._path}: the disk is full; free space, then run the same again")

    def close(self) -> None:
        os.close(self._fd)


def json_schema() -> dict[str, Any]:
    """JSON schema of one line of events.jsonl."""
    return _ADAPTER.json_schema(by_alias=True)


if __name__ == "__main__":
    print(json.dumps(json_schema(), indent=1))
