"""Numbers, text, cells and structures from a MATLAB 5 file, read without trusting its sizes. Knows no data set."""

from __future__ import annotations

import math
import struct
import zlib
from pathlib import Path

import numpy as np

from sources.arrays import unpacked_limit
from sources.base import SourceError

_MATRIX, _COMPRESSED = 14, 15
# Types of stored numbers, and classes of arrays: MATLAB stores whole numbers of a double array as bytes.
_STORED = {1: "<i1", 2: "<u1", 3: "<i2", 4: "<u2", 5: "<i4", 6: "<u4", 7: "<f4", 9: "<f8", 12: "<i8", 13: "<u8"}
_CLASSES = {6: "f8", 7: "f4", 8: "i1", 9: "u1", 10: "i2", 11: "u2", 12: "i4", 13: "u4", 14: "i8", 15: "u8"}
_CELL, _STRUCT, _CHAR = 1, 2, 4
_ENCODINGS = {1: "latin-1", 2: "latin-1", 4: "utf-16-le", 16: "utf-8", 17: "utf-16-le", 18: "utf-32-le"}
_COMPLEX = 0x0800
_HEADER = 128
_TAG = struct.Struct("<II")
_MAX_DEPTH = 16
_MAX_DIMENSIONS = 32
_MAX_FIELD = 1 << 10  # bytes of a field's name; MATLAB writes 64 at most
_MAX_VALUES = 1 << 18  # in the cells and structures of a variable: one takes 8 bytes there and some hundred here

# Numbers and cells are arrays (those of cells have dtype object), text is text, a structure is a dict of its fields,
# and several structures are an array of dicts.
MatValue = np.ndarray | str | dict[str, "MatValue"]


def read_mat(path: Path, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Reads the arrays of numbers of these names, as read_mat_values does.

    Raises:
        SourceError: as there, and for a variable that is no array of real numbers.
    """
    found = read_mat_values(path, names)
    arrays = {name: value for name, value in found.items() if isinstance(value, np.ndarray) and value.dtype != object}
    for name in found.keys() - arrays.keys():
        raise _unreadable(path, names, f"{name} is no array of real numbers")
    return arrays


def read_mat_values(path: Path, names: tuple[str, ...]) -> dict[str, MatValue]:
    """Reads the variables of these names; other variables are stepped over without unpacking more than their names.

    Every size is compared with the bytes that are there before anything of that size is made; a compressed variable
    may unpack to what unpacked_limit() allows.

    Raises:
        SourceError: no MATLAB 5 file (HDF5 ones are not read), damage, a bomb, a name that is missing, or a value of
            another kind (complex, sparse, a function, an object).
    """
    content = memoryview(path.read_bytes())
    try:
        found = _variables(content, names)
    except (struct.error, zlib.error, ValueError) as error:
        raise _unreadable(path, names, str(error)) from None
    missing = [name for name in names if name not in found]
    if missing:
        raise _unreadable(path, names, f"{missing[0]} is not in it")
    return found


def _unreadable(path: Path, names: tuple[str, ...], why: str) -> SourceError:
    return SourceError(f"{path}: no readable .mat file with {' and '.join(names)} ({why})")


def _variables(content: memoryview, names: tuple[str, ...]) -> dict[str, MatValue]:
    if len(content) < _HEADER or bytes(content[126:128]) != b"IM":
        raise ValueError("it does not begin as MATLAB 5 files do")
    found: dict[str, MatValue] = {}
    place = _HEADER
    while place < len(content):
        kind, length = _TAG.unpack_from(content, place)
        body = _part(content, place + 8, length)
        place += 8 + length
        if kind == _COMPRESSED:
            kind, body = _unpacked(body)
        if kind == _MATRIX:
            matrix = _Matrix(body)
            if matrix.name in names:
                found[matrix.name] = _Values(matrix.name).read(matrix)
    return found


def _part(content: memoryview, start: int, length: int) -> memoryview:
    if start + length > len(content):
        raise ValueError(f"a part announces {length} bytes, {len(content) - start} are left")
    return content[start : start + length]


def _unpacked(packed: memoryview) -> tuple[int, memoryview]:
    """The one element in a compressed one, as (kind, body)."""
    stream = zlib.decompressobj()
    kind, length = _TAG.unpack(stream.decompress(packed, _TAG.size))
    limit = unpacked_limit(len(packed))
    if length > limit:
        raise ValueError(f"{len(packed)} compressed bytes announce {length}; more than {limit} are refused")
    body = stream.decompress(stream.unconsumed_tail, length) if length else b""
    if len(body) != length:
        raise ValueError(f"a compressed variable of {length} bytes ends after {len(body)}")
    return kind, memoryview(body)


def _element(body: memoryview, place: int) -> tuple[tuple[int, memoryview], int]:
    """((type, data), where the next one begins); up to four bytes lie in the tag itself."""
    kind, length = _TAG.unpack_from(body, place)
    if kind >> 16:
        return (kind & 0xFFFF, _part(body, place + 4, min(kind >> 16, 4))), place + 8
    return (kind, _part(body, place + 8, length)), place + 8 + (length + 7) // 8 * 8


class _Matrix:
    """A value of whatever class: what its head says; `take` gives its parts, one after the other."""

    def __init__(self, body: memoryview) -> None:
        self._body, self._place = body, 0
        self._head = (self.take()[1], self.take()[1])
        self.name = self.take()[1].tobytes().decode("ascii")
        self.flags, self.size = 0, 0
        self.shape: tuple[int, ...] = ()

    def take(self) -> tuple[int, memoryview]:
        """(type, data) of the next part."""
        part, self._place = _element(self._body, self._place)
        return part

    def read_head(self, name: str) -> None:
        """Flags and shape; not of variables that nobody asked for, which may be objects and have neither."""
        flags, dimensions = self._head
        if not 0 < len(dimensions) <= 4 * _MAX_DIMENSIONS:
            raise ValueError(f"{name} has {len(dimensions) // 4} dimensions")
        (self.flags,) = struct.unpack_from("<I", flags)
        self.shape = tuple(int(n) for n in np.frombuffer(dimensions, dtype="<i4"))
        if min(self.shape) < 0:
            raise ValueError(f"{name} has the shape {self.shape}")
        self.size = math.prod(self.shape)


class _Values:
    """Reads one variable with all that is in it."""

    def __init__(self, name: str) -> None:
        self._name, self._left = name, _MAX_VALUES

    def read(self, matrix: _Matrix, depth: int = 0) -> MatValue:
        """The value that a matrix is, with what lies in it; `depth` counts the cells and structures around it."""
        matrix.read_head(self._name)
        kind = matrix.flags & 0xFF
        if kind == _CELL:
            return _shaped([self._inner(matrix, depth) for _ in range(matrix.size)], matrix.shape)
        if kind == _STRUCT:
            fields = _field_names(matrix)
            structures = [self._structure(matrix, fields, depth) for _ in range(matrix.size)]
            return structures[0] if matrix.shape == (1, 1) else _shaped(structures, matrix.shape)
        if kind == _CHAR:
            return self._text(matrix)
        return self._numbers(matrix)

    def _structure(self, matrix: _Matrix, fields: list[str], depth: int) -> dict[str, MatValue]:
        self._count()
        return {field: self._inner(matrix, depth) for field in fields}

    def _inner(self, outer: _Matrix, depth: int) -> MatValue:
        self._count()
        kind, body = outer.take()
        if kind != _MATRIX or depth == _MAX_DEPTH:
            raise ValueError(f"{self._name} has a part of type {kind} inside, {depth} deep")
        return self.read(_Matrix(body), depth + 1) if len(body) else np.empty((0, 0))

    def _count(self) -> None:
        self._left -= 1
        if self._left < 0:
            raise ValueError(f"{self._name} has more than {_MAX_VALUES} values inside")

    def _text(self, matrix: _Matrix) -> str:
        stored, data = matrix.take()
        if stored not in _ENCODINGS or matrix.shape[0] > 1:
            raise ValueError(f"{self._name} has text of type {stored} and shape {matrix.shape}")
        return data.tobytes().decode(_ENCODINGS[stored])

    def _numbers(self, matrix: _Matrix) -> np.ndarray:
        kind = _CLASSES.get(matrix.flags & 0xFF)
        if kind is None or matrix.flags & _COMPLEX:
            raise ValueError(f"{self._name} is no array of real numbers")
        stored, data = matrix.take()
        if stored not in _STORED:
            raise ValueError(f"{self._name} has numbers of type {stored}")
        numbers = np.frombuffer(data, dtype=_STORED[stored])
        if matrix.size != len(numbers):
            raise ValueError(f"{self._name} announces the shape {matrix.shape} and holds {len(numbers)} numbers")
        with np.errstate(invalid="ignore"):  # a float that is no whole number of its class
            return numbers.astype(kind, copy=False).reshape(matrix.shape, order="F")


def _field_names(matrix: _Matrix) -> list[str]:
    """Names of a structure's fields: zero-terminated, all of one length that stands before them."""
    (length,) = struct.unpack_from("<i", matrix.take()[1])
    names = matrix.take()[1].tobytes()
    if not 1 <= length <= _MAX_FIELD or len(names) % length or len(names) // length > _MAX_VALUES:
        raise ValueError(f"names of fields are {length} bytes long each, and {len(names)} together")
    return [names[i : i + length].split(b"\0", 1)[0].decode("ascii") for i in range(0, len(names), length)]


def _shaped(values: list[MatValue] | list[dict[str, MatValue]], shape: tuple[int, ...]) -> np.ndarray:
    array = np.empty(len(values), dtype=object)
    for place, value in enumerate(values):  # a slice would take arrays apart
        array[place] = value
    return array.reshape(shape, order="F")
