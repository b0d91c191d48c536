"""The embedded data set: its content, and that nothing half-made or foreign takes its place."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from proofrun.data.fingerprint import MANIFEST
from proofrun.data.lists import check_images, list_hash, read_split
from proofrun.errors import Exit, ProofrunError, WriteError
from tools._dataset import digits as module

ROOT = Path(__file__).resolve().parent.parent


def tool(*args: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, ROOT / "tools" / "dataset.py", *args],
        capture_output=True,
        text=True,
        cwd=cwd,
    )


def listing(folder: Path) -> dict[str, tuple[int, int]]:
    return {
        str(p.relative_to(folder)): (p.stat().st_mtime_ns, p.stat().st_size)
        for p in folder.rglob("*")
    }


def test_content(digits):
    train, val = read_split(digits, "train", 10), read_split(digits, "val", 10)
    assert (len(train.files), len(val.files)) == (1437, 360)
    for images in (train, val):
        check_images(images, sample=None)
        assert all(f"/digit_{y}/" in f for f, y in zip(images.files, images.labels, strict=True))
    share = np.bincount(val.labels) / np.bincount(np.concatenate([train.labels, val.labels]))
    assert np.abs(share - 360 / 1797).max() < 0.004  # stratified
    assert not {Path(f).name for f in train.files} & {Path(f).name for f in val.files}
    assert (digits / "classes.txt").read_text().split() == [f"digit_{i}" for i in range(10)]
    with Image.open(train.path(0)) as image:
        assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (96, 96))
        assert np.asarray(image).std() > 20
    # The split is part of the data set: a result is comparable only on the same one.
    assert list_hash(train).startswith("22f71cd98e78")
    assert list_hash(val).startswith("9d16ef69133e")
    assert (digits / "train").stat().st_mode == digits.stat().st_mode  # as the umask says


def test_tree_without_lists_is_the_same_set(digits, tmp_path):
    for split in ("train", "val"):
        (tmp_path / split).symlink_to(digits / split)
        tree = read_split(tmp_path, split, 10)
        assert list_hash(tree) == list_hash(read_split(digits, split, 10))


def test_complete_set_is_left_alone(digits, tmp_path):
    before = listing(digits)
    again = tool("prepare", "digits", "--dst", os.path.relpath(digits, tmp_path), cwd=tmp_path)
    assert again.returncode == 0 and again.stderr == ""
    assert "is complete, nothing to do: 1437 train, 360 val" in again.stdout
    assert listing(digits) == before


@pytest.mark.parametrize("damage", ["list", "image", "empty image", "short list"])
def test_incomplete_set_is_refused(digits, tmp_path, damage):
    dst = tmp_path / "digits"
    subprocess.run(["cp", "-r", digits, dst], check=True)
    victim = next((dst / "val" / "digit_3").iterdir())
    if damage == "list":
        (dst / "val.txt").write_text("")
    elif damage == "image":
        victim.unlink()
    elif damage == "empty image":
        victim.write_bytes(b"")
    else:
        lines = (dst / "train.txt").read_text().splitlines(keepends=True)
        (dst / "train.txt").write_text("".join(lines[:-1]))
    before = listing(dst)
    with pytest.raises(WriteError, match="is not a complete digits set") as caught:
        module.prepare(dst)
    assert caught.value.exit_code is Exit.CANNOT_WRITE
    assert listing(dst) == before


def test_foreign_folder_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    done = tool("prepare", "digits", "--dst", tmp_path, cwd=tmp_path)
    assert done.returncode == Exit.CANNOT_WRITE and done.stdout == ""
    assert done.stderr.count("\n") == 1 and "give another --dst" in done.stderr
    assert os.listdir(tmp_path) == ["thesis.tex"]


def test_file_in_its_place_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(WriteError, match="is there already"):
        module.prepare(tmp_path / "file")
    with pytest.raises(WriteError, match="cannot be written"):
        module.prepare(tmp_path / "file" / "digits")


def same(one: Path, two: Path) -> bool:
    """Whether both are one set; a run may have left its manifest in the shared one."""
    return subprocess.run(["diff", "-r", "-x", MANIFEST, one, two]).returncode == 0


def test_empty_folder_is_filled_and_equal(digits, tmp_path):
    (tmp_path / "new").mkdir()
    assert "wrote 1437 train" in module.prepare(tmp_path / "new")
    assert os.listdir(tmp_path) == ["new"]
    assert same(digits, tmp_path / "new")


def test_stopped_halfway_goes_on(digits, tmp_path, monkeypatch):
    made = Counter()
    draw = module._picture

    def fail_later(shades):
        made["images"] += 1
        if made["images"] == 300:
            raise KeyboardInterrupt
        return draw(shades)

    monkeypatch.setattr(module, "_picture", fail_later)
    with pytest.raises(ProofrunError, match="the same command goes on") as caught:
        module.prepare(tmp_path / "digits")
    assert caught.value.exit_code is Exit.INTERRUPTED
    assert os.listdir(tmp_path) == [".digits.partial"]
    assert "wrote 1437 train" in module.prepare(tmp_path / "digits")
    assert os.listdir(tmp_path) == ["digits"]
    assert same(digits, tmp_path / "digits")


def test_two_at_once_make_one(digits, tmp_path):
    line = [sys.executable, ROOT / "tools" / "dataset.py", "prepare", "digits", "--dst", "digits"]
    both = [
        subprocess.Popen(line, stdout=subprocess.PIPE, text=True, cwd=tmp_path) for _ in range(2)
    ]
    said = sorted(process.communicate()[0].split("digits: ")[1].split()[0] for process in both)
    assert said == ["is", "wrote"] and [process.returncode for process in both] == [0, 0]
    assert os.listdir(tmp_path) == ["digits"]
    assert same(digits, tmp_path / "digits")


def test_a_set_from_before_there_were_records_is_complete(digits, tmp_path):
    shutil.copytree(digits, tmp_path / "digits")
    (tmp_path / "digits" / "dataset.json").unlink()
    assert "is complete, nothing to do: 1437 train, 360 val" in module.prepare(tmp_path / "digits")


def test_without_scikit_learn(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ProofrunError, match="scikit-learn") as caught:
        module.prepare(tmp_path / "digits")
    assert caught.value.exit_code is Exit.NOT_INSTALLED
    assert os.listdir(tmp_path) == []


def test_usage():
    done = tool("prepare", cwd=ROOT)
    assert done.returncode == Exit.USAGE and "digits" in done.stderr
