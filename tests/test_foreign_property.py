"""No log makes a reader raise: mutated lines of the shapes of test_foreign_benchmarks."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
from fake_benchmark_logs import (
    dlll,
    dlll_run,
    meter_line,
    mllog,
    mlperf_run,
    timm_epoch,
    torchvision_run,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tools._report.foreign.figures import at_mark, figures
from tools._report.foreign.read import ForeignFile, read_file

MLP = ':::MLPv0.5.0 resnet 1540000000.5 (a.py:1) eval_accuracy: {"epoch": 3, "value": 0.75}\n'
MLL = ':::MLL 1560000000.5 eval_accuracy: {"value": 0.75, "metadata": {"epoch_num": 4}}\n'
DLL = "DLL 2020-01-02 03:04:05.5 - Epoch: 0 Iteration: 1  train.loss : 6.9  lr : 0.1\n"
CSV = 'epoch,train_loss,train_lr,eval_loss,eval_top1,time\n0,6.5,"[0.1, 0.2]",5.5,1.5,1600000000\n'
SWIN = (
    "[2021-04-04 10:00:00 swin] (main.py 12): INFO Train: [0/300][1/11]\teta 1:02:03 lr 0.001\t"
    "time 1.5 (1.5)\tloss 6.5 (6.5)\n"
    "[2021-04-04 10:00:09 swin] (main.py 12): INFO  * Acc@1 10.5 Acc@5 20.5\n"
)
MM = (
    "2022/08/22 15:51:57 - mmengine - INFO - Epoch(train) [1][ 10/99]  lr: 1.0e-03  time: 0.5"
    "  data_time: 0.1  loss: 2.5\n"
    "2022/08/22 15:52:57 - mmengine - INFO - Epoch(val) [1][9/9]  accuracy/top1: 35.7\n"
)
MM_JSON = '{"lr": 0.1, "data_time": 0.1, "loss": 4.5, "time": 0.5, "epoch": 1, "iter": 10}\n'
DEIT = '{"train_lr": 0.1, "train_loss": 6.5, "test_loss": 5.5, "test_acc1": 1.5, "epoch": 0}\n'
SAMPLES = {
    "mlperf": mlperf_run(2) + MLL + MLP + mllog("eval_accuracy", 0.5, 1.6e9 + 9, epoch_num=3),
    "dllogger": dlll_run(0, 1) + dlll(9, [1, 5], train__loss=1.5) + DLL,
    "timm": timm_epoch(0, 10.5, ema=True),
    "timm-summary": CSV,
    "torchvision": torchvision_run(1),
    "deit": meter_line(0, 99) + "Averaged stats: loss: 6.5 (6.5)\n * Acc@1 10.5 Acc@5 20.5\n",
    "swin": SWIN,
    "mmpretrain": MM,
    "mmpretrain-json": MM_JSON + '{"accuracy/top1": 10.5, "step": 1}\n',
    "deit-json": DEIT,
}
ODD = [
    "NaN", "nan", "Infinity", "-inf", "1e400", "1e308", "-1", "0", "1,5", "9" * 30, "9" * 5000,
    "null", "true", "[1]", "{}", '"', "\\", "\x00", "\r", "\x1b[31m", "", "é", "[" * 10_000,
]  # fmt: skip


def examine(path: Path) -> ForeignFile | None:
    """Read it and work out all figures: what the report does with a log."""
    found = read_file(path)
    for run in found.runs if found else []:
        for series in run.evals or {"": []}:
            got = figures(run, series)
            at_mark(run, 3600, series)
            assert got.final is None or got.final.top1 is None or 0 <= got.final.top1 <= 100.001
            assert got.span_s is None or math.isfinite(got.span_s)
    return found


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str], Path]:
    def writing(text: str) -> Path:
        path = tmp_path / "log"
        path.write_text(text, encoding="utf-8", errors="surrogateescape")
        return path

    return writing


@pytest.mark.parametrize("key", SAMPLES)
def test_each_sample_is_recognised(key: str, write: Callable[[str], Path]) -> None:
    found = examine(write(SAMPLES[key]))
    assert found is not None and found.format.key == key and len(found.runs) == 1
    assert found.rejected_count == 0


@pytest.mark.parametrize("key", SAMPLES)
def test_cut_anywhere(key: str, write: Callable[[str], Path]) -> None:
    last = "".join(SAMPLES[key].splitlines(keepends=True)[-2:])
    for end in range(len(last)):
        examine(write(last[:end]))


PLACES = st.lists(
    st.tuples(st.integers(0, 40), st.sampled_from(["cut", "double", "swap", "glue", "odd", "drop"]),
              st.integers(0, 400), st.sampled_from(ODD)),
    max_size=8,
)  # fmt: skip


def mutated(text: str, changes: list[tuple[int, str, int, str]]) -> str:
    """`changes` are (line, what, where in it, what to put there)."""
    lines = text.splitlines()
    for number, what, where, odd in changes:
        at = number % len(lines)
        line = lines[at]
        if what == "cut":
            lines[at] = line[:where]
        elif what == "double":
            lines[at:at] = [line]
        elif what == "swap":
            lines[at], lines[-1] = lines[-1], line
        elif what == "glue":
            lines[at] = line + lines[where % len(lines)]
        elif what == "drop":
            lines[at] = line[: where % (len(line) + 1)] + line[where % (len(line) + 1) + 9 :]
        else:
            digits = [place for place, char in enumerate(line) if char.isdigit()] or [0]
            place = digits[where % len(digits)]
            lines[at] = line[:place] + odd + line[place + 1 :]
    return "\n".join(lines)


@pytest.mark.parametrize("key", SAMPLES)
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(changes=PLACES)
def test_nothing_raises(
    key: str, write: Callable[[str], Path], changes: list[tuple[int, str, int, str]]
) -> None:
    examine(write(mutated(SAMPLES[key], changes)))


def test_objects_of_other_shapes(write: Callable[[str], Path]) -> None:
    values: list[object] = [None, True, -1, 1e300, 10**40, "x", [], [[]], {}, {"a": 1}, [0, "x"]]
    for value in values:
        text = "".join(
            [
                mllog("epoch_stop", value, 1.6e9, epoch_num=value),
                mllog("eval_accuracy", value, 1.6e9, epoch_num=value) + "\n",
                ":::MLLOG " + json.dumps([value]) + "\n:::MLLOG " + json.dumps({"key": value}),
                "\n" + mllog("tracked_stats", value, 1.6e9, step=value),
            ]
        )
        examine(write(text))
        examine(write(dlll(1, value, train__loss=value) + "\n" + dlll(2, [value], val__top1=value)))
        examine(write('DLLL {"step": [0], "data": ' + json.dumps(value) + ', "timestamp": null}'))
        row = {"train_lr": value, "train_loss": value, "test_acc1": value, "epoch": 0}
        examine(write(json.dumps(row) + "\n" + json.dumps(row | {"epoch": value}) + "\n" + DEIT))
        scalars = {"data_time": value, "loss": value, "time": value, "epoch": value, "iter": value}
        examine(write(MM_JSON + json.dumps(scalars) + "\n" + json.dumps({"step": value})))
