"""timm: `train.py` on stdout, and the `summary.csv` beside it.

Train: 12 [ 50/1251 (  4%)]  Loss: 2.51 (2.6)  Time: 0.9s, 264.4/s  (0.9s, 250.1/s)  LR: …
Test: [  48/48]  Time: 0.1 (0.2)  Loss:  0.9 (1.1)  Acc@1: 80.0 (78.4)  Acc@5: 95.0 (94.0)
Test (EMA): [  48/48]  …
epoch,train_loss,eval_loss,eval_top1,eval_top5,lr
In parentheses are means so far: that of the last Test line is the evaluation. images/s are of all
cards. Versions differ in the digits, in the count behind the slash, and in the columns: eval_prec1,
train_lr with a list, time in seconds since 1970.
"""

from __future__ import annotations

import csv
import re

from .formats import Feed, Format
from .lines import Line
from .record import Sink
from .values import NUMBER, decimal, images_per_s, json_at, number, whole

_TRAIN = re.compile(r"\bTrain:\s*(\d+)(?:/\d+)?\s*\[\s*(\d+)/(\d+)\s*(?:\(\s*\d+%\)\s*)?\]")
_TEST = re.compile(r"\bTest(?:\s*\(([^()]{1,40})\))?:\s*\[\s*(\d+)/(\d+)\s*\]")
_MEAN = rf"\s*{NUMBER}s?\s*\(\s*{NUMBER}s?"
_LOSS = re.compile(r"(?<![\w-])Loss:" + _MEAN)
_TIME = re.compile(
    rf"\bTime:\s*{NUMBER}s?,\s*{NUMBER}/s\s*\(\s*{NUMBER}s?,\s*{NUMBER}/s\)", re.IGNORECASE
)
_DATA = re.compile(r"\bData(?:Time)?:" + _MEAN)
_LR = re.compile(r"\bLR:\s*" + NUMBER, re.IGNORECASE)
_TOP1 = re.compile(r"\b(?:Acc|Prec)@1:" + _MEAN)
_TOP5 = re.compile(r"\b(?:Acc|Prec)@5:" + _MEAN)
_CREATED = re.compile(r"\bModel (\S+) created, param count:")
_CARDS = re.compile(r"Process (\d+), total (\d+)\b")
_SINGLE = re.compile(r"Training (?:with a single process on 1|.* on a single) ")
_EPOCHS = re.compile(r"\bScheduled epochs: (\d+)")
_BATCH = re.compile(r"\bglobal batch size \((\d+)\)")
_LOADED = re.compile(r"\bLoaded checkpoint '([^']*)'")


def _mean(pattern: re.Pattern[str], text: str) -> float | None:
    found = pattern.search(text)
    return decimal(found[2]) if found else None


class _Stdout:
    def __init__(self, sink: Sink) -> None:
        self.sink = sink
        self.held = ""  # the newest Test line, one short of the number behind the slash
        self.series = ""

    def line(self, line: Line) -> None:
        text = line.text
        found = _TEST.search(text)
        if found:
            series, step, last = found[1] or "", int(found[2]), int(found[3])
            if self.held and (step == 0 or series != self.series):
                self.release()
            self.held, self.series = "", series
            if step >= last:
                self.evaluation(text)
            elif step == last - 1:
                self.held = text
            return
        if self.held:
            self.release()
        found = _TRAIN.search(text)
        if found:
            self.train(text, int(found[1]), int(found[2]), int(found[3]))
        else:
            self.other(text)

    def release(self) -> None:
        """Forks count to the number of batches: their last line is one short of it."""
        held, self.held = self.held, ""
        self.evaluation(held)

    def evaluation(self, text: str) -> None:
        self.sink.eval(
            None,
            top1=_mean(_TOP1, text),
            top5=_mean(_TOP5, text),
            loss=_mean(_LOSS, text),
            series=self.series,
        )

    def train(self, text: str, epoch: int, step: int, steps: int) -> None:
        time, lr, wait = _TIME.search(text), _LR.search(text), _mean(_DATA, text)
        seconds = decimal(time[3]) if time else None
        self.sink.train(
            epoch,
            step=step,
            fraction=(step + 1) / steps if steps else None,
            loss=_mean(_LOSS, text),
            mean=True,
            lr=decimal(lr[1]) if lr else None,
            rate=images_per_s(time[4]) if time else None,
            rate_mean=True,
            scope="all cards",
            wait_share=wait / seconds if wait is not None and seconds else None,
        )

    def other(self, text: str) -> None:
        sink = self.sink
        if found := _CREATED.search(text):
            sink.start(mark="model")
            sink.fact("model", found[1])
        elif found := _CARDS.search(text):
            sink.start(mark=f"process {found[1][:6]}")
            sink.fact("cards", int(found[2]))
        elif _SINGLE.search(text):
            sink.start(mark="process")
            sink.fact("cards", 1)
        elif found := _EPOCHS.search(text):
            sink.fact("epochs", int(found[1]))
        elif found := _BATCH.search(text):
            sink.fact("global_batch", int(found[1]))
        elif found := _LOADED.search(text):
            sink.fact("resumed_from", found[1])


_HEADER = re.compile(r"^epoch[,;](?=.*\beval_)[\w@,;. -]+$")
_SCORE = re.compile(r"^(.*?)eval_(loss|(?:top|prec|acc)_?@?([15]))(.*)$")
_SINCE_1970 = 1e9  # a value of the time column that is no duration


class _Summary:
    def __init__(self, sink: Sink) -> None:
        self.sink = sink
        self.columns: list[str] = []
        self.separator = ","
        self.last: tuple[int | None, str] = None, ""

    def line(self, line: Line) -> None:
        if _HEADER.match(line.text):
            if self.columns:
                self.sink.start()
            self.separator = line.text[5]
            self.columns = line.text.split(self.separator)
            return
        if not self.columns:
            return
        cells = next(csv.reader([line.text], delimiter=self.separator), [])
        row = dict(zip(self.columns, cells, strict=False))
        epoch = whole(row.get("epoch"))
        if epoch is None:
            self.sink.reject("no epoch in this row")
            return
        if len(cells) != len(self.columns):
            self.sink.reject(f"{len(cells)} cells, {len(self.columns)} columns")
            return
        if self.last[0] == epoch and self.last[1] != line.text:
            self.sink.start()  # stopped before its checkpoint was written: trained again
        self.last = epoch, line.text
        time = number(row.get("time"))
        if time is not None and time > _SINCE_1970:
            self.sink.clock(time)
            self.sink.remark("time counts from the end of the first epoch")
        loss, lr = number(row.get("train_loss")), _rate(row.get("train_lr", row.get("lr", "")))
        self.sink.train(epoch, fraction=1.0, loss=loss, mean=True, lr=lr)
        series: dict[str, dict[str, float | None]] = {}
        for column, cell in row.items():
            if found := _SCORE.match(column):
                name = "loss" if found[2] == "loss" else f"top{found[3]}"
                series.setdefault((found[1] + found[4]).strip("_"), {})[name] = number(cell)
        for name, scores in series.items():
            self.sink.eval(epoch, series=name, **scores)  # type: ignore[arg-type]


def _rate(cell: str) -> float | None:
    """A learning rate, or the mean of a list of them."""
    if not cell.startswith("["):
        return number(cell)
    rates = [number(one) for one in json_at(cell)]
    known = [rate for rate in rates if rate is not None]
    return sum(known) / len(known) if known else None


def stdout(sink: Sink) -> Feed:
    """Epochs from 0."""
    return _Stdout(sink).line


def summary(sink: Sink) -> Feed:
    """Epochs from 0. A header in the middle is a restart."""
    return _Summary(sink).line


FORMATS = [
    Format(
        key="timm",
        title="timm, stdout",
        gives=(
            "training loss",
            "top-1 and top-5, EMA weights apart",
            "images/s, all cards",
            "learning rate",
            "data wait",
        ),
        lacks={"one hour": "no time stamps, unless the logger was told to print them"},
        signature=re.compile(r"\bTrain:\s*\d+\s*\[\s*\d+/\d+\s*\(\s*\d+%\)\s*\]\s"),
        reader=stdout,
        base=0,
        one_writer=True,
    ),
    Format(
        key="timm-summary",
        title="timm, summary.csv",
        gives=("training loss", "top-1 and top-5", "learning rate"),
        lacks={
            "throughput": "not in the table",
            "one hour": "no time column, unless one was added",
        },
        signature=_HEADER,
        reader=summary,
        base=0,
        own_clock=True,
    ),
]
