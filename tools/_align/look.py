"""What a deviation looks like, from the statistics of one tensor in two traces."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import numpy as np

from . import streams
from .trace import STATS, Row, Values

Sort = Literal[
    "not finite",
    "missing",
    "shape",
    "zeros",
    "borders",
    "scale",
    "sign",
    "one channel",
    "colours swapped",
    "offset",
    "offset in each channel",
    "scale and offset",
    "scale of the update",
    "rounding",
    "scattered",
    "value",
]

#: Share of a deviation's energy that a pattern may leave unexplained. Of six projections of a
#: random deviation one parameter leaves less than a tenth in 1 case of 500.
_TIGHT, _LOOSE = 0.02, 0.15

#: How far the mean may be from what a scale and an offset make of it, as a share of both.
_ASTRAY = 0.1

#: A second parameter must leave at most this share of what one leaves.
_WORTH = 0.1

#: Above this relative error no rounding of a floating-point format explains a tensor.
_ROUNDING = 0.02

#: A rounding changes the rms of a tensor by far less than this share of its own size.
_SYSTEMATIC = 0.2


class Look(NamedTuple):
    """`sort` and, for people, the numbers of it."""

    sort: Sort
    says: str


def look(trusted: Values, other: Values, row: Row, other_shape: tuple[int, ...]) -> Look:
    """`trusted`, `other`: (len(STATS),) of the tensor `row`."""
    if row.shape != other_shape:
        return Look("shape", f"{_shape(row.shape)} became {_shape(other_shape)}")
    if np.isnan(other).all():
        return Look("missing", "the step did not make it")
    if not np.isfinite(other).all():
        return Look("not finite", "inf or nan")
    before, after = dict(zip(STATS, trusted, strict=True)), dict(zip(STATS, other, strict=True))
    rms = max(abs(before["rms"]), np.finfo(np.float64).tiny)
    activation = row.kind in ("output", "grad")
    axis = 1 if activation and len(row.shape) > 1 else 0
    channels = row.shape[axis] if row.shape else 1
    if row.kind == "output":
        lost = before["zeros"] > 1e-3 and after["zeros"] < 0.1 * before["zeros"]
        if lost or after["zeros"] - before["zeros"] > 0.05:
            return Look("zeros", f"{before['zeros']:.1%} zeros became {after['zeros']:.1%}")
    fits = _fits(trusted, other, row, channels)
    simple = [sort for sort in fits if fits[sort][0] <= _TIGHT]  # the fewest parameters first
    if simple:
        return Look(*_named(simple[0], fits[simple[0]][1], channels))
    best = min((s for s in fits if s != "scale and offset"), key=lambda sort: fits[sort][0])
    inner, whole = (abs(after[k] / before[k] - 1) if before[k] else 0.0 for k in ("inner", "rms"))
    if before["inner"] and whole > 1e-3 and inner < 0.05 * whole:
        return Look("borders", f"rms {after['rms'] / rms:.4g} times, the same within the map")
    size = math.sqrt(float(np.square(other[5:] - trusted[5:]).mean())) / rms
    if fits[best][0] <= _LOOSE:
        return Look(*_named(best, fits[best][1], channels))
    shrunk = after["rms"] / rms - 1
    if size < _ROUNDING and abs(shrunk) > _SYSTEMATIC * size:
        return Look("scale", f"about times {1 + shrunk:.6g}, not alike in all channels")
    if size < _ROUNDING:
        bits = math.log2(0.65 / max(size, 1e-12)) - 1
        return Look("rounding", f"relative error {size:.1e}, as of about {bits:.0f} mantissa bits")
    return Look("scattered", f"relative error {size:.1e}: no one scale, offset, channel or border")


def of_update(apart: Values, update: Values) -> Look | None:
    """What a weight's change of one step looks like beside the trusted change: times a number?

    `apart`, `update`: (len(STATS),), the difference of both traces' changes, and the trusted one.
    """
    ours, size = apart[5:], float(np.square(update[5:]).sum())
    factor = float(ours @ update[5:]) / size if size else 0.0
    left = np.square(ours - factor * update[5:]).sum()
    if not np.isfinite(left) or left > _TIGHT * np.square(ours).sum():
        return None
    return Look("scale of the update", f"the weight moves {1 + factor:.4g} times as far")


def _fits(
    trusted: Values, other: Values, row: Row, channels: int
) -> dict[Sort, tuple[float, tuple[float, ...]]]:
    """For each pattern, the simplest first: the share of the deviation that it leaves, 0 to 1, and
    its parameters.

    Two groups must fit, since the first projection of a tensor with a mean outweighs the others:
    it, and the balanced ones, which see nothing of what a channel has in all places alike.
    """
    apart, rms = other[5:] - trusted[5:], abs(trusted[1])
    tiny = np.finfo(np.float64).tiny
    alike = np.array([True, False, False, True, False, False])

    def fit(sizes: tuple[float, ...], *columns: Values) -> tuple[float, tuple[float, ...]]:
        matrix = np.stack(columns, axis=1)
        solved, *_ = np.linalg.lstsq(matrix, apart, rcond=None)
        left = np.square(apart - matrix @ solved)
        field = sum(abs(k) * size for k, size in zip(solved, sizes, strict=True)) ** 2
        shares = [
            left[group].mean() / max(np.square(apart[group]).mean(), field, tiny)
            for group in (alike, ~alike)
        ]
        return float(max(shares)), tuple(solved.tolist())

    ones = _of_ones(row, channels)
    found: dict[Sort, tuple[float, tuple[float, ...]]] = {
        "scale": fit((rms,), trusted[5:]),
        "offset": fit((1.0,), ones),
    }
    if channels > 2:
        found["one channel"] = _one_channel(apart, channels)
    places = math.prod(row.shape) // channels
    if row.kind in ("output", "grad") and places > 1:
        seen, unseen = np.square(apart[alike]).mean(), np.square(apart[~alike]).mean()
        found["offset in each channel"] = min(1.0, places * unseen / max(seen, tiny)), ()
    share, (scale, offset) = fit((rms, 1.0), trusted[5:], ones)
    # two parameters may fit six projections by chance: the mean, which was not fitted, must agree
    astray = abs((1 + scale) * trusted[0] + offset - other[0])
    both = abs(scale) * rms + abs(offset)
    apiece = min(found["scale"][0], found["offset"][0])
    fits_both = astray <= _ASTRAY * both and share <= _WORTH * apiece
    found["scale and offset"] = (share if fits_both else 1.0), (scale, offset)
    return found


def _one_channel(apart: Values, channels: int) -> tuple[float, tuple[float, ...]]:
    """Every pair of projections, without and with the ramp, names the same channel, or none."""
    plain, ramped = apart[: streams.PROJECTIONS], apart[streams.PROJECTIONS :]
    loud = np.abs(plain) > 1e-3 * np.abs(plain).max()  # balanced ones do not see a shift
    if not loud.any():
        return 1.0, (0.0,)
    named = (ramped[loud] / plain[loud] + 1) / 2 * (channels - 1)
    at = round(float(np.median(named)))
    near = max(0.4, 0.01 * channels) if loud.sum() > 1 else 0.02
    agree = np.abs(named - at).max() < near
    return (0.0 if agree and 0 <= at < channels else 1.0), (float(at),)


def _of_ones(row: Row, channels: int) -> Values:
    """The projections of a tensor of ones."""
    count = max(1, math.prod(row.shape))
    name = "input" if row.name.startswith("input.") else row.name
    made = streams.vectors(name, channels, count // channels)
    places = made.places.sum(axis=1, dtype=np.float64)
    plain = (made.channels * places[:, None]).sum(axis=1, dtype=np.float64)
    ramped = (made.channels * places[:, None] * streams.ramp(channels)).sum(axis=1)
    together: Values = np.concatenate([plain, ramped]) / math.sqrt(count)
    return together


def _named(sort: Sort, parameters: tuple[float, ...], channels: int) -> tuple[Sort, str]:
    match sort:
        case "scale":
            factor = 1 + parameters[0]
            if abs(factor + 1) < 0.02:
                return "sign", "the sign is turned"
            return "scale", f"times {factor:.6g}"
        case "offset":
            return "offset", f"plus {parameters[0]:.4g}"
        case "scale and offset":
            return "scale and offset", f"times {1 + parameters[0]:.6g}, plus {parameters[1]:.4g}"
        case "one channel":
            return "one channel", f"channel {round(parameters[0])} of {channels}"
    return sort, "each channel is shifted by a number of its own"


def colours(trusted: dict[str, Values], other: dict[str, Values]) -> Look | None:
    """What happened to the network's input, by {colour: its statistics}; None: to all alike."""
    came = {c: [t for t, values in trusted.items() if _same(values, other[c])] for c in other}
    if all(came.values()) and any(c not in found for c, found in came.items()):
        order = "".join(found[0] for found in came.values())
        return Look("colours swapped", f"{''.join(other)} became {order}")
    out = [c for c in other if np.abs(other[c] - trusted[c]).max() > 1e-4 * abs(trusted[c][1])]
    if len(out) == 1:
        return Look("one channel", f"channel {list(other).index(out[0])}, {out[0]}")
    return None


def _same(trusted: Values, other: Values) -> bool:
    """Whether a colour is another one but for its normalisation: the balanced projections see no
    shift, and they and the standard deviation have one factor between them."""
    spread = [float(np.sqrt(max(v[1] ** 2 - v[0] ** 2, 0))) for v in (trusted, other)]
    if min(spread) == 0:
        return False
    factor = spread[1] / spread[0]
    balanced = slice(6, 5 + streams.PROJECTIONS)
    apart = np.abs(other[balanced] - factor * trusted[balanced]).max()
    return 0.5 < factor < 2 and bool(apart < 1e-2 * spread[1])


def over_steps(excess: Values, step: int) -> str:
    """How a row's excess goes on after the step in which it first left its bounds."""
    later = excess[step:]
    if len(later) == 1:
        return "last step"
    out = later > 1
    steps = np.arange(len(later))
    logs = np.log10(np.minimum(np.maximum(later, 1e-6), 1e12))
    slope = float(np.polyfit(steps, logs, 1)[0])
    if out.mean() > 0.7 and logs[-1] - logs[0] > 0.5 and slope > 0.02:
        return f"growing, x{10**slope:.2f} a step"
    return "stays" if out.mean() > 0.7 else f"in {int(out.sum())} of {len(later)} steps"


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "scalar"
