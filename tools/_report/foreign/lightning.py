"""PyTorch Lightning: its CSVLogger's metrics.csv, and the text of its progress bar.

epoch,step,train_loss_step,train_loss_epoch,val_acc,val_loss         rows hold some of the columns
0,49,2.3,,,
0,390,,,0.41,1.6
Epoch 0: 100%|███| 391/391 [00:12<00:00, 31.2it/s, loss=1.2, v_num=0, val_acc=0.5]
A bar shows the last validation's values until there are new ones: an epoch's are those of its
bar's last state. Accuracies are fractions, as torchmetrics has them, or as the user scaled them;
`step` counts over epochs.
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

_BAR = re.compile(
    r"Epoch (\d{1,7}):\s+\d+%\|[^|]{0,300}\|\s*(\d{1,9})/(\d{1,9})\s+\[([^\[\]]{0,1000}?)"
    r"(?=\]|Epoch \d|$)"
)
_PACE = re.compile(rf"(?<![\d.,]){NUMBER}\s?(it/s|s/it)")
_NAMED = re.compile(rf"(?<![\w/.-])([A-Za-z][\w/.-]*)={NUMBER}")


def _scores(sink: Sink, label: int, values: dict[tuple[str, str], float], name: str = "") -> None:
    """The evaluations in one row or state; those on test data are a series of their own."""
    for split, series in (("val", name), ("test", "test")):
        top1, top5, loss = (values.get((split, k)) for k in ("top1", "top5", "loss"))
        sink.eval(label, top1=top1, top5=top5, loss=loss, series=series, own_unit=True)


def csv_reader(sink: Sink) -> Feed:
    """Epochs from 0."""
    columns: list[tuple[str, Meaning | None]] = []
    trained = -1

    def feed(line: Line) -> None:
        nonlocal columns, trained
        cells = next(csv.reader([line.text]), [])
        if "epoch" in cells and "step" in cells:
            columns = [(name, meaning(name)) for name in cells]
            return
        if not columns:
            return
        if len(cells) != len(columns):
            raise BadRecord(f"{len(cells)} cells, {len(columns)} columns")
        row = {name: cell for (name, _), cell in zip(columns, cells, strict=True) if cell.strip()}
        if "epoch" not in row:
            return
        label = int(float(row["epoch"]))
        step = float(row["step"]) if "step" in row else None
        values: dict[tuple[str, str], float] = {}
        lr: float | None = None
        for name, found in columns:
            if found is None or name not in row:
                continue
            if found.kind == "lr":
                lr = decimal(row[name])
            elif found.split in ("val", "test") and found.when != "step":
                values.setdefault((found.split, found.kind), decimal(row[name]))
            elif found.kind == "loss":
                whole, trained = found.when == "epoch", max(trained, label)
                sink.train(
                    label, step=None if whole else step, whole=whole, loss=decimal(row[name])
                )
        if lr is not None:
            sink.train(label, step=step, lr=lr)
        after = 0 <= trained < label  # validate() once training is over
        _scores(sink, trained if after else label, values, "validate" if after else "")

    return feed


class _Bar:
    """Holds the values of an epoch's bar until the next epoch begins or the log ends."""

    def __init__(self, sink: Sink) -> None:
        self.sink = sink
        self.label: int | None = None
        self.values: dict[tuple[str, str], float] = {}
        self.step = -1
        self.complete = False
        self.before: dict[tuple[str, str], float] = {}

    def __call__(self, line: Line) -> None:
        for found in _BAR.finditer(line.text):
            self._state(int(found[1]), int(found[2]), int(found[3]), found[4])

    def _state(self, label: int, step: int, steps: int, text: str) -> None:
        if label != self.label:
            self.close()
            self.label, self.step = label, -1
        values: dict[tuple[str, str], float] = {}
        loss: float | None = None
        for name, number in _NAMED.findall(text):
            found = meaning(name)
            if found and found.split in ("val", "test") and found.when != "step":
                values[found.split, found.kind] = decimal(number)
            elif found and found.kind == "loss" and found.when != "epoch":
                loss = decimal(number)  # `train_loss_epoch` is the last epoch's until the end
        again, self.step = step == self.step, step
        self.values, self.complete = values, step == steps
        if again:
            return
        pace = _PACE.search(text)
        speed = decimal(pace[1]) if pace else 0.0
        if pace and pace[2] == "it/s" and speed:
            speed = 1 / speed
        self.sink.train(
            label,
            step=step,
            fraction=step / steps if steps else None,
            loss=loss,
            step_s=speed or None,
            rate_mean=True,
        )

    def close(self) -> None:
        """What the epoch's last state says is its validation, unless it is an old one."""
        if self.label is not None and self.complete and self.values != self.before:
            self.before = self.values
            label, values = self.label, self.values
            self.complete = False
            _scores(self.sink, label, values)


def reader(sink: Sink) -> Feed:
    """Epochs from 0."""
    return _Bar(sink)


FORMATS = [
    Format(
        key="lightning",
        title="PyTorch Lightning, progress bar",
        gives=("training loss", "seconds a step", "top-1 where it is shown in the bar"),
        lacks={"throughput": "no batch size in the log", "one hour": "no time stamps"},
        signature=re.compile(
            r"Epoch \d+:\s+\d+%\|[^|]{0,300}\| *\d+/\d+ "
            r"\[[^\[\]]{0,1000}?(?:\bv_num=|\b(?:val|train)_\w+=)"
        ),
        reader=reader,
        base=0,
    ),
    Format(
        key="lightning-csv",
        title="PyTorch Lightning, metrics.csv",
        gives=("training loss", "top-1, and top-5 where it is logged", "learning rate"),
        lacks={"throughput": "no times in the table", "one hour": "no time stamps"},
        signature=re.compile(
            r"^(?=(?:.*,)?epoch(?:,|$))(?=(?:.*,)?step(?:,|$))[\w/.@ -]+(?:,[\w/.@ -]+)+$"
        ),
        reader=csv_reader,
        base=0,
    ),
]
