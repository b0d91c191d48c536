"""Where a report is written, what its tables may hold, and what its words say."""

from __future__ import annotations

import pytest
from fake_logs import FakeRun
from report_tool import report
from test_foreign_report import example

from proofrun.errors import Exit
from proofrun.text import csv_text
from tools._report.words import speaker, summary


@pytest.mark.parametrize(
    ("text", "kept"),
    [("=1+1", "'=1+1"), ("@SUM(A1)", "'@SUM(A1)"), ("-6.2", "-6.2"), ("+1e-3", "+1e-3"),
     ("-inf", "-inf"), ("-cmd|' /C calc'!A0", "'-cmd|' /C calc'!A0"), ("\t=1", "'=1"),
     ("a=b", "a=b"), ("\x1b[31mred\x00", "[31mred"), ("two\nlines", "two lines"), (-6.2, -6.2),
     (None, None), ("\u202e=1", "'=1")],
)  # fmt: skip
def test_text_of_a_csv_file(text, kept):
    assert csv_text(text) == kept


def test_files_of_others_are_not_overwritten(tmp_path):
    (tmp_path / "x.log").write_text(example())
    out = tmp_path / "out"
    out.mkdir()
    for name in ("accuracy.csv", "report.md", "report.json"):
        (out / name).write_text('{"schema": 1}')
        done = report(tmp_path / "x.log", "--out", out)
        assert done.returncode == Exit.USAGE and name in done.stderr and "--out" in done.stderr
        assert [file.name for file in out.iterdir()] == [name]
        (out / name).unlink()
    (out / "notes.txt").write_text("mine")
    for _ in range(2):  # a folder of other things, and then our own report
        assert report(tmp_path / "x.log", "--out", out).returncode == 0
    (out / "report.json").unlink()
    assert report(tmp_path / "x.log", "--out", out).returncode == Exit.USAGE
    assert (out / "notes.txt").read_text() == "mine"


def test_a_report_that_was_cut_short_is_ours(tmp_path, monkeypatch):
    """Its first file says whose it is."""
    (tmp_path / "x.log").write_text(example())
    out = tmp_path / "out"
    assert report(tmp_path / "x.log", "--out", out).returncode == 0
    for file in out.iterdir():
        if file.name != "report.json":
            file.unlink()
    assert report(tmp_path / "x.log", "--out", out).returncode == 0
    first = min(out.iterdir(), key=lambda file: file.stat().st_mtime_ns)
    assert first.name == "report.json"


def test_the_summary_is_in_one_language():
    said = summary("1 run, 2 of other systems, 1 re-exported; claims: none applies", speaker("zh"))
    assert not any(letter in said for letter in "abcdefghijklmnopqrstuvwxyz,;"), said
    text = "3 runs; claims: 1 reproduced, 2 not reproduced, 1 different hardware, 1 n/a"
    assert not any(c.isascii() and (c.isalpha() or c in ",;") for c in summary(text, speaker("zh")))
    assert summary(text, speaker("en")) == text


def test_logs_of_others_are_not_watched_and_not_compared(tmp_path):
    (tmp_path / "x.log").write_text(example())
    for given in (tmp_path / "x.log", tmp_path):
        done = report(given, "--watch")
        assert done.returncode == Exit.USAGE and "x.log: a log of another system" in done.stderr
        assert "--watch" in done.stderr
    run = FakeRun("Inceptionv2-Digits_AMP_6E_1CPU_Train").write(tmp_path / "logs")
    done = report("--compare", tmp_path / "x.log", run)
    assert done.returncode == Exit.USAGE and "logs of other systems" in done.stderr
