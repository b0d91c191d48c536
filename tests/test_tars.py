"""The reader of tar archives: all that tar writes, and nothing that an enemy writes."""

from __future__ import annotations

import io
import os
import random
import subprocess
import tarfile
from pathlib import Path

import pytest
from archives import info, tar

from proofrun.archive import DamagedError, Limits
from tools._dataset import tars

FILES = [("a.JPEG", b"x" * 700), ("b c.JPEG", b""), ("sub/é.JPEG", b"y" * 512)]


def read(data: bytes, **options) -> dict[str, bytes]:
    fd = os.memfd_create("test")
    try:
        os.write(fd, data)
        found = tars.walk(fd, 0, len(data), **options)
        return {m.name: os.pread(fd, m.size, m.offset) for m in found}
    finally:
        os.close(fd)


def header(name: str = "a.JPEG", size: int = 0, kind: bytes = tarfile.REGTYPE, **more) -> bytes:
    made = info(name, size, kind)
    for key, value in more.items():
        setattr(made, key, value)
    return made.tobuf(tarfile.GNU_FORMAT)


def rechecked(block: bytes) -> bytes:
    """The header with the checksum that its bytes have."""
    total = sum(block[:148]) + 8 * 32 + sum(block[156:512])
    return block[:148] + b"%06o\0 " % total + block[156:]


END = bytes(1024)


def test_what_python_writes():
    for form in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT):
        assert read(tar(FILES, format=form)) == dict(FILES)
    assert read(tar([("d/", b""), *FILES])) == dict(FILES)
    assert read(tar([])) == {}


@pytest.mark.parametrize("form", ["v7", "ustar", "gnu", "posix"])
@pytest.mark.parametrize("what", [".", "sub", "a.JPEG"])
def test_what_gnu_tar_writes(tmp_path, form, what):
    for name, data in FILES:
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_bytes(data)
    plain = {name: data for name, data in FILES if what == "." or name.startswith(what)}
    if form == "posix":  # there, a name that is not ASCII stands in an extended header
        (tmp_path / "in" / "sub" / "é.JPEG").rename(tmp_path / "in" / "sub" / "e.JPEG")
        plain = {name.replace("é", "e"): data for name, data in plain.items()}
    out = tmp_path / "made.tar"
    line = ["tar", f"--format={form}", "-C", tmp_path / "in", "-cf", out, what]
    subprocess.run(line, check=True)
    assert read(out.read_bytes()) == plain


def test_python_added_files_have_dates_in_extended_headers(tmp_path):
    (tmp_path / "a.JPEG").write_bytes(b"picture")
    with tarfile.open(tmp_path / "x.tar", "w") as made:
        made.add(tmp_path / "a.JPEG", "a.JPEG")
    data = (tmp_path / "x.tar").read_bytes()
    assert data[156:157] == tarfile.XHDTYPE and b"mtime=" in data[:1536]
    assert read(data) == {"a.JPEG": b"picture"}


@pytest.mark.parametrize(
    ("block", "why"),
    [
        (header("../a.JPEG"), "leads out of its folder"),
        (header("x/../../a.JPEG"), "leads out of its folder"),
        (header("/etc/passwd"), "not a relative path"),
        (header("a\nb.JPEG"), "unprintable characters"),
        (header("x/" * 20 + "a.JPEG"), "too deep a folder"),
        (header(kind=tarfile.SYMTYPE, linkname="/etc/passwd"), "a symbolic link"),
        (header(kind=tarfile.LNKTYPE, linkname="b"), "a hard link"),
        (header(kind=tarfile.CHRTYPE), "a device"),
        (header(kind=tarfile.BLKTYPE), "a device"),
        (header(kind=tarfile.FIFOTYPE), "a pipe"),
        (rechecked(header()[:156] + b"S" + header()[157:]), "a sparse file"),
        (rechecked(header()[:156] + b"?" + header()[157:]), "of the unknown kind"),
        (header("n" * 300), "a name of more than 255 bytes"),
        (header("a.JPEG") + header("a.JPEG"), "there twice"),
        (header("./a.JPEG") + header("a.JPEG"), "there twice"),
        (rechecked(b"\xff\xfe.JPEG\0" + header()[8:]), "a name that is not UTF-8"),
        (rechecked(header()[:124] + b"\xff" * 12 + header()[136:]), "a size that cannot be"),
        (header(size=1 << 27), "its end is missing"),
        (header("x", 5, tarfile.DIRTYPE) + bytes(512), "a size that cannot be"),
        (b"\x1f\x8b" + os.urandom(510), "no tar archive, or damaged at byte 0"),
        (header() + END + b"x" + bytes(511), "something hidden behind its end"),
    ],
)  # fmt: skip
def test_what_is_refused(block, why):
    with pytest.raises(DamagedError, match=why):
        read(block + END)


@pytest.mark.parametrize(
    ("key", "value"),
    [("path", "../evil"), ("size", "5"), ("linkpath", "x"), ("GNU.sparse.major", "1"),
     ("SCHILY.realsize", "9"), ("hdrcharset", "BINARY")],
)  # fmt: skip
def test_extended_headers_that_change_a_file_are_refused(key, value):
    made = info("a.JPEG", 0)
    for kind in (tarfile.XHDTYPE, tarfile.XGLTYPE):
        block = made.create_pax_global_header({key: value})
        block = rechecked(block[:156] + kind + block[157:512]) + block[512:]
        with pytest.raises(DamagedError, match=f"extended header that sets '{key}'"):
            read(block + header() + END)
    damaged = info("pax", 4, tarfile.XHDTYPE).tobuf(tarfile.USTAR_FORMAT) + b"9 x=" + bytes(508)
    with pytest.raises(DamagedError, match="damaged extended header"):
        read(damaged + header() + END)
    huge = info("pax", 1 << 20, tarfile.XHDTYPE).tobuf(tarfile.USTAR_FORMAT) + bytes(1 << 20)
    with pytest.raises(DamagedError, match="more than 64 KiB"):
        read(huge + header() + END)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"limits": Limits(bytes=1 << 40, files=2)}, "more than 2 files"),
        ({"limits": Limits(bytes=1 << 20, files=9)}, "more than 1 MiB unpacked"),
        ({"largest": 1 << 20}, "a file of more than 1 MiB"),
    ],
)
def test_limits(options, why):
    with pytest.raises(DamagedError, match=why):
        read(tar([*FILES, ("big", bytes(2 << 20))]), **options)


def test_cut_anywhere():
    data = tar([*FILES, ("last.JPEG", b"z" * 100)])
    end = data.rfind(b"z") + 1
    for length in range(0, end, 97):
        with pytest.raises(DamagedError, match="its end is missing"):
            read(data[:length])
    assert read(data[: end + -end % 512 + 512]) == read(data)  # a lone last block is enough


def test_a_flipped_bit_is_seen_or_lies_in_a_file():
    data = tar(FILES)
    rng = random.Random(0)
    seen = 0
    for _ in range(2000):
        place = rng.randrange(len(data))
        flipped = bytearray(data)
        flipped[place] ^= 1 << rng.randrange(8)
        try:
            found = read(bytes(flipped))
        except DamagedError:
            seen += 1
        else:
            assert list(found) == [name for name, _ in FILES]
            assert list(map(len, found.values())) == [len(text) for _, text in FILES]
    assert seen > 1000


def test_an_inner_archive_is_read_in_its_place(tmp_path):
    inner = tar(FILES)
    path = tmp_path / "outer.tar"
    path.write_bytes(tar([("one.tar", inner), ("two.tar", tar([("only.JPEG", b"1")]))]))
    with path.open("rb") as file:
        fd = file.fileno()
        one, two = tars.walk(fd, 0, path.stat().st_size)
        assert [m.name for m in tars.walk(fd, one.offset, one.offset + one.size)] == [
            name for name, _ in FILES
        ]
        assert [m.name for m in tars.walk(fd, two.offset, two.offset + two.size)] == ["only.JPEG"]
        with pytest.raises(DamagedError, match="its end is missing"):
            list(tars.walk(fd, one.offset, one.offset + 1024))


def test_agrees_with_python_on_the_order(tmp_path):
    names = [f"{i:03d}.JPEG" for i in range(50)]
    data = tar([(name, name.encode()) for name in reversed(names)])
    with tarfile.open(fileobj=io.BytesIO(data)) as theirs:
        assert theirs.getnames() == list(read(data)) == names[::-1]


def test_an_archive_that_shrinks_while_it_is_read(tmp_path):
    path = Path(tmp_path / "x.tar")
    path.write_bytes(tar(FILES))
    with path.open("rb+") as file:
        found = tars.walk(file.fileno(), 0, path.stat().st_size)
        next(found)
        file.truncate(1024)
        with pytest.raises(DamagedError, match="its end is missing"):
            list(found)
