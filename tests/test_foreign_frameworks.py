"""Logs of other frameworks, written here in their shapes: figures, traps, and damaged lines."""

from __future__ import annotations

import re
import struct
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tools._report.foreign.figures import Figures, at_mark, figures
from tools._report.foreign.read import ForeignFile, read_file
from tools._report.foreign.run import ForeignRun
from tools._report.foreign.tensorboard import masked_crc


def read(folder: Path, text: str | bytes, name: str = "a.txt") -> ForeignFile:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    found = read_file(path)
    assert found is not None
    return found


def one(folder: Path, text: str | bytes, key: str) -> tuple[ForeignRun, Figures]:
    found = read(folder, text)
    assert found.format.key == key
    assert found.rejected == []
    (run,) = found.runs
    return run, figures(run)


def top1(fig: Figures) -> list[float | None]:
    """Final and best, in percent."""
    return [e.top1 if e else None for e in (fig.final, fig.best)]


# ---- Ascend ----------------------------------------------------------------------------------


def ascend(epochs: range = range(3), seconds: int = 100, evals: bool = True) -> str:
    lines = ["INFO:Args:", "INFO:--> per_batch_size: 32", "INFO:--> group_size: 8"]
    lines += ["INFO:--> backbone: googlenet", "INFO:start network train..."]
    for epoch in epochs:
        rate = 0.03 if epoch == epochs[0] else 9000.5 + epoch
        lines.append(
            f"INFO:epoch[{epoch}], iter[{epoch * 625 + 624}], loss:{4 - epoch / 2}, "
            f"mean_fps:{rate:.2f} imgs/sec"
        )
    for epoch in epochs if evals else []:
        lines += [
            f"INFO:load model /out/0-{epoch + 1}_625.ckpt success",
            "INFO:Inference Performance: 7000.00 img/sec",
            f"INFO:after allreduce eval: top1_correct={100 + epoch}, tot=200, "
            f"acc={(100 + epoch) / 2:.2f}%",
            f"INFO:after allreduce eval: top5_correct={150 + epoch}, tot=200, "
            f"acc={(150 + epoch) / 2:.2f}%",
        ]
    return "".join(
        f"2020-04-01 10:{i * seconds // 60:02d}:{i * seconds % 60:02d},120:{line}\n"
        for i, line in enumerate(lines)
    )


def test_ascend(tmp_path):
    """Epochs from 0, the first mean_fps out, counts into percent, one point a checkpoint."""
    run, fig = one(tmp_path, ascend(), "ascend-googlenet")
    assert (fig.epochs_trained, fig.first_label, fig.last_label) == (3, 0, 2)
    assert fig.rate is not None and fig.rate.scope == "all cards"
    assert (fig.rate.n, fig.rate.mean, fig.rate.all_cards) == (2, 9002.0, 9002.0)
    assert [e.epoch for e in run.evals[""]] == [1, 2, 3]
    assert top1(fig) == [51.0, 51.0]
    assert fig.final is not None and (fig.final.top5, fig.final.images) == (76.0, 200)
    assert fig.last_train_loss is not None and fig.last_train_loss.value == 3.0
    assert not fig.last_loss_is_mean
    assert fig.span_s == pytest.approx(19 * 100)
    assert run.cards == 8 and run.facts["batch_per_card"].value == 32
    assert run.facts["model"].value == "googlenet"


def test_ascend_eval_alone_and_doubts(tmp_path):
    """Checkpoints without a number are all kept; an acc that the counts deny is remarked on."""
    text = "".join(
        f"2020-01-01 00:00:0{i},000:INFO:after allreduce eval: top1_correct={i + 1}, tot=10, "
        f"acc={(i + 1) * 10 + (i == 2):.2f}%\n"
        for i in range(4)
    )
    run, fig = one(tmp_path, text, "ascend-googlenet")
    assert [e.top1 for e in run.evals[""]] == [10, 20, 30, 40]
    assert fig.epochs_trained == 0 and fig.rate is None
    assert any("counts" in remark for remark in run.remarks)


def test_ascend_restarts_start_the_timer_again(tmp_path):
    text = ascend(evals=False) + ascend(range(3, 6), evals=False)
    run, fig = one(tmp_path, text, "ascend-googlenet")
    assert fig.epochs_trained == 6
    assert run.rates == pytest.approx([9001.5, 9002.5, 9004.5, 9005.5])


def test_ascend_damage(tmp_path):
    bad = "INFO:after allreduce eval: top1_correct=5, tot=0, acc=0.00%\n"
    bad += "INFO:after allreduce eval: top1_correct=500, tot=100, acc=500.00%\n"
    found = read(tmp_path, ascend() + bad)
    assert found.rejected_count == 2 and figures(found.runs[0]).evals == 3


# ---- Cambricon -------------------------------------------------------------------------------


def cambricon(epochs: int = 3, metrics: bool = True, more: float = 0) -> str:
    lines = []
    for epoch in range(epochs):
        for step in range(0, 100, 10):
            loss = 5 - epoch - step / 100 + more
            lines.append(
                f"Train: [{epoch}][{step:4d}/100]\tLoss {loss:.4e} ({loss + 0.1:.4e})\t"
                "Acc@1  51.56 ( 50.31)"
            )
        lines.append(f"Test: [{epoch}][ 0/10]\tAcc@1  51.56 ( 50.31)\tAcc@5  82.81 ( 80.02)")
        lines.append(f" * Acc@1 {50 + epoch}.125 Acc@5 {80 + epoch}.250")
    if metrics:
        lines += ["{", '    "date": "2021-01-01",', '    "net": "inception_v2",']
        lines += ['    "batch_size": 64,', '    "cards": 4,', '    "precision": "O1",']
        lines += ['    "DPF_mode": "ddp",', '    "throughput": 1234.5', "}"]
    return "\n".join(lines) + "\n"


def test_cambricon(tmp_path):
    run, fig = one(tmp_path, cambricon(), "cambricon")
    assert (fig.epochs_trained, fig.evals, fig.last_label) == (3, 3, 2)
    assert top1(fig) == [52.125, 52.125] and fig.final is not None and fig.final.top5 == 82.25
    assert fig.last_train_loss is not None
    assert fig.last_train_loss.value == pytest.approx(2.2) and fig.last_loss_is_mean
    assert fig.rate is not None and (fig.rate.mean, fig.rate.all_cards) == (1234.5, 1234.5)
    assert run.facts["batch_size"].value == 64 and run.cards == 4
    assert fig.span_s is None and at_mark(run, 3600).why == "no time stamps in this format"


def test_cambricon_metrics_that_are_none(tmp_path):
    """Damaged objects and a list are no rate; what follows them is read."""
    broken = '{\n"throughput": "fast"\n}\n{\n"net": "a",\n' + '{"throughput": NaN}\n[1, 2]\n'
    found = read(tmp_path, cambricon(2, False) + broken + cambricon(3, False, 0.5))
    assert [figures(run).epochs_trained for run in found.runs] == [2, 3]
    assert all(not run.rates for run in found.runs) and found.rejected_count == 1


# ---- MindSpore -------------------------------------------------------------------------------


def monitors(epochs: int = 4, prefix: str = "", evals: bool = True) -> str:
    lines = []
    for epoch in range(1, epochs + 1):
        stamp = f"2021-01-01 1{epoch}:00:00,500 " if prefix else ""
        lines.append(f"{stamp}{prefix}epoch: {epoch} step: 625, loss is {5 - epoch}.5")
        took = 1000.0 if epoch == 1 else 100.0 + epoch
        lines.append(
            f"{stamp}{prefix}Train epoch time: {took * 625} ms, per step time: {took:.3f} ms"
        )
        if evals:
            lines.append(f"{stamp}{prefix}epoch: {epoch}, acc: 0.{50 + epoch}")
    return "\n".join(lines) + "\n"


def test_mindspore_monitors(tmp_path):
    run, fig = one(tmp_path, monitors(prefix="INFO "), "mindspore")
    assert (fig.epochs_trained, fig.first_label, fig.evals) == (4, 1, 4)
    assert fig.last_train_loss is not None and fig.last_train_loss.value == 1.5
    assert not fig.last_loss_is_mean and fig.rate is None
    assert fig.step_s == pytest.approx(0.103)
    assert top1(fig) == [54.0, 54.0] and fig.final is not None and fig.final.epoch == 4
    assert fig.span_s == 3 * 3600
    mark = at_mark(run, 3600).eval
    assert mark is not None and mark.top1 == 52.0


def test_mindspore_result_lines(tmp_path):
    """A checkpoint's name gives the epoch; Chinese prose around a dict is no evaluation."""
    text = monitors(90, evals=False)
    text += "训练后，最后得到{'Accuracy': 0.97}\n"
    text += "result: {'top_5_accuracy': 0.91, 'top_1_accuracy': 0.72} ckpt=./a-45_625.ckpt\n"
    text += "result:{'top_5_accuracy':0.92,'top_1_accuracy':0.71} ckpt= ./a-90_625 .ckpt\n"
    run, fig = one(tmp_path, text, "mindspore")
    assert [(e.epoch, e.top1, e.top5) for e in run.evals[""]] == [(45, 72, 91), (90, 71, 92)]
    assert fig.epochs_trained == 90 and top1(fig) == [71.0, 72.0]


def test_mindspore_model_zoo_counts_from_0(tmp_path):
    lines = []
    for epoch in range(3):
        for step in range(5):
            lines.append(
                f"epoch: [  {epoch}/200], step:[{step:5d}/    5], loss:[{4 - epoch:.3f}/4.1], "
                "time:[140.236], lr:[0.100]"
            )
        lines.append(f"epoch time: 140522.500, per step time: 224.836, avg loss: {4.2 - epoch:.3f}")
    run, fig = one(tmp_path, "\n".join(lines), "mindspore")
    assert (fig.epochs_trained, fig.first_label) == (3, 0)
    assert run.epochs[-1].epoch == 3 and fig.last_loss_is_mean
    assert fig.last_train_loss is not None and fig.last_train_loss.value == 2.2
    assert fig.step_s == pytest.approx(0.224836)


def test_mindcv(tmp_path):
    lines = ["[2023-01-01 10:00:00] __main__ INFO - Essential", "Number of devices: 8"]
    lines += ["Batch size: 128", "Model: googlenet"]
    for epoch in range(1, 4):
        for step in (1, 500, 1000):
            lines.append(
                f"[2023-01-01 1{epoch}:00:00] mindcv.utils.callbacks INFO - Epoch: [{epoch}/300], "
                f"batch: [{step}/1000], loss: {9 - epoch}.25, lr: 0.01, time: {step / 10 or 1:.6f}s"
            )
        lines.append(
            f"[2023-01-01 1{epoch}:10:00] mindcv.utils.callbacks INFO - Validation "
            f"Top_1_Accuracy: {60 + epoch}.0000%, Top_5_Accuracy: 90.0000%, time: 14.1s"
        )
    lines.append("The best validation Top_1_Accuracy is: 99.2560% at epoch 2.")
    run, fig = one(tmp_path, "\n".join(lines), "mindspore")
    assert (fig.epochs_trained, fig.evals, run.cards) == (3, 3, 8)
    assert top1(fig) == [63.0, 63.0] and run.facts["model"].value == "googlenet"
    assert run.facts["batch_per_card"].value == 128 and run.facts["epochs"].value == 300


def test_mindcv_table(tmp_path):
    rows = "".join(
        f"{e:<20}{9 - e:<20.6f}{60 + e}.0000%{'':<12}{80 + e}.0000%{'':<12}9.10\n" for e in (1, 2)
    )
    text = f"{'Epoch':<20}{'TrainLoss':<20}Top_1_Accuracy      Top_5_Accuracy   TrainTime\n" + rows
    _, fig = one(tmp_path, text, "mindspore")
    assert fig.epochs_trained == 2 and top1(fig) == [62.0, 62.0]
    assert fig.final is not None and fig.final.top5 == 82
    found = read(tmp_path, text + f"{3:<20}{2.0:<20}76.1   90.0   9.10\n")
    assert found.rejected_count == 1  # 76.1 without a sign is no fraction


# ---- PaddleClas ------------------------------------------------------------------------------

BANNER = "==        PaddleClas is powered by PaddlePaddle !        ==\n"


def paddleclas(epochs: range = range(1, 5), ema: bool = False, hour: int = 0) -> str:
    config = ["Arch : ", "    class_num : 10", "    name : GoogLeNet", "DataLoader : "]
    config += ["    Eval : ", "        sampler : ", "            batch_size : 999"]
    config += ["    Train : ", "        sampler : ", "            batch_size : 64"]
    config += ["Global : ", "    epochs : 4", "    checkpoints : None", "    seed : 7"]
    text = BANNER + "".join(f"[2022/01/10 {hour:02d}:00:00] root INFO: {c}\n" for c in config)
    for epoch in epochs:
        at = f"[2022/01/10 {hour + epoch:02d}:00:00] root INFO: "
        for step in (0, 50, 99):
            text += (
                f"{at}[Train][Epoch {epoch}/4][Iter: {step}/100]lr: 0.06000, CELoss: 4.5, "
                f"loss: {9 - epoch}.3, batch_cost: 0.5s, reader_cost: 0.05, "
                f"ips: {100 * epoch + step / 100:.5f} images/sec, eta: 178 days, 3:40:40\n"
            )
        text += f"{at}[Train][Epoch {epoch}/4][Avg]CELoss: 4.5, loss: {9 - epoch}.25\n"
        score = f"{at}[Eval][Epoch {epoch}][Avg]CELoss: 1.5, loss: 1.5, top1: 0.{60 + epoch}\n"
        text += score + f"{at}[Eval][Epoch {epoch}][best metric: 0.7]\n"
        text += score.replace("top1: 0.6", "top1: 0.7") if ema else ""
    return text


def test_paddleclas(tmp_path):
    run, fig = one(tmp_path, paddleclas(), "paddleclas")
    assert (fig.epochs_trained, fig.first_label, fig.evals) == (4, 1, 4)
    assert fig.rate is not None and fig.rate.scope == "per card" and fig.rate.all_cards is None
    assert (fig.rate.mean, fig.rate.n) == (pytest.approx(300.99), 3)
    assert fig.last_train_loss is not None and fig.last_train_loss.value == 5.25
    assert fig.final is not None and top1(fig) == [64, 64] and fig.final.top5 is None
    assert fig.span_s == 4 * 3600
    mark = at_mark(run, 3600).eval  # since the first line on training
    assert mark is not None and mark.top1 == 62
    said = {key: run.facts[key].value for key in ("model", "batch_per_card", "classes", "epochs")}
    assert said == {"model": "GoogLeNet", "batch_per_card": 64, "classes": 10, "epochs": 4}
    assert "resumed_from" not in run.facts and "cards" not in run.facts


def test_paddleclas_averaged_weights_and_second_logger(tmp_path):
    """Every line twice; the second evaluation of an epoch is the averaged weights'."""
    text = paddleclas(ema=True)
    twice = "".join(line * 2 for line in text.splitlines(keepends=True))
    run, fig = one(tmp_path, twice, "paddleclas")
    assert {key: len(found) for key, found in run.evals.items()} == {"": 4, "EMA": 4}
    assert top1(fig) == [64, 64] and top1(figures(run, "EMA")) == [74, 74]
    assert fig.epochs_trained == 4


def test_paddleclas_restart_counts_an_epoch_once(tmp_path):
    text = paddleclas(range(1, 4)) + paddleclas(range(3, 5), hour=10)
    run, fig = one(tmp_path, text, "paddleclas")
    assert (fig.epochs_trained, fig.evals) == (4, 4)
    assert any("went on" in remark for remark in run.remarks)
    assert fig.span_s == 3 * 3600 + 4 * 3600  # without the hours in between


def test_paddleclas_1(tmp_path):
    text = BANNER
    for epoch in range(3):
        at = f"2021-03-19 21:{epoch}0:06,157 - INFO - "
        for step in (0, 10, 20):
            text += (
                f"{at}epoch:{epoch}  , train step:{step:<4}, top1: 0.1, top5: 0.2, "
                f"loss: {5 - epoch}.5, lr: 0.003748, batch_cost: 0.5 s, ips: 64.5 images/sec.\n"
            )
        text += f"{at}END epoch:{epoch}   train loss: {5 - epoch}.4,  ips: 65.5 images/s\n"
        text += f"{at}epoch:{epoch}  , valid step:0  , top1: 0.99, loss: 1.0, ips: 9.0 images/sec\n"
        text += f"{at}END epoch:{epoch}   valid top1: 0.5{epoch}, top5: 0.8{epoch}, loss: 1.0\n"
    run, fig = one(tmp_path, text, "paddleclas1")
    assert (fig.epochs_trained, fig.evals, fig.first_label) == (3, 3, 0)
    assert top1(fig) == [pytest.approx(52), pytest.approx(52)]
    assert fig.last_train_loss is not None and fig.last_train_loss.value == 3.4
    assert fig.rate is not None and fig.rate.median == 65.5 and run.rates == [65.5, 65.5]


# ---- MXNet -----------------------------------------------------------------------------------


def mxnet(epochs: int = 3, newer: bool = True) -> str:
    text = "INFO:root:start with arguments Namespace(batch_size=256, gpus='0,1,2,3', "
    text += "kv_store='device', network='googlenet', num_classes=10, num_epochs=3)\n"
    for epoch in range(epochs):
        for step in (20, 40):
            batch = f"{step - 20}-{step}" if newer else step
            text += (
                f"INFO:root:Epoch[{epoch}] Batch [{batch}]\tSpeed: {1000 + 10 * epoch + step}.50 "
                f"samples/sec\t{'' if newer else 'Train-'}accuracy=0.99\t"
                f"cross-entropy={4 - epoch}.5\n"
            )
        text += f"INFO:root:Epoch[{epoch}] Train-accuracy=0.98\n"
        text += f"INFO:root:Epoch[{epoch}] Train-cross-entropy={4 - epoch}.25\n"
        text += f"INFO:root:Epoch[{epoch}] Time cost=190.507\n"
        text += f"INFO:root:Epoch[{epoch}] Validation-accuracy=0.5{epoch}\n"
        text += f"INFO:root:Epoch[{epoch}] Validation-top_k_accuracy_5=0.8{epoch}\n"
        text += f"INFO:root:Epoch[{epoch}] Validation-cross-entropy=1.{epoch}\n"
    return text


@pytest.mark.parametrize("newer", [True, False])
def test_mxnet(tmp_path, newer):
    run, fig = one(tmp_path, mxnet(newer=newer), "mxnet")
    assert (fig.epochs_trained, fig.first_label, fig.evals) == (3, 0, 3)
    assert fig.final is not None and top1(fig) == [52, 52]
    assert (fig.final.top5, fig.final.loss, fig.final.epoch) == (82, 1.2, 3)
    assert fig.rate is not None and fig.rate.scope == "all cards"
    assert run.rates == [1030.5, 1050.5, 1040.5, 1060.5]
    assert fig.last_train_loss is not None and fig.last_train_loss.value == 2.25
    assert run.cards == 4 and run.facts["global_batch"].value == 256
    assert at_mark(run, 3600).why == "no time stamps in this format"


def test_gluon_errors_are_turned_round(tmp_path):
    text = ""
    for epoch in range(3):
        at = f"2019-01-01 1{epoch}:00:00,100 "
        text += f"{at}Epoch[{epoch}] Batch [49]\tSpeed: 99.5 samples/sec\taccuracy=0.2\tlr=0.4\n"
        text += f"{at}[Epoch {epoch}] training: accuracy=0.3\n"
        text += f"{at}[Epoch {epoch}] speed: {1000 + epoch} samples/sec\ttime cost: 190.5\n"
        text += f"{at}[Epoch {epoch}] validation: err-top1=0.{5 - epoch} err-top5=0.1\n"
    run, fig = one(tmp_path, text, "mxnet")
    assert top1(fig) == [pytest.approx(70)] * 2 and fig.final is not None
    assert fig.final.top5 == pytest.approx(90) and run.rates == [1001, 1002]
    assert fig.last_train_loss is None and fig.span_s == 7200


def test_gluon_cifar(tmp_path):
    text = "".join(
        f"INFO:root:[Epoch {e}] train=0.45 val=0.5{e} loss={2 - e}.5 time: 25.0\n" for e in range(2)
    )
    _, fig = one(tmp_path, text, "mxnet")
    assert fig.epochs_trained == 2 and top1(fig) == [51, 51]
    assert fig.last_train_loss is not None and fig.last_train_loss.value == 1.5


# ---- Keras -----------------------------------------------------------------------------------


def keras(epochs: int = 3, three: bool = False, glue: str = "\r") -> str:
    text = ""
    for epoch in range(1, epochs + 1):
        text += f"Epoch {epoch}/90\n"
        for step in (1, 50, 100):
            bar = "\x1b[32m━━━━━━\x1b[0m" if three else f"[{'=' * 10}>.....]"
            eta = "\x1b[1m1:20\x1b[0m 50ms/step" if three else "- ETA: 1:20"
            text += f"{step:3d}/100 {bar} {eta} - loss: {9 - epoch}.{step:03d} - acc: 0.1{glue}"
        bar = "\x1b[32m━━━━━━\x1b[0m \x1b[1m12s\x1b[0m" if three else f"[{'=' * 20}] - 12s"
        text += (
            f"100/100 {bar} {40 + epoch}ms/step - loss: {9 - epoch}.1000 - accuracy: 0.2 - "
            f"top_k_categorical_accuracy: 0.9 - val_loss: 1.{epoch} - val_accuracy: 0.5{epoch} - "
            f"val_top_k_categorical_accuracy: 0.8{epoch} - lr: 0.0010\n"
        )
        text += f"Epoch {epoch}: val_accuracy improved from 0.1 to 0.5, saving model to a.h5\n"
    bar = "━━━━━━ 3s" if three else f"[{'=' * 20}] - 3s"
    return text + f"40/40 {bar} 70ms/step - loss: 1.7 - accuracy: 0.99\n"


@pytest.mark.parametrize("three", [True, False])
@pytest.mark.parametrize("glue", ["\r", "\n", "\x08\x08\r"])
def test_keras(tmp_path, three, glue):
    """Overwritten bars, and an evaluate() at the end that is no epoch's validation."""
    run, fig = one(tmp_path, keras(three=three, glue=glue), "keras")
    assert (fig.epochs_trained, fig.first_label, fig.evals) == (3, 1, 3)
    assert top1(fig) == [53, 53] and fig.final is not None
    assert (fig.final.top5, fig.final.loss) == (83, 1.3)
    assert fig.last_train_loss is not None and fig.last_train_loss.value == 6.1
    assert fig.last_loss_is_mean and fig.rate is None
    assert fig.step_s == pytest.approx(0.0425)
    assert top1(figures(run, "evaluate"))[0] == 99


def test_keras_without_bars(tmp_path):
    text = "".join(
        f"Epoch {e}/2\n{'100/100' if e == 1 else ''} - {e}2s - loss: {4 - e}.5 - acc: 0.1 - "
        f"val_loss: 1.5 - val_acc: 0.{e}5\n"
        for e in (1, 2)
    )
    _, fig = one(tmp_path, text, "keras")
    assert fig.epochs_trained == 2 and top1(fig) == [25, 25]
    assert fig.last_train_loss is not None and fig.last_train_loss.value == 2.5


@pytest.mark.parametrize("separator", [",", ";"])
def test_keras_csv(tmp_path, separator):
    text = "epoch,accuracy,loss,lr,val_accuracy,val_loss\n"
    text += "".join(f"{e},0.1,{3 - e}.5,0.1,{0.5 + e / 10:.1f},1.5\n" for e in range(3))
    text += "3,NA,nan,,,\n"
    run, fig = one(tmp_path, text.replace(",", separator), "keras-csv")
    assert (fig.epochs_trained, fig.evals, fig.first_label) == (4, 3, 0)
    assert top1(fig) == [pytest.approx(70)] * 2
    assert run.epochs[-1].loss != run.epochs[-1].loss  # not a number, as written


# ---- Lightning -------------------------------------------------------------------------------


def test_lightning_csv(tmp_path):
    """Sparse rows in any order of columns; the test row is not an evaluation of training."""
    text = "train_loss_step,epoch,step,val/acc,val_loss,train_loss_epoch,lr-SGD,test_acc\n"
    for epoch in range(3):
        text += f",,{epoch * 100 + 49},,,,0.1,\n"
        text += f"2.5,{epoch},{epoch * 100 + 49},,,,,\n"
        text += f",{epoch},{epoch * 100 + 99},0.{50 + epoch},1.5,,,\n"
        text += f",{epoch},{epoch * 100 + 99},,,{4 - epoch}.5,,\n"
    text += ",3,300,0.99,0.5,,,\n,3,300,,,,,0.95\n"  # validate() and test() afterwards
    run, fig = one(tmp_path, text, "lightning-csv")
    assert (fig.epochs_trained, fig.evals) == (3, 3) and top1(fig) == [52, 52]
    assert fig.last_train_loss is not None and fig.last_train_loss.value == 2.5
    assert fig.last_loss_is_mean and top1(figures(run, "test")) == [95, 95]


def test_a_metric_that_its_user_scaled_is_in_percent(tmp_path):
    """One value above 1 tells the unit of all; small ones of the same series are percent too."""
    text = "epoch,step,val_acc,val_loss\n0,99,0.8,6.5\n1,199,12.5,4.5\n2,299,76.25,1.5\n"
    run, fig = one(tmp_path, text, "lightning-csv")
    assert top1(fig) == [76.25, 76.25]
    assert [e.top1 for e in run.evals[""]] == [0.8, 12.5, 76.25]
    assert any("percent" in remark for remark in run.remarks)


def test_lightning_bar(tmp_path):
    """The bar shows the validation of the epoch before until its own has run."""
    text, shown = "", ""
    for epoch in range(3):
        for step in (1, 50, 100):
            text += f"Epoch {epoch}: {step:3d}%|████  | {step}/100 [00:12<00:00, 25.00it/s, "
            text += f"loss={3 - epoch}.5, v_num=7{shown}]\r"
        shown = f", val_acc=0.{50 + epoch}"
        text += f"Epoch {epoch}: 100%|██████| 100/100 [00:13<00:00, 25.00it/s, "
        text += f"loss={3 - epoch}.4, v_num=7{shown}]\r"
    text += f"Epoch 3:  10%|█     | 10/100 [00:01<00:09, 25.00it/s, loss=0.3, v_num=7{shown}]\n"
    run, fig = one(tmp_path, text, "lightning")
    assert [(e.label, e.top1) for e in run.evals[""]] == [(0, 50), (1, 51), (2, 52)]
    assert fig.epochs_trained == 4 and fig.step_s == pytest.approx(0.04)
    assert run.remarks == {}  # a bar that is drawn again is no second rank


# ---- TensorBoard -----------------------------------------------------------------------------


def varint(value: int) -> bytes:
    found = b""
    while value > 127:
        found += bytes([value & 127 | 128])
        value >>= 7
    return found + bytes([value])


def part(number: int, content: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(content)) + content


def record(data: bytes) -> bytes:
    size = struct.pack("<Q", len(data))
    crcs = [struct.pack("<I", masked_crc(b)) for b in (size, data)]
    return size + crcs[0] + data + crcs[1]


def event(wall: float, step: int, tensor: bool = False, **scalars: float) -> bytes:
    """Tags with __ for a slash."""
    summary = b""
    for tag, value in scalars.items():
        if tensor:
            content = varint(1 << 3) + b"\x01" + part(2, b"") + part(4, struct.pack("<f", value))
            number = part(8, content)
        else:
            number = varint(2 << 3 | 5) + struct.pack("<f", value)
        summary += part(1, part(1, tag.replace("__", "/").encode()) + number)
    head = b"\x09" + struct.pack("<d", wall) + varint(2 << 3) + varint(step)
    return record(head + part(5, summary))


START = record(b"\x09" + struct.pack("<d", 1.6e9) + part(3, b"brain.Event:2"))


def test_masked_crc():
    """The known CRC-32C of nine digits, and the mask."""
    raw = 0xE3069283
    assert masked_crc(b"123456789") == ((raw >> 15 | raw << 17) + 0xA282EAD8) & 0xFFFFFFFF


def lightning_events(epochs: int = 3) -> bytes:
    data = START
    for epoch in range(epochs):
        for i in (49, 99):
            data += event(
                1.6e9 + 1800 * epoch + i, epoch * 100 + i, epoch=epoch, train_loss=4.5 - epoch
            )
        wall = 1.6e9 + 1800 * epoch + 200
        data += event(wall, epoch * 100 + 99, epoch=epoch, val_acc=0.5 + epoch / 8, val_loss=1.5)
    return data


def test_tensorboard_lightning(tmp_path):
    run, fig = one(tmp_path, lightning_events(), "tensorboard")
    assert (fig.epochs_trained, fig.first_label, fig.evals) == (3, 0, 3)
    assert top1(fig) == [75, 75] and fig.final is not None and fig.final.loss == 1.5
    assert fig.last_train_loss is not None and fig.last_train_loss.value == 2.5
    assert fig.span_s == 3600 + 200 - 49
    mark = at_mark(run, 3600).eval
    assert mark is not None and mark.top1 == 62.5


def test_tensorboard_keras_tensors(tmp_path):
    """A validation folder's file: tensors, steps that are epochs."""
    folder = tmp_path / "validation"
    folder.mkdir()
    data = START + b"".join(
        event(1.6e9 + e, e, True, epoch_accuracy=0.25 * e, epoch_loss=3.5 - e) for e in range(3)
    )
    _, fig = one(folder, data, "tensorboard")
    assert fig.evals == 3 and top1(fig) == [50, 50] and fig.last_train_loss is None
    folder = tmp_path / "train"
    folder.mkdir()
    _, fig = one(folder, data, "tensorboard")
    assert fig.evals == 0 and fig.epochs_trained == 3
    assert fig.last_train_loss is not None and fig.last_train_loss.value == 1.5


def test_tensorboard_percent_by_tag(tmp_path):
    """mmengine: training by iteration with its epoch, evaluation by epoch, percent."""
    data, wall = START, 1.6e9
    for epoch in (1, 2, 3):
        for i in (100, 200):
            wall += 10
            data += event(wall, (epoch - 1) * 200 + i, epoch=epoch, loss=4.5 - epoch, lr=0.5)
        data += event(wall + 1, epoch, accuracy__top1=60 + epoch, accuracy__top5=80.5)
    run, fig = one(tmp_path, data, "tensorboard")
    assert (fig.epochs_trained, fig.first_label, fig.evals) == (3, 1, 3)
    assert top1(fig) == [63, 63] and fig.final is not None and fig.final.top5 == 80.5
    assert fig.final.epoch == 3 and run.epochs[-1].lr == 0.5


def test_tensorboard_damage(tmp_path):
    """A damaged event is left out, a damaged length ends the file, a cut one just ends."""
    good = lightning_events()
    size = len(event(0, 0, epoch=0, train_loss=1.0))
    bad = bytearray(good)
    bad[len(START) + 20] ^= 1
    found = read(tmp_path, bytes(bad))
    assert found.rejected_count == 1 and figures(found.runs[0]).evals == 3
    bad = bytearray(good)
    bad[len(START) + 2 * size + 1] ^= 1
    found = read(tmp_path, bytes(bad))
    assert found.rejected_count == 1 and figures(found.runs[0]).evals == 0
    for cut in range(len(START), len(good), 7):
        (tmp_path / "cut").write_bytes(good[:cut])
        part_of = read_file(tmp_path / "cut")
        assert part_of is not None and part_of.rejected_count == 0


# ---- whatever a file holds -------------------------------------------------------------------

LOGS = {
    "ascend": ascend(range(2)),
    "cambricon": cambricon(1),
    "mindspore": monitors(2, "INFO ") + "result: {'acc': 0.5} ckpt=a-2_5.ckpt\n",
    "paddleclas": paddleclas(range(1, 3), ema=True),
    "mxnet": mxnet(2),
    "keras": keras(1),
    "keras-csv": "epoch,loss,val_accuracy\n0,1.5,0.5\n1,1.25,0.75\n",
    "lightning-csv": "epoch,step,train_loss,val_acc\n0,9,1.5,\n0,9,,0.5\n",
    "lightning": "Epoch 0: 100%|██| 9/9 [00:01<00:00, 9.0it/s, loss=1.5, v_num=1, val_acc=0.5]\n",
}
NASTY = ["NaN", "Infinity", "-1", "1e400", "0,5", "9" * 5000, "", "[1]", "\x00", "١", "1_0", "{"]


def sane(path: Path) -> None:
    """Read without a raise; what came out is of this world."""
    found = read_file(path)
    for run in found.runs if found else []:
        fig = figures(run)
        at_mark(run, 3600)
        assert all(0 <= (e.top1 or 0) <= 100.01 for s in run.evals.values() for e in s)
        assert fig.rate is None or 0 < fig.rate.median < float("inf")
        assert fig.span_s is None or fig.span_s > 0


@pytest.mark.parametrize("key", LOGS)
def test_cut_anywhere(tmp_path, key):
    """Every start of a log, in steps of a prime so that it stays quick."""
    data = LOGS[key].encode()
    for cut in range(0, len(data), max(1, len(data) // 97)):
        (tmp_path / "a").write_bytes(data[:cut])
        sane(tmp_path / "a")


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_mutated_lines(tmp_path_factory, data):
    """Numbers replaced, lines repeated, shuffled, dropped, glued, cut: no reader raises."""
    lines = LOGS[data.draw(st.sampled_from(sorted(LOGS)))].splitlines()
    changed = data.draw(st.lists(st.sampled_from(range(len(lines))), max_size=40))
    for at in changed:
        spots = [found.span() for found in re.finditer(r"\d+(?:\.\d+)?", lines[at])]
        what = data.draw(st.integers(0, 4))
        if what == 0:
            lines.append(lines[at])
        elif what == 1:
            lines[at] = ""
        elif what == 2:
            lines[at] += lines[at - 1]
        elif what == 3:
            lines[at] = lines[at][: data.draw(st.integers(0, len(lines[at])))]
        elif spots:
            start, end = data.draw(st.sampled_from(spots))
            lines[at] = lines[at][:start] + data.draw(st.sampled_from(NASTY)) + lines[at][end:]
    if data.draw(st.booleans()):
        lines = data.draw(st.permutations(lines[:12])) + lines[12:]
    path = tmp_path_factory.getbasetemp() / "mutated"
    path.write_bytes("\n".join(lines).encode())
    sane(path)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), max_size=6), st.binary())
def test_mutated_events(tmp_path_factory, flips, tail):
    """Bytes changed under a good checksum of the record, or without one."""
    inner = bytearray(b"\x09" + struct.pack("<d", 1.6e9) + part(5, part(1, part(1, b"val_acc"))))
    events = bytearray(lightning_events(2) + tail)
    for at, value in flips:
        inner[at % len(inner)] = value
        events[len(START) + at % (len(events) - len(START))] = value
    path = tmp_path_factory.getbasetemp() / "mutated.events"
    for content in (bytes(events), START + record(bytes(inner)) + record(tail) + bytes(events)):
        path.write_bytes(content)
        sane(path)


def test_deep_and_long(tmp_path):
    for text in ('{"a":' * 10_000, '{\n"throughput": ' + "[" * 10_000 + "}\n", "result: {" * 9000):
        (tmp_path / "a").write_text(cambricon(1) + text + "\n" + cambricon(1, more=0.5))
        sane(tmp_path / "a")


def test_long_lines_stay_quick(tmp_path):
    """What would make a careless pattern look at a line again and again."""
    for text in ("Namespace(", "epoch;loss;", "9", "a=", "Epoch 0: 1%|x| 1/2 [", "1/2 ━ "):
        (tmp_path / "a").write_text(mxnet(1) + text * (200_000 // len(text)))
        started = time.monotonic()
        sane(tmp_path / "a")
        assert time.monotonic() - started < 5


def test_first_mindcv_writes_percent(tmp_path):
    """Without a sign; the time before an epoch's first step holds an evaluation."""
    text = ""
    for epoch in (1, 2, 3):
        for step, took in ((1, 99.5), (100, 9.9), (200, 10.0)):
            text += f"Epoch: {epoch}, batch:[{step}/200], loss:{5 - epoch}.5, lr: 0.1,  "
            text += f"time:{took}s\n"
        text += f"Validation accuracy: {60 + epoch}.125, time:14.1s\n=> New best val acc: 99.0\n"
    _, fig = one(tmp_path, text, "mindspore")
    assert (fig.epochs_trained, fig.evals) == (3, 3) and top1(fig) == [63.125, 63.125]
    assert fig.step_s == pytest.approx(0.1)
    table = "Epoch\tTrainLoss\tValAcc\tTime\n1\t2.5\t-1.000\t9.1\n2\t1.5\t61.250\t9.1\n"
    _, fig = one(tmp_path, table, "mindspore")
    assert fig.epochs_trained == 2 and fig.evals == 1 and top1(fig) == [61.25, 61.25]
