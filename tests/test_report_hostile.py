"""Logs in any state: whatever a file holds, the report counts it, names it and uses the rest."""

from __future__ import annotations

import gzip
import html
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from fake_benchmark_logs import timm_epoch
from fake_logs import FakeRun
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from report_tool import report

from proofrun.errors import Exit
from tools._report.build import build
from tools._report.curves import figures
from tools._report.document import to_json
from tools._report.eventlog import read_event_file
from tools._report.grids import grids
from tools._report.page import page
from tools._report.read import read_logs
from tools._report.render import markdown
from tools._report.tables import frames
from tools._report.words import speaker

ROOT = Path(__file__).resolve().parent.parent
RUN = "Inceptionv2-Digits_AMP_6E_1CPU_Train"


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    """A short run with a restart in it: (folder, lines of its event log)."""
    logs = tmp_path_factory.mktemp("clean")
    folder = FakeRun(RUN, killed_at=2.0, windows_per_epoch=2).write(logs)
    return folder, (folder / "events.jsonl").read_bytes().splitlines(keepends=True)


def everything(logs: Path, draw: bool = True) -> tuple[str, object]:
    """All forms of the report; returns the page (with its curves drawn) and what was read."""
    read = read_logs([logs])
    built = build(read)
    shown = grids(built)
    say = speaker("en")
    markdown(shown, read.rejected, built.summary, say)
    frames(built)
    to_json(built)
    curves = figures(built)
    return page(built, shown, curves if draw else [], logs / "report", say), read


def put(tmp_path: Path, clean, content: bytes, name: str = "events.jsonl") -> Path:
    folder = tmp_path / RUN / "001"
    shutil.rmtree(tmp_path / RUN, ignore_errors=True)
    shutil.copytree(clean[0], folder)
    (folder / "events.jsonl").unlink()
    (folder / name).write_bytes(content)
    return folder / name


def test_cut_at_every_byte(tmp_path, clean):
    """Every byte of every line after the first: what comes before is used, the torn line named."""
    first, *others = clean[1]
    path = tmp_path / "events.jsonl"
    tried = 0
    for above, line in zip(clean[1], others, strict=False):
        head = [first, above] if b'"kind":"mark"' in line else [first]  # a mark needs its counts
        for length in range(len(line)):
            path.write_bytes(b"".join(head) + line[:length])
            found = read_event_file(path)
            torn = 0 < length < len(line) - 1  # not where only the newline is missing
            assert [number for number, _ in found.rejected] == [len(head) + 1] * torn
            assert found.logs[0].events[0].line == 1
            tried += 1
    assert tried == sum(map(len, others)) > 10_000
    content = b"".join(clean[1])
    for offset in range(0, len(content), len(content) // 20):  # and through all tables
        everything(put(tmp_path, clean, content[:offset]).parent.parent.parent)


WRONG = [
    b"\x00" * 64,
    b"\xff\xfe\xfa",
    b"\x1b[31m{}\x1b[0m",
    *(b"null", b"[]", b"[{}]", b"{}", b"NaN", b"-", b"\r", b"\xef\xbb\xbf", b"1e999"),
    *(b'{"schema":1}', b'{"schema":1,"kind":"train"}', b'{"kind":"nonsense"}'),
    b'{"schema":1,"seq":1e400}',
    b'{"schema":1,"kind":"train","seq":"' + b"9" * 5000 + b'"}',
    b"[" * 20_000,
    b"<script>alert(1)</script>",
    "Ünïcode ✓".encode("utf-16"),
]
DAMAGE = ["double", "drop", "swap", "tear", "glue", "replace", "bytes", "number"]


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.data())
def test_damaged_lines_do_no_harm(tmp_path, clean, data):
    """Lines doubled, dropped, swapped, torn, glued, or replaced by anything: nothing is raised."""
    lines = list(clean[1])
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(lines) - 1))
        kind = data.draw(st.sampled_from(DAMAGE))
        line = lines[at]
        if kind == "double":
            lines.insert(at, line)
        elif kind == "drop" and len(lines) > 1:
            del lines[at]
        elif kind == "swap":
            lines.append(lines.pop(at))
        elif kind == "tear":
            lines[at] = line[: data.draw(st.integers(0, len(line)))] + b"\n"
        elif kind == "glue":
            lines[at] = line.rstrip(b"\n")
        elif kind == "replace":
            lines[at] = data.draw(st.one_of(st.sampled_from(WRONG), st.binary(max_size=80))) + b"\n"
        elif kind == "bytes":
            spot = data.draw(st.integers(0, max(0, len(line) - 1)))
            lines[at] = line[:spot] + data.draw(st.binary(max_size=3)) + line[spot + 1 :]
        else:  # a number becomes something else
            value = data.draw(
                st.sampled_from([b"NaN", b"Infinity", b"-1", b"1e308", b"1,5", b"null", b'"x"'])
            )
            lines[at] = re.sub(
                rb":-?\d[\d.e+-]*", b":" + value, line, count=data.draw(st.integers(1, 9))
            )
    log = put(tmp_path, clean, b"".join(lines))
    everything(log.parents[2], draw=data.draw(st.integers(0, 9)) == 0)


def test_duplicates_and_glued_lines_count_once(tmp_path, clean):
    lines = clean[1]
    _, plain = everything(put(tmp_path, clean, b"".join(lines)).parents[2])
    (run,) = plain.runs
    doubled = put(tmp_path, clean, b"".join(line * 2 for line in lines))
    _, read = everything(doubled.parents[2])
    assert len(read.runs[0].windows) == len(run.windows)
    assert len(read.rejected) == len(lines)
    glued = put(tmp_path, clean, b"".join(line.rstrip(b"\n") for line in lines[:40]))
    found = read_event_file(glued)
    assert not found.rejected
    log = put(tmp_path, clean, b"".join(lines[:40]))
    assert list(found.logs[0].windows.seq) == list(read_event_file(log).logs[0].windows.seq)
    after_torn = put(tmp_path, clean, lines[0] + lines[1][:50] + lines[2])
    found = read_event_file(after_torn)
    assert [reason for _, reason in found.rejected] == ["a torn event in a line of several"]


def test_gzip_and_two_runs_in_one_file(tmp_path, clean):
    content = b"".join(clean[1])
    _, read = everything(put(tmp_path, clean, gzip.compress(content), "events.jsonl.gz").parents[2])
    assert len(read.runs) == 1 and not read.rejected
    cut = gzip.compress(content)[:-200]
    _, read = everything(put(tmp_path, clean, cut, "events.jsonl.gz").parents[2])
    assert len(read.runs) == 1 and len(read.runs[0].windows) > 0
    other = FakeRun(RUN, seed=1, top1=91.0, number=2).write(tmp_path / "other")
    second = (other / "events.jsonl").read_bytes().replace(b'"t_wall":17', b'"t_wall":18')
    both = put(tmp_path, clean, content + second)
    read = read_logs([both.parents[2] / RUN])
    assert [run.number for run in read.runs] == ["001 (1)", "001 (2)"]


def test_no_field_of_a_log_becomes_markup(tmp_path, clean):
    """A script in every string of every event, plan and status: shown as text or not at all."""
    evil = "<script>alert('x')</script><img src=x onerror=alert(1)>\"'&"

    def poison(value):
        if isinstance(value, dict):
            return {k: poison(v) for k, v in value.items()}
        if isinstance(value, list):
            return [poison(v) for v in value]
        keep = ("Inceptionv2", "digits", "sgd", "cosine", "bilinear", "squash", "shorter_side")
        fixed = (
            re.fullmatch(r"[a-z_0-9]*|[A-Z0-9]+|[\w-]+_Train", value)
            if isinstance(value, str)
            else 1
        )
        return value if fixed or value in keep else value + evil

    lines = []
    for raw in clean[1]:
        event = json.loads(raw)
        for key in ("device_name", "message", "path", "prediction_hash"):
            if key in event:
                event[key] += evil
        if "provenance" in event:
            event["provenance"] = {"command": [evil], "commit": evil, "packages": {evil: evil}}
            event["plan"] = poison(event["plan"])
        lines.append(json.dumps(event).encode() + b"\n")
    folder = put(tmp_path, clean, b"".join(lines)).parent
    (folder / "status.json").write_text(
        json.dumps({"status": "finished", "code": 0, "message": evil})
    )
    shown, read = everything(tmp_path)
    assert read.runs
    assert "<script>alert" not in shown and "<img src=x" not in shown
    assert html.escape("<script>alert('x')</script>") in shown


def test_a_foreign_file_of_rubbish_is_named_or_ignored(tmp_path):
    """Beside a run, files that are no logs are ignored; given by name they are refused."""
    FakeRun(RUN).write(tmp_path)
    for number, content in enumerate(WRONG):
        (tmp_path / f"rubbish{number}.log").write_bytes(content)
    _, read = everything(tmp_path)
    assert len(read.runs) == 1 and not read.foreign


@pytest.mark.parametrize("name", ["events.jsonl", "status.json", "recipe.yaml"])
def test_a_pipe_in_a_files_place_does_not_block(tmp_path, name):
    """Opened, it would wait for a writer for ever."""
    folder = FakeRun(RUN).write(tmp_path)
    (folder / name).unlink()
    os.mkfifo(folder / name)
    code = "import sys; sys.path[:0] = ['tests', '.']; from report_tool import report; "
    code += f"done = report({str(tmp_path)!r}); print(done.stdout); sys.exit(done.returncode)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert ("not a regular file" in done.stdout) == (name == "events.jsonl")


@pytest.mark.parametrize("field", ["world_size", "nodes", "per_card_batch", "global_batch"])
@pytest.mark.parametrize("value", [0, -8, 1 << 70])
def test_impossible_worlds_are_rejected(tmp_path, field, value):
    folder = FakeRun(RUN).write(tmp_path)
    lines = (folder / "events.jsonl").read_text().splitlines()
    lines[0] = json.dumps(json.loads(lines[0]) | {field: value})
    (folder / "events.jsonl").write_text("\n".join(lines) + "\n")
    done = report(tmp_path)
    assert done.returncode == 0, done.stderr
    assert "run_start: cards, nodes or batch are not possible" in done.stdout


def test_an_empty_name_is_no_place_to_write(tmp_path):
    FakeRun(RUN).write(tmp_path)
    for flag in ("--out", "--bundle", "--verify", "--check"):
        done = report(*([] if flag == "--verify" else [tmp_path]), flag, "", cwd=tmp_path)
        assert done.returncode == Exit.USAGE and "empty" in done.stderr
    assert os.listdir(tmp_path) == [RUN]


def test_a_foreign_log_of_a_network_of_ours_with_unknown_cards(tmp_path):
    """It stands in one drawing with our runs; how many cards it had is not known."""
    FakeRun(RUN).write(tmp_path)
    text = "Model Inceptionv2 created, param count:1\n" + "".join(
        timm_epoch(epoch, 20.0) for epoch in range(3)
    )
    (tmp_path / "timm.log").write_text(text)
    done = report(tmp_path, draw=True)
    assert done.returncode == 0, done.stderr
