"""Keras: the text of its progress bar, and its CSVLogger.

Epoch 1/90
5004/5004 [=====] - 123s 24ms/step - loss: 6.1 - accuracy: 0.1 - val_loss: 5.0 - val_accuracy: 0.2
5004/5004 - 123s - loss: …                                                verbose=2; ` - 123s - …`
391/391 ━━━━━ 12s 31ms/step - accuracy: 0.4 - loss: 1.6 - val_accuracy: 0.5 - …           Keras 3
Bars overwrite themselves with carriage returns or backspaces, so that many states make a line.
Metrics are fractions (or as the user scaled them), and means over the epoch so far. A bar after an
epoch's end without `val_` is `evaluate()`. The time of an epoch holds its validation too.
epoch,accuracy,loss,lr,val_accuracy,val_loss                              CSVLogger, epochs from 0
"""

from __future__ import annotations

import csv
import re

from .formats import Feed, Format
from .lines import Line
from .names import Meaning, meaning
from .record import Sink
from .starts import BadRecord
from .values import NUMBER, decimal

_EPOCH = re.compile(r"Epoch (\d{1,7})/(\d{1,7})(?!\d|:|\.)")
_BAR = re.compile(r"(?<!\d)(\d{1,9})/(\d{1,9})\s*(?:\[[=>.]*\]?|━+)?[\s-]")
_STATE = re.compile(r"(?<!\d)(?=\d{1,9}/\d{1,9}\s+(?:\[[=>.]|━))")
_METRIC = re.compile(rf"(?<![\w-])([A-Za-z][\w-]*): {NUMBER}")
_STEP_TIME = re.compile(rf"(?<![\d.,]){NUMBER}(us|ms|s)/step")
_ENDED = re.compile(r"-\s+\d+s\b|\s\d+s\s[\d.,]+(?:us|ms|s)/step")
_UNIT = {"us": 1e-6, "ms": 1e-3, "s": 1.0}


class _Bar:
    """The epoch under way, and what its bar said last."""

    def __init__(self, sink: Sink) -> None:
        self.sink = sink
        self.label: int | None = None
        self.loss: float | None = None
        self.done = False
        self.samples = False

    def feed(self, line: Line) -> None:
        self.samples = self.samples or line.text.startswith("Train on ")
        for part in re.split(r"(?=Epoch \d+/\d+)", line.text):
            found = _EPOCH.match(part)
            if found:
                self.label, self.done, self.loss = int(found[1]), False, None
                self.sink.fact("epochs", int(found[2]))
                part = part[found.end() :]
            for state in _STATE.split(part):
                self._state(state)

    def _state(self, text: str) -> None:
        named = _METRIC.findall(text)
        if not named or self.label is None:
            return
        own: dict[str, float] = {}
        val: dict[str, float] = {}
        for name, number in named:
            found = meaning(name)
            if found:
                (val if found.split == "val" else own).setdefault(found.kind, decimal(number))
        bar = _BAR.search(text)
        if bar is None and not re.match(r"\s*-?\s*\d+s\b", text):
            return
        ended = bool(_ENDED.search(text)) and "ETA:" not in text
        ended = ended and (bar is None or bar[1] == bar[2])
        if self.done and not val:
            if ended and own.get("loss") != self.loss:
                self._eval(own, "evaluate")
            return
        if own:
            self._train(own, text, bar, ended)
        if val:
            self._eval(val, "")
        self.done = ended

    def _train(
        self, own: dict[str, float], text: str, bar: re.Match[str] | None, ended: bool
    ) -> None:
        assert self.label is not None
        self.loss = own.get("loss")
        time = _STEP_TIME.search(text)
        total = int(bar[2]) if bar else 0
        self.sink.train(
            self.label,
            step=int(bar[1]) if bar and not ended else None,
            fraction=int(bar[1]) / total if bar and total else None,
            loss=self.loss,
            mean=True,
            lr=own.get("lr"),
            step_s=decimal(time[1]) * _UNIT[time[2]] if time and not self.samples else None,
            rate_mean=True,
            whole=ended,
        )

    def _eval(self, said: dict[str, float], series: str) -> None:
        top1, top5, loss = (said.get(k) for k in ("top1", "top5", "loss"))
        label = self.label
        self.sink.eval(label, top1=top1, top5=top5, loss=loss, series=series, own_unit=True)


def reader(sink: Sink) -> Feed:
    """Epochs from 1."""
    return _Bar(sink).feed


def csv_reader(sink: Sink) -> Feed:
    """CSVLogger: a row an epoch, from 0; started again it may repeat its header."""
    columns: list[tuple[str, Meaning | None]] = []
    separator = ","

    def feed(line: Line) -> None:
        nonlocal columns, separator
        text = line.text
        if re.match(r"epoch[,;]", text):
            separator = text[5]
            columns = [(name, meaning(name)) for name in text.split(separator)]
            return
        cells = next(csv.reader([text], delimiter=separator), [])
        if not columns or not cells[0].strip().isdigit():
            return
        if len(cells) != len(columns):
            raise BadRecord(f"{len(cells)} cells, {len(columns)} columns")
        own: dict[str, float] = {}
        val: dict[str, float] = {}
        for (_, found), cell in zip(columns, cells, strict=True):
            if found and cell.strip() not in ("", "NA"):
                (val if found.split == "val" else own).setdefault(found.kind, decimal(cell))
        label = int(cells[0])
        sink.train(label, whole=True, loss=own.get("loss"), lr=own.get("lr"))
        top1, top5, loss = (val.get(k) for k in ("top1", "top5", "loss"))
        sink.eval(label, top1=top1, top5=top5, loss=loss, own_unit=True)

    return feed


FORMATS = [
    Format(
        key="keras",
        title="Keras, progress bar",
        gives=("training loss", "seconds a step", "top-1, and top-5 where it is a metric"),
        lacks={"throughput": "no batch size in the log", "one hour": "no time stamps"},
        signature=re.compile(
            r"(?<!\d)\d{1,9}/\d{1,9}\s(?:\[[=>.]{5,}\]? -|━+\s.{0,80}/step)|"
            r"^(?:\d+/\d+)?\s?- \d+s\b.* - (?:loss|acc\w*): "
        ),
        reader=reader,
        base=1,
    ),
    Format(
        key="keras-csv",
        title="Keras, CSVLogger",
        gives=("training loss", "top-1, and top-5 where it is a metric", "learning rate"),
        lacks={"throughput": "no times in the table", "one hour": "no time stamps"},
        signature=re.compile(
            r"^epoch[,;](?!.{0,2000}?\bstep\b)(?:[\w. -]{1,60}[,;]){0,60}?loss(?:[,;]|$)"
        ),
        reader=csv_reader,
        base=0,
    ),
]
