"""Reading backbone weights from a file; which net they belong to is backbones/recognition.py's question."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from utils.safetensors_files import SUFFIX, SafetensorsError, read_safetensors
from utils.torch_files import TorchFileError, check_torch_file

# What wrappers put before every key: DistributedDataParallel and torch.compile.
PREFIXES = ("module.", "_orig_mod.")
# Where training checkpoints keep the backbone; the first is arcface_torch's.
NESTED = ("state_dict_backbone", "state_dict", "backbone")


class WeightsError(ValueError):
    """A weights file that cannot be read, or whose keys belong to no known backbone."""


def strip_prefixes(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Remove the wrappers' prefixes ("module.", "_orig_mod.", in any order and number) where all keys carry them."""
    stripped = dict(state_dict)
    prefix = _common_prefix(stripped)
    while prefix:
        stripped = {key.removeprefix(prefix): value for key, value in stripped.items()}
        prefix = _common_prefix(stripped)
    return stripped


def load_weights(path: str | Path) -> dict[str, Tensor]:
    """Read a backbone's state dict: ``model.pt``, ``backbone.pth``, an arcface_torch checkpoint, ``.safetensors``.

    Only tensors and plain containers are unpickled, so a downloaded file cannot run code; sizes that the file
    announces are compared with what it holds before torch reads it.

    Args:
        path: the file, as ``torch.save`` or safetensors wrote it; the suffix ``.safetensors`` says which.

    Returns:
        key -> tensor on the CPU, without the prefixes of wrappers.

    Raises:
        WeightsError: no such file, damage, other objects than tensors, or no tensors in it.
    """
    path = Path(path)
    if not path.is_file():
        what = "is a folder, not a weights file" if path.is_dir() else "does not exist"
        beside = sorted(p.name for p in (path if path.is_dir() else path.parent).glob("*.pt*"))
        raise WeightsError(f"{path}: {what}; weights there: {', '.join(beside) or 'none'}")
    if path.suffix == SUFFIX:
        return _from_safetensors(path)
    try:
        with path.open("rb") as stream:
            check_torch_file(stream, path.stat().st_size)
        loaded: Any = torch.load(path, map_location="cpu", weights_only=True)
    except TorchFileError as error:
        raise WeightsError(
            f"{path}: refused, because it is damaged or holds other objects than tensors "
            f"({_first_line(error)}). Save a plain state dict: torch.save(model.state_dict(), path)"
        ) from error
    except Exception as error:  # torch's readers raise nearly anything on a damaged file
        raise WeightsError(f"{path}: not a file that torch.save wrote, or cut short ({_first_line(error)})") from error
    for key in NESTED:
        if isinstance(loaded, Mapping) and isinstance(loaded.get(key), Mapping):
            loaded = loaded[key]
    if not isinstance(loaded, Mapping) or not loaded:
        raise WeightsError(f"{path}: holds a {type(loaded).__name__} without tensors, needs a state dict")
    strange = [str(key) for key, value in loaded.items() if not (isinstance(key, str) and isinstance(value, Tensor))]
    if strange:
        raise WeightsError(
            f"{path}: needs a state dict (name -> tensor), but these entries are none: {', '.join(strange[:5])}"
        )
    return strip_prefixes(loaded)


def _from_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        tensors = read_safetensors(path)
    except SafetensorsError as error:
        raise WeightsError(str(error)) from error
    if not tensors:
        raise WeightsError(f"{path}: holds no tensor, needs a backbone's state dict")
    return strip_prefixes(tensors)


def _common_prefix(state_dict: Mapping[str, Tensor]) -> str:
    return next((p for p in PREFIXES if state_dict and all(key.startswith(p) for key in state_dict)), "")


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
