"""Looking at what torch.save wrote before torch.load does; builds no tensor and runs nothing from the file."""

from __future__ import annotations

import io
import math
import mmap
import zipfile
from collections.abc import Callable
from typing import Any, BinaryIO, NoReturn

from utils.errors import DataError
from utils.pickle_grammar import DICTS, FLOATS, PERSISTENT, Grammar, Name, PickleError, StandIn
from utils.pickle_machine import run_pickle

_ZIP_START = b"PK\x03\x04"
# The number with which files of torch before 1.6 begin, as a pickle of protocol 2.
_OLD_START = bytes.fromhex("80028a0a6cfc9c46f9206aa850192e")
_STORAGES = {
    "Double": 8, "Float": 4, "Half": 2, "BFloat16": 2, "Long": 8, "Int": 4, "Short": 2, "Char": 1, "Byte": 1, "Bool": 1,
}  # fmt: skip
_DTYPES = ("float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool")
_MAX_PICKLE = 1 << 28  # bytes of names and shapes; a hundred-layer net has a tenth of a megabyte


class TorchFileError(DataError):
    """A file that torch.save did not write, that is damaged, or that holds other objects than tensors and numbers."""


class Window(io.RawIOBase):
    """`length` bytes of a file from `start` on, as a file of their own; torch's own view cannot seek from its end."""

    def __init__(self, file: BinaryIO, start: int, length: int) -> None:
        self._file, self._start, self._length, self._place = file, start, length, 0

    def seekable(self) -> bool:
        """True."""
        return True

    def readable(self) -> bool:
        """True."""
        return True

    def tell(self) -> int:
        """The place, counted from `start`."""
        return self._place

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Moves, never before the first byte."""
        self._place = max(0, offset + (0, self._place, self._length)[whence])
        return self._place

    def readinto(self, buffer: Any) -> int:
        """Fills `buffer` as far as the window reaches."""
        self._file.seek(self._start + self._place)
        data = self._file.read(max(0, min(len(buffer), self._length - self._place)))
        buffer[: len(data)] = data
        self._place += len(data)
        return len(data)


def check_torch_file(stream: BinaryIO, size: int, *, old_format: bool = True) -> None:
    """Refuses a file with which torch.load(weights_only=True) could be made to do more than read `size` bytes.

    torch.load imports nothing from the file by itself, but takes its word for sizes: compressed members, storages and
    byte arrays of any length, views of any shape, keys nested until hashing them ends the process.

    Args:
        stream: seekable, at any place; its place afterwards is not defined.
        size: bytes in it.
        old_format: accept files of torch before 1.6 too.

    Raises:
        TorchFileError: what is wrong; the caller adds the file's name.
    """
    stream.seek(0)
    start = stream.read(len(_OLD_START))
    stream.seek(0)
    if start.startswith(_ZIP_START):
        _check_zip(stream, size)
    elif old_format and start == _OLD_START:
        _check_old(stream, size)
    else:
        raise TorchFileError(f"torch.save did not write it, or it is cut short: it begins with {start[:4].hex(' ')!r}")


def _check_zip(stream: BinaryIO, size: int) -> None:
    try:
        with zipfile.ZipFile(stream) as archive:
            members = archive.infolist()
            packed = [member.filename for member in members if member.compress_type != zipfile.ZIP_STORED]
            if packed:
                raise TorchFileError(f"{packed[0][:60]!r} in it is compressed, which torch.save never does")
            if sum(member.file_size for member in members) > size:
                raise TorchFileError(f"its members announce more bytes than the file has ({size})")
            names = {member.filename.rpartition("/")[2] for member in members}
            pickles = [member for member in members if member.filename.rpartition("/")[2] == "data.pkl"]
            if "constants.pkl" in names or len(pickles) != 1:
                raise TorchFileError("it is no state dict: TorchScript, or an archive without one data.pkl")
            if pickles[0].file_size > _MAX_PICKLE:
                raise TorchFileError(f"data.pkl in it has {pickles[0].file_size} bytes")
            _Walk(size).run(memoryview(archive.read(pickles[0])), 0)
    except TorchFileError:
        raise
    except Exception as error:  # zipfile raises nearly anything on a damaged archive
        raise TorchFileError(f"damaged archive or cut short: {type(error).__name__}: {error}") from None


def _check_old(stream: BinaryIO, size: int) -> None:
    """Four pickles (number, version, system, state), then the storages' keys as a fifth, then their bytes."""
    try:
        content = memoryview(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ))
    except (OSError, io.UnsupportedOperation):
        content = memoryview(stream.read(size))
    position, walk = 0, _Walk(size)
    for _ in range(5):
        position = walk.run(content, position)
    if walk.storage_bytes > size:
        raise TorchFileError(f"its tensors announce {walk.storage_bytes} bytes, the file has {size}")


class _Storage(StandIn):
    __slots__ = ("length",)

    def __init__(self, length: int) -> None:
        self.length = length


class _Tensor(StandIn):
    __slots__ = ()

    def restore(self, state: Any) -> None:
        """Attributes of a tensor; not looked at."""


class _Walk:
    """Runs the pickles of one file with stand-ins that compare every size with the file's."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._lengths: dict[str, int] = {}
        self.storage_bytes = 0
        calls: dict[tuple[str, str], Callable[..., Any]] = {
            ("torch._utils", "_rebuild_tensor_v2"): self._tensor,
            ("torch._utils", "_rebuild_tensor"): self._tensor,
            ("torch._utils", "_rebuild_parameter"): lambda *_: _Tensor(),
            ("collections", "OrderedDict"): _empty_dict,
            ("torch", "Size"): lambda *_: (),
            ("_codecs", "encode"): _encoded,
        }
        values = frozenset(
            [("torch", f"{kind}Storage") for kind in _STORAGES]
            + [("torch.storage", f"{kind}Storage") for kind in ("Untyped", "_Untyped")]
            + [("torch", name) for name in _DTYPES]
        )
        self._grammar = Grammar(
            "a weights file", "tensors, numbers, text, lists and dicts", calls, values,
            DICTS | FLOATS | PERSISTENT, self._storage,
        )  # fmt: skip

    def run(self, content: memoryview, start: int) -> int:
        try:
            return run_pickle(content, self._grammar, start)[1]
        except PickleError as error:
            raise TorchFileError(str(error)) from None

    def _storage(self, identifier: Any) -> _Storage:
        """("storage", type, key, location, length), and in old files a view."""
        kind, storage, key, _, length = identifier[:5]
        if kind not in ("storage", b"storage") or type(storage) is not Name or type(length) is not int or length < 0:
            raise TypeError("a persistent id that is no storage")
        if not isinstance(key, (str, bytes)) or (len(identifier) > 5 and identifier[5] is not None):
            raise TypeError("a storage of a kind that no state dict has")
        item = _STORAGES.get(storage.name.removesuffix("Storage"), 1)
        if length * item > self._size:
            raise ValueError(f"a storage announces {length * item} bytes, the file has {self._size}")
        name = str(key)
        if name not in self._lengths:
            self.storage_bytes += length * item
        self._lengths[name] = max(length, self._lengths.get(name, 0))
        return _Storage(length)

    def _tensor(self, storage: Any, offset: Any, shape: Any, stride: Any, *_: Any) -> _Tensor:
        numbers = [offset, *shape, *stride]
        if not isinstance(storage, _Storage) or not all(type(n) is int and n >= 0 for n in numbers):
            raise TypeError("a tensor of other things than a storage and whole numbers")
        if len(shape) != len(stride) or len(shape) > 8:
            raise ValueError("a tensor whose shape and strides do not fit")
        elements = math.prod(shape)
        last = offset + sum((n - 1) * step for n, step in zip(shape, stride, strict=True))
        if elements and (last >= storage.length or elements > storage.length):
            raise ValueError(f"a tensor reaches beyond its storage of {storage.length} elements")
        return _Tensor()


def _empty_dict(*arguments: Any) -> dict[Any, Any]:
    if arguments:
        raise TypeError("an OrderedDict made from a list")
    return {}


def _encoded(text: Any, encoding: Any) -> NoReturn:
    raise TypeError("bytes made from text")
