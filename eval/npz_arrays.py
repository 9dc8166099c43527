"""Reading .npz without trusting it: no array larger than the file allows, no objects. Knows nothing of embeddings."""

from __future__ import annotations

import math
import tokenize
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from utils.errors import DataError

# What all arrays together may take: names and labels compress well, a bomb a thousand times better.
_FACTOR, _ALLOWANCE = 100, 64 << 20
_MAX_MEMBERS = 1000
_MAX_HEADER = 1 << 16
_KINDS = "fiuUb"


class NpzError(DataError):
    """A file that is no .npz, is damaged, or announces more than it holds."""


def read_npz(path: Path, wanted: Iterable[str]) -> tuple[dict[str, NDArray[Any]], list[str]]:
    """The wanted arrays of an .npz.

    Before an array is read, its header must agree with the member's length, and all lengths together stay below 100
    times the file's plus 64 MiB.

    Args:
        path: the file.
        wanted: names of arrays, without ".npy"; those that are not there are left out.

    Returns:
        The arrays by name, and a description of each array of the file: "name dtype shape".

    Raises:
        NpzError: see the class.
    """
    wanted = set(wanted)
    try:
        with zipfile.ZipFile(path) as archive:
            members = {member.filename.removesuffix(".npy"): member for member in archive.infolist()}
            _require_sizes(path, archive.infolist())
            described = [_description(archive, name, member) for name, member in members.items()]
            arrays = {name: _array(archive, member) for name, member in members.items() if name in wanted}
    except DataError:
        raise
    # what zipfile and numpy raise on damage: unknown compression is NotImplementedError, encryption RuntimeError
    except (
        OSError,
        ValueError,
        EOFError,
        KeyError,
        RuntimeError,
        zipfile.BadZipFile,
        zlib.error,
        SyntaxError,
    ) as error:
        raise NpzError(f"{path}: not a .npz that numpy wrote, or cut short: {str(error)[:200]}") from None
    # a header is text that numpy parses as Python's literals
    except (
        IndexError,
        TypeError,
        AttributeError,
        OverflowError,
        RecursionError,
        MemoryError,
        tokenize.TokenError,
    ) as error:
        raise NpzError(f"{path}: damaged: {type(error).__name__}: {str(error)[:200]}") from None
    return arrays, described


def _require_sizes(path: Path, members: list[zipfile.ZipInfo]) -> None:
    size = path.stat().st_size
    total = sum(member.file_size for member in members)
    if len(members) > _MAX_MEMBERS or sum(member.compress_size for member in members) > size:
        raise NpzError(f"{path}: {len(members)} members that overlap or are no .npz's")
    if len({member.filename for member in members}) != len(members):
        raise NpzError(f"{path}: holds two arrays of one name")
    if total > _FACTOR * size + _ALLOWANCE:
        raise NpzError(f"{path}: {size} bytes announce arrays of {total}; more than {_FACTOR} times as much is refused")
    packed = [member for member in members if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)]
    if packed:
        raise NpzError(f"{path}: {packed[0].filename[:60]!r} is compressed in a way that numpy never does")


def _header(stream: IO[bytes], length: int) -> tuple[np.dtype[Any], tuple[int, ...], bool]:
    """dtype, shape and whether columns come first; ValueError where they do not fit `length` bytes."""
    version = np.lib.format.read_magic(stream)
    if version == (1, 0):
        shape, is_fortran, dtype = np.lib.format.read_array_header_1_0(stream, max_header_size=_MAX_HEADER)
    elif version == (2, 0):
        shape, is_fortran, dtype = np.lib.format.read_array_header_2_0(stream, max_header_size=_MAX_HEADER)
    else:
        raise ValueError(f"an array of format {version}")
    if dtype.hasobject:
        raise ValueError("Object arrays cannot be loaded: they would run what the file says")
    if len(shape) > 8 or math.prod(shape) * dtype.itemsize + stream.tell() != length:
        raise ValueError(f"an array of {dtype} {shape} in {length} bytes")
    return dtype, shape, is_fortran


def _description(archive: zipfile.ZipFile, name: str, member: zipfile.ZipInfo) -> str:
    with archive.open(member) as stream:
        dtype, shape, _ = _header(stream, member.file_size)
    return f"{name[:60]} {dtype} {shape}"


def _array(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> NDArray[Any]:
    with archive.open(member) as stream:
        dtype, shape, is_fortran = _header(stream, member.file_size)
        if dtype.kind not in _KINDS:
            raise ValueError(f"an array of {dtype}; numbers and text are kept here")
        array = np.empty(math.prod(shape), dtype=dtype)
        place = memoryview(array.view(np.uint8).data) if array.nbytes else memoryview(b"")
        filled = 0
        while filled < len(place):
            count = stream.readinto(place[filled : filled + (1 << 20)])  # type: ignore[attr-defined]
            if not count:
                raise EOFError(f"{member.filename[:60]} ends after {filled} of {len(place)} bytes")
            filled += count
        stream.read()  # to the end, where the checksum is compared
    return array.reshape(shape[::-1]).transpose() if is_fortran else array.reshape(shape)
