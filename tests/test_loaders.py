"""What every loader promises: order, shards, evaluation, resume, errors."""

from __future__ import annotations

import itertools
import sys

import numpy as np
import pytest
import torch
from images import PADDED, head, image_list, protocol, train_input

from proofrun.data import Batch, Shard, open_eval, open_train
from proofrun.data.lists import ImageList
from proofrun.data.synthetic import synthetic_list
from proofrun.errors import DataError, Exit, ProofrunError, ResumeError

BOTH = pytest.mark.parametrize("name", ["dali", "torchvision"])
ALL = pytest.mark.parametrize("name", ["dali", "torchvision", "synthetic"])
CROPS = pytest.mark.parametrize("crop", [{}, PADDED], ids=["area", "padded"])
WORLDS = pytest.mark.parametrize("world", [1, 2, 3, 8])


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> ImageList:
    """53 images (a prime: nothing divides evenly) of 3 classes, sorted by class."""
    return image_list(tmp_path_factory.mktemp("images"), 53)


def shard(rank: int = 0, world: int = 1) -> Shard:
    # threads 0: the torchvision loader then works in this process; DALI takes one thread
    return Shard(rank, world, threads=0)


def train(name, images, batch=4, rank=0, world=1, seed=0, state=None, **spec):
    return open_train(name, images, train_input(**spec), batch, shard(rank, world), seed, state)


def ids_of(batches) -> list[int]:
    return list(itertools.chain.from_iterable(batch.ids.tolist() for batch in batches))


def same(a: list[Batch], b: list[Batch]) -> bool:
    return len(a) == len(b) and all(
        torch.equal(x, y)
        for one, two in zip(a, b, strict=True)
        for x, y in zip(one, two, strict=True)
    )


@ALL
def test_a_batch(name, images):
    loader = train(name, images)
    for batch in itertools.islice(loader.epoch(), 3):
        assert batch.images.dtype == torch.uint8 and batch.images.shape == (4, 32, 32, 3)
        assert batch.images.is_contiguous()
        assert batch.labels.dtype == batch.ids.dtype == torch.int64
        assert batch.labels.tolist() == images.labels[batch.ids.numpy()].tolist()
        assert batch.images.float().std() > 20
    loader.close()


@BOTH
def test_order_comes_from_the_seed(name, images):
    first = train(name, images, seed=5)
    epochs = [list(first.epoch()) for _ in range(3)]
    orders = [ids_of(epoch) for epoch in epochs]
    assert orders[0] != sorted(orders[0])  # the first epoch is shuffled as well
    assert len({images.labels[i] for i in orders[0][:8]}) > 1  # over the whole list, not locally
    assert orders[0] != orders[1] != orders[2] != orders[0]
    again = train(name, images, seed=5)
    assert all(same(epoch, list(again.epoch())) for epoch in epochs)
    other = train(name, images, seed=6)
    assert not {tuple(ids_of(other.epoch())) for _ in range(3)} & {tuple(o) for o in orders}


@BOTH
@CROPS
def test_augmentation_comes_from_the_seed(name, images, crop):
    """The same image looks different in another epoch, on another seed, and on another rank."""
    one = head(images, 2)
    views = []
    for seed in (0, 1):
        loader = train(name, one, batch=2, seed=seed, **crop)
        for _ in range(2):
            (batch,) = loader.epoch()
            views.append(batch.images[batch.ids.argsort()])
    assert all(not torch.equal(a, b) for a, b in itertools.combinations(views, 2))


@ALL
@WORLDS
def test_shards_are_disjoint_and_complete(name, images, world):
    even = head(images, 48)  # a multiple of every world: with batch 1 nothing is dropped
    loaders = [train(name, even, batch=1, rank=rank, world=world) for rank in range(world)]
    assert {loader.steps for loader in loaders} == {48 // world}
    for _ in range(2):
        assert sorted(ids_of(b for loader in loaders for b in loader.epoch())) == list(range(48))


@ALL
@pytest.mark.parametrize(("world", "batch"), [(1, 4), (2, 5), (3, 3), (8, 2), (8, 6), (1, 53)])
def test_every_rank_has_as_many_full_batches(name, images, world, batch):
    loaders = [train(name, images, batch, rank, world) for rank in range(world)]
    for _ in range(3):
        epochs = [list(loader.epoch()) for loader in loaders]
        assert {len(epoch) for epoch in epochs} == {53 // world // batch} == {loaders[0].steps}
        assert {len(b.ids) for epoch in epochs for b in epoch} == {batch}
        seen = ids_of(itertools.chain.from_iterable(epochs))
        assert len(set(seen)) == len(seen)  # no image twice within an epoch
    for loader in loaders:
        loader.close()


@ALL
def test_too_few_images(name, images):
    with pytest.raises(
        DataError, match="53 training images are less than one batch of 27"
    ) as caught:
        train(name, images, batch=27, world=2)
    assert caught.value.exit_code is Exit.NO_DATA


@ALL
@CROPS
@pytest.mark.parametrize(("rank", "world"), [(0, 1), (1, 2)])
def test_resume_at_every_step(name, images, rank, world, crop):
    """From a state taken anywhere the stream goes on bit-equal; taking it changes nothing."""
    where = {"rank": rank, "world": world, "batch": 6, "seed": 3, **crop}
    plain = train(name, images, **where)
    reference = [batch for _ in range(5) for batch in plain.epoch()]
    steps = plain.steps
    loader = train(name, images, **where)
    states, seen = [loader.state()], []
    for _ in range(3):
        for batch in loader.epoch():
            seen.append(batch)
            states.append(loader.state())
    assert same(seen, reference[: 3 * steps])
    for done in (0, 1, steps // 2, steps - 1, steps, steps + 1, 2 * steps):
        resumed = train(name, images, **where, state=states[done])
        rest = list(resumed.epoch())
        # at the end of an epoch the next one is due
        assert len(rest) == steps - done % steps
        rest += resumed.epoch()
        assert same(rest, reference[done : done + len(rest)])
        again = train(name, images, **where, state=resumed.state())
        assert same(list(again.epoch()), reference[done + len(rest) :][:steps])


@ALL
def test_an_interrupted_epoch_goes_on(name, images):
    whole = list(train(name, images).epoch())
    loader = train(name, images)
    part = list(itertools.islice(loader.epoch(), 3))
    assert same(part + list(loader.epoch()), whole)


@ALL
def test_a_held_batch_does_not_change(name, images):
    loader = train(name, images)
    held, copies = [], []
    for batch in loader.epoch():
        held.append(batch)
        copies.append(Batch(*(tensor.clone() for tensor in batch)))
    for _ in range(3):
        list(loader.epoch())
    loader.close()
    del loader
    assert same(held, copies)


@ALL
def test_state_of_another_stream_is_refused(name, images):
    state = train(name, images).state()
    for change in ({"batch": 5}, {"seed": 1}, {"world": 2}, {"images": head(images, 52)}):
        with pytest.raises(ResumeError, match=r"the saved loader state has (\w+) .*--new"):
            train(name, **{"images": images, "state": state, **change})
    with pytest.raises(ResumeError, match="has loader"):
        train("synthetic" if name != "synthetic" else "dali", images, state=state)


@ALL
@WORLDS
@pytest.mark.parametrize("count", [5, 53])
def test_evaluation_sees_every_image_once(name, images, world, count):
    few = head(images, count)
    batch = 4
    seen = []
    for rank in range(world):
        loader = open_eval(name, few, protocol(), batch, shard(rank, world))
        batches = list(loader)
        assert len(batches) == -(-count // (world * batch))  # the same on every rank
        for b in batches:
            assert b.images.shape == (len(b.ids), 32, 32, 3) and b.images.dtype == torch.uint8
            assert b.labels.tolist() == few.labels[b.ids.numpy()].tolist()
            assert b.labels.dtype == b.ids.dtype == torch.int64
        seen += ids_of(batches)
        assert same(batches, list(loader))  # a second pass
        loader.close()
    assert sorted(seen) == list(range(count))


@BOTH
def test_an_image_scores_the_same_on_any_rank(name, images):
    def by_id(world: int, batch: int) -> dict[int, torch.Tensor]:
        return {
            int(i): pixels
            for rank in range(world)
            for b in open_eval(name, images, protocol(), batch, shard(rank, world))
            for i, pixels in zip(b.ids, b.images, strict=True)
        }

    one, three = by_id(1, 16), by_id(3, 5)
    assert one.keys() == three.keys()
    assert all(torch.equal(one[i], three[i]) for i in one)


@ALL
def test_loaders_leave_the_random_state_alone(name, images):
    torch.manual_seed(1)
    np.random.seed(1)
    before = torch.get_rng_state(), np.random.get_state()[1].tolist()
    list(train(name, images).epoch())
    list(open_eval(name, images, protocol(), 8, shard()))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.random.get_state()[1].tolist() == before[1]


BAD = {
    "0 bytes": (lambda jpeg: b"", Exit.IMAGE_TRUNCATED),
    "header": (lambda jpeg: jpeg[:100], Exit.IMAGE_TRUNCATED),
    "half": (lambda jpeg: jpeg[: len(jpeg) // 2], Exit.IMAGE_TRUNCATED),
    "text": (lambda jpeg: b"not found " * 50, Exit.IMAGE_INVALID),
}


@BOTH
@pytest.mark.parametrize("case", BAD)
@pytest.mark.parametrize("mode", ["train", "eval"])
def test_bad_image_is_named(name, tmp_path, case, mode):
    images = image_list(tmp_path, 12)
    damage, code = BAD[case]
    bad = images.path(7)
    bad.write_bytes(damage(bad.read_bytes()))
    with pytest.raises(DataError) as caught:
        if mode == "train":  # the whole image, so that DALI decodes the missing part
            whole = {"crop_area": (1.0, 1.0), "crop_ratio": (1.0, 1.0)}
            list(train(name, images, **whole).epoch())
        else:
            list(open_eval(name, images, protocol(), 4, shard()))
    assert caught.value.exit_code is code
    assert str(bad) in str(caught.value)


@BOTH
def test_file_that_vanished(name, tmp_path):
    images = image_list(tmp_path, 8)
    images.path(3).unlink()
    with pytest.raises(DataError) as caught:
        list(open_eval(name, images, protocol(), 4, shard()))
    assert str(images.path(3)) in str(caught.value)
    assert "No such file" in str(caught.value)


def test_dali_missing(images, monkeypatch):
    monkeypatch.delitem(sys.modules, "proofrun.data.dali", raising=False)
    monkeypatch.setitem(sys.modules, "nvidia.dali", None)
    for opening in (
        lambda: train("dali", images),
        lambda: open_eval("dali", images, protocol(), 4, shard()),
    ):
        with pytest.raises(
            ProofrunError, match=r"nvidia-dali-cuda130.*--loader torchvision"
        ) as caught:
            opening()
        assert caught.value.exit_code is Exit.NOT_INSTALLED


def test_synthetic_needs_no_files():
    images = synthetic_list(1000, 10)
    loader = train("synthetic", images, batch=16)
    batches = list(loader.epoch())
    assert len(batches) == loader.steps == 62
    assert len(set(ids_of(batches))) == 992
    assert {label for b in batches for label in b.labels.tolist()} == set(range(10))
    other = next(train("synthetic", images, batch=16, rank=1, world=2).epoch())
    assert not torch.equal(other.images, batches[0].images)
