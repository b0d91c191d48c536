"""Whose weights they are, and how they want to be used: published ones, and files of export.py."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError
from safetensors import safe_open

from proofrun.errors import CheckpointError, Exit
from proofrun.recipe import Normalize, Strict
from proofrun.weights import CADENE_MARK, TORCHVISION_MARK

#: The metadata of an exported safetensors file in which its `Use` stands.
USE = "use"


class Use(Strict):
    """What weights need beside their names in our network."""

    origin: str
    options: dict[str, bool | int | float | str]  # of the network, over the recipe's
    normalize: Normalize
    bgr: bool = False


#: By a key that only they have. Input rules: see proofrun.weights.
PUBLISHED = {
    CADENE_MARK: Use(
        origin="Cadene's bninception",
        options={},
        normalize=Normalize(
            mean=(104 / 255, 117 / 255, 128 / 255), std=(1 / 255, 1 / 255, 1 / 255)
        ),
        bgr=True,
    ),
    TORCHVISION_MARK: Use(
        origin="torchvision's googlenet",
        options={"pooling": "ceil", "classifier_bias": True, "bn_eps": 1e-3},
        normalize=Normalize(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)),
    ),
}


def told_by(path: Path, own: str) -> Use | None:
    """What a file that export.py wrote says of itself; None for any other file.

    `own`: the origin of weights that were trained here. Raises CheckpointError for an origin that
    is not known, or a damaged use: how the weights are to be used is then not known either.
    """
    if path.suffix != ".safetensors":
        return None
    with safe_open(path, "pt") as file:
        facts = file.metadata() or {}
    if "sha256_of_source" not in facts:
        return None
    known = {use.origin: use for use in PUBLISHED.values()}
    try:
        if USE in facts:
            told = Use.model_validate_json(facts[USE])
        elif facts.get("origin") == own:
            return None  # before export.py wrote the use: the recipe's
        else:
            told = known[facts.get("origin", "")]
    except (ValidationError, KeyError):
        told = None
    if told is None or told.origin not in (own, *known):
        raise CheckpointError(
            f"{path}: its metadata does not say whose weights these are; export them again",
            Exit.FOREIGN_WEIGHTS,
        )
    return told
