"""What bars a verdict or is said beside it: data, a changed world, missing repeats, false marks."""

from __future__ import annotations

import json
import re

import pytest
from fake_logs import FakeRun
from report_tool import report
from test_report import DIGITS, rows

from proofrun.errors import Exit


def data(fingerprint: str = "ab" * 32, identity: str = "Digits", changed: bool = False) -> dict:
    told = {"fingerprint": fingerprint, "identity": identity, "changed": changed, "root": "digits"}
    return {"data": told}


def verdicts(logs, table: str) -> set[str]:
    """All verdicts of a table but those on claims that do not apply."""
    found = rows(logs, table)
    return {v for row in found for k, v in row.items() if k.endswith("_verdict")} - {""}


# ---- the world -------------------------------------------------------------------------------


def test_a_changed_world_is_flagged_and_its_speed_not_judged(tmp_path):
    """Two runs that stayed, one that went on with 1 card instead of 2: it is not pooled."""
    name = "GoogLeNet-Digits_AMP_10E_2CPUs_Train"
    for number in (1, 2):
        FakeRun(name, number=number, seed=number).write(tmp_path)
    FakeRun(name, number=3, seed=3, killed_at=2, after_kill={"world_size": 1}).write(tmp_path)
    done = report(tmp_path)
    assert done.returncode == 0, done.stderr
    for table in ("accuracy", "throughput", "mark"):
        for row in rows(tmp_path, table):
            assert ("world changed" in row["flags"]) == ("003" in row["runs"])
            assert ("003" in row["runs"]) != ("001" in row["runs"])
    (changed,) = [r for r in rows(tmp_path, "throughput") if "world changed" in r["flags"]]
    assert changed["one_images_per_s"] == changed["many_images_per_s"] == changed["scaling"] == ""


@pytest.mark.parametrize(("batch", "verdict"), [(64, "reproduced"), (32, "n/a")])
def test_accuracy_stands_a_changed_world_of_one_global_batch(tmp_path, batch, verdict):
    """Claims of one card; the first process had two."""
    after = {"world_size": 1, "global_batch": batch, "per_card_batch": batch}
    folder = FakeRun(DIGITS, killed_at=2, after_kill=after).write(tmp_path)
    lines = (folder / "events.jsonl").read_text().splitlines()
    lines[0] = json.dumps(json.loads(lines[0]) | {"world_size": 2, "global_batch": 64})
    (folder / "events.jsonl").write_text("\n".join(lines) + "\n")
    text = report(tmp_path).stdout
    said = {r["top1_verdict"] for r in rows(tmp_path, "accuracy")} - {""}
    assert said <= {verdict, "n/a"}
    if batch == 64:
        assert said == {"reproduced"}
    assert verdicts(tmp_path, "throughput") <= {"n/a"}
    assert verdicts(tmp_path, "mark") <= {"n/a"}
    assert "not judged, world changed: 2 cards -> 1 card" in text or batch == 32
    assert report(tmp_path, "--gate").returncode == Exit.VERDICT


# ---- the data --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("told", "flag", "why"),
    [
        (data(identity="other"), "other data", "other data: other, claimed for Digits"),
        (data(identity="ImageNet"), "other data", "other data: ImageNet, claimed for Digits"),
        (data(changed=True), "data changed", "not judged, data changed"),
    ],
)
def test_other_or_changed_data_are_flagged_and_not_judged(tmp_path, told, flag, why):
    FakeRun(DIGITS).write(tmp_path)
    FakeRun(DIGITS, number=2, seed=2, provenance=told).write(tmp_path)
    text = report(tmp_path).stdout
    for table in ("accuracy", "throughput", "mark"):
        for row in rows(tmp_path, table):
            barred = "002" in row["runs"]
            assert (flag in row["flags"]) == barred and barred == ("001" not in row["runs"])
            said = {v for k, v in row.items() if k.endswith("_verdict")} - {""}
            assert said == {"n/a"} if barred and said else "n/a" not in said
    assert why in text


def test_data_that_changed_between_two_processes_of_a_run(tmp_path):
    after = {"provenance": data("cd" * 32)}
    FakeRun(DIGITS, killed_at=2, provenance=data(), after_kill=after).write(tmp_path)
    report(tmp_path)
    assert {"data changed" in row["flags"] for row in rows(tmp_path, "accuracy")} == {True}


def test_repeats_on_different_data_are_remarked_on(tmp_path):
    for number, told in enumerate((data(), data(), data("cd" * 32)), 1):
        FakeRun(DIGITS, number=number, seed=number, provenance=told).write(tmp_path)
    text = report(tmp_path).stdout
    row = rows(tmp_path, "accuracy")[0]
    assert row["n"] == "3" and "different data" in row["flags"]
    assert "fingerprints of the data differ between repeats" in text and "cdcdcdcdcdcd" in text


def test_repeats_of_old_logs_are_not_known_to_be_on_equal_data(tmp_path):
    FakeRun(DIGITS).write(tmp_path)
    FakeRun(DIGITS, number=2, seed=2, provenance=data()).write(tmp_path)
    assert "are not known to be equal between repeats" in report(tmp_path).stdout


def test_the_fingerprint_is_shown_and_compared(tmp_path):
    for number, told in enumerate((data(), data("cd" * 32), {}), 1):
        FakeRun(DIGITS, number=number, seed=number, provenance=told).write(tmp_path)
    report(tmp_path)
    page = (tmp_path / "report" / "report.html").read_text()
    assert f"<dd>{'ab' * 32} (Digits)</dd>" in page
    runs = json.loads((tmp_path / "report" / "report.json").read_text())["runs"]
    assert [run["fingerprint"] for run in runs] == ["ab" * 32, "cd" * 32, None]

    def compared(a: str, b: str) -> str:
        return report(tmp_path, "--compare", f"{DIGITS}/{a}", f"{DIGITS}/{b}").stdout

    assert f"Fingerprint of the data: {'ab' * 32} in both" in compared("001", "001")
    text = compared("001", "002")
    assert f"A {'ab' * 32}, B {'cd' * 32}" in text and "data.fingerprint" in text
    assert "B not recorded" in compared("001", "003")


@pytest.mark.parametrize(
    "told", [["a list"], "words", 7, {"fingerprint": 7, "identity": None, "changed": "yes"}]
)
def test_provenance_of_other_shapes(tmp_path, told):
    strange = {"data": told, "packages": [1, 2], "command": 7, "commit": {}, "dirty": []}
    FakeRun(DIGITS, provenance=strange).write(tmp_path)
    assert report(tmp_path).returncode == 0


# ---- repeats and marks -----------------------------------------------------------------------


def test_missing_numbers_are_named_on_the_rows(tmp_path):
    for number in (1, 3, 4, 7):
        FakeRun(DIGITS, number=number, seed=number).write(tmp_path)
    (tmp_path / DIGITS / "004" / "events.jsonl").write_text("rubbish")  # there, and rejected
    (tmp_path / DIGITS / "004" / "recipe.yaml").write_text("rubbish")
    FakeRun("GoogLeNet-Digits_AMP_10E_1CPU_Train").write(tmp_path)
    text = report(tmp_path).stdout
    assert re.search(rf"{DIGITS}: 002, 005, 006 missing before 007", text)
    for table in ("accuracy", "throughput", "mark"):
        for row in rows(tmp_path, table):
            assert ("numbers missing" in row["flags"]) == (row["model"] == "Inceptionv2")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"top1": 99.9}, "top1 99.9 % is stated, "),
        ({"top5": 1.0}, "top5 1 % is stated, "),
        ({"count": 359}, "the evaluation before it is another one"),
        ({"protocol": "squash73_crop64"}, "the evaluation before it is another one"),
        (None, "the evaluation that it states is not in the log"),
    ],
)
def test_a_mark_is_what_its_evaluation_counted(tmp_path, change, why):
    """None: the evaluation is taken out of the log."""
    folder = FakeRun(DIGITS).write(tmp_path)
    events = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    (at,) = [i for i, event in enumerate(events) if event["kind"] == "mark"]
    if change:
        events[at] |= change
    else:
        del events[at - 1]
    (folder / "events.jsonl").write_text("".join(json.dumps(e) + "\n" for e in events))
    text = report(tmp_path).stdout
    assert f"mark: {why}" in text and "the lines are missing or rejected" in text
    assert verdicts(tmp_path, "mark") == {"n/a"}


def test_an_evaluation_states_what_it_counted(tmp_path):
    folder = FakeRun(DIGITS).write(tmp_path)
    lines = (folder / "events.jsonl").read_text().splitlines()
    plain = [json.loads(line) for line in lines]
    final = [e | {"top1": 100.0} if e.get("why") == "final" else e for e in plain]
    (folder / "events.jsonl").write_text("".join(json.dumps(e) + "\n" for e in final))
    assert "eval: top1 100 % is stated" in report(tmp_path).stdout
