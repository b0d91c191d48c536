"""Swin Transformer and the many that took over its `main.py` and logger.

[2021-04-04 10:00:00 swin_tiny](main.py 123): INFO Train: [0/300][10/1251]	eta 1:02:03 lr 0.000001
        time 1.2 (1.5)	loss 6.9 (6.95)	grad_norm 1.2 (1.3)	mem 1234MB            (one line)
[2021-04-04 10:00:00 swin_tiny](main.py 124): INFO  * Acc@1 81.100 Acc@5 95.500
[2021-04-04 10:00:00 swin_tiny](main.py 125): INFO EPOCH 0 training takes 0:12:34
Numbers in parentheses are means over the epoch. A resumed run evaluates once before it trains.
Where EMA weights are scored too, the line after the scores tells.
"""

from __future__ import annotations

import re

from .formats import Feed, Format
from .lines import Line
from .record import Sink
from .torchvision_refs import WHOSE, Evaluation
from .values import NUMBER, decimal, number

_TRAIN = re.compile(r"\bTrain: \[(\d+)/(\d+)\]\[(\d+)/(\d+)\]")
_METER = rf"\s+{NUMBER}\s*\(\s*{NUMBER}\s*\)"
_TIME = re.compile(r"\btime" + _METER)
_LOSS = re.compile(r"(?<![\w-])loss" + _METER)
_LR = re.compile(r"\blr\s+" + NUMBER)
_SCORE = re.compile(
    rf"\*\s+(?:(EMA)\s+)?Acc@1:?\s+{NUMBER}(?:\s+Acc@5:?\s+{NUMBER})?(?:\s+loss:?\s+{NUMBER})?"
)
_CREATED = re.compile(r"\bCreating model:\s*(\S+)")
_SETTING = re.compile(r"^(BATCH_SIZE|EPOCHS|SEED|BASE_LR): " + NUMBER + "$")
_LOADED = re.compile(r"\bResuming form (\S+?)\.{3,}|\bresuming from (\S+)", re.IGNORECASE)


def reader(sink: Sink) -> Feed:
    """Epochs from 0."""
    evaluation = Evaluation(sink)

    def train(text: str, found: re.Match[str]) -> None:
        evaluation.trained()
        epoch, epochs, step, steps = (int(group) for group in found.groups())
        time, loss, lr = (pattern.search(text) for pattern in (_TIME, _LOSS, _LR))
        sink.train(
            epoch,
            step=step,
            fraction=(step + 1) / steps if steps else None,
            loss=decimal(loss[2]) if loss else None,
            mean=True,
            lr=decimal(lr[1]) if lr else None,
            step_s=decimal(time[2]) if time else None,
            rate_mean=True,
        )
        if epochs:
            sink.fact("epochs", epochs)

    def feed(line: Line) -> None:
        text = line.text
        if found := _TRAIN.search(text):
            train(text, found)
        elif found := _SCORE.search(text):
            evaluation.score(found)
        elif found := _CREATED.search(text):
            sink.start()
            evaluation.trained()
            sink.fact("model", found[1].rsplit("/", 1)[-1])
        elif found := _SETTING.match(text):
            value = number(found[2]) or 0.0
            if found[1] == "BATCH_SIZE" and value >= 1:
                sink.fact("batch_per_card", int(value))
            elif found[1] == "SEED":
                sink.fact("seed", int(value))
            elif found[1] == "BASE_LR":
                sink.fact("base_lr", value)
        elif found := WHOSE.search(text):
            sink.fact("val_images", int(found[2]))
            evaluation.named(ema=bool(found[1]))
        elif found := _LOADED.search(text):
            sink.fact("resumed_from", found[1] or found[2])

    return feed


FORMATS = [
    Format(
        key="swin",
        title="Swin Transformer",
        gives=(
            "training loss",
            "top-1 and top-5",
            "seconds a step",
            "learning rate",
            "time stamps",
        ),
        lacks={"throughput": "images/s are not in the log"},
        signature=re.compile(r"\bTrain: \[\d+/\d+\]\[\d+/\d+\]\s+eta "),
        scores=re.compile(r"\bINFO\s+\*\s+Acc@1\b"),
        reader=reader,
        base=0,
    )
]
