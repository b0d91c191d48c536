"""Foreign logs that go on: appended starts, a step back that is a restart, two loggers' clocks."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from fake_benchmark_logs import timm_epoch, torchvision_run
from test_foreign_frameworks import BANNER, monitors, paddleclas

from tools._report.foreign.clock import Elapsed, stamp
from tools._report.foreign.figures import figures
from tools._report.foreign.read import ForeignFile, read_file


@pytest.fixture
def read(tmp_path: Path) -> Callable[[str], ForeignFile]:
    def reading(text: str) -> ForeignFile:
        path = tmp_path / "any.log"
        path.write_text(text, encoding="utf-8")
        found = read_file(path)
        assert found is not None
        return found

    return reading


def timm_head(model: str, cards: int = 2) -> str:
    ranks = "".join(
        "Training in distributed mode with multiple processes, 1 GPU per process. "
        f"Process {rank}, total {cards}.\n"
        for rank in range(cards)
    )
    return f"{ranks}Model {model} created, param count:22050664\nScheduled epochs: 310\n"


# ---- appended starts -------------------------------------------------------------------------


def test_timm_twenty_starts_in_one_file(read):
    """Empty ones, runs from 0, one that resumes, another network: each record in its own run."""
    text = timm_head("lost", cards=64) * 3  # crashed before its first line on training
    expected = []
    for number in range(15):
        model = f"vit_{number % 4}"
        text += timm_head(model, cards=2 + number)
        text += "".join(timm_epoch(epoch, 10.0 + number + epoch) for epoch in range(2))
        expected.append((model, 2 + number, 2, 11.0 + number))
    text += timm_head("vit_2", 16) + timm_epoch(1, 50.0) + timm_epoch(2, 51.0)  # resumes the last
    expected[-1] = ("vit_2", 16, 3, 51.0)
    text += timm_head("convnext", 8) + timm_epoch(2, 60.0)  # fine-tuned from epoch 2
    expected.append(("convnext", 8, 1, 60.0))
    text += timm_head("lost", cards=64)
    found = read(text)
    got = [(r.facts["model"].value, r.facts["cards"].value, figures(r)) for r in found.runs]
    assert [(m, c, f.epochs_trained, f.final and f.final.top1) for m, c, f in got] == expected
    assert found.empty_starts == 3  # the one that is pending at the end has said nothing yet
    remarks = {text for run in found.runs for text in run.remarks}
    assert len(remarks) == 1 and "went on from an earlier epoch" in remarks.pop()


def test_timm_starts_without_their_heads(read):
    """Filtered by grep, two lines an epoch: a step back is a restart, for one rank prints."""
    lines = [line for line in timm_epoch(0, 10.0).splitlines() if line.startswith("Train")]
    died = "\n".join(lines[:2]) + "\n"
    found = read(died.replace("8.00", "8.50") + died + timm_epoch(0, 11.0) + timm_epoch(1, 12.0))
    assert [figures(run).epochs_trained for run in found.runs] == [1, 1, 2]
    assert not any("ranks" in text for run in found.runs for text in run.remarks)


def test_timm_summary_of_many_starts(read):
    """With and without a header each; a row that is trained again counts once."""
    head = "epoch,train_loss,eval_loss,eval_top1,eval_top5\n"
    rows = [[(e, 10.0 * start + e) for e in range(start + 1)] for start in range(10)]
    text = ""
    for start, found in enumerate(rows):
        text += head if start % 2 == 0 else ""
        text += "".join(f"{e},{6.0 - e},1.5,{top1},99\n" for e, top1 in found)
    text += head + "9,1.0,1.0,95.5,99\n10,1.0,1.0,96.5,99\n"
    found = read(text)
    finals = [figures(run).final for run in found.runs]
    assert [f and f.top1 for f in finals] == [10.0 * n + n for n in range(9)] + [96.5]
    assert figures(found.runs[-1]).epochs_trained == 11


@pytest.mark.parametrize(
    "banner", [BANNER, "", "root INFO: train with paddle 2.2.0 and device 0\n"]
)
def test_paddleclas_resumed_is_no_second_rank(read, banner):
    """Killed early in epoch 3, where few lines tell a restart from ranks that lag behind."""
    first = paddleclas(range(1, 4))
    cut = first[: first.index("[Iter: 50", first.index("Epoch 3/4"))]
    again = paddleclas(range(3, 5), hour=10).replace(BANNER, banner).replace("ips: 3", "ips: 4")
    found = read(cut[: cut.rindex("\n") + 1] + again)
    (run,) = found.runs
    got = figures(run)
    assert (got.epochs_trained, got.evals) == (4, 4)
    assert [text for text in run.remarks if "ranks" in text] == []
    assert any("went on from an earlier epoch" in text for text in run.remarks)
    assert got.rate is not None and got.rate.n == 3


def test_paddleclas_down_time_before_its_banner_does_not_count(read):
    """The stamp stands alone on the line above the banner."""
    lone = "[2022/01/10 10:00:00] root INFO: \n" + "=" * 59 + "\n"
    found = read(paddleclas(range(1, 4)) + lone + paddleclas(range(3, 5), hour=10))
    assert figures(found.runs[0]).span_s == 3 * 3600 + 4 * 3600


# ---- every line twice, and clocks ------------------------------------------------------------


@pytest.mark.parametrize("prefix", ["INFO:train:", "[rank0] | ", "train INFO ", "logger] "])
def test_torchvision_doubled_under_another_logger(read, prefix):
    """The training time is stated twice, or by the copy alone, and spent once."""
    text = torchvision_run(epochs=3)
    doubled = re.sub("(?m)^(.+)$", rf"\1\n{prefix}\1", text)
    plain, got, copy = (
        figures(read(each).runs[0]) for each in (text, doubled, re.sub("(?m)^(?=.)", prefix, text))
    )
    assert plain.span_s == got.span_s == copy.span_s == 93784
    assert (got.epochs_trained, got.evals, got.final and got.final.top1) == (3, 3, 42.5)
    assert got.rate == plain.rate and got.last_train_loss is not None


def test_torchvision_doubled_with_stamps(read):
    """The stamps of the copies count, and not also the time that is stated at the end."""
    lines = torchvision_run(epochs=3).splitlines()
    stamps = (f"2001-02-03 04:{minute:02d}:00,123 INFO " for minute in range(60))
    doubled = [each for line in lines for each in (line, next(stamps) + line)]
    first = next(i for i, line in enumerate(lines) if line.startswith("Epoch"))
    got = figures(read("\n".join(doubled)).runs[0])
    last = max(i for i, line in enumerate(lines) if line.startswith("Test: EMA"))
    assert first == 2 and got.span_s == 60 * (last - 1)  # from its settings on
    assert (got.epochs_trained, got.evals) == (3, 3)


def two_loggers(first: str, second: str) -> str:
    """Each line under two prefixes, a minute apart, over midnight; {t} is the time of day."""
    lines = []
    for index, line in enumerate(monitors(epochs=9).splitlines()):
        minute = 23 * 60 + 50 + index
        for prefix, zone in ((first, 0), (second, -8 * 60)):
            day, at = divmod(minute + zone, 24 * 60)
            lines.append(prefix.format(d=10 + day, t=f"{at // 60:02d}:{at % 60:02d}:00") + line)
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize(
    "second", ["[{t}] ", "I01{d} {t} 7 a.py:1] ", "2022-01-{d} {t},000 INFO ", "Jan {d} {t} host "]
)
def test_two_loggers_with_clocks_of_their_own(read, second):
    """27 lines a minute apart; the other clock is 8 hours behind, or has no date, or no year."""
    found = read(two_loggers("[2022/01/{d} {t}] ", second))
    (run,) = found.runs
    got = figures(run)
    assert (got.epochs_trained, got.evals) == (9, 9)
    assert got.span_s == 26 * 60
    assert not any("clock" in text for text in run.remarks)


def test_clocks_that_show_the_same_are_one():
    """A second style of the same clock does not stop the time in between."""
    clock = Elapsed()
    for text, seconds in (
        ("2022-01-10 10:00:00 a", 0),
        ("2022-01-10 10:10:00,500 b", 600.5),
        ("2022-01-10 10:20:00 a", 1200),
        ("2022-01-10 08:00:00.5 b", 1200),  # set back
        ("2022-01-10 10:20:01 a", 1201),
    ):
        found = stamp(text)
        assert found is not None
        assert clock.at(*found) == seconds
    assert clock.steps_back == 1


def test_what_is_stamped_after_the_last_record_is_no_training(read):
    text = monitors(prefix="INFO ")
    end = "2021-01-01 20:00:00,500 INFO uploaded to the bucket\n"
    assert figures(read(text + end).runs[0]).span_s == 3 * 3600


@pytest.mark.parametrize("word", ["metric: ", "metric:", "eval results:", "=> eval results: "])
def test_mindspore_metric_lines(read, word):
    score = "{'Loss': 0.9849, 'Top1-Acc':0.7985, 'Top5-Acc': 0.946}\n"
    got = figures(read(monitors(evals=False) + word + score).runs[0])
    assert got.final is not None and got.final.label == 4
    assert (got.final.top1, got.final.top5, got.final.loss) == (79.85, 94.6, 0.9849)
    alone = read(word + score)
    assert alone.format.key == "mindspore" and figures(alone.runs[0]).evals == 1
