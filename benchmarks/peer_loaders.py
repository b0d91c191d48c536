"""What others would use in the place of our loader, each with a thread or a process a core."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import simplejpeg
import torch
from nvidia.dali import Pipeline, fn, types
from torch.utils.data import DataLoader

from benchmarks.loaders import Loader, Passes, Task, denormalised, nchw
from proofrun.vision import import_torchvision


def torchvision_pil(task: Task, normalise: bool) -> Loader:
    """ImageFolder, the transforms of torchvision's classification reference, a process a core."""
    v1 = import_torchvision().transforms
    steps = [_random_crop(task), v1.RandomHorizontalFlip()]
    if (jitter := task.spec.color_jitter) is not None:
        steps += [v1.ColorJitter(**jitter.model_dump())]
    steps += [v1.PILToTensor()]
    if normalise:
        steps += [v1.ConvertImageDtype(torch.float), _normalise(task)]
    data = import_torchvision().datasets.ImageFolder(str(task.root / "train"), v1.Compose(steps))
    name = "torchvision, DataLoader with PIL"
    return Loader(name, _processes(task, data), denormalised(task) if normalise else nchw)


def torchvision_tensors(task: Task) -> Loader:
    """The same on tensors, where torchvision can resize without a filter."""
    v1 = import_torchvision().transforms
    steps = [v1.PILToTensor(), _random_crop(task), v1.RandomHorizontalFlip()]
    data = import_torchvision().datasets.ImageFolder(str(task.root / "train"), v1.Compose(steps))
    return Loader("torchvision, PIL decodes, resize on tensors", _processes(task, data), nchw)


def torchvision_decode(task: Task) -> Loader:
    """decode_jpeg of torchvision.io. Raises RuntimeError where its extension does not load."""
    vision = import_torchvision()
    io, v1 = vision.io, vision.transforms
    steps = v1.Compose([_random_crop(task), v1.RandomHorizontalFlip()])

    def load(path: str) -> torch.Tensor:
        return io.decode_jpeg(io.read_file(path), mode=io.ImageReadMode.RGB)

    load(task.files[0])
    data = vision.datasets.ImageFolder(str(task.root / "train"), steps, loader=load)
    return Loader("torchvision, decode_jpeg", _processes(task, data), nchw)


def timm_loader(task: Task, normalise: bool) -> Loader:
    """timm's create_loader with a process a core; without normalisation its inner DataLoader."""
    import_torchvision()
    from timm.data import create_dataset, create_loader

    data = create_dataset("", root=str(task.root / "train"), split="train", is_training=True)
    loader = create_loader(
        data, input_size=(3, task.spec.image_size, task.spec.image_size), batch_size=task.batch,
        is_training=True, color_jitter=None, interpolation="bilinear",
        mean=task.normalize.mean, std=task.normalize.std,
        num_workers=task.cores, persistent_workers=True, device=torch.device("cpu"),
    )  # fmt: skip
    source = loader if normalise else loader.loader
    return Loader(
        "timm, create_loader", lambda: iter(source), denormalised(task) if normalise else nchw
    )


def dali_unfused(task: Task, normalise: bool = False) -> Loader:
    """DALI alone: decode all, then a random resized crop and a flip."""
    return _dali("DALI, unfused", task, normalise, fused=False)


def dali_fused(task: Task) -> Loader:
    """DALI alone, as its ImageNet examples have it: decode the crop, then resize and flip."""
    return _dali("DALI, fused, with its own resize", task, normalise=False, fused=True)


def _dali(name: str, task: Task, normalise: bool, fused: bool) -> Loader:
    pipe = Pipeline(
        batch_size=task.batch, num_threads=task.cores, device_id=None, seed=1,
        exec_dynamic=True, prefetch_queue_depth=2,
    )  # fmt: skip
    size = task.spec.image_size
    with pipe:
        encoded, ids = fn.readers.file(
            files=task.files, shuffle_after_epoch=True, dont_use_mmap=True
        )
        decoding = {"device": "cpu", "output_type": types.DALIImageType.RGB}
        crop = {
            "random_area": list(task.crop.area), "random_aspect_ratio": list(task.crop.ratio),
        }  # fmt: skip
        resize = {
            "size": [size, size], "antialias": task.spec.antialias,
            "interp_type": types.DALIInterpType.INTERP_LINEAR,
        }  # fmt: skip
        views: Any
        if fused:
            views = fn.resize(fn.decoders.image_random_crop(encoded, **decoding, **crop), **resize)
        else:
            decoded = fn.decoders.image(encoded, **decoding)
            views = fn.random_resized_crop(decoded, **crop, **resize)
        mirror = fn.random.coin_flip(probability=0.5)
        if normalise:
            views = fn.crop_mirror_normalize(
                views, mirror=mirror, output_layout="CHW", dtype=types.DALIDataType.FLOAT,
                mean=[255 * x for x in task.normalize.mean],
                std=[255 * x for x in task.normalize.std],
            )  # fmt: skip
        else:
            views = fn.flip(views, horizontal=mirror)
        pipe.set_outputs(views, ids)
    pipe.build()

    def epoch() -> Iterator[Any]:
        for _ in range(len(task.files) // task.batch):
            yield tuple(torch.from_dlpack(output.as_tensor()) for output in pipe.run())

    pixels = denormalised(task) if normalise else lambda batch: batch[0].numpy()
    return Loader(name, epoch, pixels)


def bare_decode(task: Task) -> Loader:
    """The limit of a full decode: libjpeg-turbo by simplejpeg, a thread a core, nothing else."""
    pool = ThreadPoolExecutor(task.cores)

    def decode(path: str) -> None:
        with open(path, "rb") as file:
            simplejpeg.decode_jpeg(file.read())

    def epoch() -> Iterator[None]:
        for at in range(0, len(task.files), task.batch):
            list(pool.map(decode, task.files[at : at + task.batch]))
            yield None

    return Loader("limit: bare libjpeg-turbo decode", epoch, None)


def _random_crop(task: Task) -> Any:
    spec = task.spec
    return import_torchvision().transforms.RandomResizedCrop(
        spec.image_size, task.crop.area, task.crop.ratio, antialias=spec.antialias
    )


def _normalise(task: Task) -> Any:
    normalise = import_torchvision().transforms.Normalize
    return normalise(task.normalize.mean, task.normalize.std)


def _processes(task: Task, data: Any) -> Passes:
    loader = DataLoader(
        data, task.batch, shuffle=True, num_workers=task.cores, persistent_workers=True
    )
    return lambda: iter(loader)
