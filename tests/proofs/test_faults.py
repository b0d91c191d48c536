"""Processes killed with SIGKILL while they train: the same command, or the launcher, goes on."""

from __future__ import annotations

import psutil
from test_launch import RUN, SHORT, end, finish, read, undisturbed, wait_for_step  # noqa: F401

from proofrun import events
from proofrun.errors import Exit


def test_a_killed_rank_is_restarted_to_the_same_weights(script, tmp_path, undisturbed):  # noqa: F811
    process = script(RUN, *SHORT, "--log-interval", "3")
    wait_for_step(process, 6)
    (torchrun,) = psutil.Process(process.pid).children()
    torchrun.children()[1].kill()
    out, _ = finish(process, Exit.OK)
    assert "rank 1 died" in out and "restart 1 of 3" in out
    assert end(tmp_path / RUN / "001").weights_hash == undisturbed
    assert any(isinstance(e, events.Resume) for e in read(tmp_path / RUN / "001"))


def test_killed_launch_and_killed_torchrun_lose_nothing(script, tmp_path):
    run = "Inceptionv2-Digits_FP32_6E_1CPU_Train"
    flags = ["--set", "batch.per_card=8", "--max-steps", "60", "--log-interval", "2"]
    first = script(run, *flags)
    wait_for_step(first, 4)
    first.kill()  # its ranks save and go, while the next command waits for them
    second = script(run, *flags)
    wait_for_step(second, 6)
    starts = [e for e in read(tmp_path / run / "001") if isinstance(e, events.Resume)]
    assert starts[0].from_step >= 4
    (torchrun,) = psutil.Process(second.pid).children()
    torchrun.kill()
    out, _ = finish(second, Exit.OK)
    assert "torchrun was killed" in out and "restart 1 of 3" in out
