"""What a foreign log leaves in doubt is said: commas, lost evaluations, other formats."""

from __future__ import annotations

import csv
import gzip
import json
import re
import time
import zlib
from pathlib import Path

import pytest
from fake_benchmark_logs import dlll, dlll_run, mllog, mlperf_run, timm_epoch, torchvision_run
from report_tool import report
from test_foreign_frameworks import keras, lightning_events, monitors, mxnet, paddleclas
from test_foreign_report import example

from proofrun.errors import Exit
from tools._report.foreign import lines
from tools._report.foreign.figures import figures
from tools._report.foreign.read import ForeignFile, read_file
from tools._report.foreign.values import decimal, images_per_s


def read(folder: Path, content: str | bytes) -> ForeignFile:
    (folder / "x").write_bytes(content.encode() if isinstance(content, str) else content)
    found = read_file(folder / "x")
    assert found is not None
    return found


def rows(folder: Path, content: str | bytes, table: str = "accuracy") -> list[dict[str, str]]:
    """The rows of a table of the report on one log."""
    (folder / "x.log").write_bytes(content.encode() if isinstance(content, str) else content)
    done = report(folder / "x.log", "--out", folder / "out")
    assert done.returncode == 0, done.stderr
    with (folder / "out" / f"{table}.csv").open(newline="") as file:
        return list(csv.DictReader(file))


# ---- decimal commas --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [("0,53", 0.53), ("52,876", 52.876), ("1,281,167", 1281167), ("2,560.5", 2560.5),
     ("-1,5e-3", -0.0015), ("1,000e-01", 0.1), ("7", 7)],
)  # fmt: skip
def test_a_comma_is_a_decimal_one_or_groups_digits(text, value):
    assert decimal(text) == value


@pytest.mark.parametrize("text", ["1,2,3", "0,1.5", "1,23,456"])
def test_what_is_neither_is_no_number(text):
    with pytest.raises(ValueError, match="which comma"):
        decimal(text)


def test_a_rate_with_one_group_of_three_digits_may_be_either():
    with pytest.raises(ValueError, match=r"2560 or 2\.560"):
        images_per_s("2,560")
    assert images_per_s("2560,00") == images_per_s("2,560.00") == 2560


def cambricon(top1: str) -> str:
    step = "Train: [0][{}/100]\tLoss 2.5000e+00 (2.5000e+00)\tAcc@1 51.56 ( 50.31)\n"
    return step.format("10") + step.format("99") + f" * Acc@1 {top1} Acc@5 90.000\n"


_SCALED = {
    "keras": keras(2, 1),
    "paddleclas": paddleclas(range(1, 3)),
    "mindspore": monitors(3) + "result: {'top_1_accuracy': 0.7186} ckpt=./a-3_625.ckpt\n",
    "mxnet": mxnet(2),
    "timm": "".join(timm_epoch(epoch, 10.5 * epoch) for epoch in range(3)),
    "torchvision": torchvision_run(),
    "imagenet example": example(),
    "cambricon": cambricon("52.876"),
    "swin": "[2021-04-04 10:00:00 swin] (main.py 12): INFO Train: [0/300][1/11]\teta 1:02:03 lr "
    "0.001\ttime 1.5 (1.5)\tloss 6.5 (6.5)\n[2021-04-04 10:00:09 swin] (main.py 12): INFO  * "
    "Acc@1 10.5 Acc@5 20.5\n",
    "ascend": "INFO:epoch[0], iter[624], loss:3.25, mean_fps:0.03 imgs/sec\n"
    "INFO:epoch[1], iter[1249], loss:2.25, mean_fps:9000.50 imgs/sec\n"
    "INFO:after allreduce eval: top1_correct=50, tot=200, acc=25.00%\n",
    "lightning": "Epoch 0: 100%|██| 9/9 [00:01<00:00, 9.25it/s, loss=1.5, v_num=1, val_acc=0.75]\n",
}


@pytest.mark.parametrize("key", _SCALED)
def test_a_decimal_comma_is_read(tmp_path, key):
    """Every point that stands between digits made a comma: the same figures, nothing rejected."""
    text = _SCALED[key]
    before = read(tmp_path, text)
    head, body = (text.splitlines()[:1], text.splitlines()[1:]) if "swin" in key else ([], [text])
    body = [_with_commas(line) for line in body]
    after = read(tmp_path, "\n".join([*head, *body]) if head else body[0])
    assert before.rejected == after.rejected == []
    assert after.format.key == before.format.key
    assert [figures(run) for run in before.runs] == [figures(run) for run in after.runs]


def _with_commas(text: str) -> str:
    return re.sub(r"(?<=\d)\.(?=\d)", ",", text)


def test_quoted_tables_with_decimal_commas(tmp_path):
    text = 'epoch,train_loss,eval_loss,eval_top1,eval_top5\n0,"6,9","5,1","10,5","20,25"\n'
    final = figures(read(tmp_path, text).runs[0]).final
    assert final is not None and (final.top1, final.top5, final.loss) == (10.5, 20.25, 5.1)
    text = "epoch;train_loss;eval_loss;eval_top1;eval_top5\n0;6,9;5,1;10,5;20,25\n"
    final = figures(read(tmp_path, text).runs[0]).final
    assert final is not None and (final.top1, final.top5, final.loss) == (10.5, 20.25, 5.1)


@pytest.mark.parametrize(
    "head",
    ["epoch,train_loss,eval_loss,eval_top1", "epoch,accuracy,loss,val_accuracy",
     "epoch,step,train_loss,val_acc"],
)  # fmt: skip
def test_unquoted_decimal_commas_are_rejected(tmp_path, head):
    """More cells than columns: nothing is guessed."""
    found = read(tmp_path, f"{head}\n0,0.5,0.5,0.5\n1,0,6,5,1,0,5\n")
    assert found.rejected == [(3, "7 cells, 4 columns")]


# ---- the last evaluation ---------------------------------------------------------------------


def _nan(text: str, value: str) -> str:
    """The last `value` made NaN."""
    before, _, behind = text.rpartition(value)
    return f"{before}nan{behind}"


_LOST = {
    "timm": _nan("".join(timm_epoch(epoch, 10.5 + epoch) for epoch in range(3)), "12.5"),
    "dllogger": dlll_run().replace('"val.top1": 30.0, "val.top5": 90.0', '"val.top1": NaN'),
    "imagenet example": _nan(example(), "49.000"),
    "imagenet example, impossible": example().replace("49.000", "149.000"),
    "imagenet example, missing": example().rpartition(" * ")[0],
    "mlperf": "\n".join(
        [mllog("run_start", None, 1.6e9)]
        + [
            mllog(key, value, 1.6e9 + at, epoch_num=at)
            for at in (1, 2, 3)
            for key, value in (("epoch_stop", None), ("eval_accuracy", at / 5 if at < 3 else 75.0))
        ]
    ),
    "mlperf, null, without epochs": "\n".join(
        [mllog("run_start", None, 1.6e9)]
        + [
            mllog(key, value, 1.6e9 + at, first_epoch_num=at, epoch_count=1, epoch_num=at)
            for at in (1, 2, 3)
            for key, value in (("block_start", None), ("eval_accuracy", at / 5 if at < 3 else None))
        ]
    ),
    "keras csv": "epoch,loss,val_accuracy\n0,2.5,0.25\n1,2.0,0.5\n2,1.5,nan\n",
    "keras csv, missing": "epoch,loss,val_accuracy\n0,2.5,0.25\n1,2.0,0.5\n2,1.5,\n",
}


@pytest.mark.parametrize("key", _LOST)
def test_an_older_evaluation_is_called_so(tmp_path, key):
    """Where the last one is missing or cannot be used, on the row and beside the number."""
    found = rows(tmp_path, _LOST[key])
    assert found and all("last evaluation: epoch 2 of 3" in row["flags"] for row in found)
    done = report(tmp_path / "x.log", "--out", tmp_path / "out")
    grid = done.stdout.partition("Logs of other systems")[2]
    assert "last evaluation: epoch 2 of 3" in grid


def test_a_log_that_ends_in_an_epoch_keeps_the_one_before(tmp_path):
    text = example() + example().splitlines()[1].replace("[0]", "[3]", 1) + "\n"
    (row,) = rows(tmp_path, text)
    assert float(row["top1"]) == 49 and "last evaluation: epoch 3 of 4" in row["flags"]


def test_the_last_evaluation_of_a_whole_log_has_no_flag(tmp_path):
    logs = [example(), mlperf_run(), dlll_run(), keras(3), paddleclas(range(1, 4)), monitors(90)]
    logs += [mxnet(2), torchvision_run(), "".join(timm_epoch(e, 10.0) for e in range(3))]
    for text in (*logs, lightning_events()):
        for row in rows(tmp_path, text):
            assert "evaluation" not in row["flags"], row


def test_a_checkpoint_of_an_epoch_that_was_not_trained_here(tmp_path):
    text = monitors(5, evals=False)
    text += "result: {'top_1_accuracy': 0.7186} ckpt= ./ckpt/inceptionv1-300_1251.ckpt\n"
    (row,) = rows(tmp_path, text)
    assert "evaluation of epoch 300 but training to 5" in row["flags"]


def test_an_aborted_run_is_flagged(tmp_path):
    (row,) = rows(tmp_path, mlperf_run(status="aborted"))
    assert "aborted" in row["flags"].split("; ")
    (row,) = rows(tmp_path, mlperf_run())
    assert row["flags"] == "foreign: MLPerf training"


# ---- evaluations alone -----------------------------------------------------------------------


def test_evaluations_without_training(tmp_path):
    """torchvision's --test-only, the imagenet example's -e, Swin's --eval."""
    meters = "loss: 3.0 (3.0)  acc1: 60.0 (50.0)  acc5: 80.0 (75.0)  time: 0.3  data: 0.2"
    torchvision = "Namespace(model='resnet50', test_only=True)\nTest:   [  0/196]  eta: 0:01:00  "
    torchvision += f"{meters}\nTest:  Total time: 0:00:20\nTest:  Acc@1 76.130 Acc@5 92.862\n"
    imagenet = "=> using pre-trained model 'resnet50'\n"
    imagenet += "Test: [  0/196]\tTime  3.0 ( 3.0)\tLoss 1.0e+00 (1.0e+00)\tAcc@1  70.00 ( 70.00)\n"
    imagenet += " *   Acc@1 76.130 Acc@5 92.862\n"
    swin = "[2021-04-04 10:00:00 swin] (main.py 12): INFO  * Acc@1 76.130 Acc@5 92.862\n"
    for text, title in ((torchvision, "torchvision"), (imagenet, "PyTorch"), (swin, "Swin")):
        (row,) = rows(tmp_path, text)
        assert (float(row["top1"]), float(row["top5"])) == (76.13, 92.862)
        assert row["flags"].startswith(f"foreign: {title}") and "evaluation only" in row["flags"]


def test_training_decides_the_format_before_evaluations_do(tmp_path):
    """Test lines of a log that trains are no reason to call it another's."""
    meters = "loss: 3.0 (3.0)  acc1: 60.0 (50.0)  acc5: 80.0 (75.0)  time: 0.3  data: 0.2"
    tests = f"Test:   [  0/196]  eta: 0:01:00  {meters}\n" * 500
    assert read(tmp_path, tests + torchvision_run()).format.key == "torchvision"


# ---- several formats -------------------------------------------------------------------------


def test_other_formats_in_the_file_are_named(tmp_path):
    timm = "".join(timm_epoch(epoch, 10.5 * epoch) for epoch in range(3))
    found = read(tmp_path, timm + torchvision_run() + dlll_run())
    assert found.format.key == "dllogger"
    text = (tmp_path / "x").read_text()
    first = 1 + next(i for i, line in enumerate(text.splitlines()) if "eta:" in line)
    said = [text for _, text in found.remarks]
    assert [line for line, _ in found.remarks] == [1, first]
    assert said[0].startswith("also looks like timm, stdout: ") and "not read" in said[0]
    assert said[1].startswith("also looks like torchvision, references: ")
    done = report(tmp_path / "x", "--out", tmp_path / "out")
    assert f"x:{first}: also looks like torchvision" in done.stdout


@pytest.mark.parametrize("key", [*_SCALED, "mlperf", "dllogger", "events"])
def test_one_format_is_no_other(tmp_path, key):
    more: dict[str, str | bytes] = {"mlperf": mlperf_run(), "dllogger": dlll_run()}
    more["events"] = lightning_events()
    found = read(tmp_path, (_SCALED | more)[key])
    assert found.remarks == []


# ---- gzip ------------------------------------------------------------------------------------


def test_a_torn_or_damaged_gzip_is_remarked(tmp_path):
    text = "".join(example(30).splitlines(keepends=True)[i] for i in range(100))
    whole = gzip.compress(text.encode())
    assert read(tmp_path, whole).remarks == []
    crc = whole[:-6] + bytes([whole[-6] ^ 1]) + whole[-5:]
    for data, said in (
        (whole[: len(whole) * 3 // 4], "ends too early"),
        (crc, "damaged"),
        (whole + b"JUNKJUNK", "damaged"),
    ):
        found = read(tmp_path, data)
        ((line, why),) = found.remarks
        assert said in why and 0 < line <= 100 and found.runs
        assert f"x:{line}: the gzip data" in report(tmp_path / "x", "--out", tmp_path / "o").stdout
        page = (tmp_path / "o" / "report.html").read_text()
        assert "this line cannot be read any more" not in page
    events = gzip.compress(lightning_events(20))
    found = read(tmp_path, events[: len(events) * 3 // 4])
    assert [why for _, why in found.rejected] == ["the gzip data ends too early: read up to here"]


def test_a_gzip_that_swells_is_read_up_to_a_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(lines, "UNPACKED", 1 << 22)
    packer = zlib.compressobj(9, wbits=31)
    with (tmp_path / "bomb.gz").open("wb") as file:
        file.write(packer.compress(example().encode()))
        for _ in range(1 << 9):
            file.write(packer.compress(bytes(1 << 20)))
        file.write(packer.flush())
    started = time.monotonic()
    found = read_file(tmp_path / "bomb.gz")
    assert time.monotonic() - started < 3
    assert found is not None and figures(found.runs[0]).epochs_trained == 3
    assert "200 times" in found.remarks[0][1]
    (tmp_path / "zeros.gz").write_bytes(gzip.compress(bytes(1 << 25)))
    done = report(tmp_path / "zeros.gz", "--out", tmp_path / "out")
    assert done.returncode == Exit.USAGE and "200 times" in done.stderr


def test_a_large_log_that_compresses_well_is_read_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(lines, "UNPACKED", 1 << 16)
    found = read(tmp_path, gzip.compress(example(2000).encode()))
    assert found.remarks == [] and figures(found.runs[0]).epochs_trained == 2000


# ---- for other programs ----------------------------------------------------------------------


def test_names_in_a_csv_are_no_formulas_and_no_terminal_codes(tmp_path):
    evil = '=HYPERLINK("http://e.example","x")'
    text = dlll(0, "PARAMETER", arch=evil, world_size=8, batch_size=2) + "\n"
    text += "".join(dlll_run().splitlines(keepends=True)[1:])
    (row,) = rows(tmp_path, text)
    assert row["model"] == "'" + evil
    assert rows(tmp_path, text, "throughput")[0]["model"] == "'" + evil
    text = text.replace(json.dumps(evil), '"\\u001b[31m<b>\\u0007y"')
    (row,) = rows(tmp_path, text)
    assert row["model"] == "[31m<b>y"
    for file in (tmp_path / "out").glob("*.csv"):
        assert not set(file.read_bytes()) & ({*range(32)} - {10}), file
    assert float(rows(tmp_path, text, "foreign")[0]["last_train_loss"]) == 4.5
