"""Reads the pickles of CIFAR-10's python version without running anything that they ask for.

A pickle may name any function of any module. Here it gets stand-ins for the few names that its
arrays need, which only look at what they are given; another name ends it. What it is made of is
looked at first, since a few bytes of it can ask for gigabytes.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from proofrun.archive import DamagedError
from proofrun.errors import one_line

_WORDS = """
    PROTO STOP MARK EMPTY_DICT EMPTY_LIST EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 SETITEM SETITEMS
    APPEND APPENDS BININT BININT1 BININT2 LONG1 BINFLOAT NONE NEWTRUE NEWFALSE BINSTRING
    SHORT_BINSTRING BINUNICODE BINPUT LONG_BINPUT BINGET LONG_BINGET GLOBAL REDUCE BUILD
"""
_OPCODES = frozenset(_WORDS.split())
_MAX_MEMO = 1 << 20  # a place in a table: the published batches use some 20,000


def read_pickle(data: bytes) -> dict[bytes, object]:
    """The dictionary in a batch: bytes, numbers, lists, and uint8 arrays. Raises DamagedError."""
    try:
        _check(data)
        found = _Unpickler(io.BytesIO(data), encoding="bytes").load()
    except Exception as error:  # whatever a damaged pickle leads it to
        raise DamagedError(f"a batch cannot be read ({one_line(error)})") from None
    if not isinstance(found, dict):
        raise DamagedError("a batch is no dictionary")
    return {
        key: value.array if isinstance(value, _Array) else value for key, value in found.items()
    }


def _check(data: bytes) -> None:
    """Raises ValueError for opcodes that protocol 2 does not need for such a dictionary."""
    for opcode, argument, _ in pickletools.genops(data):
        if opcode.name not in _OPCODES:
            raise ValueError(f"it uses {opcode.name}")
        if opcode.name == "LONG_BINPUT" and int(argument or 0) > _MAX_MEMO:
            raise ValueError("it remembers too much")


class _Dtype:
    """Stands for numpy.dtype: only bytes without sign."""

    def __init__(self, name: object, *_: object) -> None:
        if name not in (b"u1", "u1"):
            raise ValueError(f"an array of {str(name)[:20]}")

    def __setstate__(self, _: object) -> None:
        """Byte order and the like mean nothing for bytes."""


class _Array:
    """Stands for an array that is being put together."""

    array: NDArray[np.uint8] | None = None

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, columns_first, data = state
        if not isinstance(dtype, _Dtype) or not isinstance(data, bytes):
            raise ValueError("an array without its bytes")
        if columns_first or len(data) != math.prod(shape):
            raise ValueError(f"an array of another shape than {shape}")
        self.array = np.frombuffer(data, np.uint8).reshape(shape)


def _new_array(*_: object) -> _Array:
    return _Array()


def _encode(text: str, encoding: str) -> bytes:
    """How protocol 2 of Python 3 writes bytes."""
    if encoding not in ("latin1", b"latin1"):
        raise ValueError("bytes in another encoding")
    return text.encode("latin1")


_STAND_INS = {
    ("numpy.core.multiarray", "_reconstruct"): _new_array,
    ("numpy._core.multiarray", "_reconstruct"): _new_array,
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
    ("_codecs", "encode"): _encode,
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _STAND_INS:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no batch needs")
        return _STAND_INS[module, name]
