"""Verification finds everything that is wrong, tells errors from oddities, and ends by it."""

from __future__ import annotations

import argparse
import faulthandler
import io
import json
import os
import re
import shutil
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from images import natural
from PIL import Image
from trees import CLASSES, content, tree

from proofrun.bootstrap import ROOT
from proofrun.data import apart, identity
from proofrun.data.fingerprint import MANIFEST, settle
from proofrun.data.lists import read_split
from proofrun.errors import Exit, ProofrunError, one_line
from tools._dataset import examine, png, verify
from tools._dataset.findings import ERRORS, REMARKS
from tools._dataset.survey import survey


def run(root: Path, **options: object) -> tuple[Exit, str, dict]:
    """(exit code, the line of the error, the JSON) of `verify root`."""
    given = {"recipe": None, "quarantine": None, "restore": None, "processes": 2}
    out = root.parent / "verdict.json"
    code, said = Exit.OK, ""
    try:
        print(verify.command(argparse.Namespace(**(given | {"dir": root, "json": out} | options))))
    except ProofrunError as error:
        code, said = error.exit_code, one_line(error)
        assert said == str(error)
    return code, said, json.loads(out.read_text())


def kinds(document: dict) -> list[str]:
    return sorted(finding["kind"] for finding in document["findings"])


@pytest.fixture
def root(tmp_path) -> Path:
    return tree(tmp_path / "a set")


def encoded(image: Image.Image, kind: str = "JPEG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


PICTURE = natural(64, 48)
JPEG = encoded(PICTURE, quality=95)


def png_of(width: int, height: int, stream: bytes, flip: bytes = b"") -> bytes:
    """An RGB PNG with this compressed stream; the checksum of the chunk `flip` is wrong."""

    def chunk(name: bytes, data: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(name + data) ^ (name == flip))
        return struct.pack(">I", len(data)) + name + data + checksum

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", stream)
    return b"\x89PNG\r\n\x1a\n" + parts + chunk(b"IEND", b"")


def huge_png() -> bytes:
    """A PNG whose header promises 50,000 x 50,000 pixels."""
    return png_of(50_000, 50_000, zlib.compress(bytes(1000)))


ROWS = (b"\0" + bytes(range(192))) * 64  # 64 x 64 pixels
STREAM = zlib.compress(ROWS)


def huge_jpeg() -> bytes:
    at = JPEG.index(b"\xff\xc0") + 5  # the frame header's height and width
    return JPEG[:at] + struct.pack(">HH", 50_000, 50_000) + JPEG[at + 4 :]


def many_scans(extra: int = 499) -> bytes:
    """A progressive JPEG whose last scan, which refines, is there again and again."""
    data = encoded(PICTURE, progressive=True)
    assert data.count(b"\xff\xda") == 10
    last = data[data.rindex(b"\xff\xda") : -2]
    return data[:-2] + last * extra + b"\xff\xd9"


def wide_scans() -> bytes:
    data = many_scans(30)
    at = data.index(b"\xff\xc2") + 5
    return data[:at] + struct.pack(">HH", 10_000, 10_000) + data[at + 4 :]


def glued() -> bytes:
    """Cut in the middle, and ended again: PIL fills the rest with grey and says nothing."""
    return JPEG[: len(JPEG) // 2] + b"\xff\xd9"


def deep() -> bytes:
    pixels = np.asarray(PICTURE.convert("L")).astype(np.uint16) * 257
    return encoded(Image.fromarray(pixels), "PNG")


def rotated() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(PICTURE, exif=exif)


FILES: dict[str, tuple[bytes, str, Exit, str]] = {
    "0 bytes": (b"", "truncated", Exit.IMAGE_TRUNCATED, "has 0 bytes"),
    "no end": (JPEG[:-200], "truncated", Exit.IMAGE_TRUNCATED, "its end marker is missing"),
    "glued": (glued(), "truncated", Exit.IMAGE_TRUNCATED, "its pixels end early"),
    "text": (b"<html>404</html>", "invalid", Exit.IMAGE_INVALID, "starts neither like a JPEG"),
    "broken png": (
        encoded(PICTURE, "PNG")[:60] + b"\xaa" * 200 + encoded(PICTURE, "PNG")[260:],
        "invalid",
        Exit.IMAGE_INVALID,
        "cannot be decoded",
    ),
    "10 of 64 rows": (
        png_of(64, 64, zlib.compress(ROWS[: 10 * 193])),
        "truncated",
        Exit.IMAGE_TRUNCATED,
        "has 1930 of 12352 bytes of pixels",
    ),
    "no Adler-32": (
        png_of(64, 64, STREAM[:-4]),
        "truncated",
        Exit.IMAGE_TRUNCATED,
        "the end of its pixels is missing",
    ),
    "wrong Adler-32": (
        png_of(64, 64, STREAM[:-1] + bytes([STREAM[-1] ^ 1])),
        "invalid",
        Exit.IMAGE_INVALID,
        "cannot be decoded",
    ),
    "wrong CRC": (
        png_of(64, 64, STREAM, flip=b"IDAT"),
        "invalid",
        Exit.IMAGE_INVALID,
        "checksum of its chunk 'IDAT'",
    ),
    "too many rows": (png_of(64, 63, STREAM), "damaged", Exit.OK, "more than 12159 bytes"),
    "huge png": (huge_png(), "too_large", Exit.IMAGE_INVALID, "2500000000 pixels"),
    "huge jpeg": (huge_jpeg(), "too_large", Exit.IMAGE_INVALID, "2500000000 pixels"),
    "many scans": (many_scans(), "too_large", Exit.IMAGE_INVALID, "has 509 scans of 64x48"),
    "scans of many pixels": (
        wide_scans(),
        "too_large",
        Exit.IMAGE_INVALID,
        "has 40 scans of 10000",
    ),
    "16 bits": (deep(), "deep", Exit.IMAGE_INVALID, "16 bits a channel"),
    "warning": (JPEG[:-2] + bytes(50) + b"\xff\xd9", "damaged", Exit.OK, "extraneous bytes"),
    "cmyk": (encoded(PICTURE.convert("CMYK")), "cmyk", Exit.OK, ""),
    "grey": (encoded(PICTURE.convert("L")), "grey", Exit.OK, ""),
    "palette": (encoded(PICTURE.quantize(), "PNG"), "palette", Exit.OK, ""),
    "alpha": (encoded(PICTURE.convert("RGBA"), "PNG"), "alpha", Exit.OK, ""),
    "png": (encoded(PICTURE, "PNG"), "misnamed", Exit.OK, ""),
    "rotated": (rotated(), "orientation", Exit.OK, ""),
    "1x1": (encoded(PICTURE.resize((1, 1))), "tiny", Exit.OK, ""),
    "progressive": (encoded(PICTURE, progressive=True), "", Exit.OK, ""),
}


@pytest.mark.parametrize("case", FILES)
def test_one_odd_file(root, case):
    """The error is found, named and decides; an oddity is remarked on, and the run may go on."""
    data, kind, code, says = FILES[case]
    (root / "train/bee/2.JPEG").write_bytes(data)
    got, said, document = run(root)
    own = [finding for finding in document["findings"] if finding["path"] == "train/bee/2.JPEG"]
    assert got is code and kind in [finding["kind"] for finding in own] + [""]
    assert says in "".join(finding["message"] for finding in own)
    assert (kind in ERRORS) == (code is not Exit.OK) == (document["fingerprint"] is None)
    if code is Exit.OK:
        assert said == "" and (root / MANIFEST).exists()
    else:
        assert "train/bee/2.JPEG" in said and says in said and not (root / MANIFEST).exists()


def test_scans_are_counted_where_there_may_be_many():
    """Progressive, or with a scan for each component; a thumbnail's scan is not the first."""

    def counted(data: bytes) -> int:
        with Image.open(io.BytesIO(data)) as image:
            return examine.too_many_scans(image, data)

    at = JPEG.index(b"\xff\xda")
    thumbnail = b"\xff\xe1" + struct.pack(">H", 12) + b"\xff\xda\0\x0c\x03" + bytes(5)
    alone = JPEG[:2] + thumbnail + JPEG[2:at] + b"\xff\xda\0\x08\x01\x01\0\0?\0\x10" * 501
    assert counted(alone + b"\xff\xd9") == 502
    assert counted(JPEG[:-2] + JPEG[at:-2] * 501 + b"\xff\xd9") == 0
    assert counted(many_scans()) == 509 and counted(many_scans(400)) == 0


def test_a_bomb_is_not_decoded():
    """PIL is never asked for its pixels: that would be 7.5 GB."""
    for data in (huge_jpeg(), huge_png()):
        (finding,) = examine.examine(Path("x.JPEG"), "x.JPEG", data)
        assert finding.kind == "too_large"


def test_whole_pngs_of_every_kind_are_good():
    """As libpng writes them: depths, palettes, alpha, Adam7 (made by hand below), odd sizes."""
    pictures = [PICTURE.convert(mode) for mode in ("1", "L", "P", "RGB", "RGBA", "LA")]
    pictures += [PICTURE.quantize(colours) for colours in (2, 4, 16)]
    for picture in pictures:
        for size in ((64, 48), (1, 1), (7, 3), (33, 17)):
            data = encoded(picture.resize(size), "PNG")
            assert png.damage(data) is None
    for width, height in ((64, 48), (1, 1), (3, 5), (8, 9)):
        rows = b""
        for left, top, right, down in png._PASSES:
            across, along = len(range(left, width, right)), len(range(top, height, down))
            rows += (b"\0" + bytes(3 * across)) * along if across else b""
        data = bytearray(png_of(width, height, zlib.compress(rows)))
        data[28] = 1  # interlaced
        data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
        assert png.damage(bytes(data)) is None
        Image.open(io.BytesIO(data)).load()


def test_a_good_set(root, capsys):
    code, _, document = run(root)
    out = capsys.readouterr().out
    assert code is Exit.OK and document["outcome"] == "good" and document["findings"] == []
    assert "12 train, 6 val images of 3 classes" in out and "no errors, no remarks" in out
    lists = {split: read_split(root, split, 3) for split in ("train", "val")}
    seen = settle(root, lists, identity.OTHER, root.parent / "cache", accept=False)
    assert document["fingerprint"] == seen.fingerprint in out
    assert document["lists"] == seen.lists


def test_verification_takes_changed_data_and_says_so(root, capsys):
    run(root)
    shutil.copy(root / "train/bee/1.JPEG", root / "train/bee/2.JPEG")
    capsys.readouterr()
    code, _, document = run(root)
    assert code is Exit.OK and kinds(document) == ["duplicate"]
    assert "changed since the last one: train/bee/2.JPEG has other content" in (
        capsys.readouterr().out
    )
    lists = {split: read_split(root, split, 3) for split in ("train", "val")}
    assert not settle(root, lists, identity.OTHER, root.parent / "cache", False).changed


def append(name: str, *lines: str) -> Callable[[Path], None]:
    def change(root: Path) -> None:
        with (root / name).open("a") as file:
            file.writelines(f"{line}\n" for line in lines)

    return change


def without_lists(change: Callable[[Path], None]) -> Callable[[Path], None]:
    def both(root: Path) -> None:
        for name in ("train.txt", "val.txt"):
            (root / name).unlink()
        change(root)

    return both


def flat_val(root: Path) -> None:
    for index, path in enumerate(sorted((root / "val").glob("*/*"))):
        path.rename(root / "val" / f"{index}.JPEG")
    for name in CLASSES:
        (root / "val" / name).rmdir()


def one_val_folder(root: Path) -> None:
    flat_val(root)
    (root / "val/images").mkdir()
    for path in (root / "val").glob("*.JPEG"):
        path.rename(root / "val/images" / path.name)


def swap_labels(root: Path) -> None:
    for name in ("train.txt", "val.txt"):
        text = (root / name).read_text()
        (root / name).write_text(re.sub(r"[01]$", lambda m: "10"[int(m[0])], text, flags=re.M))


def one_wrong_label(root: Path) -> None:
    text = (root / "train.txt").read_text()
    (root / "train.txt").write_text(text.replace("bee/0.JPEG 1", "bee/0.JPEG 2"))


def windows_list(root: Path) -> None:
    text = (root / "train.txt").read_text().replace("\n", "\r\n")
    (root / "train.txt").write_bytes(b"\xef\xbb\xbf" + text.encode())


def spaces(root: Path) -> None:
    (root / "train/bee/0.JPEG").rename(root / "train/bee/a b  c.JPEG")
    text = (root / "train.txt").read_text()
    (root / "train.txt").write_text(text.replace("bee/0.JPEG", "bee/a b  c.JPEG"))


def latin_name(root: Path) -> None:
    name = os.fsdecode(b"caf\xe9.JPEG")
    (root / "train/bee/0.JPEG").rename(root / "train/bee" / name)


def dying_disk(root: Path) -> None:
    """Reading this file is an input/output error, as on a disk that fails."""
    (root / "train/bee/2.JPEG").unlink()
    (root / "train/bee/2.JPEG").symlink_to("/proc/self/mem")


def leaked(root: Path) -> None:
    shutil.copy(root / "train/ant/0.JPEG", root / "val/ant/0.JPEG")


def empty_class(root: Path) -> None:
    (root / "train/dog").mkdir()


def nested(root: Path) -> None:
    (root / "train/bee/holiday/spain").mkdir(parents=True)
    PICTURE.save(root / "train/bee/holiday/0.JPEG")
    PICTURE.save(root / "train/bee/holiday/spain/1.jpg")


def loop(root: Path) -> None:
    (root / "train/bee/9.JPEG").symlink_to("9.JPEG")
    (root / "train/bee/inside").symlink_to("..")


def listed_loop(root: Path) -> None:
    (root / "train/bee/9.JPEG").symlink_to("9.JPEG")
    append("train.txt", "train/bee/9.JPEG 1")(root)


SETS: dict[str, tuple[Callable[[Path], None], Exit, list[str], str]] = {
    "missing file": (
        append("train.txt", "train/bee/7.JPEG 1"),
        Exit.LIST_MISSING_FILE,
        ["missing"],
        "train.txt:13: train/bee/7.JPEG is not there",
    ),
    "twice": (
        append("val.txt", "val/bee/0.JPEG 1", "val/bee/0.JPEG 1"),
        Exit.BAD_LIST,
        ["bad_line", "bad_line"],
        "val.txt:7: 'val/bee/0.JPEG' is in line 3 already",
    ),
    "no label": (append("val.txt", "x"), Exit.BAD_LIST, ["bad_line"], "val.txt:7: 'x' is not"),
    "outside": (
        append("val.txt", "../x.JPEG 1"),
        Exit.BAD_LIST,
        ["bad_line"],
        "leads out of the data folder",
    ),
    "negative": (
        append("val.txt", "val/bee/0.JPEG -1"),
        Exit.LABEL_OUT_OF_RANGE,
        ["label_range"],
        "val.txt:7: label -1 is outside",
    ),
    "a label of 64 bits": (
        append("val.txt", "val/bee/0.JPEG 9223372036854775808"),
        Exit.LABEL_OUT_OF_RANGE,
        ["label_range"],
        "val.txt:7: label 9223372036854775808 is outside",
    ),
    "a label of 99 digits": (
        append("val.txt", f"val/bee/0.JPEG {'9' * 99}"),
        Exit.LABEL_OUT_OF_RANGE,
        ["label_range"],
        "is outside",
    ),
    "label of another class": (
        one_wrong_label,
        Exit.BAD_LIST,
        ["label_order"],
        "train/bee/0.JPEG: has label 2, other images of class bee have 1",
    ),
    "own order": (swap_labels, Exit.OK, ["own_order"], "class ant has label 1, and is number 0"),
    "flat val": (
        without_lists(flat_val),
        Exit.NO_DATA,
        ["no_images"],
        "has 6 images but no class folders: their labels are not known",
    ),
    "one val folder": (
        without_lists(one_val_folder),
        Exit.CLASS_COUNT,
        ["class_count"],
        "train/images: there is no such class folder, val has one",
    ),
    "empty class": (
        without_lists(empty_class),
        Exit.CLASS_COUNT,
        ["class_count"],
        "train/dog: is a class folder without images",
    ),
    "a val class is missing": (
        without_lists(lambda root: shutil.rmtree(root / "val/ant")),
        Exit.CLASS_COUNT,
        ["class_count"],
        "val/ant: there is no such class folder, train has one",
    ),
    "nested": (
        without_lists(nested),
        Exit.OK,
        ["nested"],
        "train/bee/holiday: has 2 images that no run sees",
    ),
    "nested and not listed": (
        nested,
        Exit.OK,
        ["nested"],
        "train/bee/holiday: has 2 images, none of which is in train.txt",
    ),
    "nested and listed": (
        lambda root: [
            nested(root),
            append("train.txt", "train/bee/holiday/0.JPEG 1")(root),
            (root / "train/bee/holiday/spain/1.jpg").unlink(),
        ],
        Exit.OK,
        [],
        "",
    ),
    "leak": (leaked, Exit.BAD_LIST, ["leak"], "val/ant/0.JPEG: has the content of"),
    "unlisted": (
        lambda root: PICTURE.save(root / "train/bee/9.JPEG"),
        Exit.OK,
        ["unlisted"],
        "train/bee/9.JPEG: is not in train.txt",
    ),
    "BOM and CRLF": (windows_list, Exit.OK, [], ""),
    "spaces": (spaces, Exit.OK, [], ""),
    "latin-1 name": (without_lists(latin_name), Exit.IMAGE_INVALID, ["name"], "is not UTF-8"),
    "cannot be read": (
        dying_disk,
        Exit.IMAGE_INVALID,
        ["unreadable"],
        "train/bee/2.JPEG: cannot be read (Input/output error)",
    ),
    "loop of links": (loop, Exit.OK, [], ""),
    "loop beside the classes": (
        without_lists(lambda root: (root / "train/loop").symlink_to("loop")),
        Exit.OK,
        [],
        "",
    ),
    "loop in the list": (listed_loop, Exit.LIST_MISSING_FILE, ["missing"], "9.JPEG is not there"),
    "no train": (
        without_lists(lambda root: shutil.rmtree(root / "train")),
        Exit.NO_DATA,
        ["no_images"],
        "there is neither train.txt nor a folder train",
    ),
    "no data": (shutil.rmtree, Exit.NO_DATA, [], "there is no such data folder"),
}


@pytest.mark.parametrize("case", SETS)
def test_one_odd_set(root, case, capsys):
    change, code, expected, says = SETS[case]
    change(root)
    if not root.exists():
        root.parent.joinpath("verdict.json").write_text("{}")
        got, said, _ = run(root)
        assert got is code and says in said
        return
    before = content(root) if case != "cannot be read" else {}
    got, said, document = run(root)
    assert got is code
    for kind in expected:
        assert kind in kinds(document)
    assert set(kinds(document)) == set(expected)
    assert says in "".join(finding["message"] for finding in document["findings"])
    assert says in said or code is Exit.OK
    assert not before or content(root) == before
    capsys.readouterr().out.encode()  # any name can be printed


def test_all_at_once_and_the_worst_decides(root, capsys):
    names = sorted(str(path.relative_to(root)) for path in (root / "train").rglob("*.JPEG"))
    for name, case in zip(names, ("0 bytes", "text", "cmyk", "grey", "glued"), strict=False):
        (root / name).write_bytes(FILES[case][0])
    append("val.txt", "x", "val/bee/7.JPEG 1")(root)
    code, said, document = run(root)
    assert code is Exit.BAD_LIST and document["exit_code"] == 26
    assert said.startswith("5 errors, first of all: ")
    assert kinds(document) == ["bad_line", "cmyk", "grey", "invalid", "missing"] + ["truncated"] * 2
    out = capsys.readouterr().out
    assert "ERROR 21 truncated           2" in out and "remark   cmyk                1" in out


def test_a_path_that_is_too_long(tmp_path):
    with pytest.raises(ProofrunError, match=r"cannot be read .File name too long") as caught:
        verify.expectation(None, {}, tmp_path / ("x" * 300))
    assert caught.value.exit_code is Exit.NO_DATA


@pytest.mark.parametrize("classes", [999, 1000, 1001])
def test_imagenet_is_counted(tmp_path, classes):
    """Recognised by its folders, though one is missing or too many; 50 val images a class."""
    picture = tmp_path / "x.JPEG"
    PICTURE.save(picture)
    for split in ("train", "val"):
        for index in range(classes):
            folder = tmp_path / split / f"n{index:08d}"
            folder.mkdir(parents=True)
            os.link(picture, folder / "a.JPEG")
    for index in range(49):
        os.link(picture, tmp_path / "val/n00000007" / f"{index}.JPEG")
    expected = verify.expectation(None, identity.published(ROOT / "recipes"), tmp_path)
    assert expected is not None and expected.name == "ImageNet"
    said = [finding.message for finding in survey(tmp_path, expected).findings]
    wrong = f"train: has images of {classes} classes, ImageNet has 1000"
    assert any(wrong in line for line in said) == (classes != 1000)
    assert any("has 1000 images that are there, ImageNet has 1281167" in line for line in said) == (
        classes == 1000
    )
    assert not any("class 7 has" in line for line in said)
    assert sum("of each" in line for line in said) == classes - 1


def test_the_digits_are_known_by_their_content(digits, tmp_path):
    """Any other content under their names is not them, and nothing of val may be in train."""
    data = Path(shutil.copytree(digits, tmp_path / "digits"))
    code, _, document = run(data)
    assert code is Exit.OK and document["identity"] == document["held_against"] == "Digits"
    one, other = sorted((data / "val/digit_1").iterdir())[:2]
    PICTURE.save(one)
    code, _, document = run(data)
    assert code is Exit.OK and document["identity"] == "other"
    assert document["held_against"] == "Digits"
    shutil.copy(sorted((data / "train/digit_1").iterdir())[0], other)
    code, said, document = run(data)
    assert code is Exit.BAD_LIST and kinds(document) == ["leak"] and other.name in said
    code, said, _ = run(data, recipe="GoogLeNet")
    assert code is Exit.CLASS_COUNT and "has images of 10 classes, ImageNet has 1000" in said
    with pytest.raises(ProofrunError, match="GoogLeNet-Digits, Inceptionv2") as caught:
        verify.expectation("Nonsense", identity.published(ROOT / "recipes"), data)
    assert caught.value.exit_code is Exit.USAGE


def test_a_published_set_may_have_the_leaks_that_are_known(digits, tmp_path, monkeypatch):
    data = Path(shutil.copytree(digits, tmp_path / "digits"))
    monkeypatch.setitem(apart.PUBLISHED, "Digits", 1)
    train, val = (sorted((data / split / "digit_1").iterdir()) for split in ("train", "val"))
    shutil.copy(train[0], val[0])
    code, _, document = run(data)
    assert code is Exit.OK and kinds(document) == ["known_leak"]
    shutil.copy(train[0], val[1])
    code, _, document = run(data)
    assert code is Exit.BAD_LIST and kinds(document) == ["leak", "leak"]


@pytest.mark.parametrize("spelling", ["train/bee/1.JPEG", "train//bee/./1.JPEG"])
def test_a_list_with_images_of_the_other_split(root, spelling):
    """By the lists, not by the name of a folder."""
    append("val.txt", f"{spelling} 1")(root)
    code, said, document = run(root)
    assert code is Exit.BAD_LIST and kinds(document) == ["other_split"]
    assert "train/bee/1.JPEG: is listed in train and in val" in said
    text = (root / "train.txt").read_text()
    (root / "train.txt").write_text(text.replace("train/bee/1.JPEG 1\n", ""))
    assert run(root)[0] is Exit.OK  # one folder, two lists


def test_a_file_that_kills_its_process_is_named(root, monkeypatch):
    """A decoder may crash on what strangers send: the others are examined all the same."""
    whole = examine.examine

    def deadly(path: Path, name: str, data: bytes):
        if name == "train/cow/1.JPEG":
            faulthandler.disable()  # pytest's would print the stack
            os.abort()
        return whole(path, name, data)

    monkeypatch.setattr(examine, "examine", deadly)
    monkeypatch.setattr(examine, "PART", 4)
    monkeypatch.setattr(verify, "PART", 4)
    code, said, document = run(root)
    assert code is Exit.IMAGE_INVALID and "train/cow/1.JPEG: kills the decoder" in said
    assert kinds(document) == ["invalid"]


def test_the_command_line(root):
    (root / "val/bee/0.JPEG").write_bytes(b"")
    call = [sys.executable, str(ROOT / "tools/dataset.py"), "verify", str(root)]
    done = subprocess.run(call, capture_output=True, text=True)
    assert done.returncode == Exit.IMAGE_TRUNCATED
    assert done.stderr.count("\n") == 1 and "val/bee/0.JPEG: has 0 bytes" in done.stderr
    assert "ERROR 21 truncated" in done.stdout
    wrong = subprocess.run([*call, "--processes", "0"], capture_output=True, text=True)
    assert wrong.returncode == Exit.USAGE and wrong.stderr.count("\n") == 1


def test_names_cannot_steer_the_terminal(root):
    append("val.txt", "val/bee/\x1b[31m\a\x9b.JPEG 1")(root)
    call = [sys.executable, str(ROOT / "tools/dataset.py"), "verify", str(root)]
    done = subprocess.run(call, capture_output=True, text=True)
    assert done.returncode == Exit.LIST_MISSING_FILE
    for out in (done.stdout, done.stderr):
        assert r"\x1b[31m\x07\x9b.JPEG" in out
        assert not set("\x1b\a\x9b") & set(out)


def test_the_json_is_that_of_this_verification(root, tmp_path, capsys, monkeypatch):
    """It can be written, or that is said first; and an old one does not stay."""
    out = root.parent / "verdict.json"
    run(root)
    assert json.loads(out.read_text())["outcome"] == "good"
    shutil.rmtree(root / "train")
    (root / "train").write_text("no folder")
    (root / "train.txt").unlink()
    (root / "val.txt").unlink()
    (root / "val").rename(root / "elsewhere")
    root.rename(tmp_path / "away")
    code, _, document = run(root)
    assert code is Exit.NO_DATA and document["outcome"] == "unfinished"
    data = tree(tmp_path / "data")
    monkeypatch.setattr(verify, "examine_files", lambda *_: pytest.fail("worked before"))
    (tmp_path / "verdict.json").unlink(missing_ok=True)
    (tmp_path / "verdict.json").mkdir()
    with pytest.raises(ProofrunError, match=r"verdict.json: cannot be written") as caught:
        given = {"recipe": None, "quarantine": None, "restore": None, "processes": 1}
        out = tmp_path / "verdict.json"
        verify.command(argparse.Namespace(**given, dir=data, json=out))
    assert caught.value.exit_code is Exit.CANNOT_WRITE


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_any_terminal(root, encoding):
    append("val.txt", *[f"val/bee/€{i}.JPEG 1" for i in range(5)])(root)
    call = [sys.executable, str(ROOT / "tools/dataset.py"), "verify", str(root)]
    env = {**os.environ, "PYTHONIOENCODING": encoding}
    done = subprocess.run(call, capture_output=True, env=env)
    assert done.returncode == Exit.LIST_MISSING_FILE and b"Traceback" not in done.stderr
    assert b"and 2 more" in done.stdout


def test_every_kind_has_one_meaning():
    assert not ERRORS.keys() & REMARKS.keys()
    assert all(20 <= code < 30 for code, _ in ERRORS.values())
