"""MindSpore on Ascend with a progress monitor (GoogLeNet, DenseNet, ResNeXt): a file per rank.

2020-04-01 10:00:00,123:INFO:--> per_batch_size: 128          the arguments
…:INFO:epoch[36], iter[23124], loss:2.8, mean_fps:13012.40 imgs/sec
…:INFO:load model /models/0-37_625.ckpt success
…:INFO:Inference Performance: 9000.00 img/sec
…:INFO:after allreduce eval: top1_correct=35320, tot=49152, acc=71.86%
…:INFO:after allreduce eval: top5_correct=44445, tot=49152, acc=90.42%
Some write `maiter`, or `acc=71.86%(TOP1)`. `mean_fps` counts all cards; a process starts its timer
at 0, so the first that it prints means nothing. The loss is that of the last step.
"""

from __future__ import annotations

import re

from .formats import Feed, Format
from .lines import Line
from .record import Sink
from .starts import BadRecord
from .values import NUMBER, decimal, images_per_s

_TRAIN = re.compile(
    r"epoch\[(\d+)\],\s*(?:ma)?iter\[(\d+)\],\s*loss:\s*(?:.{0,80}?value=\s*)?" + NUMBER
)
_FPS = re.compile(r"\bmean_fps:\s*" + NUMBER + r"\s*imgs/sec")
_LR = re.compile(r"\b(?:cur_)?lr:\s*" + NUMBER)
_EVAL = re.compile(
    r"after allreduce eval: top([15])_correct=(\d+)(?:\.0)?, ?tot=(\d+)(?:\.0)?, ?acc=" + NUMBER
)
_CHECKPOINT = re.compile(r"(?i)\bload[_ ]model[ :]+(\S+\.ckpt)")
_EPOCHS_DONE = re.compile(r"-(\d+)_\d+\.ckpt$")
_INFERENCE = re.compile(r"Inference Performance: " + NUMBER + r" img/sec")
_ARGUMENT = re.compile(r"-->\s*(\w+)\s*:\s*(\S.*)$")
_START = re.compile(r"start network train|(?:^|:|\s)Args:\s*$")
_FACTS = {
    "per_batch_size": "batch_per_card",
    "group_size": "cards",
    "max_epoch": "epochs",
    "epoch_size": "epochs",
    "num_classes": "classes",
    "backbone": "model",
    "network": "model",
    "dataset": "data",
    "device_target": "device",
    "lr": "base_lr",
    "label_smooth_factor": "label_smoothing",
}
_WHOLE = ("batch_per_card", "cards", "epochs", "classes")


def reader(sink: Sink) -> Feed:
    """Epochs as printed, from 0. Accuracy is correct / tot; `acc` must agree."""
    untimed = True  # the next mean_fps is a process's first
    checkpoint = ""

    def train(found: re.Match[str], text: str) -> None:
        nonlocal untimed
        fps, lr = _FPS.search(text), _LR.search(text)
        sink.train(
            int(found[1]),
            step=int(found[2]),
            fraction=1.0,
            loss=decimal(found[3]),
            lr=decimal(lr[1]) if lr else None,
            rate=images_per_s(fps[1]) if fps and not untimed else None,
            rate_mean=True,
            scope="all cards",
        )
        untimed = untimed and fps is None

    def evaluated(found: re.Match[str]) -> None:
        correct, total = int(found[2]), int(found[3])
        if not 0 < total < 1 << 40:
            raise BadRecord(f"{total} images were scored")
        percent = 100.0 * correct / total
        if abs(percent - decimal(found[4])) > 0.006:
            sink.remark("acc is not what the counts give: the counts are used")
        done = _EPOCHS_DONE.search(checkpoint)
        sink.eval(
            None,
            top1=percent if found[1] == "1" else None,
            top5=percent if found[1] == "5" else None,
            images=total,
            epochs_done=float(done[1]) if done else None,
        )

    def feed(line: Line) -> None:
        nonlocal untimed, checkpoint
        text = line.text
        found = _TRAIN.search(text)
        if found:
            train(found, text)
            return
        found = _EVAL.search(text)
        if found:
            evaluated(found)
            return
        found = _ARGUMENT.search(text)
        if found:
            key = _FACTS.get(found[1])
            if key and found[2] not in ("None", ""):
                sink.fact(key, int(found[2]) if key in _WHOLE else found[2])
            return
        found = _INFERENCE.search(text)
        if found:
            sink.fact("images/s in evaluation", images_per_s(found[1]))
            return
        found = _CHECKPOINT.search(text)
        if found:
            checkpoint = found[1][-200:]
        elif _START.search(text):
            sink.start()
            untimed = True

    return feed


FORMATS = [
    Format(
        key="ascend-googlenet",
        title="MindSpore on Ascend, progress monitor",
        gives=("loss of an epoch's last step", "images/s, all cards", "top-1 and top-5", "times"),
        lacks={"learning rate": "not printed"},
        signature=re.compile(
            r"epoch\[\d+\],\s*(?:ma)?iter\[\d+\],\s*loss:.{0,200}?mean_fps:"
            r"|after allreduce eval: top[15]_"
        ),
        reader=reader,
        base=0,
    )
]
