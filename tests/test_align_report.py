"""Which verdict on a device the report shows beside a run, and what it says of it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from alignments import VERDICT
from fake_logs import FakeRun

from proofrun.alignment import TRUSTED, Alignment, read_all, standing
from tools._report.build import Report, build
from tools._report.grids import grids
from tools._report.read import read_logs
from tools._report.tables import frames

DAY = 86400.0
GOLDEN = TRUSTED / "GoogLeNet-Digits-FP64.npz"
COMMITTED = {
    "trusted": GOLDEN.name,
    "trusted_sha256": hashlib.sha256(GOLDEN.read_bytes()).hexdigest(),
}
OURS = VERDICT | COMMITTED | {
    "precision": "FP32", "torch": "2.13.0+cpu", "steps": 20, "t_wall": 20_000 * DAY,
    "device_name": FakeRun.device_name,
}  # fmt: skip
BAD = OURS | {"aligned": False, "finding": "step 0, forward, output x: scale"}


def verdicts(logs: Path, *plain: dict[str, object]) -> None:
    (logs / "align").mkdir(parents=True, exist_ok=True)
    for index, each in enumerate(plain):
        (logs / "align" / f"{index}.json").write_text(json.dumps(each))


def reported(logs: Path, *plain: dict[str, object], torch: str | None = "2.13.0") -> Report:
    verdicts(logs, *plain)
    provenance = {"packages": {"torch": torch}} if torch else {}
    FakeRun("GoogLeNet-Digits_FP32_10E_1CPU_Train", provenance=provenance).write(logs)
    return build(read_logs([logs]))


def said(report: Report) -> tuple[list[str], list[str]]:
    """(flags, notes) about the device, equal on every row."""
    found = [
        ([f for f in row.flags if "aligned" in f], [n for n in row.notes if "aligned" in n])
        for row in report.rows
    ]
    assert found and all(each == found[0] for each in found)
    return found[0]


def test_the_line_says_when_with_what_and_against_what(tmp_path):
    flags, (note,) = said(reported(tmp_path, OURS))
    assert flags == ["device aligned"]
    assert note == (
        "device aligned over 20 steps of GoogLeNet in FP32, 2024-10-04, torch 2.13.0+cpu, 1 rank: "
        "a missed claim points to data or schedule"
    )


@pytest.mark.parametrize(
    ("change", "shown"),
    [
        ({"recipe": "Inceptionv2"}, None),
        ({"precision": "AMP"}, None),
        ({"device_name": "another"}, None),
        ({"device": "GPU"}, None),
        ({"torch": "1.13.0"}, "not of this run, with torch 2.13.0: device aligned over 20 steps"),
        ({"t_wall": 1e99}, None),
    ],
)
def test_a_verdict_that_is_not_the_runs_flags_nothing(tmp_path, change, shown):
    flags, notes = said(reported(tmp_path, OURS | change))
    assert flags == [] and len(notes) == (shown is not None)
    assert all(note.startswith(shown) for note in notes)


def test_a_run_that_records_no_torch_has_no_verdict(tmp_path):
    flags, (note,) = said(reported(tmp_path, OURS, torch=None))
    assert flags == [] and note.startswith("not of this run, with a torch that is not recorded")


@pytest.mark.parametrize(
    "change",
    [
        {"trusted": "mine.npz"},
        {"trusted_sha256": "1" * 64},
        {"trusted": "../align/GoogLeNet-Digits-FP64.npz"},
    ],
)
def test_another_trusted_trace_is_named(tmp_path, change):
    flags, (note,) = said(reported(tmp_path, OURS | change))
    assert flags == []
    trusted = (OURS | change)["trusted"]
    assert f"1 rank, against {trusted}, which is no trace of this checkout: a missed" in note


LATER = {"t_wall": 20_001 * DAY}


@pytest.mark.parametrize(
    ("first", "second", "flag"),
    [
        (BAD, OURS | LATER | {"steps": 3}, "misaligned"),  # --quick
        (BAD | {"ranks": 2}, OURS | LATER, "misaligned"),
        (BAD, OURS | LATER, "aligned"),
        (BAD | {"steps": 3}, OURS | LATER | {"ranks": 2}, "aligned"),
        (OURS, BAD | LATER | {"steps": 3}, "misaligned"),
        (BAD | LATER, OURS, "misaligned"),
        (BAD, OURS | LATER | {"torch": "2.6.0"}, "misaligned"),
    ],
)
def test_a_weaker_verdict_takes_nothing_back(tmp_path, first, second, flag):
    flags, notes = said(reported(tmp_path, first, second))
    assert flags == [f"device {flag}"] and len(notes) == 1
    if flag == "misaligned":
        assert "(step 0, forward, output x: scale)" in notes[0] and "points to the card" in notes[0]


def test_a_misaligned_verdict_is_forgotten_for_good(tmp_path):
    """Mended, and the quick check that comes later is weaker than both."""
    last = OURS | {"steps": 3, "t_wall": 20_002 * DAY}
    made = [Alignment.model_validate(v) for v in (BAD, OURS | LATER, last)]
    assert standing(made) is made[-1] and standing([]) is None


def test_what_is_no_verdict_is_left_out_and_named(tmp_path):
    report = reported(tmp_path, OURS, {"schema": 2})
    assert said(report)[0] == ["device aligned"]
    verdicts_read, unread = read_all(tmp_path)
    assert len(verdicts_read) == 1 and [path.name for path in unread] == ["1.json"]
    (rejected,) = report.logs.rejected
    assert rejected.file == "align/1.json" and "no verdict of align.py" in rejected.reason


def test_a_trace_of_ones_own_takes_no_misaligned_verdict_back(tmp_path):
    flags, (note,) = said(reported(tmp_path, BAD, OURS | LATER | {"trusted": "mine.npz"}))
    assert flags == ["device misaligned"] and "points to the card" in note


def test_a_run_in_no_table_has_its_flag_too(tmp_path):
    verdicts(tmp_path, BAD)
    run = FakeRun(
        "GoogLeNet-Digits_FP32_10E_1CPU_Train", max_steps=5,
        provenance={"packages": {"torch": "2.13.0"}},
    )  # fmt: skip
    run.write(tmp_path)
    report = build(read_logs([tmp_path]))
    assert not report.rows and len(report.others) == 1
    assert "device misaligned" in report.flags(report.others[0])
    assert "device misaligned" in frames(report)["other_runs"]["flags"][0]
    assert "device misaligned" in str(grids(report))
