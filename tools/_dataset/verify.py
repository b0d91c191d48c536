"""Verify a data set: every list, folder and image; then its fingerprint is taken."""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from proofrun import bootstrap, host, preflight
from proofrun.data import apart, fingerprint
from proofrun.data.identity import OTHER, described, identify, published, resembles
from proofrun.data.lists import list_hash
from proofrun.errors import DataError, UsageError, WriteError, printable
from proofrun.progress import counted
from proofrun.recipe import Data
from proofrun.recipe_yaml import load_recipe

from . import quarantine
from .examine import PART, examine_all
from .findings import ERRORS, REMARKS, UNSETTLED, Finding, worst
from .survey import SPLITS, Survey, folders_of, survey

_SHOWN = 3  # findings of a kind that the table spells out; the JSON has all
_SCHEMA = 1


@dataclass
class Examined:
    """What was read of each file: rows in the order of `paths`, as in a manifest."""

    paths: list[str]
    stats: NDArray[np.int64]
    digests: NDArray[np.uint8]
    findings: list[Finding] = field(default_factory=list)
    seconds: float = 0.0


@dataclass
class Verdict:
    """All findings on a data set as it is now, and its manifest where no image of it is bad."""

    survey: Survey
    identity: str
    findings: list[Finding]
    manifest: fingerprint.Manifest | None
    changed: fingerprint.Difference | None = None


def command(args: argparse.Namespace) -> str:
    """`verify DIR`: the table to print; the JSON is written, "unfinished" until there is one.

    Raises DataError with the code of the worst finding, the table being printed then.
    """
    root = Path(args.dir).absolute()
    if args.restore is not None:
        return quarantine.restore(Path(args.restore).absolute(), root)
    if args.json is not None:  # an old one goes, and whether it can be written is known now
        write_json(args.json, {"schema": _SCHEMA, "root": str(root), "outcome": "unfinished"})
    processes = args.processes or host.usable_cores()
    if args.quarantine is not None and (done := quarantine.finish(args.quarantine, root)):
        print(done)
    sets = published(bootstrap.ROOT / "recipes")
    expected = expectation(args.recipe, sets, root)
    first = survey(root, expected)
    examined = examine_files(first, processes)
    verdict = judge(first, examined, sets)
    if args.quarantine is not None and (bad := quarantine.plan(verdict.findings)):
        print(quarantine.move(args.quarantine, root, bad))
        verdict = judge(survey(root, expected), examined, sets)
    verdict = take(verdict, preflight.cache_dir(bootstrap.folder("PROOFRUN_LOGS", "logs", None)))
    table = report(verdict, examined, expected)
    decides = worst(verdict.findings)
    if args.json is not None:
        try:
            write_json(args.json, document(verdict, examined, expected))
        except WriteError:
            print(table)
            raise
    if decides is not None:
        print(table)
        errors = sum(finding.kind in ERRORS for finding in verdict.findings)
        raise DataError(
            f"{errors} error{'s' if errors > 1 else ''}, first of all: {decides.message}",
            ERRORS[decides.kind][0],
        )
    return table


def expectation(recipe: str | None, sets: dict[str, Data], root: Path) -> Data | None:
    """What `--recipe Model[-Data]` has, else the set that the class folders look like.

    Raises UsageError, DataError.
    """
    if recipe is None:
        name = resembles(folders_of(root), sets)
        return sets.get(name)
    known = {}
    for path in sorted((bootstrap.ROOT / "recipes").glob("*/recipe.yaml")):
        for name, each in load_recipe(path).items():
            known[each.name if name == "ImageNet" else f"{each.name}-{name}"] = each.data
    if recipe not in known:
        raise UsageError(f"--recipe {recipe}: there is {', '.join(sorted(known))}")
    return known[recipe]


def examine_files(found: Survey, processes: int) -> Examined:
    """Every listed image, in parallel, with progress."""
    paths = sorted({path for images in found.lists.values() for path in images.files})
    stats = np.zeros((len(paths), 3), np.int64)
    digests = np.zeros((len(paths), 32), np.uint8)
    result = Examined(paths, stats, digests)
    start = time.monotonic()
    parts = examine_all(found.root, paths, processes)
    at = 0
    for part in counted(parts, len(paths), f"{found.root}: verifying images", PART):
        rows = slice(at, at + len(part.stats))
        stats[rows], digests[rows] = part.stats, part.digests
        result.findings += part.findings
        at = rows.stop
    result.seconds = time.monotonic() - start
    return result


def judge(found: Survey, examined: Examined, sets: dict[str, Data]) -> Verdict:
    """Put together what concerns the images that are listed now; name the set."""
    listed = {path for images in found.lists.values() for path in images.files}
    findings = [finding for finding in examined.findings if finding.path in listed]
    rows = [row for row, path in enumerate(examined.paths) if path in listed]
    paths = [examined.paths[row] for row in rows]
    findings += duplicates(found, paths, examined.digests[rows])
    identity = OTHER
    manifest = None
    every = found.findings + findings
    if len(found.lists) == len(SPLITS) and not any(f.kind in UNSETTLED for f in every):
        identity = identify(found.lists, sets)
        hashes = {split: list_hash(images) for split, images in found.lists.items()}
        manifest = fingerprint.Manifest(
            paths, examined.stats[rows], examined.digests[rows], hashes, identity
        ).named()
        identity = manifest.identity
    return Verdict(found, identity, every, manifest)


def duplicates(found: Survey, paths: list[str], digests: NDArray[np.uint8]) -> list[Finding]:
    """Files with the same content: within a split, and in train and val."""
    of_val = set(found.lists["val"].files) if "val" in found.lists else set()
    is_val = np.array([path in of_val for path in paths], np.bool_)
    pairs = apart.repeats(digests, is_val)
    across = {row for row, first in pairs if is_val[row] and not is_val[first]}
    known = len(across) <= apart.PUBLISHED.get(found.expected.name if found.expected else "", 0)
    findings = []
    for row, first in pairs:
        kind = "duplicate" if row not in across else "known_leak" if known else "leak"
        advice = "; take one of them out" if kind == "leak" else ""
        what = f"{found.root / paths[row]}: has the content of {paths[first]}{advice}"
        findings.append(Finding(kind, paths[row], what))
    return findings


def take(verdict: Verdict, cache: Path) -> Verdict:
    """Keep the manifest of data whose images are all good; say what changed since the last one."""
    if verdict.manifest is None:
        return verdict
    root = verdict.survey.root
    before = fingerprint.load(root, cache)
    if before is not None:
        verdict.changed = fingerprint.first_difference(before, verdict.manifest)
    fingerprint.keep(root, cache, verdict.manifest)
    return verdict


def report(verdict: Verdict, examined: Examined, expected: Data | None) -> str:
    """The table for people."""
    found = verdict.survey
    counts = ", ".join(f"{len(images.files)} {split}" for split, images in found.lists.items())
    classes = max((len(set(images.labels.tolist())) for images in found.lists.values()), default=0)
    rate = len(examined.paths) / examined.seconds if examined.seconds else 0.0
    size = int(examined.stats[:, 0].sum()) / 1e6
    lines = [
        f"{printable(str(found.root))}: {counts or 'no'} images of {classes} classes, "
        f"held against {expected.name if expected else 'no recipe'}",
        f"examined {len(examined.paths)} images, {size:,.0f} MB, in {examined.seconds:.1f} s: "
        f"{rate:,.0f} images/s",
        "",
    ]
    number = Counter(finding.kind for finding in verdict.findings)
    for kind, meaning in [*((k, m) for k, (_, m) in ERRORS.items()), *REMARKS.items()]:
        if not number[kind]:
            continue
        rank = f"ERROR {int(ERRORS[kind][0])}" if kind in ERRORS else "remark"
        lines.append(f"{rank:<9}{kind:<13}{number[kind]:>8}  {meaning}")
        of_kind = [finding for finding in verdict.findings if finding.kind == kind]
        lines += [f"{'':<32}{printable(finding.message)}" for finding in of_kind[:_SHOWN]]
        if number[kind] > _SHOWN:
            lines.append(f"{'':<32}… and {number[kind] - _SHOWN} more")
    if not number:
        lines.append("no errors, no remarks")
    if verdict.manifest is not None:
        lines += [
            "",
            f"fingerprint {verdict.manifest.fingerprint()} ({described(verdict.identity)})",
        ]
        if verdict.changed is not None:
            path, what, paths, _ = verdict.changed
            said = f"changed since the last one: {printable(path)} {what} (and {paths - 1} more)"
            lines.append(said)
    return "\n".join(lines)


def document(verdict: Verdict, examined: Examined, expected: Data | None) -> dict[str, Any]:
    """The same for programs, with every finding."""
    found = verdict.survey
    decides = worst(verdict.findings)
    return {
        "schema": _SCHEMA,
        "root": str(found.root),
        "outcome": "errors" if decides else "good",
        "exit_code": int(ERRORS[decides.kind][0]) if decides else 0,
        "held_against": expected.name if expected else None,
        "identity": verdict.identity,
        "images": {split: len(images.files) for split, images in found.lists.items()},
        "classes": {
            split: len(set(images.labels.tolist())) for split, images in found.lists.items()
        },
        "fingerprint": verdict.manifest.fingerprint() if verdict.manifest else None,
        "lists": verdict.manifest.lists if verdict.manifest else None,
        "seconds": round(examined.seconds, 3),
        "bytes": int(examined.stats[:, 0].sum()),
        "findings": [
            {"severity": "error" if f.kind in ERRORS else "remark", **f._asdict()}
            for f in verdict.findings
        ],
    }


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Raises WriteError."""
    try:
        path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise WriteError(f"{path}: cannot be written ({error.strerror})") from None
