"""Bad files go aside and come back byte for byte, whenever the process is killed."""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from trees import content, tree

from proofrun.bootstrap import ROOT
from proofrun.data.fingerprint import MANIFEST
from proofrun.data.lists import read_split
from proofrun.errors import Exit, ProofrunError
from tools._dataset import quarantine, verify

BAD = ["train/ant/1.JPEG", "train/cow/3.JPEG", "val/bee/0.JPEG"]


@pytest.fixture
def root(tmp_path) -> Path:
    """A set with three bad images, a missing one, a byte order mark and Windows' line ends."""
    root = tree(tmp_path / "set")
    for name, data in zip(BAD, (b"", b"<html>", b"\xff\xd8\xff"), strict=True):
        (root / name).write_bytes(data)
    text = (root / "train.txt").read_text() + "train/bee/7.JPEG 1"  # no line end
    (root / "train.txt").write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    os.utime(root / "train.txt", ns=(10**18, 10**18))
    return root


def command(root: Path, **options: object) -> Exit:
    given = {"recipe": None, "quarantine": None, "restore": None, "json": None, "processes": 1}
    try:
        print(verify.command(argparse.Namespace(**(given | {"dir": root} | options))))
    except ProofrunError as error:
        return error.exit_code
    return Exit.OK


def process(root: Path, *flags: str | Path, fault: str = "") -> subprocess.CompletedProcess[str]:
    """The command itself, killed at `fault`."""
    return subprocess.run(
        [sys.executable, str(ROOT / "tools/dataset.py"), "verify", root, *flags],
        env={**os.environ, "PROOFRUN_TEST_FAULT": fault},
        capture_output=True,
        text=True,
    )


def test_bad_files_go_and_come_back(root, tmp_path, capsys):
    before = content(root)
    aside = tmp_path / "aside"
    assert command(root, quarantine=aside) is Exit.OK  # what is left is good
    assert "moved 3 files to" in capsys.readouterr().out
    assert {str(p.relative_to(aside / "files")) for p in (aside / "files").rglob("*.*")} == set(BAD)
    for name in BAD:
        assert (aside / "files" / name).read_bytes() == before[name][0]
    left = content(root)
    assert set(left) == set(before) - set(BAD)
    lines = before["train.txt"][0].splitlines(keepends=True)
    gone = (b"ant/1.", b"cow/3.", b"bee/7.")
    assert left["train.txt"][0] == b"".join(ln for ln in lines if not any(g in ln for g in gone))
    assert len(read_split(root, "train", 3).files) == 10 and (root / MANIFEST).exists()
    assert command(root, restore=aside) is Exit.OK
    assert content(root) == before
    assert command(root, restore=aside) is Exit.OK  # again: nothing left to do
    assert content(root) == before
    assert command(root) is Exit.LIST_MISSING_FILE


def test_the_first_line_of_a_list_may_go(root, tmp_path):
    (root / "train/ant/0.JPEG").write_bytes(b"")
    assert command(root, quarantine=tmp_path / "aside") is Exit.OK
    assert (root / "train.txt").read_bytes().startswith(b"\xef\xbb\xbftrain/ant/2.JPEG 0\r\n")


def test_a_tree_without_lists(root, tmp_path):
    for name in ("train.txt", "val.txt"):
        (root / name).unlink()
    before = content(root)
    assert command(root, quarantine=tmp_path / "aside") is Exit.OK
    assert len(content(root)) == len(before) - 3
    assert command(root, restore=tmp_path / "aside") is Exit.OK
    assert content(root) == before


def test_nothing_bad_moves_nothing(tmp_path):
    root = tree(tmp_path / "set")
    assert command(root, quarantine=tmp_path / "aside") is Exit.OK
    assert not (tmp_path / "aside").exists()


POINTS = ["quarantine_moved,file=0", "quarantine_moved,file=2", "quarantine_listed,list=0"]


@pytest.mark.parametrize("point", POINTS)
def test_killed_midway_it_is_undone_or_finished(root, tmp_path, point):
    before = content(root)
    aside = tmp_path / "aside"
    killed = process(root, "--quarantine", aside, fault=f"{point}:kill")
    assert killed.returncode == -signal.SIGKILL
    held = {p.name: p.read_bytes() for p in (aside / "files").rglob("*.*")}
    assert held and content(root) != before  # it was midway
    everything = {**{k: v[0] for k, v in content(root).items()}}
    everything |= {
        str(p.relative_to(aside / "files")): p.read_bytes() for p in (aside / "files").rglob("*.*")
    }
    assert set(everything) == set(before)  # each file is in one of the two places
    assert command(root, restore=aside) is Exit.OK
    assert content(root) == before

    other = tmp_path / "other"
    process(root, "--quarantine", other, fault=f"{point}:kill")
    assert command(root, quarantine=other) is Exit.OK  # the same command goes on
    assert set(content(root)) == set(before) - set(BAD)
    assert command(root, restore=other) is Exit.OK
    assert content(root) == before


def test_a_killed_restore_goes_on(root, tmp_path):
    before = content(root)
    command(root, quarantine=tmp_path / "aside")
    fault = "quarantine_restored,file=1:kill"
    assert process(root, "--restore", tmp_path / "aside", fault=fault).returncode == -9
    assert content(root) != before
    assert command(root, restore=tmp_path / "aside") is Exit.OK
    assert content(root) == before


def test_across_disks(root, tmp_path):
    """/dev/shm is another file system: copied, synced, then unlinked."""
    aside = Path("/dev/shm") / f"proofrun-test-{os.getpid()}"
    assert os.stat("/dev/shm").st_dev != os.stat(root).st_dev
    before = content(root)
    try:
        assert command(root, quarantine=aside) is Exit.OK
        assert (aside / "files" / BAD[1]).read_bytes() == b"<html>"
        assert command(root, restore=aside) is Exit.OK
        assert content(root) == before
    finally:
        subprocess.run(["rm", "-rf", str(aside)], check=True)


def test_what_is_refused(root, tmp_path):
    before = content(root)
    (tmp_path / "full").mkdir()
    (tmp_path / "full/thesis.tex").touch()
    assert command(root, quarantine=tmp_path / "full") is Exit.USAGE
    assert command(root, quarantine=root / "train/aside") is Exit.USAGE
    assert command(root, restore=tmp_path / "full") is Exit.USAGE
    (tmp_path / "file").touch()
    assert command(root, quarantine=tmp_path / "file" / "x") is Exit.CANNOT_WRITE
    assert content(root) == before
    aside = tmp_path / "aside"
    command(root, quarantine=aside)
    assert command(tree(tmp_path / "another"), restore=aside) is Exit.USAGE
    (root / BAD[0]).write_bytes(b"a new one")
    with pytest.raises(ProofrunError, match="is there again"):
        quarantine.restore(aside, root)
    (root / BAD[0]).unlink()
    with (root / "train.txt").open("a") as file:
        file.write("\n")
    with pytest.raises(ProofrunError, match="was edited since"):
        quarantine.restore(aside, root)


def interrupted(root: Path, aside: Path) -> None:
    killed = process(root, "--quarantine", aside, fault="quarantine_moved,file=0:kill")
    assert killed.returncode == -signal.SIGKILL


def test_an_interrupted_one_belongs_to_its_set(root, tmp_path):
    """Given with another set, nothing of that moves, and nothing that was moved is lost."""
    other = tree(tmp_path / "other")
    aside = tmp_path / "aside"
    interrupted(root, aside)
    before, moved = content(other), content(aside)
    with pytest.raises(ProofrunError, match=r"came from .*set, not from .*other") as caught:
        quarantine.finish(aside, other)
    assert caught.value.exit_code is Exit.USAGE
    assert command(other, quarantine=aside) is Exit.USAGE
    assert content(other) == before and content(aside) == moved


def test_what_was_repaired_meanwhile_stays(root, tmp_path):
    aside = tmp_path / "aside"
    interrupted(root, aside)
    good = (root / "train/ant/0.JPEG").read_bytes()
    (root / BAD[1]).write_bytes(good)
    with pytest.raises(ProofrunError, match=f"{BAD[1]}: is another file than when"):
        quarantine.finish(aside, root)
    assert (root / BAD[1]).read_bytes() == good and (root / BAD[2]).exists()
    assert command(root, restore=aside) is Exit.OK
    assert (root / BAD[0]).read_bytes() == b"" and (root / BAD[1]).read_bytes() == good


def test_no_move_goes_over_a_file(root, tmp_path):
    """What was moved and then made again is in both places: both stay."""
    aside = tmp_path / "aside"
    interrupted(root, aside)
    (root / BAD[0]).write_bytes(b"\xff\xd8 a new one, bad again")
    assert command(root, quarantine=aside) is Exit.USAGE
    assert (aside / "files" / BAD[0]).read_bytes() == b""
    assert (root / BAD[0]).read_bytes() == b"\xff\xd8 a new one, bad again"


def test_a_file_that_is_gone_is_named(root, tmp_path, capsys):
    aside = tmp_path / "aside"
    command(root, quarantine=aside)
    (aside / "files" / BAD[1]).unlink()
    for _ in range(2):
        with pytest.raises(
            ProofrunError, match=f"restored 2 files .* but {BAD[1]} is nei"
        ) as caught:
            quarantine.restore(aside, root)
        assert caught.value.exit_code is Exit.LIST_MISSING_FILE
    assert (root / BAD[0]).exists() and (root / BAD[2]).exists()


def test_two_are_restored_the_later_one_first(root, tmp_path):
    before = content(root)
    assert command(root, quarantine=tmp_path / "one") is Exit.OK
    (root / "train/ant/0.JPEG").write_bytes(b"")
    assert command(root, quarantine=tmp_path / "two") is Exit.OK
    with pytest.raises(ProofrunError, match="restore the later one first"):
        quarantine.restore(tmp_path / "one", root)
    assert command(root, restore=tmp_path / "two") is Exit.OK
    assert command(root, restore=tmp_path / "one") is Exit.OK
    after = content(root)
    del before["train/ant/0.JPEG"], after["train/ant/0.JPEG"]
    assert after == before
    with pytest.raises(ProofrunError, match="was used once and restored; give another"):
        quarantine.move(tmp_path / "one", root, quarantine.Bad(BAD, set()))


DAMAGED = {
    "leads away": lambda journal: journal | {"files": {"../../etc/passwd": ""}},
    "no root": lambda journal: {key: journal[key] for key in journal if key != "root"},
    "no state": lambda journal: {key: journal[key] for key in journal if key != "state"},
    "another state": lambda journal: journal | {"state": "dancing"},
    "a number": lambda journal: journal | {"files": {"a": 7}},
    "lists of words": lambda journal: journal | {"lists": {"train.txt": "word"}},
    "lists without hashes": lambda journal: journal | {"lists": {"train.txt": {}}},
    "a list": lambda journal: [journal],
    "null": lambda journal: None,
    "root is a number": lambda journal: journal | {"root": 7},
    "another schema": lambda journal: journal | {"schema": 3},
    "a nul": lambda journal: journal | {"files": {"a\0b": ""}},
}


@pytest.mark.parametrize("case", DAMAGED)
def test_damaged_journals(root, tmp_path, case):
    aside = tmp_path / "aside"
    command(root, quarantine=aside)
    before = content(root)
    journal = json.loads((aside / "journal.json").read_text())
    (aside / "journal.json").write_text(json.dumps(DAMAGED[case](journal)))
    assert command(root, restore=aside) is Exit.USAGE
    assert command(root, quarantine=aside) is Exit.USAGE
    assert content(root) == before


def test_a_journal_of_before_there_were_hashes(root, tmp_path):
    before = content(root)
    aside = tmp_path / "aside"
    command(root, quarantine=aside)
    journal = json.loads((aside / "journal.json").read_text())
    journal |= {"schema": 1, "files": list(journal["files"])}
    (aside / "journal.json").write_text(json.dumps(journal))
    assert command(root, restore=aside) is Exit.OK
    assert content(root) == before
