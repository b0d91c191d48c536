"""DALI against torchvision on PIL: the same pixels in evaluation, the same draws in training."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

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
    ramp,
    repeated,
    train_input,
    windows,
)
from PIL import Image
from scipy import stats

from proofrun.data import Shard, dali_graph, open_eval, open_train
from proofrun.data import dali as dali_loader
from proofrun.data.lists import ImageList
from proofrun.errors import DataError, Exit
from proofrun.recipe import ColorJitter
from proofrun.vision import import_torchvision

#: (width, height): odd and even, lying, standing and square, smaller and larger than the target.
SIZES = [(121, 97), (97, 121), (133, 100), (64, 200), (75, 75), (71, 85), (225, 301), (50, 61)]


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> ImageList:
    root = tmp_path_factory.mktemp("photos")
    for index, (width, height) in enumerate(SIZES):
        natural(width, height, index).save(root / f"{index}.jpg", quality=95)
    labels = np.zeros(len(SIZES), np.int64)
    return ImageList(root, [f"{i}.jpg" for i in range(len(SIZES))], labels, 1)


def evaluated(images: ImageList, spec) -> np.ndarray:
    (batch,) = open_eval("dali", images, spec, len(images.files), Shard(0, 1, 1))
    assert batch.ids.tolist() == list(range(len(images.files)))
    return batch.images.numpy().astype(float)


def torchvision_pixels(path, spec) -> np.ndarray:
    """torchvision's own classes, on PIL images with antialiasing and on uint8 tensors without."""
    v1 = import_torchvision().transforms
    size = spec.resize_to if spec.resize == "shorter_side" else (spec.resize_to,) * 2
    steps = [v1.Resize(size, antialias=spec.antialias), v1.CenterCrop(spec.crop)]
    if spec.antialias:
        steps.append(v1.PILToTensor())
    else:
        steps.insert(0, v1.PILToTensor())
    pixels = v1.Compose(steps)(Image.open(path).convert("RGB"))
    return pixels.permute(1, 2, 0).numpy().astype(float)


@pytest.mark.parametrize("antialias", [True, False])
@pytest.mark.parametrize("rule", ["shorter_side", "squash"])
@pytest.mark.parametrize(("resize_to", "crop"), [(73, 64), (74, 64), (75, 64), (256, 224)])
def test_evaluation_pixels_are_torchvisions(photos, rule, antialias, resize_to, crop):
    spec = protocol(resize=rule, antialias=antialias, resize_to=resize_to, crop=crop)
    expected = [torchvision_pixels(photos.path(i), spec) for i in range(len(SIZES))]
    difference = np.abs(evaluated(photos, spec) - np.stack(expected))
    print(
        f"{rule} {resize_to} crop {crop}, antialias {antialias}: mean {difference.mean():.3f}, "
        f"worst image {difference.mean((1, 2, 3)).max():.3f}, worst pixel {difference.max():.0f}"
    )
    assert difference.mean((1, 2, 3)).max() <= 0.5
    assert difference.max() <= 2


def test_exif_orientation_is_ignored(tmp_path):
    """As PIL does, and with it every published accuracy."""
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by 90 degrees to see it upright
    natural(64, 48).save(tmp_path / "rotated.jpg", quality=95, exif=exif)
    natural(64, 48).save(tmp_path / "plain.jpg", quality=95)
    pair = ImageList(tmp_path, ["rotated.jpg", "plain.jpg"], np.zeros(2, np.int64), 1)
    rotated, plain = evaluated(pair, protocol())
    assert np.array_equal(rotated, plain)
    spec = train_input(crop_area=(1.0, 1.0), crop_ratio=(1.33, 1.34), flip_probability=0.0)
    spec = spec.model_copy(update={"color_jitter": None})
    (batch,) = open_train("dali", pair, spec, 2, Shard(0, 1, 1), 0).epoch()
    assert torch.equal(batch.images[0], batch.images[1])


@pytest.mark.parametrize("name", ODDITIES)
def test_oddities_that_verification_allows_are_decoded_as_by_pil(tmp_path, name):
    path = tmp_path / name
    ODDITIES[name](natural(64, 48), path)
    pixels = evaluated(repeated(path, 1), protocol())[0]
    difference = np.abs(pixels - torchvision_pixels(path, protocol())).mean()
    print(f"{name}: mean difference {difference:.3f}")
    assert difference <= 0.5
    whole = train_input(crop_area=(1.0, 1.0), flip_probability=0.0, color_jitter=None)
    loader = open_train("dali", repeated(path, 2), whole, 1, Shard(0, 1, 1), 0)
    views = [batch.images[0].numpy().astype(float) for batch in loader.epoch()]
    reference = np.asarray(Image.open(path).convert("RGB")).astype(float)
    for view in views:
        assert view.shape == (32, 32, 3)
        assert (view.mean((0, 1)) >= reference.min((0, 1)) - 1).all()
        assert (view.mean((0, 1)) <= reference.max((0, 1)) + 1).all()


def test_sixteen_bits_are_not_what_pil_makes_of_them(tmp_path):
    """So verification refuses them: the two loaders would train on other pixels."""
    path = tmp_path / "deep.png"
    pixels = np.asarray(natural(64, 48).convert("L")).astype(np.uint16) * 257
    Image.fromarray(pixels).save(path)
    ours = evaluated(repeated(path, 1), protocol())[0]
    assert np.abs(ours - torchvision_pixels(path, protocol())).mean() > 50


def draws(name: str, path, count: int, **spec) -> np.ndarray:
    """`count` training views of one file, float (count, side, side, 3), of 32 px unless given."""
    loader = open_train(name, repeated(path, count), train_input(**spec), 50, Shard(0, 1, 0), 1)
    return torch.cat([batch.images for batch in loader.epoch()]).numpy().astype(float)


def crops(views: np.ndarray) -> dict[str, np.ndarray]:
    """The crop behind each view of `ramp()`: area (a fraction), log aspect ratio, place, flip."""
    size = views.shape[1]

    def extent(line: np.ndarray) -> np.ndarray:  # ends are left out: there the filter is one-sided
        return (line[:, size - 3] - line[:, 2]) / (size - 5) * size

    columns, rows = views[..., 0].mean(1), views[..., 1].mean(2)
    width, height = extent(columns), extent(rows)
    return {
        "area": np.abs(width) * height / 256**2,
        "log ratio": np.log(np.abs(width) / height),
        "x": columns.mean(1),
        "y": rows.mean(1),
        "flipped": (width < 0).astype(float),
    }


def test_random_crops_are_distributed_as_torchvisions(tmp_path):
    ramp().save(tmp_path / "ramp.png")
    found = {
        name: crops(draws(name, tmp_path / "ramp.png", 800, color_jitter=None))
        for name in ("dali", "torchvision")
    }
    for what in found["dali"]:
        ours, theirs = found["dali"][what], found["torchvision"][what]
        p = stats.ks_2samp(ours, theirs, method="asymp").pvalue
        print(f"{what}: DALI {ours.mean():.3f} +/- {ours.std():.3f}, ", end="")
        print(f"torchvision {theirs.mean():.3f} +/- {theirs.std():.3f}, p {p:.2f}")
        assert p > 0.01
    assert 0.07 < found["dali"]["area"].min() < 0.12 and found["dali"]["area"].max() > 0.95
    assert np.abs(found["dali"]["log ratio"]).max() < np.log(4 / 3) + 0.15


def test_padded_windows_are_distributed_as_torchvisions(tmp_path):
    """At the image's own size every view is one of 81 windows or its mirror image, to the bit."""
    image = natural(32, 32, 5)
    image.save(tmp_path / "image.png")
    place = {np.asarray(window).tobytes(): i for i, window in enumerate(windows(image))}
    counts = {}
    for name in ("dali", "torchvision"):
        views = draws(name, tmp_path / "image.png", 4050, **PADDED, color_jitter=None)
        found = [place[view.astype(np.uint8).tobytes()] for view in views]
        counts[name] = np.bincount(found, minlength=162).reshape(2, 9, 9)
        for what, axes in (("row", (0, 2)), ("column", (0, 1)), ("flip", (1, 2)), ("window", ())):
            p = stats.chisquare(counts[name].sum(axes).ravel()).pvalue
            print(f"{name}: {what} uniform with p {p:.2f}")
            assert p > 0.01
        assert counts[name].min() > 0
    assert (counts["dali"] != counts["torchvision"]).any()  # streams of their own


@pytest.mark.parametrize(("width", "height", "side"), [(32, 32, 224), (32, 32, 64), (45, 30, 40)])
def test_padded_windows_are_resized_as_torchvision_does(tmp_path, width, height, side):
    """Every view is, to rounding, one of the windows, resized without a filter."""
    image = natural(width, height, 6)
    image.save(tmp_path / "image.png")
    functional = import_torchvision().transforms.functional
    pixels = [functional.pil_to_tensor(window) for window in windows(image)]
    sized = functional.resize(torch.stack(pixels), [side, side], antialias=False)
    table = sized.permute(0, 2, 3, 1).numpy().astype(np.int16)
    spec = {"image_size": side, "antialias": False, "color_jitter": None}
    views = draws("dali", tmp_path / "image.png", 50, **PADDED, **spec)[:20].astype(np.int16)
    nearest = [table[np.abs(table - view).mean((1, 2, 3)).argmin()] for view in views]
    difference = np.abs(views - np.stack(nearest))
    print(f"{width}x{height} to {side}: mean {difference.mean():.3f}, worst {difference.max()}")
    assert difference.mean() < 0.5 and difference.max() <= 2


def test_color_jitter_is_distributed_as_torchvisions(tmp_path):
    """Mean and contrast of each channel, over many draws on one colourful image."""
    natural(64, 64, 3).save(tmp_path / "photo.png")
    still = {"crop_area": (1.0, 1.0), "crop_ratio": (1.0, 1.0), "flip_probability": 0.0}
    moments = {}
    for name in ("dali", "torchvision"):
        views = draws(name, tmp_path / "photo.png", 800, **still)
        per_view = np.concatenate([views.mean((1, 2)), views.std((1, 2))], axis=1)
        moments[name] = per_view.mean(0), per_view.std(0)
    for part, tolerance in ((0, 2.5), (1, 2.5)):
        ours, theirs = moments["dali"][part], moments["torchvision"][part]
        print("DALI", ours.round(1), "torchvision", theirs.round(1))
        assert np.abs(ours - theirs).max() < tolerance


@pytest.mark.parametrize("part", ["brightness", "contrast", "saturation", "hue"])
def test_each_jitter_equals_torchvisions(tmp_path, part):
    """Every view is, to rounding, one that torchvision makes with some factor in the range."""
    natural(64, 64, 3).save(tmp_path / "photo.png")
    still = {"crop_area": (1.0, 1.0), "crop_ratio": (1.0, 1.0), "flip_probability": 0.0}
    none = {"brightness": 0.0, "contrast": 0.0, "saturation": 0.0, "hue": 0.0}
    width = 0.1 if part == "hue" else 0.4
    jitter = ColorJitter(**(none | {part: width}))
    views = draws("dali", tmp_path / "photo.png", 50, **still, color_jitter=jitter)
    functional = import_torchvision().transforms.functional
    image = functional.resize(Image.open(tmp_path / "photo.png"), [32, 32])
    neutral = 0.0 if part == "hue" else 1.0
    factors = neutral + np.linspace(-width, width, 161)
    adjust = getattr(functional, f"adjust_{part}")
    table = np.stack([np.asarray(adjust(image, float(f)), dtype=float) for f in factors])
    distance = np.abs(views[:, None] - table[None]).mean((2, 3, 4))
    chosen = factors[distance.argmin(1)]
    print(
        f"{part}: {distance.min(1).max():.2f} of 255 apart, factors {chosen.min():.2f} … ", end=""
    )
    print(f"{chosen.max():.2f}")
    assert distance.min(1).max() < 1.5
    assert chosen.min() < neutral - width * 0.8 and chosen.max() > neutral + width * 0.8


def test_the_path_of_a_gpu_gives_the_same_colours(photos, monkeypatch):
    """DALI resizes and torch jitters the batch; here both on the CPU, for want of a GPU."""
    spec = train_input(image_size=64, flip_probability=0.0)
    here = next(open_train("dali", photos, spec, 8, Shard(0, 1, 2), 5).epoch())
    options = dali_graph._decoder_options(Shard(0, 1, 2))
    pipeline = dali_loader._pipeline
    monkeypatch.setattr(dali_graph, "_decoder_options", lambda shard: options)
    monkeypatch.setattr(
        dali_loader, "_pipeline", lambda batch, _, **more: pipeline(batch, Shard(0, 1, 2), **more)
    )
    monkeypatch.setattr(dali_loader, "JITTERED", 3)
    there = next(open_train("dali", photos, spec, 8, Shard(0, 1, 2, device_id=0), 5).epoch())
    assert torch.equal(here.ids, there.ids) and there.images.shape == here.images.shape
    apart = (here.images.int() - there.images.int()).abs().float()
    print(f"mean {apart.mean():.2f}, worst {apart.max():.0f}")
    assert apart.mean() < 1.5


LEFT = """
import gc, sys, time
from pathlib import Path
import numpy as np
from proofrun.data import Shard, dali_graph, open_eval, open_train, resize
from proofrun.data.lists import ImageList
from tests.images import protocol, train_input

real = dali_graph.resizer

def slow(*options):
    resize = real(*options)
    def later(*batch):
        time.sleep(0.2)
        return resize(*batch)
    return later

dali_graph.resizer = slow
folder = Path(sys.argv[1])
images = ImageList(folder, sorted(p.name for p in folder.iterdir()) * 8, np.zeros(32, np.int64), 1)
for closed in (True, False):
    loader = open_train("dali", images, train_input(), 4, Shard(0, 1, 2), 0)
    next(loader.epoch())
    if closed:
        loader.close()
    del loader
batches = iter(open_eval("dali", images, protocol(), 4, Shard(0, 1, 2)))
next(batches)
del batches
# the garbage collector finds one in the only thread that resizes
gc.disable()
one = resize._resize
def collecting(*of):
    gc.collect()
    one(*of)
resize._resize = collecting
cycle = [open_train("dali", images, train_input(), 4, Shard(0, 1, 1), 0)]
next(cycle[0].epoch())
cycle.append(cycle)
del cycle
last = open_train("dali", images, train_input(), 4, Shard(0, 1, 1), 0)
next(last.epoch())
print("left")
"""


def test_a_loader_that_is_left_amid_a_resize_holds_nobody_up(tmp_path):
    """DALI waits for a thread that waits for Python's lock: closed, dropped, at the exit."""
    for index in range(4):
        natural(40, 40, index).save(tmp_path / f"{index}.jpg")
    line = [sys.executable, "-c", LEFT, str(tmp_path)]
    root = Path(__file__).resolve().parent.parent
    done = subprocess.run(line, cwd=root, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "left\n"


def test_no_copy_on_the_way_to_torch(photos, monkeypatch):
    """The tensor is DALI's own buffer."""
    addresses = []
    convert = torch.from_dlpack

    def spy(tensor):
        addresses.append(tensor.data_ptr())
        return convert(tensor)

    monkeypatch.setattr(dali_loader.torch, "from_dlpack", spy)
    loader = open_train("dali", photos, train_input(), 4, Shard(0, 1, 1), 0)
    for batch in loader.epoch():
        assert batch.images.data_ptr() == addresses[-2]


def test_search_for_a_bad_file_is_bounded(tmp_path, monkeypatch):
    images = image_list(tmp_path, 9)
    images.path(8).write_bytes(b"not an image")
    monkeypatch.setattr(dali_loader, "SEARCH_S", -1.0)
    with pytest.raises(DataError, match=r"does not name it \(nvImageCodec failure") as caught:
        list(open_eval("dali", images, protocol(), 9, Shard(0, 1, 1)))
    assert caught.value.exit_code is Exit.IMAGE_INVALID


def test_other_errors_of_dali_pass_through(tmp_path):
    error = RuntimeError("Error in CPU operator `nvidia.dali.fn.resize`: out of memory")
    assert dali_loader._data_error(error, head(image_list(tmp_path, 3), 3), range(3)) is error
