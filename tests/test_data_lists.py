"""Image lists and image files: every kind of bad data has its own code and line."""

from __future__ import annotations

import io
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from images import image_list, natural
from PIL import Image

from proofrun.data.lists import ImageList, check_images, image_error, list_hash, read_split
from proofrun.errors import DataError, Exit, one_line

NAMES = ["a/1.jpg", "a/2.JPEG", "b/1.PNG", "b/x y.jpg"]
LABELS = [0, 0, 1, 1]


@pytest.fixture
def root(tmp_path) -> Path:
    """Two classes of two (empty) files in train, and no list."""
    for name in NAMES:
        (tmp_path / "train" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "train" / name).touch()
    return tmp_path


def write_list(root: Path, lines: list[str]) -> None:
    (root / "train.txt").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def test_list_in_both_forms_and_tree_are_one(root):
    tree = read_split(root, "train", 2)
    write_list(root, [f"train/{n} {label}" for n, label in zip(NAMES, LABELS, strict=True)])
    from_root = read_split(root, "train", 2)
    write_list(root, [f"{n} {label}" for n, label in zip(NAMES, LABELS, strict=True)][::-1])
    from_split = read_split(root, "train", 2)
    assert from_root.files == [f"train/{n}" for n in NAMES]
    assert from_root.labels.tolist() == LABELS and from_root.labels.dtype == np.int64
    assert from_split.files == from_root.files[::-1]  # the list's own order is kept
    assert sorted(tree.files) == sorted(from_root.files)
    assert list_hash(tree) == list_hash(from_root) == list_hash(from_split)
    assert from_root.path(3) == root / "train/b/x y.jpg"


def test_hash_sees_labels_and_names():
    def hashed(names: list[str], labels: list[int]) -> str:
        return list_hash(ImageList(Path(), names, np.array(labels, np.int64), 2))

    assert len({hashed(["a", "b"], [0, 1]), hashed(["a", "b"], [1, 0]), hashed(["a"], [0])}) == 3


def test_paths_have_one_spelling(root):
    names = ["./train/a/1.jpg", "train//a/2.JPEG", "train/./b//1.PNG", "train/b/x y.jpg"]
    write_list(root, [f"{n} {label}" for n, label in zip(names, LABELS, strict=True)])
    assert read_split(root, "train", 2).files == [f"train/{name}" for name in NAMES]
    for other in ("./train/..", "train/a/../a/1.jpg", ".", "/", "//train/a/1.jpg"):
        write_list(root, [f"{other} 0"])
        with pytest.raises(DataError) as caught:
            read_split(root, "train", 2)
        assert caught.value.exit_code is Exit.BAD_LIST
    write_list(root, ["train/a/1.jpg 0", "train//a/1.jpg 0"])
    with pytest.raises(DataError, match="is in line 1 already"):
        read_split(root, "train", 2)


def test_tree_ignores_what_is_no_image(root):
    (root / "train" / "loop").symlink_to("loop")
    (root / "train" / "a" / "notes.md").touch()
    (root / "train" / ".cache").mkdir()
    (root / "train" / "readme.jpg").touch()
    assert len(read_split(root, "train", 2).files) == 4


NAME = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0\n/\ufeff"), min_size=1
).filter(lambda name: name not in (".", "..") and name[-1] not in " \t" and len(name) < 60)


@settings(max_examples=60, deadline=None)
@given(
    names=st.lists(NAME, min_size=2, max_size=4, unique=True),
    separator=st.sampled_from([" ", "\t", "   "]),
    end=st.sampled_from(["\n", "\r\n", " \n", "\n\n"]),
    bom=st.booleans(),
    form=st.sampled_from(["", "train/"]),
)
def test_any_name_survives_the_list(names, separator, end, bom, form):
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "train").mkdir()
        for name in names:
            (root / "train" / name).touch()
        labels = [i % 2 for i in range(len(names))]
        text = "".join(
            f"{form}{n}{separator}{label}{end}" for n, label in zip(names, labels, strict=True)
        )
        (root / "train.txt").write_bytes(("\ufeff" if bom else "").encode() + text.encode())
        images = read_split(root, "train", 2)
        assert images.files == [f"train/{name}" for name in names]
        assert images.labels.tolist() == labels


def test_name_that_is_not_unicode(root):
    (root / "train" / b"a/caf\xe9.jpg".decode(errors="surrogateescape")).touch()
    (root / "train.txt").write_bytes(b"a/caf\xe9.jpg 0\nb/1.PNG 1\n")
    images = read_split(root, "train", 2)
    assert images.path(0).exists()
    assert list_hash(images)


def _list(*lines: str) -> Callable[[Path], None]:
    return lambda root: write_list(root, list(lines))


def _rename_root(root: Path) -> None:
    root.rename(root.with_name("elsewhere"))


def _remove_train(root: Path) -> None:
    (root / "train").rename(root / "other")


def _empty_train(root: Path) -> None:
    for name in NAMES:
        (root / "train" / name).unlink()


def _third_class(root: Path) -> None:
    (root / "train" / "c").mkdir()


def _empty_class(root: Path) -> None:
    (root / "train/b/1.PNG").unlink()
    (root / "train/b/x y.jpg").unlink()


GOOD = ["a/1.jpg 0", "b/1.PNG 1"]
BAD_LISTS = {
    "no folder": (_rename_root, Exit.NO_DATA, "no such data folder", "prepare digits --dst"),
    "no train": (_remove_train, Exit.NO_DATA, "neither train.txt nor a folder train", "prepare"),
    "empty tree": (_empty_train, Exit.NO_DATA, "has no images", "prepare digits"),
    "empty list": (_list(), Exit.NO_DATA, "train.txt: the list is empty", "prepare digits"),
    "blank list": (_list("", " "), Exit.NO_DATA, "the list is empty", "prepare digits"),
    "missing file": (
        _list(*GOOD, "a/9.jpg 0", "a/8.jpg 0"),
        Exit.LIST_MISSING_FILE,
        "train.txt:3: ",
        "train/a/9.jpg, which is not there (and 1 more)",
    ),
    "first missing": (_list("a/9.jpg 0", *GOOD), Exit.LIST_MISSING_FILE, "train.txt:1:", "9.jpg"),
    "missing class": (_list(*GOOD, "c/9.jpg 0"), Exit.LIST_MISSING_FILE, "train.txt:3:", "9.jpg"),
    "folder for file": (_list(*GOOD, "a 0"), Exit.LIST_MISSING_FILE, "train.txt:3:", "train/a,"),
    "label too large": (_list(*GOOD, "a/2.JPEG 2"), Exit.LABEL_OUT_OF_RANGE, ":3:", "2 is outside"),
    "negative": (_list("a/1.jpg -1"), Exit.LABEL_OUT_OF_RANGE, ":1:", "-1 is outside 0 … 1"),
    "one class": (_list("a/1.jpg 0"), Exit.CLASS_COUNT, "images of 1 classes", "recipe of 2"),
    "third class": (_third_class, Exit.CLASS_COUNT, "images of 3 classes", "recipe of 2"),
    "empty class": (_empty_class, Exit.CLASS_COUNT, "images of 1 classes", "recipe of 2"),
    "no label": (_list("a/1.jpg"), Exit.BAD_LIST, "train.txt:1:", "is not `relative/path label`"),
    "word label": (_list("a/1.jpg cat"), Exit.BAD_LIST, "train.txt:1:", "a/1.jpg cat"),
    "float label": (_list("a/1.jpg 0.0"), Exit.BAD_LIST, ":1:", "correct the line"),
    "label only": (_list("", "7"), Exit.BAD_LIST, "train.txt:2:", "'7'"),
    "long label": (_list("a/1.jpg " + "1" * 5000), Exit.BAD_LIST, "train.txt:1:", "is not"),
    "absolute": (_list("/etc/x.jpg 0"), Exit.BAD_LIST, "train.txt:1:", "is not `relative"),
    "nul": (_list("a/\0.jpg 0"), Exit.BAD_LIST, "train.txt:1:", "is not `relative"),
    "twice": (_list(*GOOD, "a/1.jpg 0"), Exit.BAD_LIST, "train.txt:3:", "is in line 1 already"),
}


@pytest.mark.parametrize("case", BAD_LISTS)
def test_bad_list(root, case):
    break_it, code, where, what = BAD_LISTS[case]
    break_it(root)
    with pytest.raises(DataError) as caught:
        read_split(root, "train", 2)
    assert caught.value.exit_code is code
    message = str(caught.value)
    assert where in message and what in message and str(root) in message
    assert message == one_line(caught.value) and len(message) < 600


def test_unreadable_list(root):
    (root / "train.txt").symlink_to("train.txt")  # a loop: is_file() is false, so the tree counts
    assert len(read_split(root, "train", 2).files) == 4


def test_splits_with_other_classes(root):
    for name in ("a", "c"):
        (root / "val" / name).mkdir(parents=True)
        (root / "val" / name / "1.jpg").touch()
    with pytest.raises(DataError, match="class folder b is only in one of") as caught:
        read_split(root, "val", 2)
    assert caught.value.exit_code is Exit.CLASS_COUNT


def encoded(kind: str = "JPEG", **options: object) -> bytes:
    buffer = io.BytesIO()
    natural(64, 48).save(buffer, kind, **options)
    return buffer.getvalue()


def with_thumbnail() -> bytes:
    """A JPEG whose EXIF block holds a whole small JPEG, end marker included."""
    exif = Image.Exif()
    exif[0x010E] = "thumbnail"
    block = exif.tobytes() + encoded(quality=20)
    return encoded(exif=block)


JPEG, PNG = encoded(quality=95), encoded("PNG")
GOOD_FILES = {
    "jpeg": JPEG,
    "progressive": encoded(progressive=True),
    "png": PNG,
    "thumbnail": with_thumbnail(),
    "trailing zeros": JPEG + bytes(5000),
    "trailing junk": JPEG + b"Copied by a camera\xff\xd8\xff\xe0" + bytes(range(256)) * 40,
    "fill before a marker": JPEG[:20] + b"\xff\xff" + JPEG[20:],
    "png with junk": PNG + b"junk",
}
BAD_FILES = {
    "0 bytes": (b"", Exit.IMAGE_TRUNCATED, "has 0 bytes"),
    "half": (JPEG[: len(JPEG) // 2], Exit.IMAGE_TRUNCATED, "end marker is missing"),
    "no end": (JPEG[:-2], Exit.IMAGE_TRUNCATED, "end marker is missing"),
    "header": (JPEG[:100], Exit.IMAGE_TRUNCATED, "end marker is missing"),
    "2 bytes": (JPEG[:2], Exit.IMAGE_TRUNCATED, "end marker is missing"),
    "1 byte": (JPEG[:1], Exit.IMAGE_TRUNCATED, "end marker is missing"),
    "half progressive": (encoded(progressive=True)[:-99], Exit.IMAGE_TRUNCATED, "is cut off"),
    "half after thumbnail": (with_thumbnail()[:-300], Exit.IMAGE_TRUNCATED, "end marker"),
    "zeros in the second half": (
        JPEG[: len(JPEG) // 2] + bytes(len(JPEG) // 2),
        Exit.IMAGE_TRUNCATED,
        "end marker is missing",
    ),
    "half png": (PNG[: len(PNG) // 2], Exit.IMAGE_TRUNCATED, "end marker is missing"),
    "short png": (PNG[:5], Exit.IMAGE_TRUNCATED, "end marker is missing"),
    "text": (b"<html>404 Not Found</html>", Exit.IMAGE_INVALID, "neither like a JPEG nor"),
    "gif": (encoded("GIF"), Exit.IMAGE_INVALID, "neither like a JPEG nor"),
    "zeros": (bytes(1000), Exit.IMAGE_INVALID, "neither like a JPEG nor"),
    "broken inside": (
        PNG[:60] + b"\xaa" * 200 + PNG[260:],
        Exit.IMAGE_INVALID,
        "cannot be decoded",
    ),
}


@pytest.mark.parametrize("case", GOOD_FILES)
def test_good_file(tmp_path, case):
    path = tmp_path / "x.JPEG"  # content decides, not the name
    path.write_bytes(GOOD_FILES[case])
    assert image_error(path, decode=True) is None


@pytest.mark.parametrize("case", BAD_FILES)
def test_bad_file(tmp_path, case):
    content, code, what = BAD_FILES[case]
    images = image_list(tmp_path, 4)
    images.path(2).write_bytes(content)
    with pytest.raises(DataError) as caught:
        check_images(images, sample=None)
    assert caught.value.exit_code is code
    assert what in str(caught.value) and str(images.path(2)) in str(caught.value)


def test_sample_is_a_function_of_the_seed(tmp_path):
    images = image_list(tmp_path, 30)
    images.path(11).write_bytes(b"")

    def finds(seed: int) -> bool:
        try:
            check_images(images, sample=10, seed=seed)
        except DataError:
            return True
        return False

    found = [finds(seed) for seed in range(30)]
    assert found == [finds(seed) for seed in range(30)]
    assert 3 < sum(found) < 20  # a third of the samples of ten


def test_launch_can_read_lists_without_torch():
    code = "import sys, proofrun.data.lists; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
