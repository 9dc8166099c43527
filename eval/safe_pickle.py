"""Pickles of lists, byte strings, numpy arrays and bools, read without trusting them; knows nothing of pairs."""

from __future__ import annotations

import io
import pickle
import pickletools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from utils.errors import DataError


class PairError(DataError):
    """A set of pairs that cannot be read; the text names the file, what was found and what is allowed."""


# Everything that a list of byte strings, numpy arrays and bools needs in protocols 2 to 5. Absent on purpose: objects
# by class (OBJ, INST, NEWOBJ), persistent ids, extension codes, dicts, sets, the text opcodes of protocols 0 and 1.
_ALLOWED_OPCODES = {
    *("PROTO", "FRAME", "STOP", "MARK"),
    *("MEMOIZE", "BINPUT", "LONG_BINPUT", "BINGET", "LONG_BINGET"),
    *("NONE", "NEWTRUE", "NEWFALSE", "BININT", "BININT1", "BININT2", "LONG1"),
    *("BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
    *("BINUNICODE", "SHORT_BINUNICODE"),
    *("EMPTY_LIST", "LIST", "APPEND", "APPENDS", "EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"),
    *("GLOBAL", "STACK_GLOBAL", "REDUCE", "BUILD"),
}
_ALLOWED_DTYPES = {"b1", "u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8"}
_MAX_NAME = 64


def load_pickle(path: Path, content: bytes) -> Any:
    """Unpickle lists, tuples, byte strings, numbers, bools and PickledArray; nothing else can be built.

    No global is ever imported: names that numpy 1, numpy 2 and Python 2 pickles refer to are answered by stand-ins that
    only look at bytes which are in the file and copy none of them, so memory stays within a small multiple of the file.

    Args:
        path: named in errors only.
        content: the whole file.

    Raises:
        PairError: a refused global or opcode (named), or damage.
    """
    _check_opcodes(path, content)
    try:
        # encoding="bytes": the byte strings of Python 2 pickles stay bytes
        return _Unpickler(path, io.BytesIO(content)).load()
    except PairError:
        raise
    except Exception as error:  # a damaged pickle raises nearly anything
        raise PairError(f"{path}: damaged verification file: {type(error).__name__}: {error}") from error


def _check_opcodes(path: Path, content: bytes) -> None:
    """Walk the pickle without running it; refuses what the unpickler would allocate on the file's word alone."""
    num_opcodes = 0
    try:
        for opcode, argument, position in pickletools.genops(content):
            num_opcodes += 1
            if opcode.name in ("GLOBAL", "INST") and tuple(str(argument).split(" ", 1)) not in _STAND_INS:
                raise _refused_global(path, str(argument).replace(" ", ".", 1))
            if opcode.name not in _ALLOWED_OPCODES:
                raise PairError(
                    f"{path}: the pickle uses opcode {opcode.name} at byte {position}; a verification file needs only "
                    "lists, tuples, bytes, numpy arrays and bools, saved with pickle protocol 2 to 5"
                )
            # the unpickler's memo is an array as long as the largest index
            if opcode.name in ("BINPUT", "LONG_BINPUT") and int(argument or 0) > num_opcodes:
                raise PairError(f"{path}: damaged verification file: memo index {argument} at byte {position}")
    except PairError:
        raise
    except Exception as error:  # genops reports damage as ValueError, UnicodeDecodeError, IndexError, ...
        raise PairError(f"{path}: not a verification pickle, or a damaged one: {error}") from error


def _refused_global(path: Path, name: str) -> PairError:
    return PairError(
        f"{path}: the pickle asks for {name[:_MAX_NAME]!r}; a verification file may hold only lists, tuples, "
        "bytes, numpy arrays and bools. Nothing was run. Do not open this file with other tools"
    )


class _Unpickler(pickle.Unpickler):
    def __init__(self, path: Path, stream: io.BytesIO) -> None:
        super().__init__(stream, encoding="bytes")
        self._path = path
        # text that becomes bytes is the one thing that is copied: all of it together is no longer than the file
        self._encodable = len(stream.getbuffer())

    def find_class(self, module: str, name: str) -> Callable[..., Any]:
        stand_in = _STAND_INS.get((module, name))
        if stand_in is None:
            raise _refused_global(self._path, f"{module}.{name}")
        return self._encode if stand_in is _encode else stand_in

    def _encode(self, text: Any, encoding: Any) -> bytes:
        encoded = _encode(text, encoding)
        self._encodable -= len(encoded)
        if self._encodable < 0:
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


class _DType:
    """Stands for numpy.dtype; one plain number type of one to eight bytes, never objects, records or strings."""

    __slots__ = ("code", "order")

    def __init__(self, code: Any, *_: Any) -> None:
        self.code, self.order = _text(code).lstrip("|<>="), "|"
        if self.code not in _ALLOWED_DTYPES:
            raise TypeError(
                f"arrays of dtype {_text(code)!r} are refused; allowed: {', '.join(sorted(_ALLOWED_DTYPES))}"
            )

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        order = _text(state[1])
        if order not in ("|", "<", ">", "="):
            raise TypeError(f"dtype byte order {order!r}")
        self.order = order

    def numpy(self) -> np.dtype[Any]:
        return np.dtype(self.order + self.code)


class PickledArray:
    """Stands for an array under construction; takes its size from the bytes it is given, never from a shape alone."""

    __slots__ = ("value",)

    def __init__(self, *_: Any) -> None:
        self.value: NDArray[Any] = np.empty(0, dtype=np.uint8)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        shape, dtype, is_fortran, data = state[-4:]
        self.value = _array_of(_bytes(data), dtype, shape, "F" if is_fortran else "C")


def _array_of(data: bytes | bytearray, dtype: Any, shape: Any, order: str) -> NDArray[Any]:
    if not isinstance(dtype, _DType):
        raise TypeError(f"an array's dtype is a {type(dtype).__name__}")
    if not isinstance(shape, tuple) or len(shape) > 4 or not all(isinstance(n, int) and n >= 0 for n in shape):
        raise TypeError(f"array shape {str(shape)[:_MAX_NAME]}")
    # reshape raises where shape and bytes do not fit: the view on the file's bytes is all there ever is
    return np.frombuffer(data, dtype=dtype.numpy()).reshape(shape, order="F" if order == "F" else "C")


def _frombuffer(data: Any, dtype: Any, shape: Any, order: Any, *_: Any) -> PickledArray:
    array = PickledArray()
    array.value = _array_of(_bytes(data), dtype, shape, _text(order))
    return array


def _scalar(dtype: Any, data: Any) -> Any:
    return _array_of(_bytes(data), dtype, (1,), "C")[0].item()


def _encode(text: Any, encoding: Any) -> bytes:
    """Stands for _codecs.encode, which is how Python 3 writes bytes in protocol 2."""
    if not isinstance(text, str) or _text(encoding) not in ("latin1", "latin-1"):
        raise TypeError("_codecs.encode is only known for text in latin1")
    return text.encode("latin-1")


def _empty_bytes() -> bytes:
    return b""


_STAND_INS: dict[tuple[str, ...], Callable[..., Any]] = {
    ("numpy", "ndarray"): PickledArray,
    ("numpy", "dtype"): _DType,
    ("_codecs", "encode"): _encode,
    ("builtins", "bytes"): _empty_bytes,
    ("__builtin__", "bytes"): _empty_bytes,
}
for _core in ("numpy.core", "numpy._core"):
    _STAND_INS[f"{_core}.multiarray", "_reconstruct"] = PickledArray
    _STAND_INS[f"{_core}.multiarray", "scalar"] = _scalar
    _STAND_INS[f"{_core}.numeric", "_frombuffer"] = _frombuffer
