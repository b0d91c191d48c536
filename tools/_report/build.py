"""From logs to the report: which runs enter which table, and which claims no run has met."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from proofrun.errors import RecipeError, one_line
from proofrun.recipe import Claim, Recipe
from proofrun.recipe_yaml import load_recipe

from . import alignment, measure, standing
from .foreign import rows as foreign
from .inference import is_shown
from .learn import accuracy_rows, mark_rows
from .read import Logs, Rejected, Run
from .rows import AccuracyRow, MarkRow, Row, ThroughputRow, add_flag
from .speed import throughput_rows
from .verdict import Estimate, Judgement, Verdict


@dataclass(frozen=True)
class Report:
    """Everything that the renderers show. `devices`: flags of `others` by folder, see alignment."""

    logs: Logs
    accuracy: list[AccuracyRow]
    throughput: list[ThroughputRow]
    mark: list[MarkRow]
    others: list[Run]
    recipes: list[Recipe]
    devices: dict[str, str]

    def flags(self, run: Run) -> list[str]:
        """Of one of `others`."""
        device = self.devices.get(run.folder)
        return [*measure.flags(run), *([device] if device else [])]

    @property
    def rows(self) -> list[Row]:
        return [*self.accuracy, *self.throughput, *self.mark]

    @property
    def judgements(self) -> list[Judgement]:
        return [judgement for row in self.rows for judgement in row.judgements]

    @property
    def summary(self) -> str:
        """`3 runs; claims: 1 reproduced, 2 n/a`."""
        counts = Counter(judgement.verdict for judgement in self.judgements)
        said = ", ".join(f"{counts[v]} {v}" for v in Verdict if counts[v])
        runs = len(self.logs.runs)
        exports = sum(log.format.reexported for log in self.logs.foreign)
        logs = len(self.logs.foreign) - exports
        others = f", {logs} of other systems" if logs else ""
        others += f", {exports} re-exported" if exports else ""
        return f"{runs} run{'s' * (runs != 1)}{others}; claims: {said or 'none applies'}"

    @property
    def all_reproduced(self) -> bool:
        """The gate: at least one claim is shown, and every one shown is reproduced."""
        verdicts = {judgement.verdict for judgement in self.judgements}
        return verdicts == {Verdict.REPRODUCED}


def build(logs: Logs, recipes_dir: Path | None = None) -> Report:
    """Measure and judge all runs. With `recipes_dir`, claims without a run become n/a rows."""
    full = measure.groups([run for run in logs.runs if measure.counts_for_accuracy(run)])
    timed = [run for run in logs.runs if measure.counts_for_throughput(run)]
    others = [run for run in logs.runs if run not in timed and not is_shown(run)]
    report = Report(
        logs,
        [row for group in full for row in accuracy_rows(group)]
        + [row for log in logs.foreign for row in foreign.accuracy_rows(log)],
        throughput_rows(timed)
        + [row for log in logs.foreign for row in foreign.throughput_rows(log)],
        [row for group in full for row in mark_rows(group)]
        + [row for log in logs.foreign for row in foreign.mark_rows(log)],
        others,
        _recipes([run.plan.recipe for run in logs.runs]),
        alignment.flags(others, logs.alignments),
    )
    _remark_missing(report)
    alignment.remark(report.rows, logs.alignments)
    if recipes_dir is not None:
        declared = [
            r for p in sorted(recipes_dir.glob("*/recipe.yaml")) for r in _load(p, logs.rejected)
        ]
        report.recipes[:] = _recipes([*report.recipes, *declared])
        _add_unrun(report)
    return report


def _remark_missing(report: Report) -> None:
    """Repeats that were left out are named on the rows that the others make."""
    remarks = standing.missing_numbers(report.logs)
    for row in report.rows:
        parents = dict.fromkeys(str(Path(folder).parent) for folder in row.runs)
        found = [remarks[parent] for parent in parents if parent in remarks]
        if found:
            row.notes += found
            add_flag(row, "numbers missing")


def _load(path: Path, rejected: list[Rejected]) -> Iterable[Recipe]:
    try:
        return load_recipe(path).values()
    except RecipeError as error:
        rejected.append(Rejected(str(path), 0, f"its claims are left out: {one_line(error)}"))
        return []


def _recipes(recipes: Sequence[Recipe]) -> list[Recipe]:
    """One recipe for each network and data set, the first of its kind."""
    found: dict[tuple[str, str], Recipe] = {}
    for recipe in recipes:
        found.setdefault((recipe.name, recipe.data.name), recipe)
    return list(found.values())


def _add_unrun(report: Report) -> None:
    """n/a rows for the claims of all known recipes that no row judged."""
    judged = {
        (row.model, row.data, _claim_key(judgement.claim))
        for row in report.rows
        for judgement in row.judgements
    }
    missing = "no finished run under the claim's conditions in these logs"
    marks: dict[tuple[object, ...], MarkRow] = {}
    for recipe in report.recipes:
        for claim in recipe.claims:
            if (recipe.name, recipe.data.name, _claim_key(claim)) in judged:
                continue
            judgement = Judgement(claim, Estimate(None, 0, None), Verdict.NA, missing)
            row = Row(recipe.name, recipe.data.name, claim.precision or "any", "", claim.hardware)
            same = {**vars(row), "judgements": [judgement]}
            if claim.metric in ("top1", "top5"):
                report.accuracy.append(
                    AccuracyRow(
                        **same,
                        epochs=claim.epochs,
                        cards=claim.cards,
                        global_batch=claim.global_batch,
                        protocol=claim.eval_protocol or "",
                    )
                )
            elif claim.metric in ("throughput", "scaling"):
                report.throughput.append(ThroughputRow(**same))
            else:
                key = (recipe.name, recipe.data.name, claim.mark_s, claim.precision, claim.cards)
                if key in marks:
                    marks[key].judgements.append(judgement)
                else:
                    run = f"{recipe.name} on {claim.cards} × {claim.hardware}"
                    marks[key] = MarkRow(**same, run=run, target_s=claim.mark_s)
                    report.mark.append(marks[key])


def _claim_key(claim: Claim) -> tuple[object, ...]:
    return (
        claim.metric,
        claim.precision,
        claim.cards,
        claim.global_batch,
        claim.epochs,
        claim.eval_protocol,
        claim.mark_s,
        claim.hardware,
    )
