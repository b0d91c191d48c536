"""PaddleClas 2 (`[Train][Epoch 65/200]…`, epochs from 1) and 1 (`epoch:0  , train step:10 …`).

[2022/01/10 00:38:53] root INFO:     batch_size : 256          the configuration, indented
[…] root INFO: [Train][Epoch 65/200][Iter: 10/100]lr: 0.1, top1: 0.6, CELoss: 2.9, loss: 2.9,
    batch_cost: 0.67s, reader_cost: 0.1, ips: 380.30 images/sec, eta: 1:00:00      (one line)
[…] root INFO: [Train][Epoch 65/200][Avg]CELoss: 2.9, loss: 2.9
[…] root INFO: [Eval][Epoch 65][Avg]CELoss: 1.4, loss: 1.4, top1: 0.69364, top5: 0.9
[…] root INFO: [Eval][Epoch 65][best metric: 0.69364]
2021-03-19 21:46:06 INFO: epoch:0  , train step:10  , top1: 0.1, loss: 4.5, lr: 0.1, …
2021-03-19 21:46:12 INFO: END epoch:0   valid top1: 0.76, top5: 0.93, loss: 0.97, …
Accuracies are fractions. `ips`, and in PaddleClas 2 the losses, are means over the epoch so far;
`ips` counts one card. A second evaluation after the best metric is of the averaged weights.
"""

from __future__ import annotations

import re

from .formats import Feed, Format
from .lines import Line
from .record import Sink
from .values import NUMBER, decimal, images_per_s

_TRAIN = re.compile(r"\[Train\]\s*\[Epoch (\d+)/(\d+)\]\s*\[(?:Iter: ?(\d+)/(\d+)|Avg)\]")
_EVAL = re.compile(r"\[Eval\]\s*\[Epoch (\d+)\]\s*\[Avg\]")
_BEST = re.compile(r"\[Eval\]\s*\[Epoch \d+\]\s*\[best metric: ")
_STEP1 = re.compile(r"(?<!END )\bepoch:\s*(\d+)\s*,?\s*train\s+step:\s*(\d+)")
_END1 = re.compile(r"\bEND epoch:\s*(\d+)\s*,?\s*(train|valid)\b")
_BANNER = re.compile(r"PaddleClas is powered by PaddlePaddle")
_BEGUN = re.compile(r"\btrain with paddle \S+ and device\b")
_CARDS = re.compile(r"the number of gpus is (\d+) in current training")
_FIELD = re.compile(
    rf"(?<![\w.])(lr|loss|top1|top5|batch_cost|reader_cost|elapse|ips)(?:\(\w+\))?:\s*{NUMBER}"
)
_CONFIG = re.compile(r"(?:INFO: |INFO - |^)( *)(\w+) ?: ?(.*)$")
_FACTS = {
    "Arch.name": "model",
    "ARCHITECTURE.name": "model",
    "Arch.class_num": "classes",
    "Global.class_num": "classes",
    "classes_num": "classes",
    "Global.epochs": "epochs",
    "epochs": "epochs",
    "Global.device": "device",
    "Global.seed": "seed",
    "Global.checkpoints": "resumed_from",
    "checkpoints": "resumed_from",
    "Global.pretrained_model": "pretrained_model",
    "pretrained_model": "pretrained_model",
    "DataLoader.Train.sampler.batch_size": "batch_per_card",
    "DataLoader.Train.batch_size": "batch_per_card",
    "TRAIN.batch_size": "global_batch",
    "Optimizer.name": "optimizer",
    "Optimizer.lr.learning_rate": "base_lr",
    "Loss.Train.CELoss.epsilon": "label_smoothing",
    "AMP.level": "precision",
}
_WHOLE = ("classes", "epochs", "batch_per_card", "global_batch", "seed")


class _Head:
    """What stands before the training: the banner, and the indented dump of the configuration."""

    def __init__(self, sink: Sink) -> None:
        self.sink = sink
        self.above: list[tuple[int, str]] = []
        self.bare = -9  # the newest line of a time stamp alone: the banner comes next, unstamped

    def take(self, line: Line) -> None:
        text = line.text
        if _BANNER.search(text):
            self.sink.start(mark="banner", stamped=line.number - self.bare <= 2)
            self.above.clear()
        elif _BEGUN.search(text):
            self.sink.start(mark="begun")
        elif text.endswith("INFO:"):
            self.bare = line.number
        else:
            self.setting(text)

    def setting(self, text: str) -> None:
        """A name, dotted by what it stands under, and its value."""
        found = _CONFIG.search(text)
        if found is None:
            return
        depth = len(found[1])
        while self.above and self.above[-1][0] >= depth:
            self.above.pop()
        if len(self.above) < 32:
            self.above.append((depth, found[2]))
        value = found[3].strip()
        key = _FACTS.get(".".join(name for _, name in self.above))
        if key and value not in ("", "None", "null"):
            self.sink.fact(key, int(value) if key in _WHOLE else value)


def _fields(text: str) -> dict[str, float]:
    """The first value of each name."""
    found: dict[str, float] = {}
    for name, number in _FIELD.findall(text):
        found.setdefault(name, (images_per_s if name == "ips" else decimal)(number))
    return found


def _train(
    sink: Sink, label: int, text: str, step: int | None, steps: int | None, mean: bool
) -> None:
    said = _fields(text)
    seconds = said.get("batch_cost", said.get("elapse"))
    waited = said.get("reader_cost")
    sink.train(
        label,
        step=step,
        fraction=(step + 1) / steps if step is not None and steps else None,
        loss=said.get("loss"),
        mean=mean,
        lr=said.get("lr"),
        rate=said.get("ips"),
        rate_mean=True,
        scope="per card",
        step_s=seconds,
        wait_share=min(1.0, waited / seconds) if waited is not None and seconds else None,
        whole=step is None,
    )


def _score(sink: Sink, label: int | None, text: str, series: str = "") -> None:
    said = _fields(text)
    top1, top5 = (100 * said[k] if k in said else None for k in ("top1", "top5"))
    sink.eval(label, top1=top1, top5=top5, loss=said.get("loss"), series=series)


def reader(sink: Sink) -> Feed:
    """An evaluation outside training says epoch 0: its epoch is not known."""
    head = _Head(sink)
    judged = False  # the evaluation of this epoch has been compared with the best

    def feed(line: Line) -> None:
        nonlocal judged
        text = line.text
        found = _TRAIN.search(text)
        if found:
            judged = False
            step, steps = (int(found[i]) if found[i] else None for i in (3, 4))
            _train(sink, int(found[1]), text[found.end() :], step, steps, True)
            if sink.stated("epochs") is None and int(found[2]) > 0:
                sink.fact("epochs", int(found[2]))
            return
        found = _EVAL.search(text)
        if found:
            label = int(found[1])
            _score(sink, label or None, text[found.end() :], "EMA" if judged else "")
        elif _BEST.search(text):
            judged = True
        elif found := _CARDS.search(text):
            sink.fact("cards", int(found[1]))
        else:
            head.take(line)

    return feed


def reader1(sink: Sink) -> Feed:
    """PaddleClas 1: epochs from 0; the loss of a step, its mean at the end of the epoch."""
    head = _Head(sink)

    def feed(line: Line) -> None:
        text = line.text
        found = _STEP1.search(text)
        if found:
            _train(sink, int(found[1]), text[found.end() :], int(found[2]), None, False)
            return
        found = _END1.search(text)
        if found and found[2] == "train":
            _train(sink, int(found[1]), text[found.end() :], None, None, True)
        elif found:
            _score(sink, int(found[1]), text[found.end() :])
        else:
            head.take(line)

    return feed


_GIVES = ("training loss", "learning rate", "images/s, one card", "top-1 and top-5", "data wait")
_LACKS = {"images/s of all cards": "the number of cards is not in the log"}
FORMATS = [
    Format(
        key="paddleclas",
        title="PaddleClas 2",
        gives=(*_GIVES, "times"),
        lacks=_LACKS,
        signature=re.compile(r"\[Train\]\s*\[Epoch \d+/\d+\]\s*\[|\[Eval\]\s*\[Epoch \d+\]\s*\["),
        reader=reader,
        base=1,
        one_writer=True,
    ),
    Format(
        key="paddleclas1",
        title="PaddleClas 1",
        gives=(*_GIVES, "times"),
        lacks=_LACKS,
        signature=re.compile(
            r"\bepoch:\s*\d+\s*,?\s*train\s+step:\s*\d+|\bEND epoch:\s*\d+\s*,?\s*(?:train|valid)\b"
        ),
        reader=reader1,
        base=0,
        one_writer=True,
    ),
]
