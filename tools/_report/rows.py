"""The rows of the three tables: numbers, judgements and flags, no formatting."""

from __future__ import annotations

from dataclasses import dataclass, field

from proofrun.recipe import Claim

from . import measure, standing, units
from .measure import Accuracy, Group, Measure, State, Throughput
from .verdict import Estimate, Facts, Judgement, judge, match


@dataclass
class Row:
    """What every row says: the conditions it was measured under, and what became of claims."""

    model: str
    data: str
    precision: str
    device: str
    device_name: str
    amp_dtype: str | None = None
    judgements: list[Judgement] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    flags: list[str] = field(default_factory=list)
    runs: list[str] = field(default_factory=list)
    torch: str = ""  # "": not recorded, or not the same in all of its runs

    def judged(self, metric: str) -> Judgement | None:
        return next((j for j in self.judgements if j.claim.metric == metric), None)


@dataclass
class AccuracyRow(Row):
    epochs: int | None = None
    cards: int | None = None
    nodes: int = 1
    global_batch: int | None = None
    protocol: str = ""
    accuracy: Accuracy | None = None


@dataclass
class ThroughputRow(Row):
    """`one`: on 1 card; `many`: on the N cards of the row. Ratios are fractions of 1."""

    one: Throughput | None = None
    many: Throughput | None = None
    scaling: float | None = None
    speedup_one: float | None = None
    speedup_many: float | None = None

    @property
    def many_cards(self) -> int | None:
        """N: of the runs, or of a claim that no run has met."""
        claimed = [j.claim.cards for j in self.judgements if (j.claim.cards or 1) > 1]
        return self.many.cards if self.many else next(iter(claimed), None)

    @property
    def many_nodes(self) -> int:
        return self.many.nodes if self.many else 1


@dataclass
class MarkRow(Row):
    """`claim_epoch`: the epoch that the claim names, with the state of the run there."""

    run: str = ""
    nodes: int = 1
    target_s: float | None = None
    n: int = 0
    at_mark: State | None = None
    claim_epoch: float | None = None
    at_claim: State | None = None


def identity(group: Group) -> dict[str, object]:
    """The fields of `Row` that a group of repeats gives."""
    run = group.last
    found = list(dict.fromkeys(flag for member in group.runs for flag in measure.flags(member)))
    remark = standing.on_different_data(group.runs)
    return {
        "model": run.plan.recipe.name,
        "data": run.plan.recipe.data.name,
        "precision": run.plan.precision,
        "device": run.plan.device,
        "device_name": run.device_name,
        "amp_dtype": run.start.amp_dtype if run.start else None,
        "flags": found + ["different data"] * bool(remark),
        "notes": [remark] * bool(remark),
        "runs": [member.folder for member in group.runs],
        "torch": standing.torch_of(group.runs),
    }


def estimate(measured: Measure) -> Estimate:
    return Estimate(measured.value, measured.n, measured.spread, measured.sources)


def add_judgement(row: Row, claim: Claim, facts: Facts, measured: Estimate, missing: str) -> None:
    """Judge `claim` on `row`, or note why its conditions do not fit."""
    fit = match(claim, facts)
    if fit.differs:
        bound = units.bound(claim.metric, claim.direction, claim.value)
        why = f": not compared, {'; '.join(fit.differs)}"
        said = [f"{note.removesuffix(why)}, " for note in row.notes if note.endswith(why)]
        row.notes = [note for note in row.notes if not note.endswith(why)]
        row.notes.append(f"{''.join(said)}{units.title(claim.metric)} {bound}{why}")
        return
    judgement = judge(claim, measured, fit, missing)
    row.judgements.append(judgement)
    if not fit.same_hardware:
        add_flag(row, "different hardware")


def add_flag(row: Row, flag: str) -> None:
    if flag not in row.flags:
        row.flags.append(flag)


def flag_repeats(row: Row, measured: Measure) -> None:
    """n below 3 is marked, and so are repeats that say nothing new."""
    if 0 < measured.n < 3:
        add_flag(row, f"n = {measured.n}")
    if measured.identical:
        add_flag(row, f"{measured.identical} bit-equal repeat{'s' * (measured.identical > 1)}")
