"""Writers of other systems' logs: MLPerf, DLLogger, timm, torchvision."""

from __future__ import annotations

import json


def mllog(key: str, value: object, seconds: float, **meta: object) -> str:
    data = {"namespace": "", "time_ms": int(seconds * 1000), "event_type": "POINT_IN_TIME"}
    meta = {"file": "/w/fit.py", "lineno": 1, **meta}
    return ":::MLLOG " + json.dumps({**data, "key": key, "value": value, "metadata": meta})


def mlperf_run(
    epochs: int = 6, start: float = 1.6e9, seed: int = 3, status: str = "success"
) -> str:
    lines = [mllog("submission_benchmark", "resnet", start - 60)]
    lines += [mllog("init_start", None, start - 50)] * 4
    lines += [mllog("seed", seed, start - 40), mllog("global_batch_size", 512, start - 40)]
    lines += [mllog("run_start", None, start)]
    for epoch in range(1, epochs + 1):
        at = start + 700 * epoch
        lines.append(f"2001-02-03 04:05:{epoch:02d},678 Node[0] Epoch[{epoch - 1}] Time cost=61")
        lines.append(mllog("epoch_stop", None, at, epoch_num=epoch))
        lines.append(mllog("tracked_stats", {"imgs_sec": 1000.0 + epoch}, at, step=epoch))
        lines.append(mllog("throughput", 1000.0 + epoch, at))
        if epoch % 2 == 0:
            lines.append(mllog("eval_accuracy", epoch / 10, at + 10, epoch_num=epoch))
    lines.append(mllog("run_stop", None, start + 700 * epochs + 11, status=status))
    return "\n".join(lines) + "\n"


def dlll(at: float, step: object, prefix: str = "DLLL ", **data: object) -> str:
    data = {key.replace("__", "."): value for key, value in data.items()}
    head = {"timestamp": f"{1.6e9 + at:.6f}", "datetime": "2020-09-13 12:00:00.000000"}
    return prefix + json.dumps(
        {**head, "elapsedtime": "1.0", "type": "LOG", "step": step} | {"data": data}
    )


def dlll_run(first: int = 0, last: int = 3, at: float = 0, prefix: str = "DLLL ") -> str:
    settings_of_run = {"arch": "resnet50", "world_size": 8, "batch_size": 256, "resume": ""}
    lines = [dlll(at, "PARAMETER", prefix, **settings_of_run, epochs=4, seed=None, amp=True)]
    for epoch in range(first, last):
        for step in (100, 200):
            at += 400
            loss = 7 - epoch - step / 1000
            lines.append(
                dlll(at, [epoch, step], prefix, train__loss=loss, train__total_ips=5000 + epoch)
            )
            more = {"lr": 0.1, "train__data_time": 0.01, "train__compute_time": 0.09}
            lines.append(dlll(at, [epoch, step], prefix, train__compute_ips=9e9, **more))
        lines.append(dlll(at, [epoch, 0, 10], prefix, val__top1=99.0, val__top5=99.5))
        both = {"train__loss": 6.5 - epoch, "train__total_ips": 5010.0 + epoch}
        val = {"val__top1": 10.0 * (epoch + 1), "val__top5": 90.0, "val__loss": 0.0}
        lines.append(dlll(at + 10, [epoch], prefix, **both, **val))
        lines.append(dlll(at + 10, [epoch], prefix, lr=0.1, val__compute_ips=1.0))
    lines.append(dlll(at + 20, [], prefix, train__loss=5.5, val__top1=30.0, val__loss=0.5))
    return "\n".join(lines) + "\n"


def timm_epoch(epoch: int, top1: float, steps: int = 300, last: int = 48, ema: bool = False) -> str:
    lines = []
    for step in (0, 150, steps - 1):
        rate = 100.0 + epoch + step / 1000
        lines.append(
            f"Train: {epoch} [{step:>4d}/{steps} ({100 * step // steps:>3d}%)]  "
            f"Loss: {9 - epoch:#.4g} ({8 - epoch - step / 1000:#.3g})  "
            f"Time: 0.500s, {5.0:>7.2f}/s  (0.400s, {rate:>7.2f}/s)  "
            f"LR: 1.000e-03  Data: 0.010 (0.100)"
        )
    for name in ("Test", "Test (EMA)") if ema else ("Test",):
        for step in (0, 40, last):
            shown = top1 + (1 if "EMA" in name else 0)
            lines.append(
                f"{name}: [{step:>4d}/48]  Time: 0.1 (0.2)  Loss:  1.5 (1.2500)  "
                f"Acc@1: 99.0 ({shown if step == last else 7:>7.4f})  Acc@5: 99.9 ( 95.5000)"
            )
    lines.append("Current checkpoints:\n ('./output/checkpoint-0.pth.tar', 11.0)\n")
    return "\n".join(lines) + "\n"


def meter_line(epoch: int, step: int, rate: str = "", steps: int = 100, loss: float = 5.0) -> str:
    return (
        f"Epoch: [{epoch}]  [{step:>3d}/{steps}]  eta: 0:10:20  lr: 0.5{rate}  loss: 9.9 ({loss})  "
        f"acc1: 1.0 (2.0)  acc5: 3.0 (4.0)  time: 0.5000  data: 0.1000  max mem: 12000\n"
    )


def torchvision_run(epochs: int = 3, batch: int = 32, ema: bool = True) -> str:
    text = "| distributed init (rank 0): env://\n"
    text += f"Namespace(amp=True, batch_size={batch}, data_path='/d', epochs={epochs}, lr=0.5, "
    text += "model='resnet50', opt='sgd', resume='', seed=None, world_size=8)\n"
    for epoch in range(epochs):
        for step in (0, 50):
            text += meter_line(epoch, step, f"  img/s: {300 + epoch + step}", loss=6.5 - epoch)
        text += f"Epoch: [{epoch}] Total time: 0:12:34\n"
        text += (
            "Test:   [ 0/20]  eta: 0:00:22  loss: 0.7 (0.7)  acc1: 99.0 (99.0)  acc5: 100 (100)\n"
        )
        text += f"Test:  Total time: 0:00:02\nTest:  Acc@1 {40.5 + epoch:.3f} Acc@5 70.000\n"
        text += f"Test: EMA Acc@1 {41.5 + epoch:.3f} Acc@5 71.000\n" if ema else ""
    return text + "Training time 1 day, 2:03:04\n"
