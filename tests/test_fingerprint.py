"""A data set is what its bytes, paths and labels are; a run sees when they change."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from images import natural
from trees import CLASSES, content, tree

from proofrun import launch, preflight
from proofrun.bootstrap import ROOT
from proofrun.cluster import Nodes
from proofrun.data import fingerprint, identity
from proofrun.data.fingerprint import MANIFEST, Seen, settle
from proofrun.data.lists import ImageList, read_split
from proofrun.errors import DataError, Exit, one_line
from proofrun.status import provenance


def lists(root: Path) -> dict:
    return {split: read_split(root, split, len(CLASSES)) for split in ("train", "val")}


def seen(root: Path, accept: bool = False) -> Seen:
    return settle(root, lists(root), identity.OTHER, root.parent / "cache", accept)


@pytest.fixture
def reads(monkeypatch) -> list[str]:
    """Names of the files whose content is read, in order."""
    names: list[str] = []
    read = fingerprint.file_digest

    def spy(path: Path) -> bytes:
        names.append(path.name)
        return read(path)

    monkeypatch.setattr(fingerprint, "file_digest", spy)
    return names


def test_fingerprint_is_what_coreutils_say(tmp_path):
    """sha256sum and sort make the same one: nothing in it is ours alone."""
    root = tree(tmp_path / "set")
    command = (
        'find train val -type f | LC_ALL=C sort | while read -r f; do printf "%s\\t%s\\t%s\\n" '
        '"$f" "$(stat -c %s "$f")" "$(sha256sum "$f" | cut -d" " -f1)"; done | sha256sum'
    )
    theirs = subprocess.run(
        ["bash", "-c", command], cwd=root, capture_output=True, text=True, check=True
    )
    assert seen(root).fingerprint == theirs.stdout.split()[0]


def test_order_of_the_list_and_the_way_of_copying_do_not_matter(tmp_path):
    root = tree(tmp_path / "set")
    before = seen(root)
    lines = (root / "train.txt").read_text().splitlines(keepends=True)
    (root / "train.txt").write_text("".join(reversed(lines)))
    assert seen(root) == before
    other = shutil.copytree(root, tmp_path / "other", copy_function=shutil.copyfile)
    (other / "train.txt").unlink()  # the tree gives the same
    (other / MANIFEST).unlink()
    assert seen(other).hash == before.hash


def test_only_files_with_another_stat_are_read_again(tmp_path, reads):
    root = tree(tmp_path / "set")
    first = seen(root)
    assert len(reads) == 18
    reads.clear()
    assert seen(root) == first and reads == []
    os.utime(root / "train/bee/2.JPEG", ns=(1, 1))
    assert seen(root) == first and reads == ["2.JPEG"]
    reads.clear()
    assert seen(root) == first and reads == []  # the manifest was renewed


def overwrite(root: Path) -> None:
    (root / "train/bee/2.JPEG").write_bytes((root / "train/bee/1.JPEG").read_bytes())


def swap(root: Path) -> None:
    """Another file of the same size and time: its inode gives it away."""
    path = root / "val/cow/0.JPEG"
    data = bytearray(path.read_bytes())
    before = path.stat()
    data[-40] ^= 1
    path.rename(root / "aside")  # the old inode stays taken
    path.write_bytes(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def add(root: Path) -> None:
    natural(40, 40, 99).save(root / "train/ant/9.JPEG")
    with (root / "train.txt").open("a") as file:
        file.write("train/ant/9.JPEG 0\n")


def drop(root: Path) -> None:
    lines = (root / "train.txt").read_text().splitlines(keepends=True)
    (root / "train.txt").write_text("".join(lines[1:]))


def relabel(root: Path) -> None:
    text = (root / "val.txt").read_text()
    (root / "val.txt").write_text(text.replace("ant/0.JPEG 0", "ant/0.JPEG 1"))


CHANGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "content": (overwrite, "train/bee/2.JPEG: has other content"),
    "inode": (swap, "val/cow/0.JPEG: has other content"),
    "new": (add, "train/ant/9.JPEG: is new"),
    "gone": (drop, "train/ant/0.JPEG: is gone"),
    "labels": (relabel, "val.txt: gives other labels"),
}


@pytest.mark.parametrize("case", CHANGES)
def test_changed_data_is_refused_by_its_first_path(tmp_path, case):
    change, says = CHANGES[case]
    root = tree(tmp_path / "set")
    before = seen(root)
    change(root)
    for _ in range(2):  # a refusal changes nothing
        with pytest.raises(DataError) as caught:
            seen(root)
        assert caught.value.exit_code is Exit.DATA_CHANGED
        assert says in str(caught.value) and "--accept-changed-data" in str(caught.value)
        assert str(caught.value) == one_line(caught.value)
    accepted = seen(root, accept=True)
    assert accepted.changed and accepted.hash != before.hash
    with pytest.raises(DataError):
        seen(root)  # accepted once is not accepted for ever


def test_several_changes_are_counted_and_a_broken_image_is_called_that(tmp_path):
    root = tree(tmp_path / "set")
    seen(root)
    drop(root)
    add(root)
    with pytest.raises(DataError, match=r"ant/0.JPEG: is gone .* \(and 1 more\)"):
        seen(root)
    (root / "train/bee/2.JPEG").write_bytes(b"")
    shutil.copy(root / "val/ant/0.JPEG", root / "train/ant/0.JPEG")
    drop(root)
    lines = "".join(f"train/{c}/{i}.JPEG {n}\n" for n, c in enumerate(CLASSES) for i in range(4))
    (root / "train.txt").write_text(lines)
    shutil.copy(root / "train/ant/1.JPEG", root / "train/ant/0.JPEG")
    (root / "train/ant/0.JPEG").write_bytes(b"\xff\xd8")
    with pytest.raises(DataError) as caught:
        seen(root)
    assert caught.value.exit_code is Exit.IMAGE_TRUNCATED and "ant/0.JPEG" in str(caught.value)


def test_data_that_cannot_be_written_has_its_manifest_in_the_cache(tmp_path, reads):
    root = tree(tmp_path / "set")
    (root / MANIFEST).mkdir()  # nothing can be renamed over it, not even by root
    first = seen(root)
    (kept,) = (tmp_path / "cache").iterdir()
    reads.clear()
    assert seen(root) == first and reads == []
    overwrite(root)
    with pytest.raises(DataError) as caught:
        seen(root)
    assert caught.value.exit_code is Exit.DATA_CHANGED
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [kept.name]


def test_nowhere_to_write_is_said_and_no_error(tmp_path, reads, capsys):
    root = tree(tmp_path / "set")
    (root / MANIFEST).mkdir()
    (tmp_path / "cache").write_text("no folder")
    assert seen(root) == seen(root)
    assert len(reads) == 2 * 18
    assert capsys.readouterr().err.count("PROOFRUN_CACHE") == 2


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04", None])
def test_a_damaged_manifest_is_made_anew(tmp_path, damage):
    root = tree(tmp_path / "set")
    first = seen(root)
    whole = (root / MANIFEST).read_bytes()
    (root / MANIFEST).write_bytes(whole[: len(whole) // 2] if damage is None else damage)
    assert seen(root) == first
    assert fingerprint.load(root, tmp_path / "cache") is not None


def test_a_flipped_bit_in_a_manifest_is_no_error(tmp_path):
    """Whatever zipfile and numpy make of it, the manifest is made anew, and the same."""
    root = tree(tmp_path / "set")
    first = seen(root)
    whole = (root / MANIFEST).read_bytes()
    places = {
        at + byte for at in (whole.index(b"PK"), whole.index(b"PK\1\2")) for byte in range(46)
    }
    for place in sorted(places | set(range(0, len(whole), 61))):
        for bit in (0, 3, 6):
            damaged = bytearray(whole)
            damaged[place] ^= 1 << bit
            (root / MANIFEST).write_bytes(damaged)
            known = fingerprint.load(root, tmp_path / "cache")
            assert known is None or known.fingerprint() == first.fingerprint
    assert seen(root) == first


def test_names_of_any_bytes(tmp_path):
    root = tree(tmp_path / "set", lists=False)
    (root / "train/ant/0.JPEG").rename(root / "train/ant" / os.fsdecode(b"caf\xe9\n.JPEG"))
    first = seen(root)
    assert seen(root) == first


def known(classes: list[str], train: int, val: int) -> dict:
    def images(split: str, count: int) -> ImageList:
        files = [f"{split}/{classes[i % len(classes)]}/{i}.JPEG" for i in range(count)]
        return ImageList(Path(), files, np.arange(count) % len(classes), len(classes))

    return {"train": images("train", train), "val": images("val", val)}


def test_known_sets_are_told_apart_by_names_and_counts():
    sets = identity.published(ROOT / "recipes")
    digits = [f"digit_{i}" for i in range(10)]
    wnids = [f"n{i:08d}" for i in range(1000)]
    assert identity.identify(known(digits, 1437, 360), sets) == "Digits"
    whole = known(wnids, 1281167, 50000)
    assert identity.identify(whole, sets) == "ImageNet"
    assert identity.identify(whole | {"val": whole["train"]}, sets) == "other"
    cifar = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship"]
    assert identity.identify(known([*cifar, "truck"], 50000, 10000), sets) == "Cifar10"
    assert identity.identify(known(cifar, 50000, 10000), sets) == "other"
    assert identity.resembles(cifar, sets) == "Cifar10"
    assert identity.identify(known(digits, 1436, 360), sets) == "other"
    assert identity.identify(known(CLASSES, 1437, 360), sets) == "other"
    assert identity.resembles(wnids[:999], sets) == "ImageNet"
    assert identity.resembles([*wnids, "n9"], sets) == "ImageNet"
    assert identity.resembles(wnids[:100], sets) == "other"
    assert identity.resembles([], sets) == "other"


RUN = "GoogLeNet-Digits_FP32_10E_1CPU_Train"


def planned(data: Path, logs: Path, *flags: str):
    return launch.make_plan(launch.parse([RUN, "--data", str(data), *flags]), Nodes(), logs)


def test_launch_refuses_changed_data_and_records_what_it_accepts(digits, tmp_path):
    data = Path(shutil.copytree(digits, tmp_path / "digits"))
    (data / MANIFEST).unlink(missing_ok=True)
    plan, recorded = planned(data, tmp_path / "logs")
    assert recorded is not None and recorded["identity"] == "Digits"
    assert recorded == {
        "fingerprint": plan.data_hash.split("-")[0],
        "identity": "Digits",
        "changed": False,
        "root": "digits",
    }
    assert provenance(ROOT, [], recorded)["data"] == recorded
    assert planned(data, tmp_path / "logs")[0].config_hash() == plan.config_hash()
    victim = data / "train/digit_3"
    one, other = sorted(victim.iterdir())[:2]
    kept = one.read_bytes()
    one.write_bytes(other.read_bytes())
    before = content(tmp_path)
    with pytest.raises(DataError, match="has other content") as caught:
        planned(data, tmp_path / "logs")
    assert caught.value.exit_code is Exit.DATA_CHANGED and one.name in str(caught.value)
    assert content(tmp_path) == before
    other_plan, changed = planned(data, tmp_path / "logs", "--accept-changed-data")
    one.write_bytes(kept)
    text = (data / "val.txt").read_text()
    (data / "val.txt").write_text(
        text.replace(" 3\n", " x\n").replace(" 8\n", " 3\n").replace("x\n", "8\n")
    )
    relabelled = planned(data, tmp_path / "logs", "--accept-changed-data")[1]
    assert relabelled is not None and relabelled["identity"] == "other"
    assert relabelled["fingerprint"] == recorded["fingerprint"]
    assert changed is not None and changed["changed"] and changed["identity"] == "other"
    assert other_plan.overrides == {"accept_changed_data": True}
    assert other_plan.flags() == "--accept-changed-data"
    assert other_plan.config_hash() != plan.config_hash()
    synthetic, none = planned(data, tmp_path / "logs", "--loader", "synthetic")
    assert none is None and synthetic.data_hash == "synthetic"


def test_launch_refuses_images_of_the_other_split(digits, tmp_path):
    """By path, before anything is read; and by content."""
    data = Path(shutil.copytree(digits, tmp_path / "digits"))
    lines = (data / "val.txt").read_text().splitlines(keepends=True)
    foreign = (data / "train.txt").read_text().splitlines(keepends=True)[0]
    (data / "val.txt").write_text("".join([foreign.replace("/", "//", 1), *lines[1:]]))
    with pytest.raises(DataError, match="is listed in train and in val") as caught:
        planned(data, tmp_path / "logs")
    assert caught.value.exit_code is Exit.BAD_LIST
    (data / "val.txt").write_text("".join(lines))
    (data / MANIFEST).unlink(missing_ok=True)
    train, val = (sorted((data / split / "digit_1").iterdir())[0] for split in ("train", "val"))
    shutil.copy(train, val)
    for _ in range(2):
        with pytest.raises(
            DataError, match=f"{val.name}: has the content of .*{train.name}"
        ) as caught:
            planned(data, tmp_path / "logs", "--accept-changed-data")
        assert caught.value.exit_code is Exit.BAD_LIST


def test_a_name_that_dali_cannot_open(tmp_path, digits):
    data = Path(shutil.copytree(digits, tmp_path / "digits"))
    for name in ("train.txt", "val.txt", MANIFEST):
        (data / name).unlink(missing_ok=True)
    victim = sorted((data / "train/digit_3").iterdir())[0]
    victim.rename(victim.with_name(os.fsdecode(b"caf\xe9.JPEG")))
    with pytest.raises(DataError, match=r"'train/digit_3/caf\\udce9.JPEG' is not UTF-8") as caught:
        planned(data, tmp_path / "logs")
    assert caught.value.exit_code is Exit.IMAGE_INVALID
    assert planned(data, tmp_path / "logs", "--loader", "torchvision")[1] is not None


def test_stats_differ_from_content(tmp_path):
    """The first difference looks at content only: a copy has other times and inodes."""
    root = tree(tmp_path / "set")
    seen(root)
    manifest = fingerprint.load(root, tmp_path / "cache")
    assert manifest is not None
    other = replace(manifest, stats=manifest.stats + np.array([0, 5, 5]))
    assert fingerprint.first_difference(manifest, other) is None
    assert preflight.cache_dir(tmp_path / "logs") == tmp_path / "logs" / ".cache"
