"""Reading the .metadata of a checkpoint without trusting it: FileSystemReader would unpickle whatever it names."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, BinaryIO, cast

import torch
from torch.distributed.checkpoint.filesystem import FileSystemReader, _StorageInfo
from torch.distributed.checkpoint.metadata import (
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    StorageMeta,
    TensorProperties,
    TensorStorageMetadata,
)

from utils.errors import DataError
from utils.pickle_grammar import DICTS, OBJECTS, Grammar, Name, PickleError, StandIn
from utils.pickle_machine import run_pickle
from utils.torch_files import TorchFileError, Window, check_torch_file

_METADATA = ".metadata"
_MAX_METADATA = 1 << 28  # bytes; a net of 1,000 tensors on 1,000 ranks has a tenth of it
_MAX_NUMBER = 1 << 48
_DTYPES = ("float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool")
_CLASSES = ("Metadata", "TensorStorageMetadata", "TensorProperties", "ChunkStorageMetadata", "MetadataIndex")


class UnsafeFileError(DataError):
    """Metadata of a checkpoint that is damaged, contradicts its files, or holds what no checkpoint of ours does."""


class SafeReader(FileSystemReader):
    """A FileSystemReader that imports nothing the metadata names and reads no byte outside of the checkpoint's folder.

    Everything it says is compared with the files: names are plain names of files in the folder, slices lie inside
    them, chunks inside their tensors, and all tensors together have no more bytes than the files.
    """

    def read_metadata(self, *_: Any, **__: Any) -> Metadata:
        """The metadata, every number checked.

        Raises:
            UnsafeFileError: see the class.
            OSError: no such file.
        """
        folder = Path(self.path)
        path = folder / _METADATA
        if path.stat().st_size > _MAX_METADATA:
            raise UnsafeFileError(f"{path}: {path.stat().st_size} bytes of metadata")
        try:
            loaded = run_pickle(path.read_bytes(), _GRAMMAR)[0]
            metadata = _metadata(loaded, folder)
        except (PickleError, TypeError, ValueError, KeyError) as error:
            reason = f"{type(error).__name__}: {error}" if isinstance(error, KeyError) else str(error)
            raise UnsafeFileError(f"{path}: {reason}") from None
        metadata.storage_meta = StorageMeta(load_id=self.load_id)
        return metadata

    def _slice_file(self, file: Any, sinfo: _StorageInfo) -> Any:
        window = Window(file, sinfo.offset, sinfo.length)
        try:
            check_torch_file(cast("BinaryIO", window), sinfo.length, old_format=False)
        except TorchFileError as error:
            raise error.within(f"{self.path}/{sinfo.relative_path}, byte {sinfo.offset}") from None
        return super()._slice_file(file, sinfo)


class _Record(StandIn):
    """Any of torch's metadata classes: its name and its state."""

    __slots__ = ("kind", "state")

    def __init__(self, kind: str) -> None:
        self.kind, self.state = kind, cast("Any", None)

    def restore(self, state: Any) -> None:
        self.state = state


def _record(kind: str) -> Any:
    return lambda *_: _Record(kind)


def _size(*arguments: Any) -> tuple[int, ...]:
    (numbers,) = arguments
    if type(numbers) is not tuple or not all(type(n) is int and 0 <= n < _MAX_NUMBER for n in numbers):
        raise TypeError("a size that is no tuple of whole numbers")
    return numbers


_GRAMMAR = Grammar(
    "a checkpoint's metadata",
    "names, shapes and places of tensors",
    {
        **{("torch.distributed.checkpoint.metadata", kind): _record(kind) for kind in (*_CLASSES, "StorageMeta")},
        ("torch.distributed.checkpoint.metadata", "_MEM_FORMAT_ENCODING"): lambda *_: None,
        ("torch.distributed.checkpoint.filesystem", "_StorageInfo"): _record("_StorageInfo"),
        ("torch.serialization", "_get_layout"): lambda *_: None,
        ("torch", "Size"): _size,
        # where it was saved, which nobody asks for
        **{("pathlib", kind): lambda *_: None for kind in ("Path", "PosixPath", "WindowsPath")},
        **{("pathlib._local", kind): lambda *_: None for kind in ("Path", "PosixPath", "WindowsPath")},
    },
    frozenset(("torch", name) for name in _DTYPES),
    DICTS | OBJECTS,
)


def _state(value: Any, kind: str) -> dict[str, Any]:
    if not isinstance(value, _Record) or value.kind != kind or type(value.state) is not dict:
        raise TypeError(f"a {kind} was expected, there is a {getattr(value, 'kind', type(value).__name__)}")
    return value.state


def _typed(value: Any, kind: type, what: str) -> Any:
    if type(value) is not kind:
        raise TypeError(f"{what} is a {type(value).__name__}, not a {kind.__name__}")
    return value


def _number(value: Any, what: str) -> int:
    if not 0 <= _typed(value, int, what) < _MAX_NUMBER:
        raise ValueError(f"{what} is {value}")
    return int(value)


def _metadata(loaded: Any, folder: Path) -> Metadata:
    fields = _state(loaded, "Metadata")
    places = _places(_typed(fields["storage_data"], dict, "storage_data"), folder)
    tensors: dict[str, Any] = {}
    for name, entry in _typed(fields["state_dict_metadata"], dict, "state_dict_metadata").items():
        tensors[_typed(name, str, "a tensor's name")] = _tensor(name, entry, places)
    planner = {name: (name,) for name in tensors}
    version = fields.get("version")
    return Metadata(tensors, planner, places, version=version if isinstance(version, str) else None)


def _places(stored: dict[Any, Any], folder: Path) -> dict[MetadataIndex, _StorageInfo]:
    sizes: dict[str, int] = {}
    announced: dict[str, int] = {}
    places: dict[MetadataIndex, _StorageInfo] = {}
    for key, value in stored.items():
        index, info = _state(key, "MetadataIndex"), _state(value, "_StorageInfo")
        if info.get("transform_descriptors"):
            raise TypeError("a slice that is packed by an extension")
        file = _typed(info["relative_path"], str, "a file's name")
        if file not in sizes:
            sizes[file] = _plain_file(folder, file)
        offset, length = _number(info["offset"], "an offset"), _number(info["length"], "a length")
        announced[file] = announced.get(file, 0) + length
        if offset + length > sizes[file] or announced[file] > sizes[file]:
            raise ValueError(f"its slices reach beyond the {sizes[file]} bytes of {file}")
        name, place = _typed(index["fqn"], str, "a tensor's name"), _typed(index.get("offset", ()), tuple, "an offset")
        number = index.get("index")
        number = None if number is None else _number(number, "a chunk's number")
        places[MetadataIndex(name, torch.Size(place), number)] = _StorageInfo(file, offset, length)
    return places


def _plain_file(folder: Path, name: str) -> int:
    """The size of the file `name` right in `folder`; ValueError for anything that leads elsewhere."""
    if name in ("", ".", "..") or "/" in name or "\\" in name or "\0" in name or not (folder / name).is_file():
        raise ValueError(f"{name[:60]!r} is no file of this folder")
    return (folder / name).stat().st_size


def _tensor(name: str, entry: Any, places: dict[MetadataIndex, _StorageInfo]) -> TensorStorageMetadata:
    fields = _state(entry, "TensorStorageMetadata")
    properties = fields["properties"]
    if not isinstance(properties, _Record) or properties.kind != "TensorProperties":
        raise TypeError(f"{name}: its properties are a {type(properties).__name__}")
    dtype_name = _typed(_typed(properties.state, tuple, "a tensor's properties")[0], Name, "a tensor's type").name
    dtype = cast("torch.dtype", getattr(torch, dtype_name)) if dtype_name in _DTYPES else None
    shape = _typed(fields["size"], tuple, "a tensor's shape")
    chunks, elements = [], 0
    for chunk in _typed(fields["chunks"], list, "a tensor's chunks"):
        state = _state(chunk, "ChunkStorageMetadata")
        offsets, sizes = (_typed(state[key], tuple, "a chunk's place") for key in ("offsets", "sizes"))
        inside = len(offsets) == len(sizes) == len(shape) and all(
            start + length <= whole for start, length, whole in zip(offsets, sizes, shape, strict=True)
        )
        place = places.get(MetadataIndex(name, torch.Size(offsets)))
        if dtype is None or not inside or place is None or math.prod(sizes) * dtype.itemsize > place.length:
            raise ValueError(f"{name}: a chunk lies outside of its tensor or of its file")
        elements += math.prod(sizes)
        chunks.append(ChunkStorageMetadata(torch.Size(offsets), torch.Size(sizes)))
    if dtype is None or elements != math.prod(shape):
        raise ValueError(f"{name}: its chunks hold {elements} of {math.prod(shape)} elements")
    return TensorStorageMetadata(TensorProperties(dtype=dtype), torch.Size(shape), chunks)
