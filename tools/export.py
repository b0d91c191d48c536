"""Write a network for other programs, checked against torch, with a model card beside it.

python tools/export.py --weights logs/RUN/001 --to onnx --out model.onnx
python tools/export.py --weights bn_inception.pth --to torch.export --out model.pt2 --data DIR
"""

from __future__ import annotations

import argparse
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from proofrun import early  # before any import that takes time

if __name__ == "__main__":
    early.stop_tool_on_signals("export.py")

from proofrun import bootstrap

bootstrap.ensure("torch", "torchvision", "pydantic", "yaml", "psutil", "safetensors", "pandas")

from proofrun.errors import (  # noqa: E402
    Exit,
    Parser,
    ProofrunError,
    UsageError,
    WriteError,
    main_exit,
)

if TYPE_CHECKING:
    from torch import Tensor

    from proofrun.pretrained import Loaded

#: Validation images on which the file is held against torch.
IMAGES = 64


def parse_args() -> argparse.Namespace:
    """The command line. Raises UsageError."""
    parser = Parser(prog="export.py", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--weights", required=True, type=Path, metavar="PATH", help="a file, a checkpoint or a run"
    )
    parser.add_argument("--to", required=True, choices=("safetensors", "torch.export", "onnx"))
    parser.add_argument("--out", required=True, type=Path, metavar="FILE", help="a new file")
    parser.add_argument("--dataset", metavar="NAME", help="where the weights fit several")
    parser.add_argument("--data", metavar="DIR", help="data folder for the check (default: env.sh)")
    options = parser.parse_args()
    if options.out.is_dir():
        raise UsageError(f"--out {options.out}: is a folder; name a file in it")
    suffix = {"torch.export": ".pt2", "safetensors": ".safetensors"}.get(options.to)
    if suffix and options.out.suffix != suffix:
        raise UsageError(f"--out {options.out}: {options.to} is read from *{suffix} only")
    for path in (options.out, card_of(options.out)):
        if path.exists():
            raise UsageError(f"{path}: is there already, and is not overwritten; name another")
    return options


def card_of(out: Path) -> Path:
    return out.with_name(f"{out.name}.md")


def main() -> None:
    """Write file and card, or neither. ProofrunError as what it calls says, and EXPORT_DIFFERS."""
    options = parse_args()
    from _export import formats
    from _export.card import card

    from proofrun import candidates, fuse, preflight, pretrained

    formats.check_installed(options.to)
    chosen = candidates.one_at(options.weights)
    recipe_dir, recipe = pretrained.recipe_of(chosen, options.dataset)
    weights = pretrained.load(chosen, recipe)
    model = weights.build(recipe_dir)
    net, _ = fuse.checked(weights, model)
    images = validation(weights, preflight.data_dir(recipe.data.name, options.data))
    temporary = options.out.with_name(f".{os.getpid()}-{options.out.name}")
    early.unfinished.append(str(temporary))
    try:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("xb") as file:  # before the work: can it be written at all?
            file.write(formats.pack(options.to, weights, model, net, images))
        checked = formats.check(options.to, model, images, temporary, recipe_dir, recipe)
        if not checked.holds:
            raise ProofrunError(
                f"{options.out}: of {checked.images} images {checked.images - checked.same_top1} "
                f"get another class than from torch (largest difference {checked.max_error:.2e}); "
                "nothing was kept",
                Exit.EXPORT_DIFFERS,
            )
        text = card(options.to, weights, model, temporary, options.out.name, checked)
        card_of(options.out).write_text(text, encoding="utf-8")
        temporary.rename(options.out)
    except OSError as error:
        raise WriteError(f"{options.out}: {error.strerror}; give another --out FILE") from None
    finally:
        with suppress(OSError):  # where it could not be made
            temporary.unlink(missing_ok=True)
    print(
        f"{options.out}: {options.out.stat().st_size:,} bytes; on {checked.images} images the same "
        f"top-1 as torch, largest difference of a logit {checked.max_error:.2e}"
    )
    print(card_of(options.out))


def validation(weights: Loaded, root: Path) -> Tensor:
    """Some validation images, spread over the list, as the network takes them: float32 NCHW."""
    import numpy as np
    import torch

    from proofrun.data import Shard, open_eval
    from proofrun.data.lists import ImageList, read_split
    from proofrun.evaluate import Inputs

    data = weights.recipe.data
    every = read_split(root, "val", data.classes)
    chosen = np.linspace(0, len(every.files) - 1, min(IMAGES, len(every.files))).astype(int)
    files = [every.files[i] for i in chosen]
    few = ImageList(root, files, every.labels[chosen], data.classes)
    inputs = Inputs(data.normalize, torch.device("cpu"), weights.bgr)
    source = open_eval("torchvision", few, data.eval[0], len(files), Shard(0, 1, 0))
    return torch.cat([inputs(batch.images) for batch in source]).contiguous()


if __name__ == "__main__":
    main_exit(main, "export.py")
