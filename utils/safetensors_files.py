"""Reading and writing .safetensors files: tensors by name and flat text beside them; knows no network and no format."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
from safetensors import safe_open
from torch import Tensor

from utils.errors import DataError
from utils.files import whole_file

SUFFIX = ".safetensors"
# Names, shapes and metadata of a net of a hundred layers are 50 kB; the library itself would parse 100 MB of JSON.
_MAX_HEADER = 16 << 20


class SafetensorsError(DataError):
    """A file that is no .safetensors file, is damaged, or announces more than it holds."""


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Every tensor of a file, on the CPU, in memory of its own: the file may change or go afterwards.

    Raises:
        SafetensorsError: not such a file, damaged or cut short.
    """
    _require_header(path)
    try:
        with safe_open(str(path), framework="pt") as file:
            # safe_open maps the file: a tensor that stayed a view of it would follow every later change
            return {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118  # no mapping
    except Exception as error:  # the library raises its own class, and torch's readers nearly anything
        raise _damaged(path, error) from error


def read_safetensors_metadata(path: Path) -> dict[str, str]:
    """The text entries of a file's header, without its tensors; empty where it has none.

    Raises:
        SafetensorsError: see `read_safetensors`.
    """
    _require_header(path)
    try:
        with safe_open(str(path), framework="pt") as file:
            return dict(file.metadata() or {})
    except Exception as error:
        raise _damaged(path, error) from error


def write_safetensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Writes a file, whole or not at all; tensors of any layout are stored row by row."""
    stored = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    # none instead of an empty dict: the library writes no valid JSON for a file without tensors and text
    content = safetensors.torch.save(stored, dict(metadata) or None)
    with whole_file(path) as stream:
        stream.write(content)


def _require_header(path: Path) -> None:
    """Compares the length that the file announces for its header with what it holds, before anyone believes it."""
    try:
        size = path.stat().st_size
        with path.open("rb") as stream:
            start = stream.read(8)
    except OSError as error:
        raise SafetensorsError(f"{path}: cannot be read: {error.strerror or error}") from None
    length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
    if not 2 <= length <= min(size - 8, _MAX_HEADER):
        raise SafetensorsError(
            f"{path}: no .safetensors file, or cut short: a header of {length} bytes is announced where the file has "
            f"{size}, and {_MAX_HEADER} are allowed"
        )


def _damaged(path: Path, error: Exception) -> SafetensorsError:
    said = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return SafetensorsError(f"{path}: no .safetensors file, damaged or cut short ({said[:200]})")
