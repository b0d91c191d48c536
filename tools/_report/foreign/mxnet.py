"""MXNet's Module.fit and Gluon, gluon-cv's scripts, and what follows them.

INFO:root:Epoch[0] Batch [20]	Speed: 123.45 samples/sec	accuracy=0.1	top_k_accuracy_5=0.2
Epoch[0] Batch [20-40]	Speed: …	cross-entropy=4.5            newer; older: `Train-accuracy=`
Epoch[0] Train-accuracy=0.3 · Epoch[0] Time cost=190.5 · Epoch[0] Validation-accuracy=0.7
Epoch[0] Validation-top_k_accuracy_5=0.9                             gluon also `[Epoch 0] …`
[Epoch 0] training: accuracy=0.3      [Epoch 0] speed: 1234 samples/sec	time cost: 190.5
[Epoch 0] validation: err-top1=0.3 err-top5=0.1                       or accuracy=…, loss=…
[Epoch 5] train=0.45 val=0.55 loss=1.2 time: 25.0                     gluon-cv's CIFAR
All are fractions, and errors where the name says so. Speed is that of the process with all its
cards, of one card where the line has a rank.
"""

from __future__ import annotations

import re

from .formats import Feed, Format
from .lines import Line
from .record import Sink
from .run import Scope
from .values import NUMBER, decimal, images_per_s

_EPOCH = re.compile(r"(?:\bEpoch\[(\d+)\]|\[Epoch (\d+)\])")
_BATCH = re.compile(r"\s*(Rank ?\[\d+\])?\s*Batch ?\[(?:\d+-)?(\d+)\]\s")
_SPEED = re.compile(rf"\b[Ss]peed: {NUMBER} samples/s", re.IGNORECASE)
_NAMED = re.compile(rf"(?<![\w-])([A-Za-z][\w-]*)\s?=\s?{NUMBER}")
_CIFAR = re.compile(rf"\s*train={NUMBER} val={NUMBER} loss={NUMBER}")
_ARGUMENT = re.compile(r"\b(\w+)=('[^']*'|[^,()\[\]]+)")
_FACTS = {
    "network": "model",
    "model": "model",
    "num_classes": "classes",
    "num_epochs": "epochs",
    "num_examples": "train_images",
    "optimizer": "optimizer",
    "dtype": "precision",
    "lr": "base_lr",
}
_WHOLE = ("classes", "epochs", "train_images")


def _metrics(text: str) -> dict[str, float]:
    """top1 and top5 in percent, loss, lr; of training and validation alike."""
    found: dict[str, float] = {}
    for name, number in _NAMED.findall(text):
        name = re.sub(r"^(?:train|validation)-", "", name.lower())
        value = decimal(number)
        if name in ("accuracy", "acc"):
            found["top1"] = 100 * value
        elif name in ("err-top1", "top1-err"):
            found["top1"] = 100 * (1 - value)
        elif name == "top_k_accuracy_5":
            found["top5"] = 100 * value
        elif name in ("err-top5", "top5-err"):
            found["top5"] = 100 * (1 - value)
        elif name in ("cross-entropy", "loss"):
            found["loss"] = value
        elif name == "lr":
            found["lr"] = value
    return found


def reader(sink: Sink) -> Feed:
    """Epochs from 0, in some scripts from 1."""
    under_way: int | None = None
    batch = batches = 0
    scope: Scope = "all cards"

    def window(label: int, rank: str | None, at: int, text: str) -> None:
        nonlocal under_way, batch, batches
        if label != under_way:
            batches, under_way = (batch if under_way is not None else 0), label
        batch = at
        said, speed = _metrics(text), _SPEED.search(text)
        sink.train(
            label,
            step=at,
            fraction=min(1.0, at / batches) if batches else None,
            loss=said.get("loss"),
            lr=said.get("lr"),
            rate=images_per_s(speed[1]) if speed else None,
            scope="per card" if rank else scope,
        )

    def of_epoch(label: int, text: str) -> None:
        cifar = _CIFAR.match(text)
        said, speed = _metrics(text), _SPEED.search(text)
        low = text.lower().lstrip(" \t:-")
        if cifar:
            sink.train(label, whole=True, loss=decimal(cifar[3]))
            sink.eval(label, top1=100 * decimal(cifar[2]))
        elif low.startswith("validation"):
            sink.eval(label, top1=said.get("top1"), top5=said.get("top5"), loss=said.get("loss"))
        elif low.startswith("train") or speed:
            sink.train(
                label,
                whole=True,
                loss=said.get("loss"),
                lr=said.get("lr"),
                rate=images_per_s(speed[1]) if speed else None,
                scope=scope,
            )

    def arguments(text: str) -> None:
        nonlocal scope
        sink.start()
        said = {name: value.strip(" '") for name, value in _ARGUMENT.findall(text)}
        scope = "not stated" if said.get("kv_store", "").startswith("dist") else "all cards"
        for name, key in _FACTS.items():
            if said.get(name) not in (None, "", "None"):
                sink.fact(key, int(said[name]) if key in _WHOLE else said[name])
        size = said.get("batch_size", "")
        if said.get("num_gpus", "").isdigit() and int(said["num_gpus"]):
            sink.fact("cards", int(said["num_gpus"]))
            if size.isdigit():
                sink.fact("batch_per_card", int(size))
        elif "gpus" in said and size.isdigit():
            sink.fact("global_batch", int(size))
            if re.fullmatch(r"\d+(,\d+)*", said["gpus"]):
                sink.fact("cards", said["gpus"].count(",") + 1)

    def feed(line: Line) -> None:
        text = line.text
        found = _EPOCH.search(text)
        if found:
            label = int(found[1] or found[2])
            rest = text[found.end() :]
            at = _BATCH.match(rest)
            if at:
                window(label, at[1], int(at[2]), rest)
            else:
                of_epoch(label, rest)
            return
        at_arguments = text.find("Namespace(")
        if at_arguments >= 0:
            arguments(text[at_arguments + 10 :][:20_000])

    return feed


FORMATS = [
    Format(
        key="mxnet",
        title="MXNet, gluon-cv",
        gives=("images/s", "top-1 and top-5", "training loss where it is a metric"),
        lacks={
            "one hour": "time stamps only where a logger adds them",
            "training loss": "most scripts print accuracy alone",
        },
        signature=re.compile(
            r"\bEpoch ?\[\d+\](?: Rank\[\d+\])? ?Batch ?\[[\d-]+\]\s*Speed: |"
            r"\bEpoch\[\d+\] (?:Validation|Train)-[\w-]+=|"
            r"\[Epoch \d+\] (?:(?:validation|training|speed): |Validation-\w+=|train=.* val=)"
        ),
        reader=reader,
    )
]
