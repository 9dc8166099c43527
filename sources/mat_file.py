"""Arrays of numbers from a MATLAB 5 file, read without trusting its sizes. Knows no data set."""

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
_COMPLEX = 0x0800
_HEADER = 128
_TAG = struct.Struct("<II")


def read_mat(path: Path, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Reads the arrays of these names; other variables are stepped over without unpacking more than their names.

    Every size is compared with the bytes that are there before anything of that size is made; a compressed variable
    may unpack to what unpacked_limit() allows.

    Raises:
        SourceError: no MATLAB 5 file (HDF5 ones are not read), damage, a bomb, a name that is missing or no array of
            real numbers.
    """
    content = memoryview(path.read_bytes())
    try:
        found = _variables(content, names)
    except (struct.error, zlib.error, ValueError, UnicodeDecodeError) as error:
        raise SourceError(f"{path}: no readable .mat file with {' and '.join(names)} ({error})") from None
    missing = [name for name in names if name not in found]
    if missing:
        raise SourceError(f"{path}: no readable .mat file with {' and '.join(names)} ({missing[0]} is not in it)")
    return found


def _variables(content: memoryview, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    if len(content) < _HEADER or bytes(content[126:128]) != b"IM":
        raise ValueError("it does not begin as MATLAB 5 files do")
    found: dict[str, np.ndarray] = {}
    place = _HEADER
    while place < len(content):
        kind, length = _TAG.unpack_from(content, place)
        body = _part(content, place + 8, length)
        place += 8 + length
        if kind == _COMPRESSED:
            kind, body = _unpacked(body)
        if kind == _MATRIX:
            name, array = _matrix(body, names)
            if array is not None:
                found[name] = array
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


def _matrix(body: memoryview, names: tuple[str, ...]) -> tuple[str, np.ndarray | None]:
    """Name and array of a variable; None for those that nobody asked for."""
    flags, place = _element(body, 0)
    dimensions, place = _element(body, place)
    label, place = _element(body, place)
    name = label[1].tobytes().decode("ascii")
    if name not in names:
        return name, None
    (flag_word,) = struct.unpack_from("<I", flags[1])
    kind = _CLASSES.get(flag_word & 0xFF)
    if kind is None or flag_word & _COMPLEX:
        raise ValueError(f"{name} is no array of real numbers")
    shape = tuple(int(n) for n in np.frombuffer(dimensions[1], dtype="<i4"))
    (stored, data), _ = _element(body, place)
    if stored not in _STORED or not shape or min(shape) < 0:
        raise ValueError(f"{name} has numbers of type {stored} and shape {shape}")
    numbers = np.frombuffer(data, dtype=_STORED[stored])
    if math.prod(shape) != len(numbers):
        raise ValueError(f"{name} announces the shape {shape} and holds {len(numbers)} numbers")
    with np.errstate(invalid="ignore"):  # a float that is no whole number of its class
        return name, numbers.astype(kind, copy=False).reshape(shape, order="F")


def _element(body: memoryview, place: int) -> tuple[tuple[int, memoryview], int]:
    """((type, data), where the next one begins); up to four bytes lie in the tag itself."""
    kind, length = _TAG.unpack_from(body, place)
    if kind >> 16:
        return (kind & 0xFFFF, _part(body, place + 4, min(kind >> 16, 4))), place + 8
    return (kind, _part(body, place + 8, length)), place + 8 + (length + 7) // 8 * 8
