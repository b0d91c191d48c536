"""A set from any folder of classes: a split that everybody gets, and no file changed."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from images import natural

from proofrun.data.lists import check_images, list_hash, read_split
from proofrun.errors import Exit, ProofrunError
from tools._dataset import folder as module
from tools._dataset.split import validation_part

ROOT = Path(__file__).resolve().parent.parent
NAMES = ("Beagle", "a cat", "äpfel")


def tree(folder: Path) -> Path:
    """Three classes of 10, 20 and 5 images, with names as people give them."""
    for label, (name, count) in enumerate(zip(NAMES, (10, 20, 5), strict=True)):
        (folder / name).mkdir(parents=True)
        for index in range(count):
            suffix = (".jpg", ".JPEG", ".png")[index % 3]
            natural(20, 20 + label, index).save(folder / name / f"picture {index}{suffix}")
    return folder


@pytest.fixture
def src(tmp_path) -> Path:
    return tree(tmp_path / "src")


def lists(dst: Path) -> tuple[list[str], list[str]]:
    return read_split(dst, "train", 3).files, read_split(dst, "val", 3).files


def test_a_stratified_split(src, tmp_path):
    said = module.prepare(src, tmp_path / "set")
    assert "wrote 28 train, 7 val images of 3 classes" in said
    train, val = lists(tmp_path / "set")
    for images in (
        read_split(tmp_path / "set", "train", 3),
        read_split(tmp_path / "set", "val", 3),
    ):
        check_images(images, sample=None, decode=100)
        assert all(
            f.split("/")[1] == NAMES[y] for f, y in zip(images.files, images.labels, strict=True)
        )
    assert [sum(f"/{name}/" in file for file in val) for name in NAMES] == [2, 4, 1]
    names = {file.partition("/")[2] for file in train + val}
    assert names == {str(path.relative_to(src)) for path in src.glob("*/*")}
    for file in train + val:
        made = tmp_path / "set" / file
        assert made.read_bytes() == (src / file.partition("/")[2]).read_bytes()
        assert not made.is_symlink() and made.stat().st_nlink == 1
    assert (tmp_path / "set" / "classes.txt").read_text().splitlines() == list(NAMES)
    assert "is complete, nothing to do" in module.prepare(src, tmp_path / "set")


def test_the_split_is_a_matter_of_names_and_seed(src, tmp_path):
    module.prepare(src, tmp_path / "one")
    (src.parent / "elsewhere").mkdir()
    moved = shutil.copytree(src, src.parent / "elsewhere" / "else")
    module.prepare(moved, tmp_path / "two")
    assert lists(tmp_path / "one") == lists(tmp_path / "two")
    assert (tmp_path / "one" / "dataset.json").read_bytes() == (
        tmp_path / "two" / "dataset.json"
    ).read_bytes()
    module.prepare(src, tmp_path / "three", seed=1)
    assert lists(tmp_path / "one") != lists(tmp_path / "three")
    module.prepare(src, tmp_path / "half", val_fraction=0.5)
    train, val = lists(tmp_path / "half")
    assert (len(train), len(val)) == (17, 18)
    assert set(lists(tmp_path / "one")[1]) < set(val)  # a larger part holds the smaller one


def test_every_class_keeps_an_image_in_both_parts():
    rng = np.random.default_rng(0)
    for trial in range(50):
        counts = rng.integers(2, 30, size=rng.integers(1, 8))
        labels = np.repeat(np.arange(len(counts)), counts).tolist()
        want = int(rng.integers(0, len(labels) + 1))
        held = validation_part(labels, [str(i) for i in range(len(labels))], want, trial)
        inside = np.bincount([labels[i] for i in held], minlength=len(counts))
        assert (inside >= 1).all() and (inside < counts).all()
        share = counts * want / len(labels)
        assert (np.abs(inside - share.clip(1, counts - 1)) < 1).all()


@pytest.mark.parametrize("link", ["hard", "symbolic"])
def test_links(src, tmp_path, link):
    line = [sys.executable, ROOT / "tools" / "dataset.py", "prepare", "folder"]
    line += ["--src", src, "--dst", tmp_path / "set", "--link", link]
    done = subprocess.run(line, capture_output=True, text=True)
    assert done.returncode == 0 and "wrote 28 train, 7 val" in done.stdout, done.stderr
    module.prepare(src, tmp_path / "copies")
    for split in ("train", "val"):
        images = read_split(tmp_path / "set", split, 3)
        check_images(images, sample=None)
        assert list_hash(images) == list_hash(read_split(tmp_path / "copies", split, 3))
        for file in images.files:
            made, source = tmp_path / "set" / file, src / file.partition("/")[2]
            assert made.samefile(source) and made.is_symlink() == (link == "symbolic")


def test_hard_links_to_another_disk(src, tmp_path):
    shared = Path("/dev/shm")
    assert shared.stat().st_dev != tmp_path.stat().st_dev
    dst = shared / f"proofrun-test-{os.getpid()}"
    try:
        with pytest.raises(ProofrunError, match="take --link symbolic, or copy") as caught:
            module.prepare(src, dst, link="hard")
        assert caught.value.exit_code is Exit.CANNOT_WRITE and not dst.exists()
    finally:
        shutil.rmtree(dst.with_name(f".{dst.name}.partial"))


def test_a_source_that_goes_away_is_named(src, tmp_path):
    for link in ("copy", "hard"):
        with pytest.raises(ProofrunError, match=r"gone\.jpg: cannot be read") as caught:
            module._take([(src / "gone.jpg", tmp_path / "target.jpg", 5)], link)
        assert caught.value.exit_code is Exit.NO_DATA


def test_other_files_are_passed_over_and_said(src, tmp_path, capsys):
    (src / "readme.txt").write_text("x")
    (src / "a cat" / "Thumbs.db").write_text("x")
    (src / ".git").mkdir()
    module.prepare(src, tmp_path / "set")
    assert capsys.readouterr().err == f"{src}: 3 other files passed over, first .git\n"
    assert [len(files) for files in lists(tmp_path / "set")] == [28, 7]


def test_images_in_folders_within_a_class_are_counted(src, tmp_path, capsys):
    for name in ("holiday", "holiday/spain", "notes"):
        (src / "a cat" / name).mkdir()
    for index in range(300):
        (src / "a cat" / "holiday" / f"{index}.jpg").touch()
    (src / "a cat" / "holiday" / "spain" / "x.PNG").touch()
    module.prepare(src, tmp_path / "set")
    err = capsys.readouterr().err
    assert "1 other files passed over, first a cat/notes" in err
    assert "301 images passed over, in folders within class folders, first a cat/holiday: mo" in err


def loop(src: Path) -> None:
    (src / "a cat" / "loop.jpg").symlink_to("loop.jpg")


def lone(src: Path) -> None:
    (src / "lone").mkdir()
    natural(9, 9).save(src / "lone" / "a.png")


def latin(src: Path) -> None:
    with open(os.fsencode(src / "a cat") + b"/\xfcber.jpg", "wb") as file:
        natural(9, 9).save(file, "JPEG")


BAD = {
    "missing": (shutil.rmtree, "cannot be read (No such file or directory)", Exit.NO_DATA),
    "empty": (lambda s: [shutil.rmtree(p) for p in s.iterdir()], "has no images in class folders",
              Exit.NO_DATA),
    "no class folders": (lambda s: [[f.rename(s / f.name) for f in p.iterdir()] and p.rmdir()
                                    for p in list(s.iterdir())],
                         "has no images in class folders", Exit.NO_DATA),
    "a class of one": (lone, "lone: has 1 images, a split needs two", Exit.CLASS_COUNT),
    "an empty class": (lambda s: (s / "zebra").mkdir(), "zebra: has 0 images", Exit.CLASS_COUNT),
    "a link to itself": (loop, "Too many levels of symbolic links", Exit.NO_DATA),
    "a class that is the tree": (lambda s: (s / "loop").symlink_to(s), "loop: has 0 images",
                                 Exit.CLASS_COUNT),
    "a name not UTF-8": (latin, "the name is not UTF-8", Exit.BAD_LIST),
    "a class not UTF-8": (lambda s: os.mkdir(os.fsencode(s) + b"/\xfc"), "the name is not UTF-8",
                          Exit.BAD_LIST),
    "a line break": (lambda s: (s / "a cat" / "x\ny.jpg").write_bytes(b""),
                     "the name has a line break", Exit.BAD_LIST),
    "a space in front": (lambda s: (s / " cat").mkdir(), "starts or ends with a space",
                         Exit.BAD_LIST),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_trees(src, tmp_path, name):
    damage, why, code = BAD[name]
    damage(src)
    with pytest.raises(ProofrunError) as caught:
        module.prepare(src, tmp_path / "set")
    assert caught.value.exit_code is code and why in str(caught.value)
    assert set(os.listdir(tmp_path)) <= {"src"}


def test_bad_requests(src, tmp_path):
    for fraction in (0.0, 1.0, -1.0, float("nan")):
        with pytest.raises(ProofrunError, match="give a number between 0 and 1") as caught:
            module.prepare(src, tmp_path / "set", fraction)
        assert caught.value.exit_code is Exit.USAGE
    with pytest.raises(ProofrunError, match="lies in the folder it is made from"):
        module.prepare(src, src / "set")
    module.prepare(src, tmp_path / "set")
    for changes in ({"seed": 1}, {"val_fraction": 0.3}, {"link": "hard"}):
        with pytest.raises(ProofrunError, match="from other files or with other settings"):
            module.prepare(src, tmp_path / "set", **changes)
    (src / "a cat" / "picture 0.jpg").unlink()
    with pytest.raises(ProofrunError, match="from other files or with other settings"):
        module.prepare(src, tmp_path / "set")


def test_other_content_of_the_same_size_is_another_set(src, tmp_path):
    module.prepare(src, tmp_path / "set")
    path = src / "a cat" / "picture 0.jpg"
    data = bytearray(path.read_bytes())
    data[-30] ^= 1
    path.write_bytes(data)
    with pytest.raises(ProofrunError, match="from other files or with other settings"):
        module.prepare(src, tmp_path / "set")


def test_a_bad_image_is_said_each_time_and_may_go_to_quarantine(src, tmp_path):
    """As the source has it: prepare copies, verify judges, and both know the set again."""
    (src / "a cat" / "picture 1.JPEG").write_bytes(b"")
    said = module.prepare(src, tmp_path / "set")
    assert "wrote 28 train, 7 val" in said and "picture 1.JPEG: has 0 bytes" in said
    assert "--quarantine BAD` moves what is bad" in said
    said = module.prepare(src, tmp_path / "set")
    assert "is complete, nothing to do" in said and "picture 1.JPEG: has 0 bytes" in said
    before = (tmp_path / "set" / "dataset.json").read_bytes()
    line = [sys.executable, ROOT / "tools" / "dataset.py", "verify", tmp_path / "set"]
    done = subprocess.run([*line, "--quarantine", tmp_path / "bad"], capture_output=True, text=True)
    assert done.returncode == 0 and "moved 1 files" in done.stdout, done.stderr
    said = module.prepare(src, tmp_path / "set")
    assert "is complete, nothing to do" in said and "(1 more in quar" in said
    assert "has 0 bytes" not in said
    done = subprocess.run([*line, "--restore", tmp_path / "bad"], capture_output=True, text=True)
    assert done.returncode == 0 and "restored 1 files and 1 lists" in done.stdout, done.stderr
    assert (tmp_path / "set" / "dataset.json").read_bytes() == before


def test_an_unfinished_set_of_other_settings_is_begun_anew(src, tmp_path, monkeypatch, capsys):
    def stop(batch, link):
        take(batch[:5], link)
        raise KeyboardInterrupt

    take = module._take
    monkeypatch.setattr(module, "_take", stop)
    with pytest.raises(ProofrunError, match="the same command goes on"):
        module.prepare(src, tmp_path / "set", seed=7)
    monkeypatch.undo()
    assert len(list((tmp_path / ".set.partial").glob("*/*/*"))) == 5
    module.prepare(src, tmp_path / "set")
    assert "was begun from something else: begun anew" in capsys.readouterr().err
    module.prepare(src, tmp_path / "fresh")
    assert subprocess.run(["diff", "-r", tmp_path / "set", tmp_path / "fresh"]).returncode == 0


def test_a_file_that_is_cut_while_it_is_copied(src, tmp_path):
    """What a kill leaves: a short copy, which is made again."""
    out = io.BytesIO()
    natural(300, 300).save(out, "JPEG")
    (src / "a cat" / "picture 1.JPEG").write_bytes(out.getvalue())
    module.prepare(src, tmp_path / "whole")
    partial = tmp_path / ".set.partial"
    shutil.copytree(tmp_path / "whole", tmp_path / "set")
    (tmp_path / "set").rename(partial)
    (cut,) = partial.glob("*/a cat/picture 1.JPEG")
    os.truncate(cut, 100)
    (partial / ".unfinished.json").write_text(
        (tmp_path / "whole" / "dataset.json").read_text().partition('"archives"')[0]
        + '"archives": {}}'
    )
    assert "wrote 28 train, 7 val" in module.prepare(src, tmp_path / "set")
    assert subprocess.run(["diff", "-r", tmp_path / "set", tmp_path / "whole"]).returncode == 0
