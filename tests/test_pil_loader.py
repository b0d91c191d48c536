"""The PIL loader is torchvision's own transforms, each image seeded by (seed, epoch, position)."""

from __future__ import annotations

import itertools
import multiprocessing as mp
import subprocess
import sys

import numpy as np
import pytest
import torch
from images import (
    ODDITIES,
    PADDED,
    head,
    image_list,
    natural,
    protocol,
    repeated,
    train_input,
)
from PIL import Image

from proofrun.data import Shard, open_eval, open_train
from proofrun.data.lists import ImageList
from proofrun.data.pil import epoch_order, eval_transform, train_transform
from proofrun.errors import DataError, Exit
from proofrun.vision import import_torchvision


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> ImageList:
    return image_list(tmp_path_factory.mktemp("images"), 24)


def views(images: ImageList, batch: int, world: int, threads: int, epochs: int = 2) -> dict:
    """{(epoch, id): pixels} of all ranks."""
    found = {}
    for rank in range(world):
        shard = Shard(rank, world, threads)
        loader = open_train("torchvision", images, train_input(), batch, shard, 7)
        for epoch in range(epochs):
            for got in loader.epoch():
                for index, pixels in zip(got.ids.tolist(), got.images, strict=True):
                    found[epoch, index] = pixels
        loader.close()
    return found


def test_a_view_depends_on_seed_epoch_and_image_only(images):
    """Not on the batch, the rank, or the number of worker processes."""
    one = views(images, batch=4, world=1, threads=0)
    assert len(one) == 48
    for batch, world, threads in ((6, 1, 2), (3, 2, 0), (2, 3, 1)):
        other = views(images, batch, world, threads)
        assert other.keys() == one.keys()
        assert all(torch.equal(one[key], other[key]) for key in one)


def test_order_is_a_permutation_by_seed_and_epoch():
    orders = [epoch_order(50, *key).tolist() for key in ((0, 0), (0, 1), (1, 0), (1, 1))]
    assert all(sorted(order) == list(range(50)) for order in orders)
    assert all(a != b for a, b in itertools.combinations(orders, 2))
    assert orders[0] == epoch_order(50, 0, 0).tolist()


@pytest.mark.parametrize("padded", [False, True])
def test_train_transform_is_torchvisions_compose(padded):
    """With antialiasing every pixel is what the classes that everyone uses would give."""
    v1 = import_torchvision().transforms
    image, spec = natural(90, 70), train_input(**(PADDED if padded else {}))
    crop = [v1.RandomResizedCrop(32, (0.08, 1.0), (0.75, 4 / 3))]
    if padded:
        crop = [v1.RandomCrop((70, 90), padding=4), v1.Resize((32, 32))]
    compose = v1.Compose([*crop, v1.RandomHorizontalFlip(0.5), v1.ColorJitter(0.4, 0.4, 0.4, 0.1)])
    for seed in range(10):
        torch.manual_seed(seed)
        ours = np.asarray(train_transform(image, spec))
        torch.manual_seed(seed)
        assert np.array_equal(ours, np.asarray(compose(image)))


def test_without_antialiasing_nothing_is_filtered():
    """PIL always filters, so the resize goes through a uint8 tensor: two pixels decide on one."""
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, 1::4] = 255
    image, spec = Image.fromarray(stripes), protocol(resize="squash", resize_to=16, crop=16)
    filtered = np.asarray(eval_transform(image, spec))[:, 2:-2]
    plain = np.asarray(eval_transform(image, spec.model_copy(update={"antialias": False})))
    assert np.ptp(filtered) < 5 and abs(filtered.mean() - 255 / 4) < 5
    assert np.all(np.abs(plain - 127.5) < 1)


@pytest.mark.parametrize("name", ODDITIES)
def test_oddities_that_verification_allows_are_pils(tmp_path, name):
    path, spec = tmp_path / name, protocol()
    ODDITIES[name](natural(64, 48), path)
    (batch,) = open_eval("torchvision", repeated(path, 1), spec, 1, Shard(0, 1, 0))
    expected = np.asarray(eval_transform(Image.open(path).convert("RGB"), spec))
    assert np.array_equal(batch.images[0].numpy(), expected)
    loader = open_train("torchvision", repeated(path, 2), train_input(), 2, Shard(0, 1, 0), 0)
    assert [batch.images.shape for batch in loader.epoch()] == [(2, 32, 32, 3)]


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_error_of_a_worker_process_keeps_its_code(tmp_path, mode):
    images = image_list(tmp_path, 8)
    images.path(5).write_bytes(b"")
    with pytest.raises(DataError) as caught:
        if mode == "train":
            list(open_train("torchvision", images, train_input(), 4, Shard(0, 1, 2), 0).epoch())
        else:
            list(open_eval("torchvision", images, protocol(), 4, Shard(0, 1, 2)))
    assert caught.value.exit_code is Exit.IMAGE_TRUNCATED
    assert str(images.path(5)) in str(caught.value) and "Traceback" not in str(caught.value)


def test_interrupted_epoch_goes_on_with_worker_processes(images):
    def ids(loader) -> list[list[int]]:
        return [batch.ids.tolist() for batch in loader]

    loader = open_train("torchvision", images, train_input(), 4, Shard(0, 1, 2), 0)
    whole = ids(loader.epoch()), ids(loader.epoch())
    loader.close()
    loader = open_train("torchvision", images, train_input(), 4, Shard(0, 1, 2), 0)
    part = [batch.ids.tolist() for batch in itertools.islice(loader.epoch(), 2)]
    assert (part + ids(loader.epoch()), ids(loader.epoch())) == whole
    loader.close()


def test_signals_are_left_to_the_rank(images):
    """Worker processes outlive a signal to the whole group, and end with their epoch."""
    loader = open_train("torchvision", images, train_input(), 2, Shard(0, 1, 1), 0)
    batches = loader.epoch()
    next(batches)
    (worker,) = mp.active_children()
    for number in ("-TERM", "-INT"):
        subprocess.run(["kill", number, str(worker.pid)], check=True)
    assert len(list(batches)) == loader.steps - 1
    assert mp.active_children() == []
    assert worker.exitcode == 0


@pytest.mark.parametrize(
    "use",
    [
        "next(batches)\n",
        "def broken(*_): raise KeyError('defect')\n"
        "pil.train_transform = broken\n"
        "try:\n    next(batches)\n"
        "except Exception as error:\n    held = error  # and with it the iterator's frames\n"
        "assert 'defect' in str(held)\n",
    ],
    ids=["amid an epoch", "after a worker's defect"],
)
def test_a_process_that_forgets_its_loader_can_still_exit(images, use):
    code = (
        "import sys; sys.path[:0] = ['.', 'tests']\n"
        "from images import image_list, train_input\n"
        "from pathlib import Path\n"
        "from proofrun.data import Shard, open_train, pil\n"
        "from proofrun.data.lists import read_split\n"
        f"images = read_split(Path({str(images.root)!r}), 'train', {images.class_count})\n"
        "batches = open_train('torchvision', images, train_input(), 2, Shard(0, 1, 1), 0).epoch()\n"
        f"{use}"
    )
    done = subprocess.run([sys.executable, "-c", code], timeout=60, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_evaluation_with_worker_processes(images):
    few = head(images, 5)
    got = [b.ids.tolist() for b in open_eval("torchvision", few, protocol(), 2, Shard(1, 4, 2))]
    assert got == [[1]]
    got = [b.ids.tolist() for b in open_eval("torchvision", few, protocol(), 1, Shard(3, 4, 2))]
    assert got == [[3], []]  # ranks 0 has two images, so every rank has two batches
