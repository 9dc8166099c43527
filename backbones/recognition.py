"""Recognising the net that weights belong to, by their names and shapes; reads no file and trains nothing."""

from __future__ import annotations

import inspect
import statistics
import typing
from collections.abc import Mapping
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from backbones.plain import plain_options
from backbones.registry import BACKBONES, WITH_OPTIONS
from backbones.weights import WeightsError, strip_prefixes

Shape = tuple[int | str, ...]  # a string names a dimension that the caller chooses
Shapes = Mapping[str, tuple[int, ...]]
COUNTER = "num_batches_tracked"
_DECIMALS = 12  # of a width that shapes tell


def infer_backbone(state_dict: Mapping[str, Tensor], network: str | None = None) -> tuple[str, dict[str, Any]]:
    """Recognise a backbone by the names and shapes of its weights.

    Shapes tell a net's `width` (the shortest number that gives them) and `stem`, and the table of a `plain` one, not
    always its `image_size`: such a net is built for its own size, and refuses images of another in words.

    Args:
        state_dict: a backbone's weights, with or without wrappers' prefixes.
        network: only consider this name of BACKBONES (the sizes are still read from the shapes); None tries all.

    Returns:
        The name for ``build_backbone`` and its arguments: ``embedding_size``, ``in_channels``, and options of the net
        that are not at their defaults.

    Raises:
        WeightsError: no registered backbone fits; names the nearest one and what differs.
    """
    if network is not None and network not in BACKBONES:
        raise WeightsError(f"unknown backbone {network!r}. There are: {', '.join(BACKBONES)}")
    found: dict[str, tuple[int, ...]] = {
        key: tuple(value.shape) for key, value in strip_prefixes(state_dict).items() if not key.endswith(COUNTER)
    }
    nearest, nearest_problems = "", [f"{len(found)} keys"]
    fewest = None
    for name in BACKBONES if network is None else (network,):
        arguments, problems = _fit(name, found) if name in WITH_OPTIONS else _compare(found, _template(name))
        if not problems:
            return name, arguments
        if fewest is None or len(problems) < fewest:
            nearest, nearest_problems, fewest = name, problems, len(problems)
    more = f" and {len(nearest_problems) - 4} more" if len(nearest_problems) > 4 else ""
    raise WeightsError(
        f"these weights ({len(found)} tensors, first {next(iter(found), 'none')!r}) fit no backbone of "
        f"{network or ', '.join(BACKBONES)}. Nearest is {nearest}: {'; '.join(nearest_problems[:4])}{more}. "
        "Name the network if it was built with options of its own, or keep config.json of its run beside the weights"
    )


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


def _fit(name: str, found: Shapes) -> tuple[dict[str, Any], list[str]]:
    """The arguments that give a net of WITH_OPTIONS the shapes found, and what differs (nothing where it fits)."""
    nearest: tuple[dict[str, Any], list[str]] | None = None
    for options in [plain_options(found)] if name == "plain" else _choices(name):
        fit = _fit_width(name, options, found)
        if not fit[1]:
            return fit
        if nearest is None or len(fit[1]) < len(nearest[1]):
            nearest = fit
    assert nearest is not None  # a net has one choice at least: its defaults
    return nearest


def _choices(name: str) -> list[dict[str, Any]]:
    """Every value of an option that names a few, as a stem; the default has no entry."""
    builder = BACKBONES[name]
    called = builder.func if isinstance(builder, partial) else builder
    hints = typing.get_type_hints(called.__init__ if inspect.isclass(called) else called)
    choices: list[dict[str, Any]] = [{}]
    for option, parameter in inspect.signature(builder).parameters.items():
        if typing.get_origin(hints.get(option)) is typing.Literal:
            others = [value for value in typing.get_args(hints[option]) if value != parameter.default]
            choices += [{**chosen, option: value} for chosen in choices for value in others]
    return choices


def _fit_width(name: str, options: dict[str, Any], found: Shapes) -> tuple[dict[str, Any], list[str]]:
    """The same for one choice: width, embedding_size and in_channels are read where these nets have them."""
    full = _full_width(name, tuple(options.items()))
    kernels = [key for key, shape in full.items() if len(shape) == 4]
    width = _width([(found[key][0], full[key][0]) for key in kernels if len(found.get(key, ())) == 4])
    first, last = (found.get(key, full[key]) for key in (kernels[0], kernels[-1]))
    embedding = found.get("features.weight") or last  # without a layer of its own an embedding is the pooled map
    if len(first) != 4:
        return {}, _compare(found, full)[1]
    arguments = {"embedding_size": embedding[0], "in_channels": first[1], **options}
    arguments |= {"width": width} if width != 1.0 else {}
    try:
        wanted = _shapes(name, **arguments)
    except (ValueError, RuntimeError) as error:  # a width or a size that no net can have
        return arguments, [*_compare(found, full)[1], str(error)]
    return arguments, _compare(found, wanted)[1]


@cache
def _full_width(name: str, options: tuple[tuple[str, Any], ...]) -> dict[str, tuple[int, ...]]:
    return _shapes(name, embedding_size=1, **dict(options))


def _width(channels: list[tuple[int, int]]) -> float:
    """The number with fewest decimals that turns all channels at full width into those found, else most of them.

    Args:
        channels: (found, at full width) of each convolution; found is full times width, rounded, at least 1.
    """
    low = max((0.0 if got == 1 else (got - 0.5) / full for got, full in channels), default=0.0)
    high = min(((got + 0.5) / full for got, full in channels), default=2.0)
    for decimals in range(_DECIMALS):
        width = round((low + high) / 2, decimals)
        if low < width < high:
            return width
    return statistics.median(got / full for got, full in channels)


class _Unfilled(TorchFunctionMode):
    """Leaves out initial values, which nobody asks for where there is no storage: nine tenths of the time."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (Tensor.normal_, Tensor.uniform_) or getattr(func, "__module__", None) == "torch.nn.init":
            return args[0] if args else (kwargs or {}).get("tensor")
        return func(*args, **(kwargs or {}))


def _shapes(name: str, **arguments: Any) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"), _Unfilled():
        net = BACKBONES[name](**arguments)
    return {key: tuple(value.shape) for key, value in net.state_dict().items() if not key.endswith(COUNTER)}


def _compare(found: Shapes, wanted: Mapping[str, Shape]) -> tuple[dict[str, Any], list[str]]:
    """Sizes that make ``found`` equal to the template, and one line per difference (empty where it fits)."""
    sizes: dict[str, Any] = {}
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
