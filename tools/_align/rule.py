"""When a deviation is an alarm. It must come again: every step has other images.

Where a ReLU or a max-pool decides the other way within rounding, a gradient jumps, in that step and
for those images alone; a fault is there in most steps.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from .bounds import MARGIN
from .trace import Values

#: A trace needs so many steps, and a tensor must be out of bounds in so many.
LEAST_STEPS = 2

#: And in this share of the steps from the first on, and in this share of all: in 20 steps two such
#: jumps may hit one tensor by chance, and few steps are left after a late first one.
SHARE, SHARE_OF_ALL = 0.25, 0.2

#: To what a state keeps of the step before, a step must add this share of the bound: the most that
#: calibration saw.
_ADDED = 1 / MARGIN

#: So many times its bound, once is enough. A ReLU or a max-pool that decided the other way made it
#: up to some 400 times, in the 600 harmless runs of reports/align/alarms-*.json.
CERTAIN = 2000

Mask = NDArray[np.bool_]


def counted(excess: Values, added: Values) -> Mask:
    """Which steps speak against a tensor: out of bounds, and not by what the step before left.

    `excess`, `added`: as `bounds.shares` gives them, (..., steps, places).
    """
    return np.asarray((excess > 1) & (added > _ADDED))


def first_steps(excess: Values, added: Values, kinds: list[str]) -> NDArray[np.int64]:
    """(..., places): the step from which on a tensor is out of bounds, -1 where there is no alarm.

    What is no rounding needs no repetition: another learning rate, another shape, a tensor that is
    missing or not finite (`excess` is inf), or CERTAIN times the bound. `kinds`: of the places.
    """
    speaks = counted(excess, added)
    steps = speaks.shape[-2]
    from_here = np.flip(np.cumsum(np.flip(speaks, -2), -2), -2)
    left = steps - np.arange(steps)
    least = max(LEAST_STEPS, math.ceil(SHARE_OF_ALL * steps))
    needed = np.maximum(least, np.ceil(SHARE * left))[:, None]
    certain = (excess > CERTAIN) | ((excess > 1) & np.array([kind == "lr" for kind in kinds]))
    raised = (speaks & (from_here >= needed)) | certain
    return np.where(raised.any(-2), raised.argmax(-2), -1)
