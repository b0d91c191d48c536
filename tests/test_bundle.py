"""Bundles: what was packed is verified, what anybody changed is not, whatever was changed."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import random
import re
import shutil
import tarfile
import tempfile
from pathlib import Path

import pytest
from fake_logs import FakeRun
from report_tool import report
from test_report import DIGITS

from proofrun.errors import Exit, UsageError
from tools._report.archive import Content, content, pack, unpack
from tools._report.verify import examine, verify

ROOT = Path(__file__).resolve().parent.parent
Files = dict[str, bytes]


def verified(path: Path) -> bool:
    """In this process: a new interpreter for each flipped byte would take minutes."""
    return verify(path, None)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Path:
    """One finished run and one in progress, packed."""
    folder = tmp_path_factory.mktemp("bundle")
    FakeRun(DIGITS).write(folder / "logs")
    going = FakeRun(DIGITS, number=2, status=None, stop_epoch=2).write(folder / "logs")
    (going / "checkpoints").mkdir()
    (going / "checkpoints" / "model.safetensors").write_bytes(b"weights")
    done = report(folder / "logs", "--bundle", folder / "b.tar.gz")
    assert done.returncode == 0, done.stderr
    shutil.rmtree(folder / "logs")
    return Path(folder / "b.tar.gz")


def read(path: Path) -> Files:
    with tarfile.open(path) as tar:
        return {m.name: tar.extractfile(m).read() for m in tar}  # type: ignore[union-attr]


def write(path: Path, files: Files, manifest: bool = False) -> Path:
    """An archive of these files; with `manifest`, as somebody who recomputes all hashes."""
    if manifest:
        said = json.loads(files["manifest.json"])
        said["files"] = [
            {"path": name, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
            for name, data in files.items()
            if name != "manifest.json"
        ]
        files = files | {"manifest.json": json.dumps(said).encode()}
    with tarfile.open(path, "w:gz", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def holds(path: Path) -> bool:
    """As `verified`, without the tables."""
    with tempfile.TemporaryDirectory() as folder:
        return examine(path, Path(folder), None).verified


def digest(text: str) -> str:
    return re.findall(r"Bundle digest: (\w+)", text)[0]


def test_a_stranger_verifies_in_an_empty_folder(tmp_path, capsys):
    for seed in (1, 2):
        FakeRun(DIGITS, number=seed, seed=seed).write(tmp_path / "logs")
    first = report(tmp_path / "logs", "--bundle", tmp_path / "one.tar.gz")
    moved = shutil.copytree(tmp_path / "logs", tmp_path / "elsewhere" / "logs")
    again = report(moved, "--bundle", tmp_path / "two.tar.gz")
    assert (tmp_path / "one.tar.gz").read_bytes() == (tmp_path / "two.tar.gz").read_bytes()
    assert digest(first.stdout) == digest(again.stdout)
    assert not (tmp_path / "logs" / "report").exists()
    shutil.rmtree(tmp_path / "logs")
    empty = tmp_path / "empty"
    empty.mkdir()
    stated = ("--digest", digest(first.stdout).upper())
    done = report("--verify", tmp_path / "one.tar.gz", *stated, cwd=empty)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1].startswith("verified: ")
    assert "\nAccuracy\n" in done.stdout and "(as stated)" in done.stdout
    assert list(empty.iterdir()) == []
    assert not verify(tmp_path / "one.tar.gz", "0" * 64)
    assert "not the stated one" in capsys.readouterr().out


def test_what_is_packed(bundle):
    files = read(bundle)
    assert list(files)[:2] == ["manifest.json", "report.json"]
    assert not any("checkpoints" in name for name in files)
    said = json.loads(files["manifest.json"])
    assert {e["path"] for e in said["files"]} == set(files) - {"manifest.json"}
    states = [run["status"] for run in json.loads(files["report.json"])["runs"]]
    assert states == ["finished", "running"]
    assert verified(bundle)


def test_a_run_that_goes_on_stays_in_progress(tmp_path):
    """status.json of its last interruption is older than its events: in the bundle too."""
    folder = FakeRun(DIGITS, status=None, stop_epoch=2).write(tmp_path / "logs")
    (folder / "status.json").write_text('{"status": "interrupted", "message": "before"}')
    events = folder / "events.jsonl"
    later = (folder / "status.json").stat().st_mtime + 5
    os.utime(events, (later, later))
    assert report(tmp_path / "logs", "--bundle", tmp_path / "b.tgz").returncode == 0
    assert json.loads(read(tmp_path / "b.tgz")["report.json"])["runs"][0]["status"] == "running"
    assert verified(tmp_path / "b.tgz")


def test_no_flipped_byte_of_the_archive_is_verified(bundle, tmp_path):
    raw, files, bad = bundle.read_bytes(), read(bundle), tmp_path / "bad.tar.gz"
    draw = random.Random(4)
    places = [*range(0, 12), *draw.sample(range(12, len(raw)), 15), *range(len(raw) - 9, len(raw))]
    for place in places:
        bad.write_bytes(
            raw[:place] + bytes([raw[place] ^ (1 << draw.randrange(8))]) + raw[place + 1 :]
        )
        if holds(bad):
            assert read(bad) == files, place  # gzip's time stamp, a padding bit
    for end in (0, 5, 11, len(raw) // 2, len(raw) - 1):
        bad.write_bytes(raw[:end])
        assert not holds(bad)
    for more in (b"\0", b"x", raw):
        bad.write_bytes(raw + more)
        assert not holds(bad)


def test_no_flipped_byte_of_a_file_is_verified_and_the_file_is_named(bundle, tmp_path, capsys):
    files, draw = read(bundle), random.Random(5)
    for name in [name for name in files]:
        place = draw.randrange(len(files[name]))
        data = bytearray(files[name])
        data[place] ^= 1 << draw.randrange(8)
        assert not verified(write(tmp_path / "bad.tar.gz", files | {name: bytes(data)}))
        said = capsys.readouterr()
        assert said.err == ""
        if name != "manifest.json":
            assert f"problem: {name}: changed, sha256" in said.out


def test_who_recomputes_the_hashes_meets_the_verdicts_or_the_digest(bundle, tmp_path, capsys):
    files = read(bundle)
    assert verified(bundle)
    published = digest(capsys.readouterr().out)
    report = json.loads(files["report.json"])
    report["tables"]["accuracy"][0]["top1"] += 0.5
    report["judgements"][0]["verdict"] = "not reproduced"
    forged = files | {"report.json": json.dumps(report).encode()}
    assert not verified(write(tmp_path / "bad.tar.gz", forged, manifest=True))
    said = capsys.readouterr().out
    assert "tables.accuracy[0].top1: 99.11" in said and "-> 98.61" in said
    assert "judgements[0].verdict: not reproduced -> reproduced" in said
    # The logs and the report forged alike: only the publisher's digest tells.
    name = next(n for n in files if n.endswith("provenance.json"))
    forged = files | {name: b'{"commit": "1111111"}\n'}
    assert verified(write(tmp_path / "bad.tar.gz", forged, manifest=True))
    assert digest(capsys.readouterr().out) != published
    assert not verify(tmp_path / "bad.tar.gz", published)


def test_an_easier_claim_is_told(bundle, tmp_path, capsys):
    files = read(bundle)
    plans = {
        n: d.replace(b"value: 97.0", b"value: 9.0").replace(b'"value":97.0', b'"value":9.0')
        for n, d in files.items()
        if n.endswith(("recipe.yaml", "events.jsonl"))
    }
    verified(write(tmp_path / "bad.tar.gz", files | plans, manifest=True))
    said = capsys.readouterr().out
    assert "note: claims of Inceptionv2 on Digits" in said and "value: 97.0 -> 9.0" in said


def test_files_that_do_not_belong(bundle, tmp_path, capsys):
    files, bad = read(bundle), tmp_path / "bad.tar.gz"
    name = next(n for n in files if n.endswith("events.jsonl"))
    assert not verified(write(bad, {n: d for n, d in files.items() if n != name}))
    assert f"{name}: missing" in capsys.readouterr().out
    assert not verified(write(bad, files | {"logs/more/001/events.jsonl": b"{}\n"}))
    assert "not in the manifest" in capsys.readouterr().out
    assert not verified(write(bad, files | {"logs/run.sh": b"rm"}, manifest=True))
    assert "no file of a bundle" in capsys.readouterr().out
    assert not verified(write(bad, {n: d for n, d in files.items() if n != "manifest.json"}))
    for data in (b"", b"[]", b"[" * 100_000, b'{"files": NaN}'):
        assert not verified(write(bad, files | {"manifest.json": data}))
        assert not verified(write(bad, files | {"report.json": data}, manifest=True))
    aliases = b"a: &a [1,1,1,1,1,1,1,1,1]\n" + b"".join(
        b"%c: &%c [%s]\n" % (98 + i, 98 + i, b",".join([b"*%c" % (97 + i)] * 9)) for i in range(12)
    )
    plans = {n: aliases for n in files if n.endswith("recipe.yaml")}
    events = {n: b"" for n in files if n.endswith("events.jsonl")}
    assert not verified(write(bad, files | plans | events, manifest=True))
    assert "an alias" in capsys.readouterr().out


def hostile(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


@pytest.mark.parametrize(
    "member",
    [
        hostile("../escaped"),
        hostile("/tmp/escaped-by-proofrun"),
        hostile("logs/../../escaped"),
        hostile("logs//x"),
        hostile("logs/\x1b[31m"),
        hostile("logs\\x"),
        hostile("a/" * 60 + "x"),
        hostile("logs/link", tarfile.SYMTYPE, "/etc/passwd"),
        hostile("logs/link", tarfile.LNKTYPE, "manifest.json"),
        hostile("logs/pipe", tarfile.FIFOTYPE),
        hostile("logs/device", tarfile.CHRTYPE),
        hostile("logs", tarfile.DIRTYPE),
        hostile("logs/sparse", tarfile.GNUTYPE_SPARSE),
        hostile("logs/" + "n" * 120, tarfile.REGTYPE),
        hostile("manifest.json"),
        hostile("report.json/x"),
    ],
    ids=lambda info: info.name[:20].encode().hex()[:12] + str(info.type),
)
def test_names_and_kinds_that_lead_out(bundle, tmp_path, member, capsys):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name, data in read(bundle).items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            info.devmajor = 0
            tar.addfile(info, io.BytesIO(data))
        tar.addfile(member)
    inside = tmp_path / "inside"
    inside.mkdir()
    (inside / "bad.tar.gz").write_bytes(gzip.compress(stream.getvalue()))
    assert not verified(inside / "bad.tar.gz")
    assert "problem: the archive" in capsys.readouterr().out
    assert [p.name for p in tmp_path.iterdir()] == ["inside"]
    assert not Path("/tmp/escaped-by-proofrun").exists()


def test_a_bomb_is_left_unpacked(tmp_path, capsys):
    bomb = tmp_path / "bomb.tar.gz"
    with tarfile.open(bomb, "w:gz", compresslevel=1, format=tarfile.USTAR_FORMAT) as tar:
        info = tarfile.TarInfo("manifest.json")
        info.size = 30 << 20
        tar.addfile(info, io.BytesIO(bytes(info.size)))
    assert not verified(bomb)
    assert "times its size" in capsys.readouterr().out
    huge = tarfile.TarInfo("manifest.json")
    huge.size = 1 << 30
    bomb.write_bytes(gzip.compress(huge.tobuf(tarfile.USTAR_FORMAT) + bytes(512)))
    assert not verified(bomb)
    assert "MiB unpacked" in capsys.readouterr().out


@pytest.mark.parametrize("what", ["missing", "digest", "name", "empty"])
def test_wrong_use_is_one_line(tmp_path, what):
    (tmp_path / "logs").mkdir()
    arguments = {
        "missing": ["--verify", tmp_path / "none.tar.gz"],
        "digest": [tmp_path / "logs", "--digest", "0" * 64],
        "empty": [tmp_path / "logs", "--bundle", tmp_path / "b.tgz"],
        "name": [tmp_path / "logs", "--bundle", tmp_path / "b.zip"],
    }[what]
    done = report(*arguments)
    assert done.returncode == Exit.USAGE
    assert done.stderr.count("\n") == 1 and done.stderr.startswith("report.py: ")


def test_what_is_no_archive(tmp_path, capsys):
    with pytest.raises(UsageError):
        verify(tmp_path, None)
    (tmp_path / "x.zip").write_bytes(b"PK\3\4" + bytes(100))
    assert not verified(tmp_path / "x.zip") and "no gzip file" in capsys.readouterr().out


def test_absurd_logs_are_no_traceback(bundle, tmp_path, capsys):
    """Whole by its hashes, and made to break the arithmetic of whoever judges it."""
    files = read(bundle)
    strange = {
        name: data.replace(b'"images":', b'"images":' + b"9" * 400)
        for name, data in files.items()
        if name.endswith("events.jsonl")
    }
    done = report("--verify", write(tmp_path / "bad.tar.gz", files | strange, manifest=True))
    assert done.returncode == Exit.VERDICT and "Traceback" not in done.stderr
    many = {name: b"\n" * 2_100_000 for name in list(strange)[:1]}
    assert not verified(write(tmp_path / "bad.tar.gz", files | many, manifest=True))
    assert "lines in all" in capsys.readouterr().out


def test_large_files_that_do_not_shrink_are_no_bomb(tmp_path):
    names = ["logs/a", "logs/" + "n" * 90 + "/" + "m" * 90]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(random.Random(1).randbytes((9 << 20) + 1))
    with (tmp_path / "packed").open("wb+") as file:
        pack(file, tmp_path, names)
        file.seek(0)
        found: dict[str, Content] = {}
        unpack(file, tmp_path / "out", found)
    assert found == {name: content(tmp_path / name) for name in names}
    assert all(found[name] == content(tmp_path / "out" / name) for name in names)
