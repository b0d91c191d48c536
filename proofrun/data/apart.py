"""Whether a set's validation images are apart from its training images. Torch-free."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from proofrun.data.lists import ImageList, Split
from proofrun.errors import DataError, Exit

#: How many validation images may have the content of a training image, since the set is published
#: with them; 0 for any other set. CIFAR-10: B. Barz, J. Denzler, Do We Train on Test Data?,
#: J. Imaging 6(6), 2020: 3.3 % of 10,000, near duplicates included. ImageNet: N. Kisel et al.,
#: Flaws of ImageNet, ICLR blog posts 2025, shows such pairs; 1 % is ours, an assumption.
PUBLISHED = {"Cifar10": 330, "ImageNet": 500}


def in_both_lists(lists: Mapping[Split, ImageList]) -> list[str]:
    """Paths that the lists of both splits name, sorted."""
    if len(lists) < 2:
        return []
    return sorted(set(lists["train"].files) & set(lists["val"].files))


def check_lists(lists: Mapping[Split, ImageList]) -> None:
    """Raises DataError BAD_LIST for images of the other split."""
    if both := in_both_lists(lists):
        root = lists["val"].root
        more = f" (and {len(both) - 1} more)" if len(both) > 1 else ""
        raise DataError(
            f"{root / both[0]}: is listed in train and in val{more}: one has images of the "
            "other split; correct train.txt or val.txt",
            Exit.BAD_LIST,
        )


def shared(digests: NDArray[np.uint8], is_val: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """(row, row of a training image of the same content) of each such validation image.

    `digests` is uint8 (N, 32), `is_val` bool (N,). A row of zeros was not read.
    """
    return [
        (row, first) for row, first in repeats(digests, is_val) if is_val[row] and not is_val[first]
    ]


def repeats(digests: NDArray[np.uint8], is_val: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """(row, the first row of the same content), training images before validation images."""
    order = np.argsort(is_val, kind="stable")
    # The first 8 bytes order the rows fast; whole digests decide.
    heads = np.ascontiguousarray(digests[:, :8]).view(np.uint64).ravel()
    order = order[np.argsort(heads[order], kind="stable")]
    found: list[tuple[int, int]] = []
    firsts: list[int] = []
    for at in np.flatnonzero(heads[order][1:] == heads[order][:-1]).tolist():
        one, row = int(order[at]), int(order[at + 1])
        if not firsts or heads[firsts[0]] != heads[row]:
            firsts = [one]
        same = [first for first in firsts if (digests[first] == digests[row]).all()]
        if not same:
            firsts.append(row)
        elif digests[row].any():
            found.append((row, same[0]))
    return found


def check_content(
    paths: Sequence[str], digests: NDArray[np.uint8], val: ImageList, allowed: int
) -> None:
    """Raises DataError BAD_LIST where more than `allowed` images of `val` are in train too."""
    of_val = set(val.files)
    leaks = shared(digests, np.array([path in of_val for path in paths], np.bool_))
    if len(leaks) > allowed:
        row, first = leaks[0]
        more = f" (and {len(leaks) - 1} more)" if len(leaks) > 1 else ""
        raise DataError(
            f"{val.root / paths[row]}: has the content of {paths[first]}{more}: val has images of "
            "the other split; take one of them out",
            Exit.BAD_LIST,
        )
