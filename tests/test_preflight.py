"""What launch asks of the machine before any card is taken, on file systems that are too small."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from plans import plan

from proofrun import checkpoint, preflight
from proofrun.errors import Exit, ProofrunError, one_line
from proofrun.runs import Plan, World


@pytest.fixture
def tmpfs(tmp_path) -> Iterator[Path]:
    """A real file system of 8 MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)], check=True)
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def made(loader: str = "dali", **changes: object) -> Plan:
    return plan(loader, "data", 2).model_copy(update=changes)


def test_shared_memory_for_the_loaders_processes(tmpfs):
    """2 ranks x (2 x 100 + 1) batches of 8 images of 64 px: 402 x 98,304 bytes."""
    with pytest.raises(ProofrunError) as caught:
        preflight.check_shared_memory(made("torchvision"), 100, tmpfs)
    said = one_line(caught.value)
    assert caught.value.exit_code is Exit.SHARED_MEMORY and said == str(caught.value)
    assert f"{tmpfs} has 8 MiB free, 200 loader processes need about 38 MiB" in said
    preflight.check_shared_memory(made("torchvision"), 8, tmpfs)
    preflight.check_shared_memory(made("torchvision"), 0, tmpfs)
    preflight.check_shared_memory(made("dali"), 100, tmpfs)  # threads


def test_shared_memory_for_cards(tmpfs):
    gpus = made(device="GPU", world=World(cards=8))
    with pytest.raises(ProofrunError, match="8 cards need about 256 MiB"):
        preflight.check_shared_memory(gpus, 1, tmpfs)
    preflight.check_shared_memory(made(device="GPU", world=World(cards=1)), 1, tmpfs)
    with pytest.raises(ProofrunError, match="has 0 MiB free"):
        preflight.check_shared_memory(gpus, 1, tmpfs / "nowhere")


def test_space_for_the_checkpoints(tmpfs):
    """A full run needs room for all it keeps; what is there already counts."""
    full = made(purpose="full")
    need = preflight.checkpoint_bytes(full.recipe)
    assert need == 4 * 8 * full.recipe.model.parameters
    with pytest.raises(ProofrunError) as caught:
        preflight.check_space(full, tmpfs)
    assert caught.value.exit_code is Exit.CANNOT_WRITE
    said = f"has 8 MiB free, the run's checkpoints need about {need >> 20} MiB"
    assert said in one_line(caught.value)
    preflight.check_space(made(purpose="throughput"), tmpfs)
    small = full.recipe.model.model_copy(update={"parameters": 1 << 18})
    fits = full.recipe.model_copy(update={"model": small})
    (tmpfs / "checkpoints/step-1").mkdir(parents=True)
    (tmpfs / "checkpoints/step-1/train.pt").write_bytes(bytes(4 << 20))
    preflight.check_space(made(purpose="full", recipe=fits), tmpfs)  # 8 MiB, 4 of them written


def test_kept_checkpoints_are_those_of_checkpoint_py():
    best, written = 1, 1
    assert checkpoint.KEEP + best + written == preflight.CHECKPOINTS
