"""ImageNet from its archives: the right tree from right ones, one line and no harm from others."""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import os
import pty
import re
import shutil
import subprocess
import sys
import tarfile
from contextlib import suppress
from pathlib import Path

import archives
import numpy as np
import pytest
from archives import ilsvrc, info, tar, wnids
from scipy.io import loadmat, savemat
from small_disk import small_disk

from proofrun.data.lists import check_images, list_hash, read_split
from proofrun.errors import ArchiveError, DataError, Exit, ProofrunError, WriteError
from tools._dataset import imagenet
from tools._dataset.published import IMAGENET, Published

ROOT = Path(__file__).resolve().parent.parent
DEVKIT, VAL, TRAIN = IMAGENET


def tool(*args: str | Path) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, ROOT / "tools" / "dataset.py", "prepare", "imagenet", *args]
    return subprocess.run(line, capture_output=True, text=True)


def prepare(src: Path, dst: Path) -> str:
    return imagenet.prepare(src, dst, any_archives=True)


def published(src: Path) -> dict[str, Published]:
    """A table in which the archives of a test are the published ones."""
    return {
        name: Published(hashlib.md5((src / name).read_bytes()).hexdigest(), None)
        for name in IMAGENET
    }


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("ilsvrc")
    ilsvrc(folder, classes=5, per_class=70, val_per_class=3)
    return folder


@pytest.fixture
def src(whole, tmp_path) -> Path:
    """The archives, to damage."""
    return shutil.copytree(whole, tmp_path / "src")


def equal(one: Path, two: Path) -> bool:
    return subprocess.run(["diff", "-r", one, two]).returncode == 0


def rewrite_devkit(src: Path, name: str, data: bytes | None) -> None:
    """Put `data` in the place of a file of the devkit, or take the file out."""
    with tarfile.open(src / DEVKIT) as made:
        files = {m.name: made.extractfile(m).read() for m in made if m.isfile()}  # type: ignore[union-attr]
    (full,) = (path for path in files if path.endswith(name))
    files |= {full: data or b""}
    if data is None:
        del files[full]
    (src / DEVKIT).write_bytes(tar(list(files.items()), "w:gz"))


def test_the_tree_is_that_of_the_archives(tmp_path):
    src, dst = tmp_path / "src", tmp_path / "set"
    truth = ilsvrc(src, classes=5, per_class=6, val_per_class=3)
    said = prepare(src, dst)
    assert said.startswith(f"{dst}: wrote 30 train, 15 val images of 5 classes, lists ")
    assert "not the published archives: " in said and DEVKIT in said
    names = wnids(5)
    for split, count in (("train", 30), ("val", 15)):
        images = read_split(dst, split, 5)
        check_images(images, sample=None)
        assert len(images.files) == count
        for file, label in zip(images.files, images.labels.tolist(), strict=True):
            assert file.split("/")[1] == names[label]
        (tmp_path / "tree").mkdir(exist_ok=True)
        (tmp_path / "tree" / split).symlink_to(dst / split)
        assert list_hash(read_split(tmp_path / "tree", split, 5)) == list_hash(images)
    with tarfile.open(src / TRAIN) as outer:
        for inner in outer:
            with tarfile.open(fileobj=outer.extractfile(inner)) as members:
                for member in members:
                    path = dst / "train" / inner.name.removesuffix(".tar") / member.name
                    assert path.read_bytes() == members.extractfile(member).read()
    with tarfile.open(src / VAL) as members:
        for wnid, member in zip(truth, members, strict=True):
            path = dst / "val" / wnid / member.name
            assert path.read_bytes() == members.extractfile(member).read()
    files = [path for path in dst.rglob("*") if path.is_file()]
    assert len(files) == 45 + 4
    lines = (dst / "classes.txt").read_text().splitlines()
    assert [line.split()[0] for line in lines] == names
    assert all(line.split(" ", 1)[1].endswith(f", a {line.split()[0]}") for line in lines)
    record = json.loads((dst / "dataset.json").read_text())
    md5 = hashlib.md5((src / TRAIN).read_bytes()).hexdigest()
    assert record["archives"][TRAIN] == {
        "bytes": (src / TRAIN).stat().st_size, "md5": md5, "published": False,
        "mtime_ns": (src / TRAIN).stat().st_mtime_ns,
    }  # fmt: skip
    assert record["images"] == {"train": 30, "val": 15} and record["classes"] == 5
    before = {path: path.stat().st_mtime_ns for path in dst.rglob("*")}
    assert "is complete, nothing to do: 30 train" in prepare(src, dst)
    assert {path: path.stat().st_mtime_ns for path in dst.rglob("*")} == before


def test_published_checksums_are_compared(src, tmp_path):
    table = published(src)
    said = imagenet.prepare(src, tmp_path / "set", table=table)
    assert "not the published" not in said
    record = json.loads((tmp_path / "set" / "dataset.json").read_text())
    assert all(archive["published"] for archive in record["archives"].values())
    for name in IMAGENET:
        wrong = table | {name: Published("0" * 32)}
        with pytest.raises(
            ArchiveError, match=f"{name}: has the MD5 .*, the published one 0000"
        ) as e:
            imagenet.prepare(src, tmp_path / "other", table=wrong)
        kept = str(e.value).endswith(f"; what was made so far is in {tmp_path}/.other.partial")
        assert kept == (tmp_path / ".other.partial").exists() == (name != DEVKIT)
        assert not (tmp_path / "other").exists()
    # what was made is not lost: on purpose, the same work becomes a set
    kept = tmp_path / ".other.partial" / "train"
    before = {path: path.stat().st_ino for path in kept.rglob("*.JPEG")}
    assert "not the published archives" in prepare(src, tmp_path / "other")
    assert len(before) >= 128  # the batches that were waited for
    assert all((tmp_path / "other" / "train" / p.relative_to(kept)).stat().st_ino == ino
               for p, ino in before.items())  # fmt: skip


def test_a_set_from_other_archives_is_not_complete(src, tmp_path, capsys):
    """Same names and sizes: told by time, or else by MD5."""
    prepare(src, tmp_path / "set")
    os.utime(src / TRAIN)  # a copy of it: read again
    assert "is complete" in prepare(src, tmp_path / "set")
    assert "hashed, since it has not the time" in capsys.readouterr().err
    data = bytearray((src / TRAIN).read_bytes())
    data[3000] ^= 1
    (src / TRAIN).write_bytes(data)
    with pytest.raises(WriteError, match=f"it was made from another {TRAIN}"):
        prepare(src, tmp_path / "set")


def test_a_set_of_any_archives_is_not_the_published_one(src, tmp_path):
    prepare(src, tmp_path / "set")
    with pytest.raises(WriteError, match="was made with --any-archives, which was not given"):
        imagenet.prepare(src, tmp_path / "set", table={n: Published("0" * 32) for n in IMAGENET})
    assert "is complete" in prepare(src, tmp_path / "set")


def test_from_the_command_line(src, tmp_path):
    done = tool("--src", src, "--dst", tmp_path / "set")
    assert done.returncode == Exit.BAD_ARCHIVE and done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert "the published one 6,744,924,160; download it again, or" in done.stderr
    assert not (tmp_path / "set").exists()
    done = tool("--src", src, "--dst", tmp_path / "set", "--any-archives")
    assert (done.returncode, done.stderr) == (0, "")
    assert "wrote 350 train, 15 val images of 5 classes" in done.stdout


def test_a_terminal_has_a_bar_with_the_time_left(src, tmp_path):
    ours, theirs = pty.openpty()
    line = [sys.executable, ROOT / "tools" / "dataset.py", "prepare", "imagenet", "--any-archives"]
    line += ["--src", src, "--dst", tmp_path / "set"]
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "100"}
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=theirs, env=environment) as process:
        os.close(theirs)
        shown = b""
        with suppress(OSError):  # EIO: the other end is closed
            while data := os.read(ours, 1 << 16):
                shown += data
        out = process.communicate()[0]
    os.close(ours)
    assert process.returncode == 0 and b"wrote 350 train" in out
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode())
    assert "ImageNet" in text and "365 images" in text and "img/s  left 0:00:0" in text
    assert "100 %" in text


def test_a_complete_set_on_a_read_only_disk_is_left_as_it_is(src, tmp_path):
    with small_disk(tmp_path / "disk", "size=16m") as disk:
        line = [sys.executable, ROOT / "tools" / "dataset.py", "prepare", "imagenet"]
        line += ["--any-archives", "--src", src, "--dst", disk.folder / "set"]
        for expected in ("wrote 350 train", "is complete, nothing to do: 350 train"):
            done = subprocess.run(disk.command(*line), capture_output=True, text=True)
            assert done.returncode == 0 and expected in done.stdout, done.stderr
            disk.resize("ro")


def cut(src: Path, name: str, keep: float) -> None:
    os.truncate(src / name, int((src / name).stat().st_size * keep))


def swap_train(src: Path, **members: bytes) -> None:
    """The train archive with other or further members."""
    with tarfile.open(src / TRAIN) as outer:
        files = {m.name: outer.extractfile(m).read() for m in outer}  # type: ignore[union-attr]
    files |= {f"{name}.tar": data for name, data in members.items()}
    (src / TRAIN).write_bytes(tar([item for item in files.items() if item[1]]))


def twice(src: Path) -> None:
    data = (src / VAL).read_bytes()
    first = 512 + (int(data[124:135], 8) + 511) // 512 * 512
    (src / VAL).write_bytes(data[:first] + data)


def meta(src: Path, **changes: object) -> None:
    """Change the first class in meta.mat."""
    with tarfile.open(src / DEVKIT) as made:
        (member,) = (m for m in made if m.name.endswith("meta.mat"))
        synsets = loadmat(io.BytesIO(made.extractfile(member).read()))["synsets"]  # type: ignore[union-attr]
    for key, value in changes.items():
        synsets[0, 0][key] = value
    out = io.BytesIO()
    savemat(out, {"synsets": synsets})
    rewrite_devkit(src, "meta.mat", out.getvalue())


def bomb(src: Path) -> None:
    """25 kB that scipy would make 25 MB of."""
    out = io.BytesIO()
    savemat(out, {"synsets": np.zeros(3 << 20)}, do_compression=True)
    rewrite_devkit(src, "meta.mat", out.getvalue())


W0, W4 = wnids(5)[0], wnids(5)[4]
BAD = {
    "devkit missing": (lambda s: (s / DEVKIT).unlink(), "No such file", Exit.NO_DATA),
    "devkit cut": (lambda s: cut(s, DEVKIT, 0.5), "its end is missing", Exit.BAD_ARCHIVE),
    "devkit no gzip": (lambda s: (s / DEVKIT).write_bytes(b"<html>404"), "no gzip file",
                       Exit.BAD_ARCHIVE),
    "devkit without truth": (lambda s: rewrite_devkit(s, "truth.txt", None), "has no data/ILSVRC",
                             Exit.BAD_ARCHIVE),
    "truth of another kit": (lambda s: rewrite_devkit(s, "truth.txt", b"1\n77\n"),
                             "77 is no class of", Exit.BAD_ARCHIVE),
    "truth without a class": (lambda s: rewrite_devkit(s, "truth.txt", b"1\n2\n"),
                              "has no image of", Exit.BAD_ARCHIVE),
    "meta.mat damaged": (lambda s: rewrite_devkit(s, "meta.mat", b"MATLAB 5.0 MAT-file" * 20),
                         "meta.mat: cannot be read", Exit.BAD_ARCHIVE),
    "meta.mat leads away": (lambda s: meta(s, WNID="../../../evil"), "only in the devkit",
                            Exit.CLASS_COUNT),
    "meta.mat twice": (lambda s: meta(s, ILSVRC2012_ID=2.0), "one of them twice",
                       Exit.BAD_ARCHIVE),
    "meta.mat words": (lambda s: meta(s, words="a\nb"), "unprintable words", Exit.BAD_ARCHIVE),
    "train cut in the middle": (lambda s: cut(s, TRAIN, 0.5), "its end is missing",
                                Exit.BAD_ARCHIVE),
    "train cut before its end": (lambda s: cut(s, TRAIN, 0.98), "its end is missing",
                                 Exit.BAD_ARCHIVE),
    "val cut": (lambda s: cut(s, VAL, 0.7), "its end is missing", Exit.BAD_ARCHIVE),
    "train is a folder": (lambda s: ((s / TRAIN).unlink(), (s / TRAIN).mkdir()),
                          "is no regular file", Exit.NO_DATA),
    "train is a pipe": (lambda s: ((s / TRAIN).unlink(), os.mkfifo(s / TRAIN)),
                        "is no regular file", Exit.NO_DATA),
    "meta.mat is a bomb": (bomb, "meta.mat: unpacks to more than 16 MiB", Exit.BAD_ARCHIVE),
    "val empty": (lambda s: cut(s, VAL, 0.0), "its end is missing", Exit.BAD_ARCHIVE),
    "inner archive cut": (lambda s: swap_train(s, **{W4: tar([("a.JPEG", b"x" * 9999)])[:4096]}),
                          f"{W4}.tar: 'a.JPEG': its end is missing", Exit.BAD_ARCHIVE),
    "inner archive leads away": (lambda s: swap_train(s, **{W4: tar([("../a.JPEG", b"x")])}),
                                 f"{W4}.tar: '../a.JPEG': leads out", Exit.BAD_ARCHIVE),
    "inner archive has a folder": (lambda s: swap_train(s, **{W4: tar([("x/a.JPEG", b"x")])}),
                                   "is not named like an image", Exit.BAD_ARCHIVE),
    "inner archive has a script": (lambda s: swap_train(s, **{W4: tar([("a.sh", b"x")])}),
                                   "is not named like an image", Exit.BAD_ARCHIVE),
    "class without images": (lambda s: swap_train(s, **{W4: tar([])}), f"{W4}.tar has no images",
                             Exit.CLASS_COUNT),
    "train is no tar of tars": (lambda s: shutil.copy(s / VAL, s / TRAIN),
                                "is not named like a class", Exit.BAD_ARCHIVE),
    "val is the train archive": (lambda s: shutil.copy(s / TRAIN, s / VAL),
                                 "the ground truth has no such image", Exit.BAD_ARCHIVE),
    "an image twice": (twice, "there twice", Exit.BAD_ARCHIVE),
    "one class less": (lambda s: swap_train(s, **{W0: b""}), "has 4 classes, its devkit 5",
                       Exit.CLASS_COUNT),
    "one class more": (lambda s: swap_train(s, n99999999=tar([("a.JPEG", b"x")])),
                       "has 6 classes, its devkit 5", Exit.CLASS_COUNT),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_archives(src, tmp_path, name):
    damage, why, code = BAD[name]
    damage(src)
    before = {path: path.read_bytes() for path in src.iterdir() if path.is_file()}
    with pytest.raises(ProofrunError, match=why) as caught:
        prepare(src, tmp_path / "set")
    assert caught.value.exit_code is code
    assert "\n" not in str(caught.value) and str(src) in str(caught.value)
    assert {p: p.read_bytes() for p in src.iterdir() if p.is_file()} == before
    assert sorted(set(os.listdir(tmp_path)) - {".set.partial"}) == ["src"]


@pytest.mark.parametrize("classes", [999, 1001])
def test_999_and_1001_classes(tmp_path, classes):
    """Against the devkit of 1000, and without a file made."""
    same = itertools.repeat(next(archives.small_jpegs()))
    ilsvrc(tmp_path / "src", classes, 1, 1, same)
    archives.devkit(tmp_path / "src" / DEVKIT, 1000, 1)
    with pytest.raises(DataError, match=f"has {classes} classes, its devkit 1000") as caught:
        prepare(tmp_path / "src", tmp_path / "set")
    assert caught.value.exit_code is Exit.CLASS_COUNT
    assert os.listdir(tmp_path) == ["src"]


def test_validation_images_missing(src, tmp_path):
    with tarfile.open(src / VAL) as members:
        files = [(m.name, members.extractfile(m).read()) for m in members]  # type: ignore[union-attr]
    (src / VAL).write_bytes(tar(files[:-1]))
    with pytest.raises(ArchiveError, match="has 14 images, the ground truth 15"):
        prepare(src, tmp_path / "set")
    # the whole archive in its place: the other one's work is not used, and that is said
    (src / VAL).write_bytes(tar(files))
    assert "wrote 350 train, 15 val" in prepare(src, tmp_path / "set")


def test_places_that_are_refused(src, whole, tmp_path):
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "thesis.tex").write_text("years of work")
    with pytest.raises(WriteError, match="is there already and is not a complete ImageNet set"):
        prepare(src, taken)
    assert (taken / "thesis.tex").read_text() == "years of work"
    partial = tmp_path / ".set.partial"
    partial.mkdir()
    (partial / "mine").write_text("x")
    with pytest.raises(WriteError, match="no unfinished data set of ours, and in the way"):
        prepare(src, tmp_path / "set")
    assert os.listdir(partial) == ["mine"]
    (tmp_path / "victim").mkdir()
    (tmp_path / ".planted.partial").symlink_to(tmp_path / "victim")
    with pytest.raises(WriteError, match=r"planted.partial: is a link, and in the way"):
        prepare(src, tmp_path / "planted")
    assert os.listdir(tmp_path / "victim") == []
    (tmp_path / ".planted.partial").unlink()
    (tmp_path / ".planted.partial").touch()
    with pytest.raises(WriteError, match="planted: cannot be written"):
        prepare(src, tmp_path / "planted")
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    assert f"{tmp_path / 'elsewhere'}: wrote 350 train" in prepare(src, tmp_path / "link")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "link" / "train.txt").exists()
    victim = next((tmp_path / "elsewhere" / "val" / W0).iterdir())
    victim.unlink()
    with pytest.raises(WriteError, match=f"not a complete ImageNet set .*{victim.name}"):
        prepare(src, tmp_path / "elsewhere")


def test_a_mount_point_and_a_full_disk_are_seen_first(src, tmp_path):
    with small_disk(tmp_path / "disk", "size=200k") as disk:
        line = [sys.executable, ROOT / "tools" / "dataset.py", "prepare", "imagenet"]
        line += ["--any-archives", "--src", src, "--dst"]
        done = subprocess.run(disk.command(*line, disk.folder), capture_output=True, text=True)
        assert done.returncode == Exit.CANNOT_WRITE and "is a mount point" in done.stderr
        done = subprocess.run(
            disk.command(*line, disk.folder / "set"), capture_output=True, text=True
        )
        assert done.returncode == Exit.CANNOT_WRITE and done.stderr.count("\n") == 1
        needs, free = re.findall(r"([0-9.]+) MB", done.stderr)
        assert float(needs) > 2 * float(free) == pytest.approx(0.4, abs=0.1)
        assert list(disk.outside.iterdir()) == []


def test_archives_are_read_once_and_changes_are_seen(src, tmp_path, monkeypatch):
    reads = 0
    whole_size = (src / TRAIN).stat().st_size
    preadv = os.preadv

    def counting(fd, buffers, offset):
        nonlocal reads
        count = preadv(fd, buffers, offset)
        if os.readlink(f"/proc/self/fd/{fd}") == str(src / TRAIN):
            reads += count
        return count

    monkeypatch.setattr(os, "preadv", counting)
    prepare(src, tmp_path / "set")
    assert reads == whole_size
    found = imagenet._val_images

    def touching(source, kit):
        yield from found(source, kit)
        os.utime(src / TRAIN)

    monkeypatch.setattr(imagenet, "_val_images", touching)
    with pytest.raises(ArchiveError, match="changed while it was read"):
        prepare(src, tmp_path / "other")


def test_an_extra_header_in_the_val_archive(src, tmp_path):
    """A link beside good images: refused as a whole."""
    with tarfile.open(src / VAL, "a") as made:
        link = info("ILSVRC2012_val_00000016.JPEG", 0, tarfile.SYMTYPE)
        link.linkname = "/etc/passwd"
        made.addfile(link)
    with pytest.raises(ArchiveError, match="a symbolic link"):
        prepare(src, tmp_path / "set")
    assert not [path for path in tmp_path.rglob("*") if path.is_symlink()]
