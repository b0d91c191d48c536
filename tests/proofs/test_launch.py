"""Real runs through the run scripts: signals, kills, resume, and what ends a run."""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from proofrun import events
from proofrun.errors import Exit

RUN = "GoogLeNet-Digits_FP32_10E_2CPUs_Train"  # dropout, jitter, two ranks: every source of chance
SHORT = ["--max-steps", "26", "--set", "batch.per_card=16", "--seed", "7"]


def read(folder: Path) -> list[events.AnyEvent]:
    found = [event for _, event in events.read_events(folder / "events.jsonl")]
    assert not [event for event in found if isinstance(event, str)]
    return found


def end(folder: Path) -> events.RunEnd:
    last = read(folder)[-1]
    assert isinstance(last, events.RunEnd)
    return last


def wait_for_step(process, step: int) -> None:
    """Read the run's lines until it has logged `step`."""
    deadline = time.monotonic() + 120
    for line in process.stdout:
        found = re.match(r"step (\d+)/", line)
        if found and int(found[1]) >= step:
            return
        assert time.monotonic() < deadline
    pytest.fail(f"ended before step {step}: {process.stderr.read()}")


def catches(pid: int, number: int) -> bool:
    """Whether the process has a handler for the signal."""
    status = Path(f"/proc/{pid}/status").read_text()
    return bool(int(re.search(r"SigCgt:\s*(\w+)", status)[1], 16) >> (number - 1) & 1)


def finish(process, code: Exit) -> tuple[str, str]:
    out, err = process.communicate(timeout=180)
    assert process.returncode == code, out + err
    assert "Traceback" not in out + err
    return out, err


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, environment) -> str:
    """Hash of the final weights of a run that met nothing."""
    logs = tmp_path_factory.mktemp("undisturbed")
    root = Path(__file__).resolve().parents[2]
    subprocess.run(
        ["bash", str(root / "run_scripts" / f"{RUN}.sh"), "--logs", str(logs), *SHORT],
        env=environment, check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    weights = end(logs / RUN / "001").weights_hash
    assert weights is not None
    return weights


def test_sigterm_then_ctrl_c_then_the_same_weights(script, tmp_path, undisturbed):
    """Two ranks, stopped mid-epoch twice: saved, exit 75, and bit-equal at the end."""
    folder = tmp_path / RUN / "001"
    scratch = tmp_path / "tmp"
    scratch.mkdir()
    for number, step in ((signal.SIGTERM, 3), (signal.SIGINT, 12)):
        process = script(RUN, *SHORT, "--log-interval", "3", TMPDIR=str(scratch))
        wait_for_step(process, step)
        process.send_signal(number)
        started = time.monotonic()
        finish(process, Exit.INTERRUPTED)
        assert time.monotonic() - started < 30
        assert json.loads((folder / "status.json").read_text())["status"] == "interrupted"
        assert not [path for path in scratch.rglob("*") if path.is_file()]
        assert not [*scratch.glob("torchelastic*"), *scratch.glob("proofrun*")]
    out, _ = finish(script(RUN, *SHORT), Exit.OK)
    assert "resumed" in out
    assert end(folder).weights_hash == undisturbed

    log = read(folder)
    assert [event.seq for event in log] == list(range(len(log)))
    counted = [e for e in events.effective(log) if isinstance(e, events.Train)]
    assert sum(e.steps for e in counted) == 26
    assert [e.step for e in counted] == sorted({e.step for e in counted})
    clocks = [(e.wall_s, e.mark_s, e.train_s) for e in log]
    for before, after in itertools.pairwise(clocks):
        assert all(a <= b for a, b in zip(before, after, strict=True))


def test_a_signal_before_the_ranks_are_up_is_not_a_crash(script, tmp_path):
    run = "Inceptionv2-Digits_FP32_6E_2CPUs_Train"
    process = script(run, "--throughput", "2")
    while not process.stdout.readline().startswith("$ "):
        pass
    time.sleep(1)  # torchrun is importing torch
    process.send_signal(signal.SIGTERM)
    out, _ = finish(process, Exit.INTERRUPTED)
    assert "restart" not in out
    out, _ = finish(script(run, "--throughput", "2"), Exit.OK)
    assert "resumed" in out and end(tmp_path / run / "001").step == 2


def test_a_signal_while_launch_still_imports_its_packages(script, tmp_path):
    """Whenever it comes after Python is up: exit 75 and one line, and no number is lost."""
    run = "Inceptionv2-Digits_FP32_6E_1CPU_Train"
    for delay in (0.0, 0.1, 0.2, 0.3):
        process = script(run, "--throughput", "2")
        while not catches(process.pid, signal.SIGTERM):  # plain Python does not
            time.sleep(0.001)
        time.sleep(delay)
        process.send_signal(signal.SIGINT)
        _, err = finish(process, Exit.INTERRUPTED)
        assert err.count("\n") == 1, err
    assert {path.name for path in (tmp_path / run).glob("[0-9]*")} <= {"001"}


def test_a_damaged_recipe_of_an_interrupted_run_says_how_to_go_on(script, tmp_path):
    run = "Inceptionv2-Digits_FP32_6E_1CPU_Train"
    folder = tmp_path / run / "001"
    folder.mkdir(parents=True)
    for text in ("run: [", "run: 3\n", "\tx"):
        (folder / "recipe.yaml").write_text(text)
        _, err = finish(script(run, "--throughput", "2"), Exit.BAD_RECIPE)
        assert err.count("\n") == 1 and "--new" in err


def test_a_graph_that_model_py_lacks(script, tmp_path):
    """An exit code of its own, also where nobody reads; and a wrong flag stands in nobody's way."""
    run = "Inceptionv2-Digits_FP32_6E_1CPU_Train"
    _, err = finish(script(run, "--set", "model.graph=lenet"), Exit.BAD_OVERRIDE)
    assert "'lenet'" in err and err.count("\n") == 1
    process = script(run, "--set", "model.graph=alexnet")  # nothing was saved: a new number
    assert f"{run}/002" in process.stdout.readline()
    process.stdout.close()  # as `| head -1` does
    assert process.wait(timeout=120) == Exit.BAD_OVERRIDE


def test_nohup_a_reader_who_leaves_and_relative_paths(script, tmp_path, digits):
    """A closed terminal sends SIGHUP, which nohup has ignored; `| head` closes our stdout; paths
    in flags are the caller's."""
    run = "Inceptionv2-Digits_FP32_6E_1CPU_Train"
    (tmp_path / "mine").symlink_to(digits)
    flags = ["--throughput", "4", "--data", "mine", "--logs", "my logs"]
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        process = script(run, *flags, COLUMNS="")
    finally:
        signal.signal(signal.SIGHUP, before)
    wait_for_step(process, 2)
    process.send_signal(signal.SIGHUP)
    process.stdout.close()
    assert process.wait(timeout=120) == Exit.OK
    assert process.stderr.read() == ""
    folder = tmp_path / "my logs" / run / "001"
    assert end(folder).step == 4
    assert "step 4/4" in (folder / "stdout.log").read_text()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_quickstart_passes_a_stop_on(environment, tmp_path, number):
    """With a stand-in for the interpreter that trains until it is told to stop."""
    stub = tmp_path / "python"
    stub.write_text(
        "#!/bin/bash\n[[ $1 == */launch.py ]] || exit 0\n"
        f"trap 'echo saved > {tmp_path}/saved; exit 75' TERM\n"
        f"touch {tmp_path}/training\nwhile :; do sleep 0.1; done\n"
    )
    stub.chmod(0o755)
    root = Path(__file__).resolve().parents[2]
    process = subprocess.Popen(
        ["bash", str(root / "run_scripts" / "quickstart.sh")],
        env={**environment, "PYTHON": str(stub)},
        # bash traps no signal that it was born ignoring, as whatever runs the tests may do
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 30
    while not (tmp_path / "training").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(number)
    _, err = process.communicate(timeout=30)
    assert process.returncode == Exit.INTERRUPTED
    assert (tmp_path / "saved").exists() and err.count("\n") == 1


def test_not_finite_stops_names_the_step_and_is_not_resumed(script, tmp_path):
    run = "Inceptionv2-Digits_FP32_6E_1CPU_Train"
    flags = ["--set", "optimizer.lr.base=1e30", "--set", "batch.per_card=16", "--max-steps", "9"]
    _, err = finish(script(run, *flags), Exit.NON_FINITE)
    assert re.search(r"not finite at step \d+ on rank 0", err) and err.count("\n") == 1
    folder = tmp_path / run
    assert json.loads((folder / "001" / "status.json").read_text())["status"] == "failed"
    assert not (folder / "001" / "checkpoints").exists()
    kinds = [event.kind for event in read(folder / "001")]
    assert kinds[-2:] == ["fault", "run_end"]
    # failed is not resumed: a new number
    second = script(run, "--throughput", "2")
    assert f"{run}: new" in second.stdout.readline()
    second.terminate()
    finish(second, Exit.INTERRUPTED)
    assert (folder / "002").is_dir()


def test_an_image_that_breaks_in_the_decoder(script, tmp_path, digits, environment):
    """Good first and last bytes, rubbish between: found by the pipeline, named, not restarted."""
    data = tmp_path / "data"
    shutil.copytree(digits, data)
    victim = sorted((data / "train").rglob("*.*"))[0]
    raw = bytearray(victim.read_bytes())
    start = raw.index(b"\xff\xc0") + 2  # the frame header's length and size
    raw[start : start + 9] = b"\x00" * 9
    victim.write_bytes(raw)
    process = script("Inceptionv2-Digits_FP32_6E_1CPU_Train", "--data", str(data))
    _, err = finish(process, Exit.IMAGE_INVALID)
    assert victim.name in err and err.count("\n") == 1


def test_a_second_command_for_the_same_run_is_refused(script, tmp_path):
    run = "Inceptionv2-Digits_FP32_6E_1CPU_Train"
    first = script(run, "--set", "batch.per_card=16")
    wait_for_step(first, 1)
    _, err = finish(script(run, "--set", "batch.per_card=16"), Exit.RUN_LOCKED)
    assert "--new" in err
    os.kill(first.pid, signal.SIGTERM)
    finish(first, Exit.INTERRUPTED)
    # interrupted with this override: another one does not go on from here
    _, err = finish(script(run, "--set", "batch.per_card=32"), Exit.RESUME_REFUSED)
    assert "--new" in err and "--set batch.per_card=16" in err
    assert sorted(p.name for p in (tmp_path / run).iterdir() if p.is_dir()) == ["001"]
