"""What pickles of byte strings and numpy arrays may name, for utils/pickle_machine.py. Knows no data set."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from utils.pickle_grammar import DICTS, Grammar, StandIn
from utils.pickle_machine import run_pickle

_ALLOWED_DTYPES = {"b1", "u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8"}
_MAX_NAME = 64


def load_arrays(content: bytes | memoryview, what: str, *, dicts: bool = False, floats: bool = False) -> Any:
    """Reads a pickle of lists, tuples, bytes, text, whole numbers, bools and arrays; with dicts where asked for.

    No global is imported: what numpy 1, numpy 2 and Python 2 pickles refer to is answered by stand-ins that only look
    at bytes which are in the file and copy none of them. Memory is at most 128 times the file, whatever the file says.

    Args:
        content: the whole file.
        what: the kind of file, for errors: "a verification file".
        dicts: allow dicts too.
        floats: allow arrays of floating-point numbers too.

    Returns:
        The value; arrays are PickledArray.

    Raises:
        PickleError: damage, or anything else in it; nothing was run.
    """
    budget = _EncodingBudget(len(content))
    calls: dict[tuple[str, str], Callable[..., Any]] = {**_STAND_INS, ("_codecs", "encode"): budget.encode}
    if floats:
        calls["numpy", "dtype"] = _FloatDType
    holds = "lists, tuples, bytes, numpy arrays and bools" + (", and dicts of them" if dicts else "")
    grammar = Grammar(what, holds, calls, extra=DICTS if dicts else frozenset())
    return run_pickle(content, grammar)[0]


class PickledArray(StandIn):
    """Stands for an array under construction; takes its size from the bytes it is given, never from a shape alone."""

    __slots__ = ("value",)

    def __init__(self, *_: Any) -> None:
        self.value: NDArray[Any] = _EMPTY

    def restore(self, state: Any) -> None:
        """Takes (version, shape, dtype, is_fortran, bytes)."""
        shape, dtype, is_fortran, data = state[-4:]
        self.value = _array_of(_bytes(data), dtype, shape, "F" if is_fortran else "C")


class _DType(StandIn):
    """Stands for numpy.dtype; one plain number type of one to eight bytes, never objects, records or strings."""

    __slots__ = ("code", "order")
    allowed = _ALLOWED_DTYPES

    def __init__(self, code: Any, *_: Any) -> None:
        self.code, self.order = _text(code).lstrip("|<>="), "|"
        if self.code not in self.allowed:
            raise TypeError(f"arrays of dtype {_text(code)!r} are refused; allowed: {', '.join(sorted(self.allowed))}")

    def restore(self, state: Any) -> None:
        order = _text(state[1])
        if order not in ("|", "<", ">", "="):
            raise TypeError(f"dtype byte order {order!r}")
        self.order = order

    def numpy(self) -> np.dtype[Any]:
        return np.dtype(self.order + self.code)


class _FloatDType(_DType):
    """The same with floating-point numbers of two to eight bytes."""

    __slots__ = ()
    allowed = _ALLOWED_DTYPES | {"f2", "f4", "f8"}


class _EncodingBudget:
    """Stands for _codecs.encode, which is how Python 3 writes bytes in protocol 2.

    Text that becomes bytes is the one thing that is copied: all of it together is no longer than the file.
    """

    def __init__(self, length: int) -> None:
        self._left = length

    def encode(self, text: Any, encoding: Any) -> bytes:
        if not isinstance(text, str) or _text(encoding) not in ("latin1", "latin-1"):
            raise TypeError("_codecs.encode is only known for text in latin1")
        encoded = text.encode("latin-1")
        self._left -= len(encoded)
        if self._left < 0:
            raise ValueError("more bytes are made from text than the file holds")
        return encoded


def _text(value: Any) -> str:
    """A short name that is str in Python 3 pickles and bytes in Python 2 ones."""
    if isinstance(value, bytes):
        value = value.decode("latin-1")
    if not isinstance(value, str) or len(value) > _MAX_NAME:
        raise TypeError(f"expected a short name, got {type(value).__name__}")
    return value


def _bytes(value: Any) -> bytes | bytearray:
    if isinstance(value, (bytes, bytearray)):
        return value
    raise TypeError(f"expected bytes, got {type(value).__name__}")


def _array_of(data: bytes | bytearray, dtype: Any, shape: Any, order: str) -> NDArray[Any]:
    if not isinstance(dtype, _DType):
        raise TypeError(f"an array's dtype is a {type(dtype).__name__}")
    if not isinstance(shape, tuple) or len(shape) > 4 or not all(isinstance(n, int) and n >= 0 for n in shape):
        raise TypeError("an array's shape must be up to four whole numbers")
    # reshape raises where shape and bytes do not fit: the view on the file's bytes is all there ever is
    return np.frombuffer(data, dtype=dtype.numpy()).reshape(shape, order="F" if order == "F" else "C")


def _frombuffer(data: Any, dtype: Any, shape: Any, order: Any, *_: Any) -> PickledArray:
    array = PickledArray()
    array.value = _array_of(_bytes(data), dtype, shape, _text(order))
    return array


def _scalar(dtype: Any, data: Any) -> Any:
    return _array_of(_bytes(data), dtype, (1,), "C")[0].item()


def _empty_bytes() -> bytes:
    return b""


_EMPTY: NDArray[Any] = np.empty(0, dtype=np.uint8)
_STAND_INS: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy", "ndarray"): PickledArray,
    ("numpy", "dtype"): _DType,
    ("builtins", "bytes"): _empty_bytes,
    ("__builtin__", "bytes"): _empty_bytes,
}
for _core in ("numpy.core", "numpy._core"):
    _STAND_INS[f"{_core}.multiarray", "_reconstruct"] = PickledArray
    _STAND_INS[f"{_core}.multiarray", "scalar"] = _scalar
    _STAND_INS[f"{_core}.numeric", "_frombuffer"] = _frombuffer
