"""A text editor and a run's folder: what was changed or left out is never a pass."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from fake_logs import FakeRun
from report_tool import report
from test_report import DIGITS, rows
from test_standing import verdicts

from proofrun.errors import Exit


def change(folder: Path, edit: Callable[[list[dict]], list[dict]]) -> None:
    """Rewrite the events of a run."""
    path = folder / "events.jsonl"
    events = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(f"{json.dumps(event)}\n" for event in edit(events)))


def passes(logs: Path) -> bool:
    return report(logs, "--gate").returncode == Exit.OK


@pytest.fixture
def run(tmp_path) -> Path:
    """A run that passes the gate, but for what a test does to it."""
    folder = FakeRun(DIGITS).write(tmp_path)
    report(tmp_path)
    assert verdicts(tmp_path, "accuracy") == {"reproduced"}
    return folder


def barred(logs: Path, flag: str) -> str:
    """The reason on the claim of accuracy: n/a everywhere, flagged, and the gate does not pass."""
    assert not passes(logs)
    (row,) = rows(logs, "accuracy")
    assert flag in row["flags"]
    for table in ("accuracy", "throughput", "mark"):
        assert verdicts(logs, table) <= {"n/a"}
    return row["top1_reason"]


@pytest.mark.parametrize("where", ["recipe.yaml", "the log"])
def test_an_override_that_was_taken_out_again(tmp_path, where):
    """In either place: the run is not what it says."""
    folder = FakeRun(DIGITS, overrides=["optimizer.lr.base=0.5"] * (where != "the log"))
    folder = folder.write(tmp_path)
    if where == "recipe.yaml":
        path = folder / "recipe.yaml"
        text = path.read_text()
        assert "overrides:\n  optimizer.lr.base: 0.5\n" in text
        path.write_text(text.replace("overrides:\n  optimizer.lr.base: 0.5\n", "overrides: {}\n"))
    else:

        def edit(events):
            events[0]["plan"]["seed"] = 5
            return events

        change(folder, edit)
    done = report(tmp_path, "--gate")
    assert done.returncode == Exit.VERDICT
    assert "recipe.yaml: not what the log says was run" in done.stdout
    assert verdicts(tmp_path, "accuracy") <= {"n/a"}


@pytest.mark.parametrize("cut", [slice(10, 11), slice(10, 20), slice(0, 1)])
def test_lines_left_out(tmp_path, run, cut):
    def edit(events):
        del events[cut]
        return events

    change(run, edit)
    said = barred(tmp_path, "lines missing")
    gap = "event 10 " if cut == slice(10, 11) else f"events {cut.start} to {cut.stop - 1} "
    assert gap.replace("events 0 to 0 ", "event 0 ") in said


def test_lines_in_another_order(tmp_path, run):
    change(run, lambda events: [events[0], *events[5:], *events[1:5]])
    assert "events 1 to 4 before line 2" in barred(tmp_path, "lines missing")


def test_a_run_that_was_killed_and_went_on_lacks_nothing(tmp_path):
    folder = FakeRun(DIGITS, killed_at=2).write(tmp_path)
    path = folder / "events.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    at = next(i for i, line in enumerate(lines) if b'"kind":"run_start"' in line and i)
    path.write_bytes(b"".join([*lines[:at], b'{"schema":1,"seq":\n', *lines[at:]]))  # torn
    report(tmp_path)
    (row,) = rows(tmp_path, "accuracy")
    assert "missing" not in row["flags"] and row["top1_verdict"] == "reproduced"


@pytest.mark.parametrize(
    ("old", "new", "flag", "named"),
    [
        ("value: 97.0", "value: 50.0", "other claims than here", "claims[0].value: 97.0 -> 50.0"),
        ("base: 0.02", "base: 0.03", "other recipe than here", "lr.base: 0.02 -> 0.03"),
    ],
)
def test_a_recipe_that_is_not_the_one_of_this_checkout(tmp_path, run, old, new, flag, named):
    """The same lie in both places: held against recipes/ here."""
    path = run / "recipe.yaml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    key, _, value = new.partition(": ")

    def edit(events):
        for event in (e for e in events if e["kind"] == "run_start"):
            recipe = event["plan"]["recipe"]
            place = recipe["claims"][0] if key == "value" else recipe["optimizer"]["lr"]
            place[key] = float(value)
        return events

    change(run, edit)
    assert named in barred(tmp_path, flag)


def test_losses_that_are_not_finite(tmp_path, run):
    def edit(events):
        for event in events:
            if event["kind"] in ("train", "mark"):
                event["loss"] = "NaN"
        return events

    change(run, edit)
    assert "not finite" in barred(tmp_path, "loss is not finite")


@pytest.mark.parametrize(
    ("kind", "fields", "why"),
    [
        ("mark", {"loss": -5.0}, "the window before it"),
        ("mark", {"ce": 0.1}, "the window before it"),
        ("train", {"loss": -0.5}, "not possible"),
        ("train", {"window_s": -1.0}, "not possible"),
        ("train", {"window_s": 0.0}, "not possible"),
    ],
)
def test_what_cannot_be_true_is_rejected(tmp_path, run, kind, fields, why):
    def edit(events):
        next(event for event in events if event["kind"] == kind).update(fields)
        return events

    change(run, edit)
    barred(tmp_path, "lines missing")
    assert why in rows(tmp_path, "rejected_lines")[0]["reason"]


@pytest.mark.parametrize("damage", ["cut", "checksum"])
def test_a_damaged_gzip(tmp_path, run, damage):
    path = run / "events.jsonl"
    packed = bytearray(gzip.compress(path.read_bytes()))
    path.unlink()
    if damage == "cut":
        del packed[-5:]
    else:
        packed[-8] ^= 1
    (run / "events.jsonl.gz").write_bytes(packed)
    assert "gzip data" in barred(tmp_path, "lines missing")
