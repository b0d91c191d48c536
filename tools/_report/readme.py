"""Result tables in READMEs, made from reports/ between markers.

    <!-- table: rehearsal -->   …   <!-- end of table -->

`python -m tools._report.readme` writes them, `--check` fails where one is not what the logs give.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from proofrun.recipe_yaml import load_recipe

from . import units
from .build import Report, build
from .cells import SYMBOL, precision, value_cell
from .consistency import findings
from .foreign.formats import formats
from .measure import Measure
from .read import read_logs
from .rows import AccuracyRow, MarkRow, ThroughputRow
from .support import table as support

ROOT = Path(__file__).resolve().parent.parent.parent
READMES = (
    "README.md",
    "recipes/googlenet/README.md",
    "recipes/inceptionv2/README.md",
    "tools/_report/foreign/README.md",
)
_MARKED = re.compile(r"(<!-- table: ([\w -]+) -->\n).*?(<!-- end of table -->)", re.DOTALL)


#: Report folders of the rehearsal, a processor each.
REHEARSALS = ("rehearsal", "rehearsal-epyc")


def rehearsal(reports: Iterable[Report]) -> str:
    """One row for each rehearsal on one card: top-1, claim, speed, epoch at the mark, verdict."""
    lines = [
        "| Rehearsal (ours) | on | top-1 | claim | img/s | epoch at the mark | verdict on top-1 |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for report in reports:
        lines += [f"| {' | '.join(cells)} |" for cells in _rehearsed(report)]
    return "\n".join(lines)


def _rehearsed(report: Report) -> Iterator[tuple[str, ...]]:
    for row in report.accuracy:
        judged = row.judged("top1")
        if judged is None or row.cards != 1 or "rehearsal" not in row.flags or not row.accuracy:
            continue
        rate, mark = _beside(row, report.throughput), _mark(row, report.mark)
        claim = judged.claim
        yield (
            f"{row.model}, {precision(row)}, {row.epochs} epochs",
            row.device_name,
            f"{_value('top1', row.accuracy.top1)} % (n = {row.accuracy.top1.n})",
            units.bound("top1", claim.direction, claim.value),
            _value("throughput", rate.one.rate) if rate and rate.one else "n/a",
            _value("epoch", mark.at_mark.metrics["epoch"]) if mark and mark.at_mark else "n/a",
            f"{SYMBOL[judged.verdict]} {judged.verdict}",
        )


def _beside(row: AccuracyRow, rows: list[ThroughputRow]) -> ThroughputRow | None:
    key = (row.model, row.data, row.precision, row.device_name)
    same = (r for r in rows if (r.model, r.data, r.precision, r.device_name) == key)
    return next((r for r in same if r.one), None)


def _mark(row: AccuracyRow, rows: list[MarkRow]) -> MarkRow | None:
    return next((r for r in rows if set(r.runs) == set(row.runs)), None)


def _value(metric: str, measured: Measure) -> str:
    return value_cell(metric, measured)[0].text


def claims(path: Path) -> str:
    """How the claims of a recipe for ImageNet agree with themselves."""
    lines = ["| Compared | Result | Numbers |", "| --- | --- | --- |"]
    for found in findings(load_recipe(path)["ImageNet"]):
        lines.append(f"| {found.what} | {found.grade} | {found.numbers} |")
    return "\n".join(lines)


def logs_of_others() -> str:
    """What each format of another system states, and what it cannot tell."""
    lines = ["| Log of | States | Cannot tell |", "| --- | --- | --- |"]
    for one in formats():
        lacks = "; ".join(f"{what}: {why}" for what, why in one.lacks.items()) or "–"
        lines.append(f"| {one.title} | {', '.join(one.gives)} | {lacks} |")
    return "\n".join(lines)


def committed(root: Path) -> list[Path]:
    """The report folders of reports/ that hold their logs."""
    return sorted(path.parent for path in root.glob("reports/*/logs"))


#: Name in the marker: what makes the table, given the root of the repository.
TABLES: dict[str, Callable[[Path], str]] = {
    "rehearsal": lambda root: rehearsal(
        build(read_logs([root / "reports" / name / "logs"])) for name in REHEARSALS
    ),
    "claims of googlenet": lambda root: claims(root / "recipes/googlenet/recipe.yaml"),
    "logs of others": lambda root: logs_of_others(),
    "support": lambda root: support(committed(root), root),
}


def filled(text: str, root: Path = ROOT) -> str:
    """A README's text with its tables made anew. Raises KeyError for a marker of no table."""

    def replace(found: re.Match[str]) -> str:
        return f"{found[1]}\n{TABLES[found[2]](root)}\n\n{found[3]}"

    return _MARKED.sub(replace, text)


def main() -> int:
    """Write the tables, or with --check name the READMEs that are not up to date."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--check", action="store_true", help="write nothing, exit 1 on a difference"
    )
    check = parser.parse_args().check
    stale = 0
    for name in READMES:
        path = ROOT / name
        text = path.read_text(encoding="utf-8")
        made = filled(text)
        if made != text:
            stale += 1
            print(f"{name}: {'not what reports/ give' if check else 'written'}")
            if not check:
                path.write_text(made, encoding="utf-8")
    return int(check and stale > 0)


if __name__ == "__main__":
    sys.exit(main())
