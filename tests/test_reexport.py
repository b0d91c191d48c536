"""What export_log.py wrote, given to report.py: the figures of the run, named re-exported."""

from __future__ import annotations

import csv
import gzip
import shutil
from pathlib import Path

import pytest
from fake_logs import FakeRun
from report_tool import report

from tools._report import measure
from tools._report.export import to_csv, to_mllog, to_tensorboard, whole
from tools._report.foreign.figures import figures
from tools._report.foreign.read import read_file
from tools._report.read import read_logs

ROOT = Path(__file__).resolve().parent.parent
COMMITTED = ROOT / "reports" / "rehearsal" / "logs"
TWO = "GoogLeNet-Digits_AMP_10E_2CPUs_Train"  # its accuracy is scored under two protocols
FORMS = ("mllog", "csv", "tensorboard")


def exported(folder: Path, form: str, out: Path) -> Path:
    """The export of the run in `folder`, written to the file `out`."""
    logs = read_logs([folder])
    (run,) = logs.runs
    made = {"mllog": to_mllog, "csv": to_csv, "tensorboard": to_tensorboard}[form]
    data = made(whole(run, logs.root))
    out.write_bytes(data if isinstance(data, bytes) else data.encode())
    return out


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("which", ["killed", "committed"])
def test_the_figures_are_those_of_the_run(tmp_path, form, which):
    if which == "killed":
        folder = FakeRun(TWO, killed_at=3, images_per_s=417.0).write(tmp_path / "logs")
    else:
        folder = COMMITTED / "GoogLeNet-Digits_AMP_10E_1CPU_Train" / "002"
    (run,) = read_logs([folder]).runs
    found = read_file(exported(folder, form, tmp_path / "out"))
    assert found is not None and found.format.key == f"proofrun-{form}"
    assert found.rejected == [] and found.empty_starts == 0
    (back,) = found.runs
    got = figures(back)
    close = 1e-6  # single precision

    group = measure.Group((run,))
    own, other = run.plan.recipe.data.eval[:2]
    for series, protocol in (("", own.name), (other.name, other.name)):
        scored = measure.accuracy(group, protocol)
        final = figures(back, series).final
        assert final is not None and scored.top1.value is not None
        assert final.top1 == pytest.approx(scored.top1.value, rel=close)
        assert final.top5 == pytest.approx(scored.top5.value, rel=close)
        assert final.epoch == pytest.approx(run.plan.recipe.schedule.epochs, rel=close)
        assert final.images == (None if form == "tensorboard" else 360)
    evals = [e for e, _ in run.of(measure.Eval) if e.protocol == own.name]
    assert got.best is not None
    assert got.best.top1 == pytest.approx(max(e.top1 for e in evals), rel=close)
    assert got.evals == len({round(e.epoch, 3) for e in evals})

    speed = measure.throughput([run])
    assert speed is not None and got.rate is not None and got.rate.scope == "all cards"
    assert got.rate.median == pytest.approx(speed.rate.value, rel=close)
    assert got.rate.n == speed.windows
    assert (got.rate.q25, got.rate.q75) == pytest.approx((speed.q25, speed.q75), rel=close)
    assert got.epochs_trained == run.plan.recipe.schedule.epochs and got.first_label == 1
    assert got.last_train_loss is not None
    assert got.last_train_loss.value == pytest.approx(
        run.windows[len(run.windows) - 1].loss, rel=close
    )
    if form != "tensorboard":
        assert back.cards == run.cards and back.status == "finished"
        spent = run.log.last.t_wall - run.log.events[0].event.t_wall
        assert got.span_s == pytest.approx(spent, abs=0.01)


def test_beside_its_run_it_is_named_and_never_judged(tmp_path):
    logs = tmp_path / "logs"
    folder = FakeRun(TWO).write(logs)
    before = report(logs).stdout.splitlines()[-2]
    for form in FORMS:
        exported(folder, form, logs / f"{form}.dat")
    (logs / "packed.gz").write_bytes(gzip.compress((logs / "mllog.dat").read_bytes()))
    shutil.rmtree(logs / "report")
    done = report(logs)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-2] == before.replace(";", ", 4 re-exported;")
    assert "of other systems" not in done.stdout.splitlines()[-2]
    with (logs / "report" / "accuracy.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if "re-exported" in row["flags"]]
    assert len(rows) == 8 and {row["top1_verdict"] for row in rows} == {""}
    assert len({row["top1"][:8] for row in rows}) == 1


@pytest.mark.parametrize("form", FORMS)
def test_a_damaged_export_is_used_as_far_as_it_goes(tmp_path, form):
    folder = FakeRun(TWO).write(tmp_path / "logs")
    path = exported(folder, form, tmp_path / "out")
    data = path.read_bytes()
    for offset in range(200, len(data), len(data) // 40):
        for changed in (data[:offset], data[:offset] + b"\x00,9e999\n\xff" + data[offset + 9 :]):
            path.write_bytes(changed)
            found = read_file(path)
            assert found is not None and found.format.reexported and len(found.runs) <= 1
