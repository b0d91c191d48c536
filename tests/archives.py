"""Archives with the structure of the published ones, of any number of classes and images."""

from __future__ import annotations

import io
import pickle
import struct
import tarfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from images import natural
from scipy.io import savemat

Files = Sequence[tuple[str, bytes]]

CIFAR_NAMES = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip


def info(name: str, size: int, kind: bytes = tarfile.REGTYPE) -> tarfile.TarInfo:
    """A header as GNU tar writes it for a user's file."""
    made = tarfile.TarInfo(name)
    made.size, made.type, made.mtime = size, kind, 1_338_345_600
    made.mode = 0o755 if kind == tarfile.DIRTYPE else 0o644
    made.uid, made.gid, made.uname, made.gname = 1000, 1000, "user", "users"
    return made


def tar(files: Files, mode: str = "w", **options) -> bytes:
    """A tar archive of files; a name that ends with / is a folder."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode, **{"format": tarfile.GNU_FORMAT, **options}) as made:
        for name, data in files:
            if name.endswith("/"):
                made.addfile(info(name.rstrip("/"), 0, tarfile.DIRTYPE))
            else:
                made.addfile(info(name, len(data)), io.BytesIO(data))
    return out.getvalue()


def small_jpegs() -> Iterator[bytes]:
    """Different small JPEG files without end."""
    seed = 0
    while True:
        out = io.BytesIO()
        natural(40 + seed % 9, 32 + seed % 7, seed).save(out, "JPEG", quality=90)
        yield out.getvalue()
        seed += 1


def wnids(count: int) -> list[str]:
    return [f"n{1440764 + 13 * index:08d}" for index in range(count)]


def devkit(path: Path, classes: int, val_per_class: int, seed: int = 0) -> list[str]:
    """ILSVRC2012_devkit_t12.tar.gz; returns the wnid of each validation image, in their order.

    The ids of the classes follow another order than their wnids, and groups of classes come
    behind them, both as in the real one.
    """
    rng = np.random.default_rng(seed)
    names = wnids(classes)
    ids = (rng.permutation(classes) + 1).tolist()
    fields = (
        "ILSVRC2012_ID", "WNID", "words", "gloss", "num_children", "children",
        "wordnet_height", "num_train_images",
    )  # fmt: skip
    rows = [
        (float(number), wnid, f"thing {number}, a {wnid}", "what it is", 0.0, np.zeros((0, 0)),
         0.0, 1300.0)
        for number, wnid in sorted(zip(ids, names, strict=True))
    ]  # fmt: skip
    rows.append(
        (classes + 1.0, "n00001740", "entity", "all there is", float(classes),
         np.arange(1.0, classes + 1.0), 1.0, 0.0)
    )  # fmt: skip
    synsets = np.zeros((len(rows), 1), dtype=[(field, object) for field in fields])
    for index, row in enumerate(rows):
        synsets[index, 0] = row
    mat = io.BytesIO()
    savemat(mat, {"synsets": synsets}, do_compression=True)
    truth = rng.permutation(np.repeat(ids, val_per_class)).tolist()
    top = "ILSVRC2012_devkit_t12"
    files = [
        (f"{top}/", b""),
        (f"{top}/readme.txt", b"about"),
        (f"{top}/data/", b""),
        (f"{top}/data/ILSVRC2012_validation_ground_truth.txt",
         "".join(f"{number}\n" for number in truth).encode()),
        (f"{top}/data/meta.mat", mat.getvalue()),
    ]  # fmt: skip
    path.write_bytes(tar(files, "w:gz"))
    wnid_of = dict(zip(ids, names, strict=True))
    return [wnid_of[number] for number in truth]


def ilsvrc(
    folder: Path,
    classes: int = 4,
    per_class: int = 6,
    val_per_class: int = 2,
    pictures: Iterator[bytes] | None = None,
) -> list[str]:
    """The three archives of ILSVRC2012 in `folder`; returns the wnid of each validation image."""
    pictures = pictures or small_jpegs()
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(folder / "ILSVRC2012_img_train.tar", "w", format=tarfile.GNU_FORMAT) as outer:
        for wnid in wnids(classes):
            data = tar([(f"{wnid}_{7 * i}.JPEG", next(pictures)) for i in range(per_class)])
            outer.addfile(info(f"{wnid}.tar", len(data)), io.BytesIO(data))
    truth = devkit(folder / "ILSVRC2012_devkit_t12.tar.gz", classes, val_per_class)
    with tarfile.open(folder / "ILSVRC2012_img_val.tar", "w", format=tarfile.GNU_FORMAT) as val:
        for number in range(1, len(truth) + 1):
            data = next(pictures)
            name = f"ILSVRC2012_val_{number:08d}.JPEG"
            val.addfile(info(name, len(data)), io.BytesIO(data))
    return truth


def cifar10(
    folder: Path, per_batch: int = 20, dump: Callable[[object], bytes] | None = None
) -> dict[str, tuple[np.ndarray, list[int]]]:
    """Both archives of CIFAR-10 in `folder`; returns pixels (n, 3072) and labels of each batch.

    `dump` writes a batch of the python version: as Python 2 does, unless given.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(per_batch)
    names = [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]
    batches: dict[str, tuple[np.ndarray, list[int]]] = {}
    for name in names:
        labels = (rng.permutation(per_batch) % 10).tolist()
        base = rng.integers(0, 200, (per_batch, 3, 1))
        pixels = base + rng.integers(0, 56, (per_batch, 3, 1024))
        batches[name] = (pixels.reshape(per_batch, 3072).astype(np.uint8), labels)
    dump = dump or python2
    top = "cifar-10-batches-py"
    files = [(f"{top}/", b""), (f"{top}/readme.html", b"<html></html>")]
    meta = {
        b"num_cases_per_batch": per_batch,
        b"label_names": [name.encode() for name in CIFAR_NAMES],
        b"num_vis": 3072,
    }
    files.append((f"{top}/batches.meta", dump(meta)))
    for name, (pixels, labels) in batches.items():
        batch = {
            b"batch_label": name.encode(),
            b"labels": labels,
            b"data": pixels,
            b"filenames": [b"a_s_%06d.png" % index for index in range(per_batch)],
        }
        files.append((f"{top}/{name}", dump(batch)))
    (folder / "cifar-10-python.tar.gz").write_bytes(tar(files, "w:gz", compresslevel=1))
    top = "cifar-10-batches-bin"
    text = "".join(f"{name}\n" for name in CIFAR_NAMES) + "\n"
    files = [(f"{top}/", b""), (f"{top}/batches.meta.txt", text.encode())]
    for name, (pixels, labels) in batches.items():
        rows = np.concatenate([np.array(labels, np.uint8)[:, None], pixels], axis=1)
        files.append((f"{top}/{name}.bin", rows.tobytes()))
    (folder / "cifar-10-binary.tar.gz").write_bytes(tar(files, "w:gz", compresslevel=1))
    return batches


def python2(value: object) -> bytes:
    """What Python 2's `cPickle.dump(value, file, 2)` writes: its strings are bytes."""
    return b"\x80\x02" + _python2(value) + b"."


def _python2(value: object) -> bytes:
    if isinstance(value, dict):
        pairs = b"".join(_python2(key) + _python2(item) for key, item in value.items())
        return b"}(" + pairs + b"u"
    if isinstance(value, list):
        return b"](" + b"".join(map(_python2, value)) + b"e"
    if isinstance(value, bytes):
        short = len(value) < 256
        return (
            b"U" + bytes([len(value)]) if short else b"T" + struct.pack("<i", len(value))
        ) + value
    if isinstance(value, int):
        return b"J" + struct.pack("<i", value)
    assert isinstance(value, np.ndarray) and value.dtype == np.uint8
    order = b"NNN" + 2 * b"J\xff\xff\xff\xff"
    dtype = b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|" + order + b"K\x00tb"
    empty = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
    shape = b"".join(map(_python2, value.shape)) + b"\x86"
    return empty + b"(K\x01" + shape + dtype + b"\x89" + _python2(value.tobytes()) + b"tb"


def python3(value: object) -> bytes:
    """What Python 3 and this numpy write."""
    return pickle.dumps(value, protocol=2)
