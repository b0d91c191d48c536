"""Logs of MLPerf, DLLogger, timm, torchvision, DeiT, Swin and mmpretrain: figures and traps."""

from __future__ import annotations

import json
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

from tools._report.foreign.figures import Figures, at_mark, figures
from tools._report.foreign.read import ForeignFile, read_file


@pytest.fixture
def read(tmp_path: Path) -> Callable[[str], ForeignFile]:
    def reading(text: str) -> ForeignFile:
        path = tmp_path / "any name.dat"
        path.write_text(text, encoding="utf-8")
        found = read_file(path)
        assert found is not None
        return found

    return reading


def only(found: ForeignFile, key: str) -> Figures:
    assert found.format.key == key
    assert len(found.runs) == 1
    return figures(found.runs[0])


# ---- MLPerf ----------------------------------------------------------------------------------


def test_mlperf_figures(read: Callable[[str], ForeignFile]) -> None:
    found = read(mlperf_run())
    got = only(found, "mlperf")
    assert (got.epochs_trained, got.first_label, got.last_label, got.evals) == (6, 1, 6, 3)
    assert got.final is not None and got.final.top1 == pytest.approx(60) and got.final.label == 6
    assert got.rate is not None and (got.rate.n, got.rate.mean) == (5, 1004)
    assert got.rate.scope == "all cards" and got.rate.all_cards == 1004
    assert got.span_s == pytest.approx(4211) and got.last_train_loss is None
    mark = at_mark(found.runs[0], 3600)
    assert mark.eval is not None and mark.eval.label == 4
    assert found.runs[0].status == "success"
    assert found.runs[0].facts["global_batch"].value == 512
    assert found.rejected_count == 0


def test_mlperf_starts_in_one_file(read: Callable[[str], ForeignFile]) -> None:
    crashed = mllog("init_start", None, 5e8) + "\n" + mllog("run_start", None, 5e8) + "\n"
    text = crashed + mlperf_run(2, 1.5e9, seed=7, status="aborted") + mlperf_run(4)
    found = read(text)
    assert [figures(run).epochs_trained for run in found.runs] == [2, 4]
    assert [run.facts["seed"].value for run in found.runs] == [7, 3]
    assert [run.status for run in found.runs] == ["aborted", "success"]
    assert figures(found.runs[0]).span_s == pytest.approx(1411)
    assert figures(found.runs[1]).span_s == pytest.approx(2811)
    assert found.empty_starts == 1


def test_mlperf_prefixes_glued_lines_and_a_cut_last_line(
    read: Callable[[str], ForeignFile],
) -> None:
    lines = mlperf_run().splitlines()
    glued = "".join(
        f"[1,0]<stdout>:{a}{b}\n" for a, b in zip(lines[::2], lines[1::2], strict=False)
    )
    found = read(glued + lines[-1][:-30])
    assert only(found, "mlperf").epochs_trained == 6
    assert found.rejected_count == 1


def test_mlperf_0_6_without_epochs(read: Callable[[str], ForeignFile]) -> None:
    def mll(seconds: float, key: str, value: object = None, **meta: object) -> str:
        return f":::MLL {seconds} {key}: " + json.dumps({"value": value, "metadata": meta})

    lines = [mll(0.0, "submission_benchmark", "resnet"), mll(1.5e9, "run_start")]
    for last in (4, 8, 12):
        lines.append(mll(1.5e9 + last, "block_start", first_epoch_num=last, epoch_count=4))
        lines.append(mll(1.5e9 + last + 3, "eval_accuracy", last / 20, epoch_num=last))
        lines.append(mll(1.5e9 + last + 3, "block_stop", first_epoch_num=last))
    lines.append(mll(1.5e9 + 20, "run_stop", status="success"))
    got = only(read("\n".join(lines)), "mlperf")
    assert (got.epochs_trained, got.evals, got.span_s) == (12, 3, 20)
    assert got.best is not None and got.best.top1 == pytest.approx(60)


@pytest.mark.parametrize("listed_last", [False, True])
def test_mlperf_0_5(read: Callable[[str], ForeignFile], listed_last: bool) -> None:
    def mlp(seconds: float, rest: str) -> str:
        return f":::MLPv0.5.0 resnet {1.5e9 + seconds} (bench.py:12) {rest}"

    lines = [mlp(-9e6, "run_clear_caches"), mlp(0, "run_start"), mlp(1, "eval_offset: 0")]
    for epoch in range(4):
        if not listed_last:
            lines.append(mlp(epoch * 100, f"train_epoch: {epoch}"))
        if epoch % 2:
            value = {"value": epoch / 10, "epoch": epoch}
            lines.append(mlp(epoch * 100 + 90, f"eval_accuracy: {json.dumps(value)}"))
    if listed_last:
        lines += [mlp(399, f"train_epoch: {epoch}") for epoch in range(4)]
        lines.append(mlp(399, 'train_epoch: "4, but only a part"'))
    lines += [mlp(400, 'run_stop: {"success": "true"}'), mlp(401, "run_final")]
    found = read("\n".join(lines))
    got = only(found, "mlperf")
    assert (got.epochs_trained, got.evals, got.span_s) == (4, 2, 400)
    assert got.final is not None and (got.final.label, got.final.epoch) == (3, 4)
    assert found.runs[0].status == "success"


def test_mlperf_checkpoints_scored_after_the_training(
    read: Callable[[str], ForeignFile],
) -> None:
    lines = [mllog("run_start", None, 1.6e9)]
    lines += [mllog("epoch_stop", None, 1.6e9 + at, epoch_num=at) for at in range(1, 9)]
    lines.append(mllog("block_start", None, 1.6e9 + 9, first_epoch_num=1, epoch_count=8))
    lines += [mllog("eval_accuracy", at / 10, 1.6e9 + 9, epoch_num=at) for at in (2, 4, 6, 8)]
    lines.append(mllog("run_stop", {"success": True}, 1.6e9 + 10, status="success"))
    found = read("\n".join(lines))
    got = only(found, "mlperf")
    assert (got.epochs_trained, got.evals) == (8, 4)
    assert got.final is not None and (got.final.label, got.final.top1) == (8, 80)
    assert any("scored later" in text for text in found.runs[0].remarks)


def test_mlperf_among_more_lines_of_another_format(
    read: Callable[[str], ForeignFile],
) -> None:
    noise = "".join(meter_line(epoch, 0) for epoch in range(200))
    found = read(noise + mlperf_run(2, 1.6e9) + mlperf_run(2, 1.5e9))
    assert found.format.key == "mlperf" and len(found.runs) == 2
    assert [run.remarks for run in found.runs] == [{}, {}]


def test_mlperf_impossible_accuracy_is_rejected(read: Callable[[str], ForeignFile]) -> None:
    text = mlperf_run() + mllog("eval_accuracy", 75.2, 1.7e9, epoch_num=7)
    text = text.replace(text.splitlines()[-2] + "\n", "")  # the run has not stopped
    found = read(text)
    assert only(found, "mlperf").evals == 3
    assert found.rejected_count == 1 and "7520" in found.rejected[0][1]


# ---- DLLogger --------------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", ["DLLL ", ""])
def test_dllogger_figures(read: Callable[[str], ForeignFile], prefix: str) -> None:
    found = read(dlll_run(prefix=prefix))
    got = only(found, "dllogger")
    assert (got.epochs_trained, got.first_label, got.last_label, got.evals) == (3, 0, 2, 3)
    assert got.final is not None
    assert (got.final.top1, got.final.top5, got.final.loss, got.final.label) == (30, 90, 0, 2)
    assert got.last_train_loss is not None and got.last_train_loss.value == 4.5
    assert got.rate is not None and (got.rate.n, got.rate.mean) == (2, 5011.5)
    assert got.rate.scope == "all cards" and got.span_s == pytest.approx(2420)
    run = found.runs[0]
    assert (run.cards, run.facts["model"].value) == (8, "resnet50") and "seed" not in run.facts
    assert run.remarks == {} and run.curves["wait"].y[0] == pytest.approx(0.1)
    mark = at_mark(run, 1200)
    assert mark.eval is not None and mark.eval.label == 0


def test_dllogger_resumed_in_the_same_file(read: Callable[[str], ForeignFile]) -> None:
    found = read(dlll_run(0, 3) + dlll_run(2, 4, at=90_000))
    got = only(found, "dllogger")
    assert (got.epochs_trained, got.evals) == (4, 4)
    assert any("went on from an earlier epoch" in text for text in found.runs[0].remarks)
    assert got.span_s == pytest.approx(2420 + 1620)


def test_dllogger_starts_of_two_runs(read: Callable[[str], ForeignFile]) -> None:
    second = dlll_run(0, 1, at=90_000).replace("resnet50", "resnext101")
    found = read(dlll_run() + second)
    assert [run.facts["model"].value for run in found.runs] == ["resnet50", "resnext101"]
    assert [figures(run).span_s for run in found.runs] == pytest.approx([2420, 820])


def test_dllogger_on_stdout(read: Callable[[str], ForeignFile]) -> None:
    def dll(second: int, step: str, **data: object) -> str:
        pairs = "  ".join(f"{key.replace('__', '.')} : {value} " for key, value in data.items())
        return f"0: DLL 2021-05-06 23:59:{second:02d}.123456 - {step} {pairs}"

    lines = [
        dll(0, "PARAMETER", arch="resnet50", world_size=4, batch_size=32, seed=None, amp=False)
    ]
    for epoch in range(2):
        step = f"Epoch: {epoch} Iteration: 5 "
        lines.append(dll(epoch * 20 + 5, step, train__loss="6.9", train__total_ips="80.5 img/s"))
        lines.append(dll(epoch * 20 + 6, step + "Validation Iteration: 3 ", val__top1="9.9 %"))
        whole_epoch = {"train__loss": "6.8", "train__total_ips": f"{90 + epoch} img/s"}
        val = {"val__top1": "0.00 %", "val__top5": "1.50 %", "val__loss": "6.90000"}
        lines.append(dll(epoch * 20 + 9, f"Epoch: {epoch} ", **whole_epoch, **val))
    lines.append(dll(50, "Summary:", train__loss="6.85", val__top1="0.00 %"))
    found = read("\n".join(lines))
    got = only(found, "dllogger")
    assert (got.epochs_trained, got.evals, got.span_s) == (2, 2, 50)
    assert got.final is not None and (got.final.top1, got.final.top5) == (0, 1.5)
    assert got.rate is not None and got.rate.mean == 91
    assert "precision" not in found.runs[0].facts


def test_dllogger_fractions_of_mxnet_paddle_and_tensorflow(
    read: Callable[[str], ForeignFile],
) -> None:
    mxnet = {"train__loss": 2.0, "train__ips": 900.0, "val__accuracy": 0.75}
    mxnet |= {"val__top_k_accuracy_5": 0.9, "val__ips": 1.0}
    got = only(read(dlll(1, [0], **mxnet)), "dllogger")
    assert got.final is not None and (got.final.top1, got.final.top5) == (75, 90)
    assert got.rate is not None and got.rate.mean == 900

    paddle = [dlll(1, [0], train__loss=2.0, train__ips=900.0, train__epoch_time=5.0)]
    paddle.append(dlll(2, [0], val__loss=1.0, val__top1=0.005, val__top5=0.01, val__ips=1.0))
    got = only(read("\n".join(paddle)), "dllogger")
    assert got.final is not None and (got.final.top1, got.final.loss) == (0.5, 1)

    tensorflow = [dlll(1, [0, 30], imgs_per_sec=800.0, total_loss=3.0, learning_rate=0.1)]
    tensorflow.append(dlll(2, [0], total_loss=2.5, learning_rate=0.1))
    tensorflow.append(dlll(3, [], top1_accuracy=0.7, top5_accuracy=0.9))
    got = only(read("\n".join(tensorflow)), "dllogger")
    assert got.final is not None and got.final.top1 == 70
    assert got.last_train_loss is not None and got.last_train_loss.value == 2.5
    assert not got.last_loss_is_mean and got.rate is not None and got.rate.mean == 800


# ---- timm ------------------------------------------------------------------------------------


def test_timm_figures_each_line_twice(read: Callable[[str], ForeignFile]) -> None:
    head = "Training in distributed mode with multiple processes, 1 GPU per process. Process 0, "
    text = head + "total 4.\nModel vit_small created, param count:22050664\nScheduled epochs: 310\n"
    text += "".join(timm_epoch(epoch, 10.5 * epoch) for epoch in range(7, 10))
    text += "*** Best metric: 94.5 (epoch 9)\n"
    twice = "".join(f"INFO:train:{line}\n{line}\n" for line in text.splitlines())
    found = read(twice)
    got = only(found, "timm")
    assert (got.epochs_trained, got.first_label, got.last_label, got.evals) == (3, 7, 9, 3)
    assert got.final is not None
    assert (got.final.top1, got.final.top5, got.final.loss) == (94.5, 95.5, 1.25)
    assert got.last_train_loss is not None and got.last_train_loss.value == pytest.approx(-1.3)
    assert got.last_loss_is_mean
    assert got.rate is not None and (got.rate.n, got.rate.scope) == (2, "all cards")
    assert got.rate.mean == pytest.approx(108.8, abs=0.01) and got.span_s is None
    run = found.runs[0]
    facts = {key: fact.value for key, fact in run.facts.items()}
    assert facts == {"cards": 4, "model": "vit_small", "epochs": 310} and run.remarks == {}
    assert run.curves["wait"].y[0] == pytest.approx(0.25)


def test_timm_ema_is_a_series_of_its_own(read: Callable[[str], ForeignFile]) -> None:
    found = read("".join(timm_epoch(epoch, 20.0 + epoch, ema=True) for epoch in range(2)))
    assert only(found, "timm").series == ""
    assert {name: len(evals) for name, evals in found.runs[0].evals.items()} == {"": 2, "EMA": 2}
    ema = figures(found.runs[0], "EMA")
    assert ema.final is not None and (ema.final.top1, ema.final.label) == (22, 1)


def test_timm_test_lines_counted_to_the_end_and_an_evaluation_cut_off(
    read: Callable[[str], ForeignFile],
) -> None:
    text = "".join(timm_epoch(epoch, 30.0 + epoch, last=47) for epoch in range(3))
    cut = text[: text.rindex("Test: [  47/48]")]
    got = only(read(cut), "timm")
    assert (got.epochs_trained, got.evals) == (3, 2)
    assert got.final is not None and (got.final.top1, got.final.label) == (31, 1)


def test_timm_summary(read: Callable[[str], ForeignFile]) -> None:
    text = "epoch,train_loss,train_lr,eval_loss,eval_prec1,eval_prec5,time\n"
    for epoch in range(3):
        row = f'{epoch},{6 - epoch},"[0.1, 0.3]",1.5,{0.5 + epoch},{9.0 + epoch}'
        text += f"{row},{1.6e9 + 3000 * epoch}\n"
    found = read(text + "3,2.5")
    got = only(found, "timm-summary")
    assert (got.epochs_trained, got.evals, got.span_s) == (3, 3, 6000)
    assert got.final is not None and (got.final.top1, got.final.top5) == (2.5, 11)
    assert got.last_train_loss is not None and got.last_train_loss.value == 4
    assert list(found.runs[0].curves["lr"].y) == pytest.approx([0.2] * 3)
    assert found.rejected_count == 1
    mark = at_mark(found.runs[0], 3600)
    assert mark.eval is not None and mark.eval.label == 1


def test_timm_summary_with_a_second_header_and_a_duration(
    read: Callable[[str], ForeignFile],
) -> None:
    head = "epoch,time,train_loss,eval_loss,eval_top1,eval_top5,lr\n"
    text = head + "0,900.5,6.0,5.0,1.0,5.0,0.1\n1,900.5,5.0,4.0,2.0,6.0,0.1\n"
    text += head + "1,900.5,5.5,4.5,2.5,6.5,0.1\n2,900.5,nan,,,,0.1\n"
    found = read(text)
    got = only(found, "timm-summary")
    assert (got.epochs_trained, got.evals, got.span_s) == (3, 2, None)
    assert got.final is not None and got.final.top1 == 2.5


# ---- torchvision, DeiT, Swin -----------------------------------------------------------------


def test_torchvision_figures(read: Callable[[str], ForeignFile]) -> None:
    found = read(torchvision_run())
    got = only(found, "torchvision")
    assert (got.epochs_trained, got.evals, got.series) == (3, 3, "")
    assert got.final is not None and (got.final.top1, got.final.top5) == (42.5, 70)
    ema = figures(found.runs[0], "EMA")
    assert ema.best is not None and (ema.best.top1, ema.best.label) == (43.5, 2)
    assert got.last_train_loss is not None and got.last_train_loss.value == 4.5
    assert got.rate is not None and (got.rate.n, got.rate.scope) == (4, "per card")
    assert got.rate.mean == 326.5 and got.rate.all_cards == 326.5 * 8
    assert got.span_s == 93784
    assert at_mark(found.runs[0], 3600).eval is None
    facts = {key: fact.value for key, fact in found.runs[0].facts.items()}
    assert (facts["cards"], facts["batch_per_card"], facts["precision"]) == (8, 32, "amp")
    assert "resumed_from" not in facts and "seed" not in facts


def test_torchvision_two_runs_in_one_file(read: Callable[[str], ForeignFile]) -> None:
    old = torchvision_run(2, batch=16, ema=False).replace("Test:  Acc@1", " * Acc@1")
    found = read(old + torchvision_run(3, batch=64))
    assert [figures(run).epochs_trained for run in found.runs] == [2, 3]
    assert [run.facts["batch_per_card"].value for run in found.runs] == [16, 64]
    assert [figures(run).span_s for run in found.runs] == [93784, 93784]
    assert not any("clock" in text for run in found.runs for text in run.remarks)
    assert [at_mark(run, 3600).eval for run in found.runs] == [None, None]


def test_convnext_names_the_scores_after_them(read: Callable[[str], ForeignFile]) -> None:
    text = ""
    for epoch in range(2):
        text += meter_line(epoch, 0, loss=7.0) + meter_line(epoch, 99, loss=6.9)
        text += "Averaged stats: lr: 0.5  loss: 6.7 (6.8)\n"
        text += f"* Acc@1 {epoch + 30}.125 Acc@5 60.000 loss 2.500\n"
        text += "Accuracy of the model on the 50000 test images: 30.1%\nMax accuracy: 30.13%\n"
        text += f"* Acc@1 {epoch + 35}.250 Acc@5 65.000 loss 2.250\n"
        text += "Accuracy of the model EMA on 50000 test images: 35.2%\nMax EMA accuracy: 35%\n"
    found = read(text)
    got = only(found, "deit")
    assert got.final is not None and (got.final.top1, got.final.loss) == (31.125, 2.5)
    ema = figures(found.runs[0], "EMA")
    assert ema.evals == 2 and ema.final is not None and ema.final.top1 == 36.25
    assert got.last_train_loss is not None and got.last_train_loss.value == 6.8
    assert got.rate is None and got.step_s == 0.5
    assert found.runs[0].facts["val_images"].value == 50000 and found.runs[0].remarks == {}


def test_deit_log_txt(read: Callable[[str], ForeignFile]) -> None:
    rows = []
    for epoch in range(4):
        scores = {"test_loss": 1.5, "test_acc1": 0.5 + epoch, "test_acc5": 50.0}
        ema = {"test_loss_ema": 1.4, "test_acc1_ema": 1.5 + epoch, "test_acc5_ema": 51.0}
        train = {"train_lr": 0.1, "train_loss": 6.0 - epoch}
        rows.append(
            json.dumps({**train, **scores, **ema, "epoch": epoch, "n_parameters": 22050664})
        )
    text = "\n".join(rows[:3]) + "\n"
    text += "\n".join(row.replace('"train_loss": ', '"train_loss": 1') for row in rows[2:])
    found = read(text + '\n{"train_lr": 0.1, "train_lo')
    got = only(found, "deit-json")
    assert (got.epochs_trained, got.evals, found.rejected_count) == (4, 4, 1)
    assert got.final is not None and (got.final.top1, got.final.label) == (3.5, 3)
    ema_figures = figures(found.runs[0], "ema")
    assert ema_figures.final is not None and ema_figures.final.top1 == 4.5
    assert got.last_train_loss is not None and got.last_train_loss.value == 13
    assert found.runs[0].facts["parameters"].value == 22050664


def test_mae_pretraining_has_no_scores(read: Callable[[str], ForeignFile]) -> None:
    got = only(read('{"train_lr": 0.1, "train_loss": NaN, "epoch": 0}\n'), "deit-json")
    assert (got.epochs_trained, got.evals, got.final) == (1, 0, None)
    assert (
        got.last_train_loss is not None and got.last_train_loss.value != got.last_train_loss.value
    )


def test_swin_over_midnight(read: Callable[[str], ForeignFile]) -> None:
    def info(at: int, text: str) -> str:
        day, second = divmod(at + 86000, 86400)
        time = f"{second // 3600:02d}:{second // 60 % 60:02d}:{second % 60:02d}"
        head = f"\x1b[32m[2022-03-0{1 + day} {time} swin_t]\x1b[0m\x1b[33m(main.py 12)\x1b[0m"
        return f"{head}: INFO {text}\n"

    text = info(0, "Creating model:swin/swin_tiny") + "  BATCH_SIZE: 128\n"
    for epoch in range(3):
        for step in (0, 10):
            text += info(
                epoch * 1500 + 100 + step,
                f"Train: [{epoch}/300][{step}/11]\teta 1:02:03 lr 0.001\ttime 9.9 ({0.5 + epoch})\t"
                f"loss 9.9 ({6 - epoch})\tgrad_norm 1.0 (1.0)\tmem 99MB",
            )
        text += info(epoch * 1500 + 1400, f"EPOCH {epoch} training takes 0:21:00")
        text += info(
            epoch * 1500 + 1450, "Test: [0/98]\tTime 1.0 (1.0)\tLoss 0.5 (0.5)\tAcc@1 99 (99)"
        )
        text += info(epoch * 1500 + 1490, f" * Acc@1 {epoch + 1}.500 Acc@5 9.000")
        text += info(epoch * 1500 + 1490, "Accuracy of the network on the 50000 test images: 1.5%")
        text += info(epoch * 1500 + 1495, f" * Acc@1 {epoch + 2}.500 Acc@5 9.000")
        text += info(
            epoch * 1500 + 1495, "Accuracy of the network ema on the 50000 test images: 2%"
        )
    found = read(text)
    got = only(found, "swin")
    assert (got.epochs_trained, got.evals, got.step_s) == (3, 3, 2.0)
    assert got.final is not None and (got.final.top1, got.final.label) == (3.5, 2)
    assert got.last_train_loss is not None and got.last_train_loss.value == 4
    assert got.span_s is not None and 4000 < got.span_s <= 4495 and got.rate is None
    mark = at_mark(found.runs[0], 3600)
    assert mark.eval is not None and mark.eval.label == 1
    ema = figures(found.runs[0], "EMA")
    assert ema.evals == 3 and ema.final is not None and ema.final.top1 == 4.5
    facts = {key: fact.value for key, fact in found.runs[0].facts.items()}
    assert facts["model"] == "swin_tiny" and facts["batch_per_card"] == 128


# ---- mmpretrain ------------------------------------------------------------------------------


def test_mmpretrain_text(read: Callable[[str], ForeignFile]) -> None:
    def info(hour: int, minute: int, text: str) -> str:
        time = f"2023/01/0{2 + hour // 24} {hour % 24:02d}:{minute:02d}:00"
        return f"{time} - mmengine - INFO - {text}\n"

    text = info(22, 0, "\n-----\nSystem environment:\n    GPU number: 8\n")
    text += info(22, 0, "Config:\ntest_dataloader = dict(\n    batch_size=99,\n    x=1)")
    text += "train_cfg = dict(by_epoch=True, max_epochs=100)\n"
    text += "train_dataloader = dict(\n    batch_size=32,\n    num_workers=5)\n"
    for epoch in (1, 2, 3):
        for step in (100, 200):
            text += info(
                22 + epoch,
                step // 100,
                f"Epoch(train)   [{epoch}][ {step}/250]  lr: 1.0000e-01  eta: 1 day, 2:03:04  "
                f"time: {epoch}.2500  data_time: 0.2500  memory: 5000  loss: {7 - epoch}.{step}",
            )
        text += info(22 + epoch, 5, f"Epoch(val) [{epoch}][10/98]    eta: 0:00:10  time: 0.1")
        text += info(
            22 + epoch,
            6,
            f"Epoch(val) [{epoch}][98/98]    accuracy/top1: {epoch}.5000  accuracy/top5: 9.5000"
            f"data_time: 0.1  time: 0.2",
        )
    found = read(text)
    got = only(found, "mmpretrain")
    assert (got.epochs_trained, got.first_label, got.evals) == (3, 1, 3)
    assert got.final is not None
    assert (got.final.top1, got.final.top5, got.final.label, got.final.epoch) == (3.5, 9.5, 3, 3)
    assert got.last_train_loss is not None and got.last_train_loss.value == 4.2
    assert not got.last_loss_is_mean and got.step_s == 2.75 and got.rate is None
    assert got.span_s == 3 * 3600 + 360
    facts = {key: fact.value for key, fact in found.runs[0].facts.items()}
    assert facts == {"cards": 8, "epochs": 100, "batch_per_card": 32}


def test_mmcls_text(read: Callable[[str], ForeignFile]) -> None:
    text = "2021-05-06 10:00:00,123 - mmcls - INFO - data = dict(\n    samples_per_gpu=64,\n"
    for epoch in (1, 2):
        head = f"2021-05-06 1{epoch}:00:00,123 - mmcls - INFO - "
        text += f"{head}Epoch [{epoch}][100/150]\tlr: 1.0e-01, eta: 0:10:00, time: 0.500, "
        text += f"data_time: 0.1, memory: 9, loss: 5.5, top-1: 99.0\n{head}Saving checkpoint\n"
        text += (
            f"{head}Epoch(val) [{epoch}][98]\taccuracy_top-1: {epoch}0.25, accuracy_top-5: 70.5\n"
        )
    found = read(text)
    got = only(found, "mmpretrain")
    assert (got.epochs_trained, got.evals, got.span_s) == (2, 2, 7200)
    assert got.final is not None and (got.final.top1, got.final.top5) == (20.25, 70.5)
    assert found.runs[0].facts["batch_per_card"].value == 64


def test_mmpretrain_scalars(read: Callable[[str], ForeignFile]) -> None:
    rows: list[dict[str, object]] = []
    for epoch in (1, 2, 3):
        for step in (100, 200):
            total = (epoch - 1) * 250 + step
            row = {"lr": 0.1, "data_time": 0.1, "loss": 5.0 - epoch, "time": 0.5 + epoch}
            rows.append(row | {"epoch": epoch, "iter": total, "memory": 9, "step": total})
        rows.append({"accuracy/top1": 10.0 * epoch, "accuracy/top5": 50.0, "step": epoch})
    got = only(read("\n".join(json.dumps(row) for row in rows)), "mmpretrain-json")
    assert (got.epochs_trained, got.first_label, got.last_label, got.evals) == (3, 1, 3, 3)
    assert got.best is not None and (got.best.top1, got.best.label) == (30, 3)
    assert got.step_s == 3 and got.rate is None and got.span_s is None
    assert got.last_train_loss is not None and got.last_train_loss.value == 2


def test_mmcls_log_json(read: Callable[[str], ForeignFile]) -> None:
    rows: list[dict[str, object]] = [{"env_info": "sys.platform: linux", "seed": 7}]
    for epoch in (5, 6):
        train = {"mode": "train", "epoch": epoch, "iter": 100, "lr": 0.1, "memory": 9}
        rows.append(train | {"data_time": 0.1, "loss": 5.0, "time": 0.25})
        val = {"mode": "val", "epoch": epoch, "iter": 98, "lr": 0.1}
        rows.append(val | {"accuracy_top-1": 0.1 * epoch, "accuracy_top-5": 3.0})
    found = read("\n".join(json.dumps(row) for row in rows))
    got = only(found, "mmpretrain-json")
    assert (got.epochs_trained, got.first_label, got.evals, got.step_s) == (2, 5, 2, 0.25)
    assert got.final is not None and got.final.top1 == pytest.approx(0.6)
    assert found.runs[0].facts["seed"].value == 7


def test_mmaction_accuracy_is_a_fraction(read: Callable[[str], ForeignFile]) -> None:
    text = "09/03 09:48:23 - mmengine - INFO - Epoch(train) [1][4/4]  lr: 1.0e-02  loss: 1.9674\n"
    text += (
        "09/03 09:48:25 - mmengine - INFO - Epoch(val) [1][1/1]  acc/top1: 0.1429  acc/top5: 1.0\n"
    )
    got = only(read(text), "mmpretrain")
    assert got.final is not None and got.final.top1 == pytest.approx(14.29)
