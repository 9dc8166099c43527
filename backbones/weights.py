"""Reading backbone weights from a file and recognising which net they belong to; nothing here builds or trains."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from backbones.registry import BACKBONES, WITH_OPTIONS
from utils.safetensors_files import SUFFIX, SafetensorsError, read_safetensors
from utils.torch_files import TorchFileError, check_torch_file

Shape = tuple[int | str, ...]  # a string names a dimension that the caller chooses
# What wrappers put before every key: DistributedDataParallel and torch.compile.
PREFIXES = ("module.", "_orig_mod.")
# Where training checkpoints keep the backbone; the first is arcface_torch's.
NESTED = ("state_dict_backbone", "state_dict", "backbone")
COUNTER = "num_batches_tracked"


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


def infer_backbone(state_dict: Mapping[str, Tensor], network: str | None = None) -> tuple[str, dict[str, int]]:
    """Recognise a backbone by the names and shapes of its weights.

    Args:
        state_dict: a backbone's weights, with or without wrappers' prefixes.
        network: only consider this name of BACKBONES (the sizes are still read from the shapes); None tries all.

    Returns:
        The name for ``build_backbone`` and its arguments: ``embedding_size`` and ``in_channels``.

    Raises:
        WeightsError: no registered backbone fits; names the nearest one and what differs.
    """
    if network is not None and network not in BACKBONES:
        raise WeightsError(f"unknown backbone {network!r}. There are: {', '.join(BACKBONES)}")
    if network in WITH_OPTIONS:
        raise WeightsError(
            f"backbone {network!r} has options that the shapes of its weights do not tell: keep the weights in their "
            "run's folder, beside config.json"
        )
    found: dict[str, tuple[int, ...]] = {
        key: tuple(value.shape) for key, value in strip_prefixes(state_dict).items() if not key.endswith(COUNTER)
    }
    nearest, nearest_problems = "", [f"{len(found)} keys"]
    fewest = None
    for name in [name for name in BACKBONES if name not in WITH_OPTIONS] if network is None else (network,):
        sizes, problems = _compare(found, _template(name))
        if not problems:
            return name, sizes
        if fewest is None or len(problems) < fewest:
            nearest, nearest_problems, fewest = name, problems, len(problems)
    more = f" and {len(nearest_problems) - 4} more" if len(nearest_problems) > 4 else ""
    raise WeightsError(
        f"these weights ({len(found)} tensors, first {next(iter(found), 'none')!r}) fit no backbone of "
        f"{network or ', '.join(BACKBONES)}. Nearest is {nearest}: {'; '.join(nearest_problems[:4])}{more}. "
        "Name the network if it was built with options of its own, or keep config.json of its run beside the weights"
    )


def _common_prefix(state_dict: Mapping[str, Tensor]) -> str:
    return next((p for p in PREFIXES if state_dict and all(key.startswith(p) for key in state_dict)), "")


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


@cache
def _template(name: str) -> dict[str, Shape]:
    """Shapes of a net's weights, with the dimensions that follow embedding_size or in_channels named instead of sized.

    They are found by building the net three times without storage and looking where the shapes move.
    """
    plain, wider, fewer = (
        _shapes(name, embedding_size=size, in_channels=channels) for size, channels in ((512, 3), (520, 3), (512, 1))
    )
    template: dict[str, Shape] = {}
    for key, shape in plain.items():
        template[key] = tuple(
            "embedding_size" if size != wider[key][axis] else "in_channels" if size != fewer[key][axis] else size
            for axis, size in enumerate(shape)
        )
    return template


class _Unfilled(TorchFunctionMode):
    """Leaves out initial values, which nobody asks for where there is no storage: nine tenths of the time."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (Tensor.normal_, Tensor.uniform_) or getattr(func, "__module__", None) == "torch.nn.init":
            return args[0] if args else (kwargs or {}).get("tensor")
        return func(*args, **(kwargs or {}))


def _shapes(name: str, **sizes: int) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"), _Unfilled():
        net = BACKBONES[name](**sizes)
    return {key: tuple(value.shape) for key, value in net.state_dict().items() if not key.endswith(COUNTER)}


def _compare(found: Mapping[str, tuple[int, ...]], wanted: Mapping[str, Shape]) -> tuple[dict[str, int], list[str]]:
    """Sizes that make ``found`` equal to the template, and one line per difference (empty where it fits)."""
    sizes: dict[str, int] = {}
    problems = [f"{key} is missing" for key in wanted if key not in found]
    problems += [f"{key} is not its own" for key in found if key not in wanted]
    for key, shape in wanted.items():
        if key not in found:
            continue
        got = found[key]
        fits = len(got) == len(shape) and all(
            sizes.setdefault(want, size) == size if isinstance(want, str) else want == size
            for want, size in zip(shape, got, strict=True)
        )
        if not fits:
            problems.append(f"{key} is {got}, not ({', '.join(map(str, shape))})")
    return sizes, problems
