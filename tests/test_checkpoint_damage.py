"""Damaged and foreign checkpoints are named and skipped, and nothing in them is ever run."""

from __future__ import annotations

import json
import os
import pickle
import random
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from saver import ROOT, holds, save

from proofrun import checkpoint, saved
from proofrun.errors import CheckpointError
from proofrun.weights import read_weights


class Payload:
    """Unpickled carelessly, it leaves a file: the canary."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self):
        return (os.mkdir, (str(self.canary),))


@pytest.fixture
def three(tmp_path) -> Path:
    """Checkpoints of steps 2, 9 and 10."""
    for step in (2, 9, 10):
        save(tmp_path, step, keep=True)
    return tmp_path


def sealed(path: Path) -> None:
    """Give a folder the metadata that its files would have: a forger can do that."""
    meta = json.loads((path / "meta.json").read_text())
    for name, entry in meta["files"].items():
        entry |= {
            "bytes": (path / name).stat().st_size,
            "sha256": saved.file_hash(path / name),
        }
    reseal(path, meta)


def reseal(path: Path, meta: dict) -> None:
    meta.pop("meta_sha256", None)
    meta["meta_sha256"] = saved.meta_hash(meta)
    (path / "meta.json").write_text(json.dumps(meta))


def swap_train(path: Path) -> None:
    shutil.copy(path.parent / "step-0000000002" / "train.pt", path)


def other_schema(path: Path) -> None:
    reseal(path, json.loads((path / "meta.json").read_text()) | {"schema": 1})


def pointing_out(path: Path) -> None:
    meta = json.loads((path / "meta.json").read_text())
    reseal(path, meta | {"files": {"../../etc/passwd": meta["files"]["train.pt"]}})


def foreign_safetensors(path: Path) -> None:
    (path / "model.safetensors").write_bytes(b"\xff" * 5000)
    sealed(path)


def no_archive(path: Path) -> None:
    (path / "train.pt").write_bytes(b"PK\x03\x04 no archive")
    sealed(path)


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "safetensors cut short": (
        lambda path: os.truncate(path / "model.safetensors", 4000), "model.safetensors is cut short"
    ),
    "train.pt cut short": (lambda path: os.truncate(path / "train.pt", 100), "train.pt is cut"),
    "train.pt missing": (lambda path: (path / "train.pt").unlink(), "train.pt is cut short or mis"),
    "meta.json missing": (lambda path: (path / "meta.json").unlink(), "meta.json: "),
    "meta.json empty": (lambda path: os.truncate(path / "meta.json", 0), "meta.json: "),
    "meta.json cut short": (lambda path: os.truncate(path / "meta.json", 99), "meta.json: "),
    "meta.json a list": (
        lambda path: (path / "meta.json").write_text("[" * 100000), "meta.json: "
    ),
    "another program's": (
        lambda path: (path / "meta.json").write_text('{"step": 10}'), "not a proofrun checkpoint's"
    ),
    "another schema": (other_schema, "a checkpoint of schema 1, this proofrun reads 2"),
    "train.pt of another": (swap_train, "train.pt differs from its hash"),
    "named as another step": (
        lambda path: shutil.copytree(path.parent / "step-0000000002", path, dirs_exist_ok=True),
        "a checkpoint of another step",
    ),
    "files elsewhere": (pointing_out, "not a proofrun checkpoint's"),
    "rubbish, sealed": (foreign_safetensors, "model.safetensors: cannot be read"),
    "no archive, sealed": (no_archive, "train.pt"),
    "a folder for a file": (
        lambda path: [(path / "train.pt").unlink(), (path / "train.pt").mkdir()], "train.pt is cut"
    ),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_named_and_skipped(three, damage):
    spoil, said = DAMAGE[damage]
    spoil(three / "step-0000000010")
    remarks: list[str] = []
    assert holds(checkpoint.newest(three, remarks), 9)
    assert len(remarks) == 1 and "\n" not in remarks[0]
    assert remarks[0].startswith(str(three / "step-0000000010")) and said in remarks[0]
    save(three, 11)
    assert (three / "step-0000000010").exists()  # marked `keep`, and evidence


def test_all_damaged(three):
    for path in three.glob("step-*"):
        os.truncate(path / "train.pt", 10)
    remarks: list[str] = []
    assert checkpoint.newest(three, remarks) is None
    assert [name in remark for name, remark in zip(("10", "09", "02"), remarks, strict=True)]


@pytest.mark.parametrize("name", ["model.safetensors", "train.pt", "meta.json"])
def test_no_flipped_byte_gives_another_state(tmp_path, name):
    """Found, or (white space in meta.json) of no effect: 150 random places in each file."""
    path, chance = save(tmp_path, 7, best_top1=93.25, clock={"wall_s": 12.5}), random.Random(11)
    whole = checkpoint.load(path)
    raw = (path / name).read_bytes()
    found = 0
    for _ in range(150):
        flipped = bytearray(raw)
        flipped[chance.randrange(len(raw))] ^= 1 << chance.randrange(8)
        (path / name).write_bytes(flipped)
        try:
            loaded = checkpoint.load(path)
        except CheckpointError as error:
            found += 1
            assert name in str(error) or "schema" in str(error), error
        else:
            assert name == "meta.json" and loaded.meta == whole.meta and holds(loaded, 7)
    assert found > 120 if name == "meta.json" else found == 150


def spoiled(train: dict, canary: Path) -> dict:
    return {**train, "ranks": [Payload(canary)]}


def test_a_foreign_train_pt_runs_no_code(three, tmp_path):
    canary = tmp_path / "canary"
    path = three / "step-0000000010"
    train = checkpoint.load(path).train
    torch.save(spoiled(train, canary), path / "train.pt")
    sealed(path)
    remarks: list[str] = []
    assert holds(checkpoint.newest(three, remarks), 9)
    assert "nothing of it was run" in remarks[0] and "\n" not in remarks[0]
    assert (
        "train.pt" in remarks[0] and "weights_only" not in remarks[0]
    )  # torch's own advice is to trust the file
    assert not canary.exists()
    torch.load(path / "train.pt", weights_only=False)
    assert canary.exists()  # it would have sung


@pytest.mark.parametrize("form", ["torch", "legacy", "pickle", "archive"])
def test_foreign_weights_run_no_code(tmp_path, form):
    canary, file = tmp_path / "canary", tmp_path / "weights.pth"
    state = {"fc.weight": torch.ones(2, 2), "extra": Payload(canary)}
    if form == "pickle":
        file.write_bytes(pickle.dumps(state))
    else:
        torch.save(state, file, _use_new_zipfile_serialization=form != "legacy")
    if form == "archive":  # a payload beside good tensors, in the archive's own pickle
        torch.save({"fc.weight": torch.ones(2, 2)}, file)
        inside = zipfile.ZipFile(file).namelist()
        rewritten = {name: zipfile.ZipFile(file).read(name) for name in inside}
        with zipfile.ZipFile(file, "w") as out:
            for name, content in rewritten.items():
                spoil = name.endswith("data.pkl")
                out.writestr(name, pickle.dumps(Payload(canary)) if spoil else content)
    with pytest.raises(CheckpointError, match="nothing of it was run") as caught:
        read_weights(file)
    assert str(file) in str(caught.value) and "\n" not in str(caught.value)
    assert not canary.exists()


def test_weights_of_either_format_are_read(tmp_path):
    state = {"fc.weight": torch.arange(4.0).reshape(2, 2), "fc.bias": torch.zeros(2)}
    torch.save(state, tmp_path / "a.pth")
    torch.save(state, tmp_path / "b.pt", _use_new_zipfile_serialization=False)
    save_file(state, tmp_path / "c.safetensors")
    for name in ("a.pth", "b.pt", "c.safetensors"):
        read = read_weights(tmp_path / name)
        assert read.keys() == state.keys()
        assert all(torch.equal(read[key], state[key]) for key in state)


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
@pytest.mark.parametrize("content", [None, b"", b"PK\x03\x04", b"\x00" * 4000, b"rubbish" * 99])
def test_what_are_no_weights(tmp_path, name, content):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(CheckpointError) as caught:
        read_weights(tmp_path / name)
    assert str(tmp_path / name) in str(caught.value) and "\n" not in str(caught.value)


def test_metadata_needs_no_torch(three):
    """Neither ours nor a stranger's reader of meta.json may import it."""
    folder = three / "step-0000000010"
    plain = f"import json; print(json.load(open({str(folder / 'meta.json')!r}))['step'])"
    ours = (
        "import sys; sys.modules['torch'] = sys.modules['safetensors'] = None\n"
        "from pathlib import Path; from proofrun.saved import verify\n"
        f"print(verify(Path({str(folder)!r}))['step'])"
    )
    for code in (plain, ours):
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True
        )
        assert done.stdout == "10\n", done.stderr
