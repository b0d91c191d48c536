"""Bad files go aside and come back byte for byte, whenever the process is killed."""

from __future__ import annotations

import argparse
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
    journal = (aside / "journal.json").read_text()
    (aside / "journal.json").write_text(journal.replace(BAD[0], "../../etc/passwd"))
    with pytest.raises(ProofrunError, match="is no journal"):
        quarantine.restore(aside, root)
