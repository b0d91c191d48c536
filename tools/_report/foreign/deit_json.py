"""The `log.txt` of DeiT, ConvNeXt, MAE, BEiT, PVT and others: one JSON object an epoch.

{"train_lr": 0.001, "train_loss": 3.1, "test_loss": 1.2, "test_acc1": 71.5, "test_acc5": 90.1,
 "epoch": 0, "n_parameters": 22050664}
Other words in a key name a series: test_acc1_ema. Accuracies are in percent.
"""

from __future__ import annotations

import re

from .formats import Feed, Format
from .lines import Line
from .record import Sink
from .starts import BadRecord
from .values import first, number, object_at, whole

_SCORE = re.compile(r"^(?:(\w*?)_)?(?:test|val)_(?:(\w*?)_)?(loss|acc1|acc5)(?:_(\w+))?$")
_NAMES = {"loss": "loss", "acc1": "top1", "acc5": "top5"}


def reader(sink: Sink) -> Feed:
    """Epochs from 0. Without scores the log is of pre-training."""

    last: tuple[int | None, str] = None, ""

    def feed(line: Line) -> None:
        nonlocal last
        if not line.text.startswith("{"):
            return
        data = object_at(line.text)
        epoch = whole(data.get("epoch"))
        if epoch is None:
            raise BadRecord("no epoch in this line")
        if last[0] == epoch and last[1] != line.text:
            sink.start()  # stopped before its checkpoint was written: trained again
        last = epoch, line.text
        parameters = whole(data.get("n_parameters"))
        loss, lr = number(data.get("train_loss")), first(data, ("train_lr", "lr"))
        sink.train(epoch, fraction=1.0, loss=loss, mean=True, lr=lr)
        if parameters is not None:
            sink.fact("parameters", parameters)
        series: dict[str, dict[str, float | None]] = {}
        for key, value in data.items():
            if found := _SCORE.match(key):
                name = " ".join(part for part in (found[1], found[2], found[4]) if part)
                series.setdefault(name, {})[_NAMES[found[3]]] = number(value)
        for name, scores in series.items():
            sink.eval(epoch, series=name, **scores)  # type: ignore[arg-type]

    return feed


FORMATS = [
    Format(
        key="deit-json",
        title="DeiT, ConvNeXt, MAE, log.txt",
        gives=("training loss", "top-1 and top-5, EMA weights apart", "learning rate"),
        lacks={"throughput": "not in the log", "one hour": "no time stamps"},
        signature=re.compile(r'^\{(?=.*"epoch":\s*\d)(?=.*"train_(?:lr|loss)":)'),
        reader=reader,
        base=0,
        own_clock=True,
    )
]
