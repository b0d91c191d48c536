"""Data sets at the size of the real ones, killed many times; and what each bad input prints."""

from __future__ import annotations

import contextlib
import itertools
import resource
import shutil
import subprocess
import sys
import time

import archives
import pytest
import test_prepare_cifar10
import test_prepare_folder
import test_prepare_imagenet
from test_prepare_resume import images, killed_at_random, src, undisturbed  # noqa: F401

from proofrun.data.lists import check_images, list_hash, read_split

from .helpers import ROOT, shell

TOOL = [sys.executable, ROOT / "tools" / "dataset.py", "prepare"]


def test_killed_25_times(src, undisturbed, tmp_path, evidence):  # noqa: F811
    hits = 0
    for seed in range(5):
        folder = tmp_path / str(seed)
        folder.mkdir()
        hits += killed_at_random(src, folder / "set", undisturbed, kills=5, seed=seed)
        shutil.rmtree(folder)
    evidence.figure("kill -9 of `prepare imagenet`", "25, in 5 sets", "")
    evidence.figure("of these amid a file, or between its making and its filling", str(hits), "")
    evidence.figure("trees that differ from an undisturbed one", "0", "0")


def test_a_thousand_classes(tmp_path, evidence):
    """The tree that tar unpacks, with the labels of the ground truth."""
    pictures = itertools.cycle(list(itertools.islice(archives.small_jpegs(), 500)))
    truth = archives.ilsvrc(tmp_path / "src", 1000, 26, 5, pictures)
    start = time.monotonic()
    shell([*TOOL, "imagenet", "--any-archives", "--src", tmp_path / "src", "--dst", tmp_path / "x"])
    seconds = time.monotonic() - start
    inner = 'mkdir "${TAR_FILENAME%.tar}" && tar -xf - -C "${TAR_FILENAME%.tar}"'
    for name in ("train", "val"):
        (tmp_path / "tar" / name).mkdir(parents=True)
        line = ["tar", "-xf", tmp_path / f"src/ILSVRC2012_img_{name}.tar"]
        line += [f"--to-command={inner}"] if name == "train" else []
        shell(line, cwd=tmp_path / "tar" / name)
    shell(["diff", "-r", tmp_path / "x" / "train", tmp_path / "tar" / "train"])
    wnids = archives.wnids(1000)
    val = read_split(tmp_path / "x", "val", 1000)
    for file, label in zip(val.files, val.labels.tolist(), strict=True):
        number = int(file[-13:-5])
        assert truth[number - 1] == wnids[label] == file.split("/")[1]
        plain = tmp_path / "tar" / "val" / file.rpartition("/")[2]
        assert plain.read_bytes() == val.root.joinpath(file).read_bytes()
    assert len(read_split(tmp_path / "x", "train", 1000).files) == 26_000 and len(val.files) == 5000
    evidence.figure("1000 classes, 31,000 small images", f"{seconds:.1f} s", "")


def test_cifar10_at_its_size(tmp_path, evidence):
    archives.cifar10(tmp_path / "src", per_batch=10_000)
    hashes = []
    for name in ("python", "binary"):
        dst = tmp_path / name
        line = [*TOOL, "cifar10", "--any-archives", "--dst", dst]
        start = time.monotonic()
        shell([*line, "--src", tmp_path / "src" / f"cifar-10-{name}.tar.gz"])
        evidence.figure(
            f"60,000 images from the {name} archive", f"{time.monotonic() - start:.1f} s"
        )
        for split, count in (("train", 50_000), ("val", 10_000)):
            found = read_split(dst, split, 10)
            assert len(found.files) == count
            check_images(found, sample=None)
            hashes.append(list_hash(found))
    assert hashes[:2] == hashes[2:]
    lines = shell(["diff", "-rq", tmp_path / "python", tmp_path / "binary"], expect=1).splitlines()
    assert len(lines) == 1 and "dataset.json" in lines[0]
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    evidence.figure("largest resident memory of a process so far", f"{peak:,.0f} MB")


@pytest.mark.parametrize("name", ["imagenet", "cifar10", "folder"])
def test_bad_inputs(tmp_path, evidence, name):
    """As a user meets them: what is printed, and the exit code."""
    module = {
        "imagenet": test_prepare_imagenet,
        "cifar10": test_prepare_cifar10,
        "folder": test_prepare_folder,
    }[name]
    told = []
    for what, (damage, _why, code) in module.BAD.items():
        work = tmp_path / "work"
        given = work / "src"
        work.mkdir()
        if name == "imagenet":
            archives.ilsvrc(given, 5, 70, 3)
        elif name == "cifar10":
            archives.cifar10(given)
        else:
            test_prepare_folder.tree(given)
        changed = damage(given)
        line = [*TOOL, name, "--src", changed if name == "cifar10" else given]
        line += ["--dst", work / "set", *([] if name == "folder" else ["--any-archives"])]
        done = subprocess.run([str(word) for word in line], capture_output=True, text=True)
        assert done.returncode == code and done.stdout == "", f"{what}: {done}"
        (said,) = done.stderr.splitlines()
        assert not (work / "set").exists()
        told.append(f"{what} -> {done.returncode}\n    {said.replace(str(work), '.')}")
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(work)
    evidence.transcript(f"bad_{name}", "\n".join(told))
    evidence.figure(f"bad inputs of `prepare {name}`, each one line and its code", str(len(told)))
