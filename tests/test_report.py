"""The report on logs of known content: tables, flags, gate, damaged files, and no torch."""

from __future__ import annotations

import csv
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from fake_logs import FakeRun, imagenet, quickstart
from report_tool import report

from proofrun.errors import Exit
from proofrun.runs import World

ROOT = Path(__file__).resolve().parent.parent
DIGITS = "Inceptionv2-Digits_AMP_6E_1CPU_Train"


def spawned(logs: Path, *flags: str, path: str = "") -> subprocess.CompletedProcess[str]:
    """As `report`, by an interpreter of its own with `path` before all packages."""
    return subprocess.run(
        [sys.executable, str(ROOT / "tools" / "report.py"), str(logs), *flags],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
        cwd="/",
        timeout=60,
    )


def rows(logs: Path, table: str) -> list[dict[str, str]]:
    with (logs / "report" / f"{table}.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_quickstart_logs_without_torch(tmp_path):
    """Three tables, four files, the last line names the page; torch would raise on import."""
    stub = tmp_path / "stub" / "torch"
    stub.mkdir(parents=True)
    (stub / "__init__.py").write_text("raise ImportError('no torch here')")
    logs = tmp_path / "my logs"
    quickstart(logs)
    done = spawned(logs, path=str(stub.parent))
    assert done.returncode == 0, done.stderr
    for title in ("Accuracy", "Throughput", "Time mark"):
        assert f"\n{title}\n" in done.stdout
    page = logs / "report" / "report.html"
    assert done.stdout.splitlines()[-1] == f"Report page: {page}"
    assert {"report.md", "report.html", "accuracy.csv", "throughput.csv", "mark.csv"} <= set(
        os.listdir(logs / "report")
    )
    speeds = rows(logs, "throughput")
    assert {(r["model"], r["precision"]) for r in speeds} == {
        (m, p) for m in ("Inceptionv2", "GoogLeNet") for p in ("FP32", "AMP")
    }
    for row in speeds:
        one, many = float(row["one_images_per_s"]), float(row["many_images_per_s"])
        assert float(row["scaling"]) == pytest.approx(many / (2 * one))
    # Only the two full runs have an accuracy; 20 steps have none.
    assert len({(r["model"], r["precision"]) for r in rows(logs, "accuracy")}) == 2


def test_a_report_of_one_run_leaves_that_of_all_alone(tmp_path):
    quickstart(tmp_path)
    assert report(tmp_path).returncode == 0
    page = (tmp_path / "report" / "report.html").read_bytes()
    one = sorted(path for path in tmp_path.glob("*_1CPU_Train/001"))[0]
    done = report(one)
    assert done.returncode == 0, done.stderr
    own = tmp_path / "report" / "-".join(one.relative_to(tmp_path).parts)
    assert done.stdout.splitlines()[-1] == f"Report page: {own / 'report.html'}"
    assert (own / "report.html").exists()
    assert (tmp_path / "report" / "report.html").read_bytes() == page


def test_tables_without_rows_have_their_header(tmp_path):
    quickstart(tmp_path)
    report(tmp_path)
    header = (tmp_path / "report" / "rejected_lines.csv").read_text().strip()
    assert header == "file,line,reason"
    assert rows(tmp_path, "other_runs") == []
    limits = {r["many_steps_limit"] for r in rows(tmp_path, "throughput")}
    assert limits and all(re.fullmatch(r"\d*", limit) for limit in limits)


def test_a_reader_who_leaves_changes_no_verdict(tmp_path):
    quickstart(tmp_path)
    command = [sys.executable, str(ROOT / "tools" / "report.py"), str(tmp_path)]
    cut = subprocess.Popen([*command, "--gate", "--all-claims"], stdout=subprocess.PIPE)
    assert cut.stdout is not None
    cut.stdout.close()
    assert cut.wait(timeout=60) == Exit.VERDICT
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60)
    assert done.returncode == Exit.CANNOT_WRITE and done.stderr.count("\n") == 1


def test_what_cannot_be_read_is_named(tmp_path, checkout):
    """A recipe that does not load takes its claims with it, and the report says so."""
    quickstart(tmp_path / "logs")
    (checkout / "recipes" / "inceptionv2" / "recipe.yaml").write_text("nonsense: 1\n")
    tool = str(checkout / "tools" / "report.py")
    command = [sys.executable, tool, str(tmp_path / "logs"), "--all-claims"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and "claims are left out" in done.stdout


def test_published_claims_judged_and_the_gate(tmp_path):
    good, bad = tmp_path / "good", tmp_path / "bad"
    imagenet(good, top1=72.4)
    done = report(good)
    assert done.returncode == 0, done.stderr
    said = {r["top1_verdict"] for r in rows(good, "accuracy")} - {""}
    assert "reproduced" in said
    (eight,) = [r for r in rows(good, "throughput") if r["cards"] == "8.0" or r["cards"] == "8"]
    assert eight["many_verdict"] == "inconclusive" or eight["many_verdict"] == "reproduced"
    imagenet(bad, top1=65.0)
    assert report(bad).returncode == 0
    assert "not reproduced" in {r["top1_verdict"] for r in rows(bad, "accuracy")}
    assert report(bad, "--gate").returncode == Exit.VERDICT


def test_three_repeats_give_their_own_spread(tmp_path):
    for number, top1 in enumerate((98.0, 98.5, 99.0), 1):
        FakeRun(DIGITS, number=number, seed=number, top1=top1).write(tmp_path)
    report(tmp_path)
    (row,) = [r for r in rows(tmp_path, "accuracy") if r["top1_verdict"]]
    assert row["n"] == "3"
    assert float(row["top1"]) == pytest.approx(98.5, abs=0.2)
    assert "spread of 3 repeats" in row["top1_reason"]
    assert "n = 1" not in row["flags"]


@pytest.mark.parametrize(
    ("change", "flag"),
    [
        ({"overrides": ["optimizer.lr.base=0.5"]}, "overridden"),
        ({"loader": "synthetic"}, "synthetic"),
        ({"loader": "torchvision"}, "torchvision loader"),
        ({"status": "interrupted", "stop_epoch": 3}, "partial"),
        ({"status": None, "stop_epoch": 3}, "partial"),
    ],
)
def test_what_is_not_the_recipe_is_listed_and_not_judged(tmp_path, change, flag):
    FakeRun(DIGITS, **change).write(tmp_path)
    assert report(tmp_path).returncode == 0
    assert not (tmp_path / "report" / "accuracy.csv").read_text().strip()
    (row,) = rows(tmp_path, "other_runs")
    assert flag in row["flags"]
    assert report(tmp_path, "--gate").returncode == Exit.VERDICT


def test_several_machines_are_labelled_and_no_published_speed_is_theirs(tmp_path):
    """GoogLeNet on 2 x 4 NPUs: judged on accuracy, its speed compared with one machine's never."""
    world = World(cards=4, nodes=2)
    published = {"device_name": "Ascend910", "top1": 71.9, "top5": 90.8}
    run = "GoogLeNet_AMP_300E_8NPUs_Train"
    FakeRun(run, images_per_s=13100.0, more={"world": world}, **published).write(tmp_path)
    FakeRun(run, number=2, seed=2, images_per_s=13100.0, **published).write(tmp_path)
    text = report(tmp_path).stdout
    assert "2 nodes × 4 NPU" in text and f"{run} on 2 nodes" in text
    accuracy = {(r["nodes"], r["cards"]) for r in rows(tmp_path, "accuracy")}
    assert accuracy == {("2", "8"), ("1", "8")}
    verdicts = {r["nodes"]: r["many_verdict"] for r in rows(tmp_path, "throughput")}
    assert verdicts == {"1": "reproduced", "2": ""}
    assert "not compared, nodes are 2, claimed for one" in text
    assert {r["top1_verdict"] for r in rows(tmp_path, "accuracy")} >= {"reproduced"}


def test_a_resumed_run_counts_once_and_says_so(tmp_path):
    FakeRun(DIGITS, killed_at=2).write(tmp_path)
    assert report(tmp_path).returncode == 0
    row = rows(tmp_path, "accuracy")[0]
    assert "resumed" in row["flags"] and row["n"] == "1"


def test_fewer_images_are_not_judged(tmp_path):
    FakeRun(DIGITS, count=350).write(tmp_path)
    report(tmp_path)
    row = rows(tmp_path, "accuracy")[0]
    assert row["top1_verdict"] == "n/a" and "350 of 360" in row["flags"]


def test_damaged_logs_are_counted_and_the_rest_is_used(tmp_path):
    folder = FakeRun(DIGITS).write(tmp_path)
    whole = (folder / "events.jsonl").read_bytes()
    (folder / "events.jsonl").write_bytes(
        b"\x00\x00\n[1, 2]\nnot json\n\xff\xfe\n" + whole[: len(whole) // 3] + b"\n" + whole[-900:]
    )
    FakeRun("GoogLeNet-Digits_AMP_10E_1CPU_Train").write(tmp_path)
    done = report(tmp_path)
    assert done.returncode == 0, done.stderr
    assert "rejected line" in done.stdout and "events.jsonl:1" in done.stdout
    assert len(rows(tmp_path, "rejected_lines")) >= 4
    assert {r["model"] for r in rows(tmp_path, "accuracy")} >= {"GoogLeNet"}


def test_a_reader_that_leaves_early_is_no_failure(tmp_path):
    FakeRun(DIGITS).write(tmp_path)
    tool = shlex.join([sys.executable, str(ROOT / "tools" / "report.py"), str(tmp_path)])
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {tool} | head -1"], capture_output=True, text=True
    )
    assert done.returncode == 0 and done.stderr == ""
    assert (tmp_path / "report" / "report.html").exists()


def test_numbers_that_are_not_finite(tmp_path):
    folder = FakeRun(DIGITS).write(tmp_path)
    lines = []
    for line in (folder / "events.jsonl").read_text().splitlines():
        event = json.loads(line)
        if event["kind"] in ("train", "mark"):
            event |= {"loss": "NaN", "ce": "Infinity"}
        lines.append(json.dumps(event))
    (folder / "events.jsonl").write_text("\n".join(lines) + "\n")
    done = report(tmp_path)
    assert done.returncode == 0, done.stderr
    assert "not finite" in done.stdout


class Page(HTMLParser):
    """Tags and links of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [v for k, v in attrs if k in ("src", "href", "xlink:href") and v]


def test_the_page_is_self_contained_and_escapes_everything(tmp_path):
    evil = "<script>alert(1)</script>"
    folder = FakeRun(DIGITS, device_name=evil, message=evil).write(tmp_path)
    FakeRun(DIGITS, number=2, status="failed", stop_epoch=2, message=evil).write(tmp_path)
    (folder / "events.jsonl").open("a").write('{"kind": "<script>"}\n')
    assert report(tmp_path).returncode == 0
    text = (tmp_path / "report" / "report.html").read_text()
    page = Page(text)
    assert page.tags.count("script") == 1  # the page's own, allowed by its hash
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    below = [link for link in page.links if not link.startswith("#")]
    assert all((tmp_path / "report" / link).exists() for link in below), below
    assert not re.search(r"url\((?!#)|@import", text)
    assert page.tags.count("svg") == 6 and "prefers-color-scheme: dark" in text
    assert "<script>" not in (tmp_path / "report" / "report.md").read_text()


def test_claims_without_a_run_are_shown_as_na_on_request(tmp_path):
    FakeRun(DIGITS).write(tmp_path)
    done = report(tmp_path, "--all-claims")
    assert done.returncode == 0, done.stderr
    missing = [r for r in rows(tmp_path, "accuracy") if r["data"] == "ImageNet"]
    assert missing and {r["top1_verdict"] or r["top5_verdict"] for r in missing} == {"n/a"}


def test_a_folder_whose_only_run_cannot_be_read_is_no_success(tmp_path):
    folder = FakeRun(DIGITS).write(tmp_path)
    for name in ("events.jsonl", "recipe.yaml"):
        (folder / name).write_text("rubbish")
    done = report(tmp_path)
    assert done.returncode == Exit.USAGE
    assert "2 rejected lines" in done.stdout and done.stderr.count("\n") == 1


@pytest.mark.parametrize("what", ["missing", "empty"])
def test_nothing_to_report_is_one_line(tmp_path, what):
    logs = tmp_path / "logs"
    if what == "empty":
        logs.mkdir()
    done = report(logs)
    assert done.returncode == Exit.USAGE
    assert done.stdout == "" and done.stderr.count("\n") == 1


def test_the_log_counts_where_a_recipe_was_changed_afterwards(tmp_path):
    """A claim made easier in recipe.yaml is judged no more, and is named."""
    folder = FakeRun(DIGITS, top1=93.0).write(tmp_path)
    assert report(tmp_path, "--gate").returncode == Exit.VERDICT
    (before,) = rows(tmp_path, "accuracy")
    recipe = folder / "recipe.yaml"
    text = recipe.read_text()
    assert "value: 97.0" in text
    recipe.write_text(text.replace("value: 97.0", "value: 90.0"))
    done = report(tmp_path, "--gate")
    (after,) = rows(tmp_path, "accuracy")
    assert done.returncode == Exit.VERDICT
    assert (before["top1_verdict"], after["top1_verdict"]) == ("not reproduced", "n/a")
    assert after["top1_claim"] == before["top1_claim"] == "97.0"
    assert "recipe.yaml: not what the log says was run" in done.stdout


def test_another_runs_log_is_that_other_run(tmp_path):
    other = FakeRun("Inceptionv2-Digits_FP32_6E_1CPU_Train").write(tmp_path / "other")
    folder = FakeRun(DIGITS).write(tmp_path / "logs")
    (folder / "events.jsonl").write_bytes((other / "events.jsonl").read_bytes())
    done = report(tmp_path / "logs")
    assert {row["precision"] for row in rows(tmp_path / "logs", "accuracy")} == {"FP32"}
    assert "recipe.yaml: not what the log says was run" in done.stdout


def test_copies_of_a_run_are_no_repeats(tmp_path):
    folder = FakeRun(DIGITS).write(tmp_path)
    for number in ("002", "003"):
        shutil.copytree(folder, folder.parent / number)
    done = report(tmp_path)
    assert {row["one_n"] for row in rows(tmp_path, "throughput")} == {"1"}
    assert {row["n"] for row in rows(tmp_path, "mark")} == {"1"}
    assert done.stdout.count("a copy of") == 2


def test_closed_output_is_no_defect(tmp_path):
    quickstart(tmp_path)
    line = f"{shlex.quote(sys.executable)} {shlex.quote(str(ROOT / 'tools/report.py'))} . >&-"
    done = subprocess.run(line, shell=True, cwd=tmp_path, capture_output=True, timeout=60)
    assert (
        done.returncode == 0 and not done.stderr and (tmp_path / "report" / "report.html").exists()
    )


def test_an_empty_name_is_not_the_current_folder(tmp_path):
    done = report("", cwd=tmp_path)
    assert done.returncode == Exit.USAGE and "empty" in done.stderr
