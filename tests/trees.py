"""Small data sets in the ImageNet layout, whole or broken, for the tests of verification."""

from __future__ import annotations

from pathlib import Path

from images import natural

CLASSES = ["ant", "bee", "cow"]


def tree(root: Path, train: int = 4, val: int = 2, lists: bool = True) -> Path:
    """`CLASSES` with so many different images each, with or without lists."""
    seed = 0
    for split, count in (("train", train), ("val", val)):
        lines = []
        for label, name in enumerate(CLASSES):
            folder = root / split / name
            folder.mkdir(parents=True)
            for index in range(count):
                seed += 1
                natural(40 + seed, 32, seed).save(folder / f"{index}.JPEG", quality=90)
                lines.append(f"{split}/{name}/{index}.JPEG {label}\n")
        if lists:
            (root / f"{split}.txt").write_text("".join(lines))
    return root


def content(root: Path) -> dict[str, tuple[bytes, int]]:
    """Every file of a folder with its bytes and its time of change; manifests left out."""
    return {
        str(path.relative_to(root)): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in sorted(root.rglob("*"))
        if path.is_file() and not path.name.startswith(".")
    }
