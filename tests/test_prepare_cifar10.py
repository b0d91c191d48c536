"""CIFAR-10 from both archives: every pixel and label, and no pickle that does anything."""

from __future__ import annotations

import gzip
import hashlib
import os
import pickle
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from archives import CIFAR_NAMES, cifar10, python2, python3, tar
from PIL import Image

from proofrun.archive import DamagedError
from proofrun.data.lists import check_images, read_split
from proofrun.errors import ArchiveError, DataError, Exit, ProofrunError
from tools._dataset import cifar10 as module
from tools._dataset.batches import read_pickle
from tools._dataset.published import CIFAR10, Published

ROOT = Path(__file__).resolve().parent.parent
PYTHON, BINARY = CIFAR10


@pytest.fixture
def src(tmp_path) -> Path:
    cifar10(tmp_path / "src")
    return tmp_path / "src"


def prepare(src: Path, dst: Path) -> str:
    return module.prepare(src, dst, any_archives=True)


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != "dataset.json"
    }


def content(path: Path) -> dict[str, bytes]:
    with tarfile.open(path) as made:
        return {m.name: made.extractfile(m).read() for m in made if m.isfile()}  # type: ignore[union-attr]


def test_both_archives_give_every_pixel_and_label(tmp_path):
    batches = cifar10(tmp_path / "src", per_batch=30)
    said = prepare(tmp_path / "src" / PYTHON, tmp_path / "one")
    assert "wrote 150 train, 30 val images of 10 classes" in said
    assert f"not the published archives: {PYTHON}" in said
    assert f"not the published archives: {BINARY}" in prepare(
        tmp_path / "src" / BINARY, tmp_path / "two"
    )
    assert files(tmp_path / "one") == files(tmp_path / "two")
    assert len(files(tmp_path / "one")) == 180 + 3
    assert (tmp_path / "one" / "classes.txt").read_text().split() == list(CIFAR_NAMES)
    for split, word, names in (
        ("train", "train", [f"data_batch_{n}" for n in range(1, 6)]),
        ("val", "test", ["test_batch"]),
    ):
        images = read_split(tmp_path / "one", split, 10)
        check_images(images, sample=None, decode=1000)
        pixels = np.concatenate([batches[name][0] for name in names])
        labels = [label for name in names for label in batches[name][1]]
        for file, label in zip(images.files, images.labels.tolist(), strict=True):
            index = int(file.rpartition("_")[2].removesuffix(".png"))
            assert file == f"{split}/{CIFAR_NAMES[label]}/{word}_{index:05d}.png"
            assert labels[index] == label
            with Image.open(images.root / file) as image:
                assert (image.format, image.mode, image.size) == ("PNG", "RGB", (32, 32))
                planes = np.asarray(image).transpose(2, 0, 1).reshape(-1)
            assert np.array_equal(planes, pixels[index])


def test_published_order_is_the_sorted_order():
    """Who reads the tree without its lists gets the published labels."""
    assert list(module.CLASSES) == sorted(module.CLASSES) == list(CIFAR_NAMES)


def test_from_the_command_line(src, tmp_path):
    line = [sys.executable, ROOT / "tools" / "dataset.py", "prepare", "cifar10"]
    line += ["--dst", tmp_path / "set", "--src", src]
    done = subprocess.run(line, capture_output=True, text=True)
    assert done.returncode == Exit.BAD_ARCHIVE and done.stderr.count("\n") == 1
    assert f"the published one {CIFAR10[PYTHON].md5}; download it again" in done.stderr
    assert sorted(os.listdir(tmp_path)) == ["src"]
    done = subprocess.run([*line, "--any-archives"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    md5 = hashlib.md5((src / BINARY).read_bytes()).hexdigest()
    done = subprocess.run(line, capture_output=True, text=True)
    assert done.returncode == Exit.CANNOT_WRITE and "made with --any-archives" in done.stderr
    (src / PYTHON).unlink()  # the folder's other archive
    table = {PYTHON: CIFAR10[PYTHON], BINARY: Published(md5)}
    assert "not the published" not in module.prepare(src, tmp_path / "two", table=table)


def test_pickles_of_newer_pythons_are_read(tmp_path):
    cifar10(tmp_path / "old")
    cifar10(tmp_path / "new", dump=python3)
    prepare(tmp_path / "old", tmp_path / "one")
    prepare(tmp_path / "new", tmp_path / "two")
    assert files(tmp_path / "one") == files(tmp_path / "two")


class Evil:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_a_pickle_that_runs_something_is_refused(tmp_path):
    """Python's own reader would make the folder."""
    bad = tmp_path / "owned"
    for protocol in range(6):
        data = pickle.dumps({b"data": Evil(bad)}, protocol)
        with pytest.raises(DamagedError, match=r"asks for posix\.mkdir, which|it uses"):
            read_pickle(data)
        assert not bad.exists()
    cifar10(tmp_path / "src", dump=lambda batch: pickle.dumps({b"label_names": Evil(bad)}, 2))
    with pytest.raises(ArchiveError, match=r"it asks for posix\.mkdir"):
        prepare(tmp_path / "src" / PYTHON, tmp_path / "set")
    assert os.listdir(tmp_path) == ["src"]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x80\x02}",
        b"\x80\x02]q\x00.",  # no dictionary
        b"cbuiltins\neval\n(U\x031+1tR.",
        b"cnumpy\nload\n(U\x01xtR.",
        b"cnumpy.core.multiarray\nscalar\n(tR.",
        b"cos\nsystem\n(U\x04truetR.",
        python2({b"data": np.zeros((2, 2), np.uint8)}).replace(b"U\x02u1", b"U\x02f8"),
        python2({b"data": np.zeros((2, 2), np.uint8)}).replace(b"K\x00tb\x89", b"K\x00tb\x88"),
        python2({b"data": np.zeros((2, 2), np.uint8)}).replace(b"J\x02", b"J\x7f"),
        pickle.dumps({b"data": np.zeros((2, 2), np.float32)}, 2),
        pickle.dumps({b"data": np.array([Path("x")])}, 2),
        b"c_codecs\nencode\n(X\x01\x00\x00\x00xX\x03\x00\x00\x00zipt\x52.",
        b"\x80\x02\x8b\xff\xff\xff\x7f",  # a number of 2 GB
        b"\x80\x02}r\xff\xff\xff\x7f.",  # a table of 16 GB
    ],
)
def test_damaged_pickles(data):
    with pytest.raises(DamagedError, match="a batch"):
        read_pickle(data)


def test_any_cut_or_flipped_pickle_is_an_error_or_data():
    whole = python2({b"labels": [1, 2, 3], b"data": np.arange(12, dtype=np.uint8).reshape(3, 4)})
    assert read_pickle(whole)[b"labels"] == [1, 2, 3]
    rng = np.random.default_rng(0)
    for length in range(len(whole)):
        with pytest.raises(DamagedError):
            read_pickle(whole[:length])
    for _ in range(3000):
        data = bytearray(whole)
        data[rng.integers(len(data))] ^= 1 << rng.integers(8)
        try:
            found = read_pickle(bytes(data))
        except DamagedError:
            continue
        assert isinstance(found, dict)


def replaced(src: Path, name: str, part: str, change) -> Path:
    """The archive with one of its files changed (None: taken out)."""
    found = content(src / name)
    (full,) = (path for path in found if path.endswith(f"/{part}"))
    data = change(found[full])
    found |= {full: data or b""}
    if data is None:
        del found[full]
    (src / name).write_bytes(tar(list(found.items()), "w:gz"))
    return src / name


NAMES = b"U\x03cat"
BAD = {
    "no such file": (lambda s: s / "cifar.zip", "is not and does not hold", Exit.NO_DATA),
    "cut": (lambda s: shorten(s / PYTHON), "its end is missing", Exit.BAD_ARCHIVE),
    "no gzip": (lambda s: overwrite(s / BINARY, b"<html>404"), "no gzip file", Exit.BAD_ARCHIVE),
    "a bomb": (lambda s: overwrite(s / BINARY, gzip.compress(bytes(1 << 26))),
               "unpacks to more than 100 times its size", Exit.BAD_ARCHIVE),
    "two gzip members": (lambda s: overwrite(s / BINARY, (s / BINARY).read_bytes() * 2),
                         "something hidden behind its end", Exit.BAD_ARCHIVE),
    "many members": (lambda s: overwrite(s / BINARY, tar([(f"{n}", b"") for n in range(1001)],
                                                         "w:gz")), "more than 1000 files",
                     Exit.BAD_ARCHIVE),
    "a batch is missing": (lambda s: replaced(s, PYTHON, "data_batch_3", lambda _: None),
                           "has no data_batch_3", Exit.BAD_ARCHIVE),
    "a binary batch is missing": (lambda s: replaced(s, BINARY, "test_batch.bin", lambda _: None),
                                  "has no test_batch.bin", Exit.BAD_ARCHIVE),
    "a batch twice": (lambda s: overwrite(s / BINARY, tar(
        [*content(s / BINARY).items(), ("more/test_batch.bin", b"")], "w:gz")),
        "there twice, in two folders", Exit.BAD_ARCHIVE),
    "half an image": (lambda s: replaced(s, BINARY, "data_batch_2.bin", lambda d: d[:-7]),
                      "no whole number of images", Exit.BAD_ARCHIVE),
    "a label 10": (lambda s: replaced(s, BINARY, "data_batch_2.bin", lambda d: b"\n" + d[1:]),
                   "a label is outside", Exit.BAD_ARCHIVE),
    "other names": (lambda s: replaced(s, PYTHON, "batches.meta",
                                       lambda d: d.replace(NAMES, b"U\x03kat")),
                    "not those of CIFAR-10 in their order", Exit.BAD_ARCHIVE),
    "names of CIFAR-100": (lambda s: replaced(s, PYTHON, "batches.meta",
                                              lambda d: d.replace(b"label_names", b"coarse_name")),
                           "has no list of class names", Exit.BAD_ARCHIVE),
    "labels and pixels differ": (lambda s: replaced(s, PYTHON, "data_batch_1", lambda _: python2(
        {b"labels": [1] * 19, b"data": np.zeros((20, 3072), np.uint8)})),
        "19 labels and pixels of shape", Exit.BAD_ARCHIVE),
    "labels are texts": (lambda s: replaced(s, PYTHON, "data_batch_1", lambda _: python2(
        {b"labels": [b"x"], b"data": np.zeros((1, 3072), np.uint8)})),
        "a label is outside", Exit.BAD_ARCHIVE),
    "no images of a class": (lambda s: replaced(s, BINARY, "test_batch.bin",
                                                lambda d: d[:3073] * 10),
                             "the val images have none of", Exit.BAD_ARCHIVE),
}  # fmt: skip


def shorten(path: Path) -> Path:
    os.truncate(path, path.stat().st_size // 2)
    return path


def overwrite(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("name", BAD)
def test_bad_archives(src, tmp_path, name):
    damage, why, code = BAD[name]
    path = damage(src)
    with pytest.raises(ProofrunError, match=why) as caught:
        prepare(path, tmp_path / "set")
    assert caught.value.exit_code is code and "\n" not in str(caught.value)
    assert not (tmp_path / "set").exists()


def test_a_folder_without_archives(tmp_path):
    with pytest.raises(DataError, match=f"does not hold {PYTHON} or {BINARY}; give it as --src"):
        prepare(tmp_path, tmp_path / "set")


def test_other_sets_are_not_taken_for_this_one(src, digits, tmp_path):
    shutil.copytree(digits, tmp_path / "set")
    with pytest.raises(ProofrunError, match="it is a digits set") as caught:
        prepare(src, tmp_path / "set")
    assert caught.value.exit_code is Exit.CANNOT_WRITE
