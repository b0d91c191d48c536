"""The report as one JSON document for other programs; a number that is not finite is null.

`python -m tools._report.document` prints its JSON schema; `report.schema.json` is the committed
copy.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import pandas as pd
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic.json_schema import GenerateJsonSchema

from proofrun.recipe import Claim

from . import measure, standing
from .build import Report
from .cells import conditions
from .read import Run, Status
from .rows import Row
from .tables import frames
from .verdict import Judgement, Verdict

SCHEMA = 1


def _encodable(text: object) -> object:
    """A file name or a message may hold half a surrogate pair, which JSON cannot."""
    return text.encode("utf-8", "replace").decode() if isinstance(text, str) else text


Text = Annotated[str, BeforeValidator(_encodable)]
Table = Literal["accuracy", "throughput", "mark"]
Value = Text | int | float | None


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class RunRecord(_Record):
    """One run folder, whether or not it entered a table."""

    folder: Text = Field(description="relative to the logs, as in the sources of every number")
    name: Text = Field(description="`<Model>[-<Data>]_<Precision>_<Epochs>E_<N><Device>_Train`")
    number: Text
    status: Status
    message: Text
    flags: list[Text] = Field(description="what to know before comparing it: complete, resumed, …")
    epochs_done: float
    seed: int
    cards: int = Field(description="of all nodes")
    nodes: int
    device: Text = Field(description="kind: MLU, NPU, GPU or CPU")
    device_name: Text = Field(description="as the driver calls it")
    config_hash: Text = Field(description="sha256 of what must be equal for two runs to be repeats")
    fingerprint: Text | None = Field(description="of the data it saw; null: not recorded")
    commit: Text | None = Field(description="of the checkout that trained, if it was known")
    dirty: bool | None = Field(description="whether that checkout had changes; null: not known")


class JudgementRecord(_Record):
    """One claim, what was measured for it, and the verdict."""

    table: Table
    conditions: Text = Field(description="of its row, in words")
    model: Text
    data: Text
    precision: Text
    device: Text
    device_name: Text
    runs: list[Text] = Field(description="folders of the runs of its row")
    claim: Claim = Field(description="as the recipe in the logs states it")
    measured: float | None = Field(
        description="mean over the runs in the claim's unit: percent for accuracies, images/s of "
        "all cards, a fraction for scaling, epochs for mark_epoch; null: nothing measured"
    )
    n: int = Field(ge=0, description="runs in the mean")
    spread: float | None = Field(
        description="sample standard deviation between them, same unit; null for fewer than two"
    )
    verdict: Verdict
    reason: Text
    sources: list[Text] = Field(description="log lines of the number: `file:line`")


class Document(_Record):
    """The whole report."""

    schema_: int = Field(default=SCHEMA, alias="schema", description="version of this schema")
    summary: Text
    runs: list[RunRecord]
    judgements: list[JudgementRecord]
    tables: dict[str, list[dict[str, Value]]] = Field(
        description="each CSV file as records: accuracies in percent, rates in images/s, ratios "
        "and shares as fractions; `rejected_lines` names what of the logs could not be used"
    )


def document(report: Report) -> Document:
    """The report's content; no formatting but that of the sentences."""
    tables: dict[Table, Sequence[Row]] = {
        "accuracy": report.accuracy,
        "throughput": report.throughput,
        "mark": report.mark,
    }
    return Document(
        summary=report.summary,
        runs=[_run(run) for run in report.logs.runs],
        judgements=[
            _judgement(table, row, judgement)
            for table, rows in tables.items()
            for row in rows
            for judgement in row.judgements
        ],
        tables={name: _records(frame) for name, frame in frames(report).items()},
    )


def to_json(report: Report) -> str:
    """The text of report.json: strict JSON, the same for the same logs."""
    plain = document(report).model_dump_json(by_alias=True)
    return json.dumps(json.loads(plain), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _run(run: Run) -> RunRecord:
    facts = run.start.provenance if run.start else {}
    commit, dirty = facts.get("commit"), facts.get("dirty")
    return RunRecord(
        folder=run.folder,
        name=run.plan.run,
        number=run.number,
        status=run.status,
        message=run.message,
        flags=measure.flags(run),
        epochs_done=run.epochs_done,
        seed=run.plan.seed,
        cards=run.cards,
        nodes=run.nodes,
        device=run.plan.device,
        device_name=run.device_name,
        config_hash=run.config_hash,
        fingerprint=standing.data_of(run).fingerprint or None,
        commit=commit if isinstance(commit, str) else None,
        dirty=dirty if isinstance(dirty, bool) else None,
    )


def _judgement(table: Table, row: Row, judgement: Judgement) -> JudgementRecord:
    found = judgement.estimate
    return JudgementRecord(
        table=table,
        conditions=conditions(row),
        model=row.model,
        data=row.data,
        precision=row.precision,
        device=row.device,
        device_name=row.device_name,
        runs=row.runs,
        claim=judgement.claim,
        measured=found.value,
        n=found.n,
        spread=found.spread,
        verdict=judgement.verdict,
        reason=judgement.reason,
        sources=list(found.sources),
    )


def _records(frame: pd.DataFrame) -> list[dict[str, Value]]:
    """Rows as plain values; what a CSV leaves empty is None."""
    plain = frame.astype(object).where(frame.notna(), None)
    return [{str(k): v for k, v in row.items()} for row in plain.to_dict("records")]


class _FiniteOrNull(GenerateJsonSchema):
    def float_schema(self, schema: Any) -> dict[str, Any]:
        return {**super().float_schema(schema), "type": ["number", "null"]}


def json_schema() -> dict[str, Any]:
    """JSON schema of report.json."""
    return Document.model_json_schema(
        by_alias=True, mode="serialization", schema_generator=_FiniteOrNull
    )


if __name__ == "__main__":
    print(json.dumps(json_schema(), indent=1, ensure_ascii=False))
