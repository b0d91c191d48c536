"""Logs of other systems in the report: the same tables, marked foreign, and never judged."""

from __future__ import annotations

import csv
import gzip
from pathlib import Path

import pytest
from fake_logs import FakeRun
from report_tool import report

from proofrun.errors import Exit

ROOT = Path(__file__).resolve().parent.parent
OURS = "Inceptionv2-Digits_AMP_6E_1CPU_Train"


def example(epochs: int = 3) -> str:
    """A log of PyTorch's imagenet example: top-1 rises to 40 + 10 (epochs - 1), then falls by 1."""
    lines = ["=> creating model 'resnet50'"]
    for epoch in range(epochs):
        for step in (0, 10, 20):
            lines.append(
                f"Epoch: [{epoch}][{step}/25]\tTime  0.500 ( 0.400)\tData  0.100 ( 0.080)\t"
                f"Loss {3 - epoch:.4e} ({3.5 - epoch:.4e})\tAcc@1  10.00 ( 10.00)"
            )
        lines.append(
            f" * Acc@1 {40 + 10 * min(epoch, epochs - 2) - (epoch == epochs - 1)}.000 Acc@5 90.000"
        )
    return "\n".join(lines) + "\n"


def rows(folder: Path, table: str) -> list[dict[str, str]]:
    with (folder / f"{table}.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_beside_our_runs_and_by_name(tmp_path):
    """A folder with both: one more row, marked; our verdicts and the gate are as without it."""
    logs = tmp_path / "logs"
    FakeRun(OURS).write(logs)
    alone = report(logs, "--out", tmp_path / "alone")
    before = rows(tmp_path / "alone", "accuracy")
    (logs / "theirs").mkdir()
    (logs / "theirs" / "anything.at.all").write_text(example())
    done = report(logs, "--out", tmp_path / "both")
    assert done.returncode == alone.returncode == 0, done.stderr
    both = rows(tmp_path / "both", "accuracy")
    assert [row for row in both if row["model"] != "resnet50"] == before
    (theirs,) = [row for row in both if row["model"] == "resnet50"]
    assert theirs["flags"].startswith("foreign: PyTorch")
    assert float(theirs["top1"]) == 49.0 and float(theirs["top5"]) == 90.0
    assert theirs["top1_source"] == "theirs/anything.at.all:13"
    assert theirs["top1_verdict"] == theirs["count"] == theirs["cards"] == ""
    assert "best top1 50.000 % after epoch 2" in theirs["notes"]
    assert "1 run, 1 of other systems" in done.stdout
    packed = tmp_path / "packed.gz"
    packed.write_bytes(gzip.compress(example().encode()))
    done = report(packed, "--out", tmp_path / "packed")
    assert done.returncode == 0, done.stderr
    assert rows(tmp_path / "packed", "accuracy")[0]["top1_source"] == "packed.gz:13"


def test_no_speed_is_invented(tmp_path):
    """No batch size: seconds a step, no images/s; no stamps: no one-hour row; and it is said."""
    (tmp_path / "x.log").write_text(example())
    done = report(tmp_path / "x.log", "--out", tmp_path / "out")
    assert rows(tmp_path / "out", "throughput") == rows(tmp_path / "out", "mark") == []
    assert "no batch size in the log" in done.stdout and "no time stamps" in done.stdout
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("x.log")]
    assert " 0.4 " in line and " 1.5000 " in line


def test_two_runs_in_one_file_are_two_rows(tmp_path):
    (tmp_path / "x.log").write_text(example(4) + example(3))
    report(tmp_path, "--out", tmp_path / "out")
    found = rows(tmp_path / "out", "accuracy")
    assert [(row["epochs"], row["runs"]) for row in found] == [
        ("4", "x.log (1 of 2)"),
        ("3", "x.log (2 of 2)"),
    ]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("notes.log", b"nothing of interest\n" * 50, "no format is recognised"),
        ("empty.log", b"", "no format is recognised"),
        ("missing.log", None, "no such file"),
    ],
)
def test_a_named_file_that_is_no_log_is_refused(tmp_path, name, content, said):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    done = report(tmp_path / name)
    assert done.returncode == Exit.USAGE
    assert done.stderr.count("\n") == 1 and said in done.stderr and name in done.stderr


def test_the_gate_needs_a_claim_of_ours(tmp_path):
    (tmp_path / "x.log").write_text(example())
    assert report(tmp_path, "--gate").returncode == Exit.VERDICT


def test_what_was_named_and_cannot_be_read_is_said(tmp_path):
    """Beside a log that can be read; a torn gzip ends no report."""
    (tmp_path / "x.log").write_text(example())
    (tmp_path / "notes.txt").write_text("nothing\n")
    packed = gzip.compress(example(40).encode())
    (tmp_path / "torn.gz").write_bytes(packed[: len(packed) // 2])
    (tmp_path / "broken.gz").write_bytes(packed[:30] + b"\xff" + packed[31:])
    names = [tmp_path / name for name in ("x.log", "notes.txt", "torn.gz", "broken.gz")]
    done = report(*names, "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert "notes.txt: no format is recognised in it" in done.stdout
    assert {row["runs"] for row in rows(tmp_path / "out", "accuracy")} >= {"x.log"}


def test_a_rate_of_one_card_is_not_put_where_all_cards_are(tmp_path):
    at = "[2022/01/10 00:00:0{}] root INFO: [Train][Epoch {}/9][Iter: 9/10]lr: 0.1, loss: 2.0, "
    end = "batch_cost: 0.5s, reader_cost: 0.1, ips: 400.5 images/sec, eta: 1:00:00\n"
    text = "".join(at.format(epoch, epoch) + end for epoch in (1, 2, 3))
    (tmp_path / "x.log").write_text(text)
    done = report(tmp_path / "x.log", "--out", tmp_path / "out")
    (row,) = rows(tmp_path / "out", "throughput")
    assert row["many_images_per_s"] == row["one_images_per_s"] == ""
    assert "400.50 img/s" in row["notes"] and "per card as stated" in row["notes"]
    assert "3 of 9 epochs" in row["flags"] and done.returncode == 0


def test_a_bundle_needs_a_run_of_ours(tmp_path):
    (tmp_path / "x.log").write_text(example())
    done = report(tmp_path, "--bundle", tmp_path / "b.tar.gz")
    assert done.returncode == Exit.USAGE and done.stderr.count("\n") == 1
    assert not (tmp_path / "b.tar.gz").exists()


def test_programs_and_images_are_no_logs(tmp_path):
    """Whatever stands in them, and also by name; a log beside them is read."""
    begins = (b"\x7fELF", b"PK\x03\x04", b"\x89PNG\r\n\x1a\n", b"\x93NUMPY", b"\xff\xd8\xff\xe0")
    for number, begin in enumerate(begins):
        (tmp_path / f"file{number}").write_bytes(begin + b"\n" + example().encode())
    done = report(tmp_path / "file0", "--out", tmp_path / "out")
    assert done.returncode == Exit.USAGE and "no format is recognised" in done.stderr
    (tmp_path / "x.log").write_text(example())
    assert report(tmp_path, "--out", tmp_path / "out").returncode == 0
    assert [row["runs"] for row in rows(tmp_path / "out", "accuracy")] == ["x.log"]
