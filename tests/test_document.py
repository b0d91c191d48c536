"""report.json: its schema is current, and whatever the logs hold, it is strict JSON of it."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from fake_logs import FakeRun, imagenet, quickstart
from jsonschema import Draft202012Validator
from report_tool import report
from test_report import DIGITS

ROOT = Path(__file__).resolve().parent.parent
SCHEMA = json.loads((ROOT / "tools" / "_report" / "report.schema.json").read_text())


def no_constant(text: str) -> None:
    raise AssertionError(f"{text} is no JSON")


def load(logs: Path, *flags: str) -> dict[str, Any]:
    done = report(logs, *flags)
    assert done.returncode == 0, done.stderr
    text = (logs / "report" / "report.json").read_text()
    found = json.loads(text, parse_constant=no_constant)
    Draft202012Validator(SCHEMA).validate(found)
    return dict(found)


def test_the_committed_schema_is_current():
    done = subprocess.run(
        [sys.executable, "-m", "tools._report.document"], cwd=ROOT, capture_output=True, check=True
    )
    assert json.loads(done.stdout) == SCHEMA
    Draft202012Validator.check_schema(SCHEMA)


def test_it_says_what_the_tables_say(tmp_path):
    imagenet(tmp_path, top1=72.4)
    found = load(tmp_path, "--all-claims")
    for name, records in found["tables"].items():
        with (tmp_path / "report" / f"{name}.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert len(rows) == len(records)
        for row, record in zip(rows, records, strict=True):
            assert list(row) == list(record)
            assert [v or None for v in row.values()] == [
                None if v is None or v == "" else str(v) for v in record.values()
            ]
    judged = found["judgements"]
    top1 = next(j for j in judged if j["claim"]["metric"] == "top1" and j["verdict"] != "n/a")
    assert top1["claim"]["value"] == 71.86 and top1["measured"] == pytest.approx(72.4, abs=0.01)
    assert top1["sources"][0].startswith(f"{top1['runs'][0]}/events.jsonl:")
    assert {j["verdict"] for j in judged if j["measured"] is None} == {"n/a"}
    (eight,) = [r for r in found["runs"] if r["cards"] == 8]
    assert eight["name"] == "GoogLeNet_AMP_300E_8NPUs_Train" and eight["device_name"] == "Ascend910"
    assert f"{len(found['runs'])} runs" in found["summary"]


def test_numbers_that_are_not_finite_are_null(tmp_path):
    folder = FakeRun(DIGITS).write(tmp_path)
    events = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    for event in events:
        if event["kind"] in ("train", "mark"):
            event |= {"loss": "NaN", "ce": "Infinity"}
    (folder / "events.jsonl").write_text("\n".join(map(json.dumps, events)) + "\n")
    plan = (folder / "recipe.yaml").read_text()
    (folder / "recipe.yaml").write_text(plan.replace("value: 97.0", "value: .nan", 1))
    found = load(tmp_path)
    (mark,) = found["tables"]["mark"]
    assert mark["mark_loss"] is None and mark["mark_ce"] is None and mark["mark_epoch"] > 0


def test_hostile_names_and_messages(tmp_path):
    folder = FakeRun(DIGITS, device_name="\x1b[31m</script>\u202e", status="failed").write(tmp_path)
    noted = '{"status": "failed", "code": 41, "message": "half \\ud800 pair"}'
    lines = (folder / "events.jsonl").read_text().splitlines()
    (folder / "events.jsonl").write_text("\n".join([*lines[:-1], "\x00", ""]))
    (folder / "status.json").write_text(noted)
    os.rename(tmp_path / DIGITS, os.path.join(os.fsencode(tmp_path), b"bad \xff name"))
    quickstart(tmp_path)
    found = load(tmp_path)
    (failed,) = [run for run in found["runs"] if run["status"] == "failed"]
    assert failed["message"] == "half ? pair" and failed["folder"] == "bad ? name/001"
    assert found["tables"]["rejected_lines"][0]["file"] == "bad ? name/001/events.jsonl"
