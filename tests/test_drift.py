"""--check: a report that is not what its logs give fails, and each cell is named."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from report_tool import report

from proofrun.errors import Exit

REHEARSAL = Path(__file__).resolve().parent.parent / "reports" / "rehearsal"


@pytest.fixture(scope="module")
def committed(tmp_path_factory) -> Path:
    """The committed logs of one network, with the report of this checkout."""
    folder = tmp_path_factory.mktemp("reports") / "rehearsal"
    for run in sorted((REHEARSAL / "logs").glob("Inceptionv2-Digits_FP32_6E_1CPU_Train")):
        shutil.copytree(run, folder / "logs" / run.name)
    assert report(folder / "logs", "--out", folder).returncode == 0
    return Path(folder)


@pytest.fixture
def copy(committed, tmp_path) -> Path:
    return Path(shutil.copytree(committed, tmp_path / "rehearsal"))


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_a_report_of_its_logs_has_no_drift(committed):
    done = report("--check", committed)
    assert done.returncode == 0 and done.stdout.startswith("no drift"), done.stdout + done.stderr
    done = report("logs", "--check", "--out", ".", cwd=committed)
    assert done.returncode == 0


def test_one_number_of_a_csv(copy):
    (top1,) = set(re.findall(r"97\.68\d+", (copy / "accuracy.csv").read_text()))
    edit(copy / "accuracy.csv", top1, "97.9")
    done = report(copy / "logs", "--check", copy)
    assert done.returncode == Exit.VERDICT
    first, last = done.stdout.splitlines()
    assert re.fullmatch(rf"accuracy\.csv: row \d, top1: 97\.9 -> {top1}", first)
    assert last.startswith("drift: accuracy.csv in ")


def test_one_number_of_the_logs(copy):
    events = copy / "logs" / "Inceptionv2-Digits_FP32_6E_1CPU_Train" / "001" / "events.jsonl"
    lines = events.read_text().splitlines()
    for i, line in enumerate(lines):
        event = json.loads(line)
        if event["kind"] == "eval" and event["why"] != "mark":
            correct1 = event["correct1"] - 1
            changed = {"correct1": correct1, "top1": 100 * correct1 / event["count"]}
            lines[i] = json.dumps(event | changed)
    events.write_text("\n".join(lines) + "\n")
    done = report("--check", copy)
    assert done.returncode == Exit.VERDICT
    assert re.search(r"accuracy\.csv: row \d, top1: 97\.68\d* -> 97\.6\d+", done.stdout)
    assert re.search(r"report\.json: judgements\[\d\]\.measured: 97\.68\d* -> 97\.6", done.stdout)
    assert "report.md: line " in done.stdout and "report.html: line " in done.stdout


def test_files_that_are_gone_or_broken(copy):
    (copy / "mark.csv").unlink()
    (copy / "report.json").write_text("[" * 100_000)
    (copy / "throughput.csv").write_bytes(b'\xff"\n"')
    (copy / "accuracy.csv").write_text((copy / "accuracy.csv").read_text() + "more,1\n")
    edit(copy / "report.html", "<main>", "<main><script>")
    done = report("--check", copy)
    assert done.returncode == Exit.VERDICT and done.stderr == ""
    assert "mark.csv: cannot be read (No such file" in done.stdout
    assert "report.json: the file: no JSON -> JSON" in done.stdout
    assert re.search(r"accuracy\.csv: row \d: more, 1, … -> absent", done.stdout)
    assert "throughput.csv: " in done.stdout and "report.html: line " in done.stdout


def test_wrong_use_of_check(copy):
    assert report("--check", copy, "--gate").returncode == Exit.USAGE
    done = report("--check", copy / "logs" / "none")
    assert done.returncode == Exit.USAGE and done.stderr.count("\n") == 1
