"""Checks a bundle with nothing but itself and this checkout: hashes, then all verdicts again."""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import ValidationError

from proofrun.archive import DamagedError
from proofrun.errors import UsageError, one_line
from proofrun.text import clean

from .archive import Content, unpack
from .build import Report
from .bundle import FILES, LOGS, MANIFEST, REPORT, Manifest, digest, judged_again, this_tool
from .checkout import deciding, own_recipes, recipe_here
from .differences import differences
from .document import to_json
from .output import show

CLOSENESS = 1e-9  # relative: another processor may round a mean otherwise
MANIFEST_BYTES = 1 << 26
SHOWN = 50


@dataclass
class Findings:
    """What is wrong with a bundle, what a reader should know, and its digest and report."""

    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    digest: str = ""
    files: int = 0
    report: Report | None = None

    @property
    def verified(self) -> bool:
        return not self.problems and self.report is not None


def verify(path: Path, expected: str | None) -> bool:
    """Check `path`, print what was found; whether it is whole and every verdict comes out alike.

    `expected`: the digest that the publisher states. Raises UsageError for a file that is none.
    """
    with tempfile.TemporaryDirectory(prefix="proofrun-") as folder:
        found = examine(path, Path(folder), expected)
    if found.report:
        show(found.report)
        print()
    for note in found.notes:
        print(f"note: {note}")
    for problem in found.problems[:SHOWN]:
        print(f"problem: {problem}")
    if len(found.problems) > SHOWN:
        print(f"… {len(found.problems) - SHOWN} more problems")
    if found.digest:
        stated = "as stated" if expected == found.digest else "compare it with the publisher's"
        print(f"Bundle digest: {found.digest} ({stated})")
    if found.verified and found.report:
        claims = len(found.report.judgements)
        print(f"verified: {found.files} files are as packed, {claims} verdicts come out alike")
    else:
        print(f"not verified: {len(found.problems)} problem{'s' * (len(found.problems) != 1)}")
    return found.verified


def examine(path: Path, target: Path, expected: str | None) -> Findings:
    """Unpack into `target` and compare. Raises UsageError where `path` cannot be read."""
    found = Findings()
    contents: dict[str, Content] = {}
    try:
        with path.open("rb") as file:
            unpack(file, target, contents)
    except DamagedError as error:
        found.problems.append(f"the archive: {clean(error)}")
    except OSError as error:
        where = f"{path}: " if error.filename in (None, str(path)) else "while unpacking: "
        raise UsageError(f"{where}{error.strerror or one_line(error)}") from None
    manifest = _manifest(target, contents, found)
    if manifest is None:
        return found
    if expected and expected != found.digest:
        found.problems.append(f"the digest is not the stated one, {expected}")
    _compare_files(manifest.contents, contents, found)
    _compare_tools(manifest, found)
    _out_of_date(target, manifest.running)
    try:
        report = judged_again(target / LOGS)
        _compare_reports(target, report, found)
        _compare_claims(report, found)
        found.report = report
    except Exception as error:  # whatever an enemy wrote into the logs, it is not verified
        found.problems.append(f"its logs: {clean(one_line(error).replace(f'{target}/', ''))}")
    return found


def _manifest(target: Path, contents: dict[str, Content], found: Findings) -> Manifest | None:
    try:
        if contents[MANIFEST].bytes > MANIFEST_BYTES:
            raise ValueError("too large")
        raw = (target / MANIFEST).read_bytes()
        manifest = Manifest.model_validate_json(raw)
        if len(manifest.contents) != len(manifest.files):
            raise ValueError("names a file twice")
    except KeyError:
        found.problems.append(f"{MANIFEST}: missing; no bundle, or its beginning is damaged")
    except ValidationError as error:
        found.problems.append(f"{MANIFEST}: {clean(error.errors()[0]['msg'])}")
    except ValueError as error:
        found.problems.append(f"{MANIFEST}: {error}")
    else:
        found.digest, found.files = digest(raw), len(manifest.files)
        return manifest
    return None


def _compare_files(
    packed: dict[str, Content], contents: dict[str, Content], found: Findings
) -> None:
    here = {path: what for path, what in contents.items() if path != MANIFEST}
    for path in {**packed, **here}:
        was, now = packed.get(path), here.get(path)
        name = clean(path)
        if now is None:
            found.problems.append(f"{name}: missing, or not whole")
        elif was is None:
            found.problems.append(f"{name}: not in the manifest")
        elif was != now:
            said = "" if was.bytes == now.bytes else f"{was.bytes} -> {now.bytes} bytes, "
            found.problems.append(f"{name}: changed, {said}sha256 {was.sha256} -> {now.sha256}")
        parts = path.split("/")
        if path != REPORT and not (parts[0] == LOGS and parts[-1] in FILES):
            found.problems.append(f"{name}: no file of a bundle")


def _compare_tools(manifest: Manifest, found: Findings) -> None:
    for difference in differences(manifest.tool.model_dump(), this_tool().model_dump()):
        found.notes.append(f"tool, in the bundle -> here: {difference}")


def _out_of_date(target: Path, running: tuple[str, ...]) -> None:
    """status.json of a run that goes on is older than its events: so it must be here."""
    for folder in target.glob(f"{LOGS}/**/status.json"):
        is_running = folder.parent.relative_to(target).as_posix() in running
        os.utime(folder, (0, 0) if is_running else None)


def _compare_reports(target: Path, report: Report, found: Findings) -> None:
    try:
        bundled = json.loads((target / REPORT).read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        found.problems.append(f"{REPORT}: cannot be read ({clean(one_line(error))})")
        return
    again = json.loads(to_json(report))
    for difference in differences(bundled, again, closeness=CLOSENESS):
        found.problems.append(f"{REPORT}, bundled -> judged again: {difference}")


def _compare_claims(report: Report, found: Findings) -> None:
    """The claims come from the logs: a reader should know where they are not those of this tree."""
    found.notes += own_recipes()[1]
    for recipe in [run.plan.recipe for run in report.logs.runs]:
        same = recipe_here(recipe)
        changed = [
            str(difference)
            for difference in differences(deciding(same) if same else None, deciding(recipe))
        ]
        said = f"claims of {recipe.name} on {recipe.data.name}, recipes/ here -> in the bundle: "
        said += "; ".join(changed)
        if changed and said not in found.notes:
            found.notes.append(said)
