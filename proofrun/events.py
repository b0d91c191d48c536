"""The event vocabulary, and the reader of its JSON lines. Torch-free.

This file is the only meeting point of training and report. `python -m proofrun.events` prints the
JSON schema of one line; `proofrun/events.schema.json` is its committed copy for other programs.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

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

    @property
    def is_steady(self) -> bool:
        """Whether one batch was like another. (In reports/infer p95 is at most 1.4 times p50.)"""
        return self.p95_ms <= 3 * self.p50_ms


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


def json_schema() -> dict[str, Any]:
    """JSON schema of one line of events.jsonl."""
    return _ADAPTER.json_schema(by_alias=True)


if __name__ == "__main__":
    print(json.dumps(json_schema(), indent=1))
