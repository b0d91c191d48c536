"""torchvision's references, and what took over their logger: DeiT, ConvNeXt, MAE, PVT.

Epoch: [0]  [ 10/5004]  eta: 1:02:03  lr: 0.5  img/s: 800.5  loss: 6.9 (6.9)  …  time: 0.3  data: …
Test:  Acc@1 69.758 Acc@5 89.078       Test: EMA Acc@1 …       * Acc@1 69.758 Acc@5 89.078 loss 1.2
Averaged stats: lr: 0.5  loss: 6.8 (6.85)
Accuracy of the model EMA on 50000 test images: 70.1%
Epoch: [0] Total time: 0:12:34            Training time 1 day, 2:03:04
img/s is of this process and without the wait for data; DeiT and its heirs print seconds a step.
Losses in parentheses are means over the epoch, of the first rank; averaged stats are of all ranks.
ConvNeXt tells only after the scores whether they are of the EMA weights.
"""

from __future__ import annotations

import re

from .formats import Feed, Format
from .lines import Line
from .record import Sink
from .run import Scope
from .values import NUMBER, decimal, images_per_s, number, whole

_TRAIN = re.compile(r"\bEpoch:?\s*\[(\d+)(?:/\d+)?\]:?\s*\[\s*(\d+)/(\d+)\]\s*eta:")
_LOSS = re.compile(rf"(?<![\w-])loss:\s*{NUMBER}\s*\(\s*{NUMBER}\s*\)")
_LR = re.compile(r"(?<![\w-])lr:\s*" + NUMBER)
_RATE = re.compile(r"\bimg/s:\s*" + NUMBER)
_TIME = re.compile(r"(?<![\w-])time:\s*" + NUMBER)
_DATA = re.compile(r"(?<![\w-])data:\s*" + NUMBER)
_AVERAGED = re.compile(r"^\W*Averaged stats:")
_SCORE = re.compile(
    rf"(?:\bTest:\s*(EMA)?\s*|\*\s+)Acc@1:?\s+{NUMBER}(?:\s+Acc@5:?\s+{NUMBER})?"
    rf"(?:\s+loss:?\s+{NUMBER})?"
)
WHOSE = re.compile(r"\bAccuracy of the (?:\w+ )??(EMA )?(?:on|of) (?:the )?(\d+) test im", re.I)
_TIME_TOTAL = re.compile(
    r"(?:^\W*|[:|\])]\s*|\sINFO\s+)Training time (?:(\d+) days?, )?(\d+):(\d\d):(\d\d)"
)
_SETTING = re.compile(r"\b(\w+)=('[^']*'|[^,()\[\]{}]+(?:,\d+)?)")
_TEXTS = {"model": "model", "arch": "model", "opt": "optimizer", "resume": "resumed_from"}
_WHOLES = {
    "batch_size": "batch_per_card",
    "world_size": "cards",
    "epochs": "epochs",
    "seed": "seed",
    "nb_classes": "classes",
}


class Evaluation:
    """Scores of `* Acc@1`; those without training since the last ones wait for a name."""

    def __init__(self, sink: Sink) -> None:
        self.sink = sink
        self.done = False  # the plain weights were evaluated since the last training
        self.waiting: re.Match[str] | None = None

    def trained(self) -> None:
        """A line on training was seen."""
        self.done, self.waiting = False, None

    def score(self, found: re.Match[str]) -> None:
        """A match of (EMA or None, top-1, top-5, loss)."""
        if found[1]:
            self._put(found, "EMA")
        elif self.done:
            self.waiting = found
        else:
            self._put(found, "")
            self.done = True

    def named(self, ema: bool) -> None:
        """The line after the scores says whose they are."""
        if self.waiting is not None:
            self._put(self.waiting, "EMA" if ema else "")
        self.waiting = None

    def _put(self, found: re.Match[str], series: str) -> None:
        top1, top5, loss = (number(found[group]) for group in (2, 3, 4))
        self.sink.eval(None, top1=top1, top5=top5, loss=loss, series=series)


class _Reader:
    def __init__(self, sink: Sink) -> None:
        self.sink = sink
        self.evaluation = Evaluation(sink)
        self.epoch: int | None = None
        self.total = 0.0
        self.ended = False  # the training since the last start has stated its time

    def line(self, line: Line) -> None:
        text, sink = line.text, self.sink
        if found := _TRAIN.search(text):
            self.train(text, int(found[1]), int(found[2]), int(found[3]))
        elif found := _SCORE.search(text):
            self.evaluation.score(found)
        elif found := WHOSE.search(text):
            sink.fact("val_images", int(found[2]))
            self.evaluation.named(ema=bool(found[1]))
        elif _AVERAGED.search(text):
            loss = _LOSS.search(text)
            if loss and self.epoch is not None and not self.evaluation.done:
                sink.train(self.epoch, loss=decimal(loss[2]), whole=True)
        elif found := _TIME_TOTAL.search(text):
            self.training_time(*(int(group or 0) for group in found.groups()))
        elif "Namespace(" in text:
            sink.start()
            self.evaluation.trained()
            self.settings(text[text.index("Namespace(") :])
        elif "Not using distributed mode" in text:
            sink.fact("cards", 1)

    def train(self, text: str, epoch: int, step: int, steps: int) -> None:
        self.evaluation.trained()
        self.epoch, self.ended = epoch, False
        loss, lr, rate, time, data = (p.search(text) for p in (_LOSS, _LR, _RATE, _TIME, _DATA))
        seconds = decimal(time[1]) if time else None
        scope: Scope = "per card" if rate else "not stated"
        self.sink.train(
            epoch,
            step=step,
            fraction=(step + 1) / steps if steps else None,
            loss=decimal(loss[2]) if loss else None,
            mean=True,
            lr=decimal(lr[1]) if lr else None,
            rate=images_per_s(rate[1]) if rate else None,
            scope=scope,
            step_s=seconds,
            wait_share=decimal(data[1]) / seconds if data and seconds else None,
        )

    def training_time(self, days: int, hours: int, minutes: int, seconds: int) -> None:
        """The only time that most of these logs state; not where lines bear time stamps."""
        if self.ended:  # the line is printed twice
            return
        self.ended = True
        spent = ((days * 24 + hours) * 60 + minutes) * 60.0 + seconds
        self.sink.fact("training_time_s", spent)
        if self.total or not self.sink.timed:
            self.sink.clock(self.total)
            self.sink.begin()
            self.total += spent
            self.sink.clock(self.total)
            self.sink.end()

    def settings(self, text: str) -> None:
        for key, value in _SETTING.findall(text):
            value = value.strip().strip("'")
            if key in _TEXTS and value not in ("", "None"):
                self.sink.fact(_TEXTS[key], value)
            elif key in _WHOLES and (whole(value) or 0) > 0:
                self.sink.fact(_WHOLES[key], whole(value) or 0)
            elif key in ("lr", "label_smoothing", "smoothing") and number(value) is not None:
                name = "base_lr" if key == "lr" else "label_smoothing"
                self.sink.fact(name, number(value) or 0.0)
            elif key == "amp" and value == "True":
                self.sink.fact("precision", "amp")


def reader(sink: Sink) -> Feed:
    """Epochs from 0."""
    return _Reader(sink).line


_LACKS = {"one hour": "no time stamps, unless the logger was told to print them"}
FORMATS = [
    Format(
        key="torchvision",
        title="torchvision, references",
        gives=(
            "training loss",
            "top-1 and top-5, EMA weights apart",
            "images/s of one card, without the wait for data",
            "learning rate",
            "training time",
        ),
        lacks=_LACKS,
        signature=re.compile(r"\bEpoch:?\s*\[\d+(?:/\d+)?\]:?\s*\[\s*\d+/\d+\]\s*eta:.*\bimg/s:"),
        scores=re.compile(r"\bTest:\s+(?:EMA\s+)?Acc@1\b"),
        reader=reader,
        base=0,
        one_writer=True,
    ),
    Format(
        key="deit",
        title="DeiT, ConvNeXt, MAE, stdout",
        gives=(
            "training loss",
            "top-1 and top-5, EMA weights apart",
            "seconds a step",
            "learning rate",
            "training time",
        ),
        lacks={"throughput": "images/s are not in the log", **_LACKS},
        signature=re.compile(r"\bEpoch:?\s*\[\d+(?:/\d+)?\]:?\s*\[\s*\d+/\d+\]\s*eta:"),
        scores=re.compile(r"\bTest:\s+\[\s*\d+/\d+\]\s*eta:"),
        reader=reader,
        base=0,
        one_writer=True,
    ),
]
