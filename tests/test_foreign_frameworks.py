"""Logs of other frameworks, written here in their shapes: figures, traps, and damaged lines."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools._report.foreign.figures import Figures, at_mark, figures
from tools._report.foreign.read import ForeignFile, read_file
from tools._report.foreign.record import ForeignRun


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
