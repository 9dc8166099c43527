"""The one list of backbones and the function that builds them by name; no layer is defined here."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

from torch import nn

from backbones.iresnet import DEPTHS, IResNet
from backbones.mobilefacenet import MobileFaceNet
from backbones.plain import PLANS, PlainNet, plain
from backbones.recompute import FACE_SIZE
from backbones.resnet import BLOCKS, ResNet
from backbones.small import digits, small, tiny
from backbones.sphereface import UNITS, SphereFaceNet
from backbones.timm_nets import PREFIX as TIMM
from backbones.timm_nets import build_timm
from backbones.torchvision_nets import PREFIX as TORCHVISION
from backbones.torchvision_nets import build_torchvision
from backbones.vit import NETS, VisionTransformer

# name -> builder(*, embedding_size, dropout, gradient_checkpointing, in_channels, and options of its own).
# A net for other images than faces of 112 x 112 has an attribute `image_size`, the edge in pixels.
BACKBONES: dict[str, Callable[..., nn.Module]] = {
    **{name: partial(IResNet, name) for name in DEPTHS},
    "mbf": MobileFaceNet,
    **{name: partial(VisionTransformer, name) for name in NETS},
    **{name: partial(SphereFaceNet, name) for name in UNITS},
    "small": small,
    "tiny": tiny,
    "digits": digits,
    **{name: partial(PlainNet, name, plan, in_channels=plan.in_channels) for name, plan in PLANS.items()},
    "plain": plain,
    **{name: partial(ResNet, name) for name in BLOCKS},
}
# Nets with options that change the weights' shapes, from which backbones/recognition.py reads them back.
WITH_OPTIONS = frozenset({*PLANS, "plain", *BLOCKS})
# prefix of a name -> builder(name, ...) of the nets that an optional package has
INSTALLED: dict[str, Callable[..., nn.Module]] = {TORCHVISION: build_torchvision, TIMM: build_timm}


@dataclass(frozen=True)
class BackboneInfo:
    """What a built net is called and what goes in and out; ``image_size`` is (height, width) in pixels."""

    name: str
    embedding_size: int
    in_channels: int
    image_size: tuple[int, int]


def backbone_info(backbone: nn.Module) -> BackboneInfo:
    """The info that ``build_backbone`` left on its net.

    Raises:
        ValueError: the net was not built by ``build_backbone`` (a wrapper such as DistributedDataParallel has none).
    """
    info = getattr(backbone, "info", None)
    if not isinstance(info, BackboneInfo):
        raise ValueError(
            f"{type(backbone).__name__} says nothing about its images and embeddings: "
            "give the net that build_backbone returned, without wrappers"
        )
    return info


def build_backbone(
    name: str,
    *,
    embedding_size: int = 512,
    dropout: float = 0.0,
    gradient_checkpointing: bool = False,
    in_channels: int = 3,
    **options: Any,
) -> nn.Module:
    """Build a backbone with fresh weights.

    Args:
        name: a key of BACKBONES, or "torchvision:NAME" or "timm:NAME" where these are installed.
        embedding_size: D, at least 1.
        dropout: probability before the last linear layer, in [0, 1).
        gradient_checkpointing: recompute blocks in the backward pass: less memory, about a third more time.
        in_channels: channels of the images, 3 for RGB.
        **options: further arguments of the named net; most have none.

    Returns:
        A module (B, in_channels, H, W) float -> (B, embedding_size) float32, not normalised; see ``backbone_info``.

    Raises:
        ValueError: an unknown name or option, or a value out of range; the message lists what is allowed.
    """
    if embedding_size < 1:
        raise ValueError(f"backbone {name!r}: embedding_size is {embedding_size}, must be at least 1")
    if not 0.0 <= dropout < 1.0:
        raise ValueError(f"backbone {name!r}: dropout is {dropout}, must be in [0, 1)")
    if in_channels < 1:
        raise ValueError(f"backbone {name!r}: in_channels is {in_channels}, must be at least 1")
    common: dict[str, Any] = {
        "embedding_size": embedding_size,
        "dropout": dropout,
        "gradient_checkpointing": gradient_checkpointing,
        "in_channels": in_channels,
    }
    builder = _builder(name, set(common), set(options))
    backbone = builder(**common, **options)
    edge = cast(int, getattr(backbone, "image_size", FACE_SIZE))
    backbone.info = BackboneInfo(name, embedding_size, in_channels, (edge, edge))  # type: ignore[assignment]
    return backbone


def _builder(name: str, common: set[str], options: set[str]) -> Callable[..., nn.Module]:
    """The named builder, once its name and the options it is to get are known to be right."""
    for prefix, build in INSTALLED.items():
        if name.startswith(prefix):
            return partial(build, name)
    if name not in BACKBONES:
        close = difflib.get_close_matches(name, BACKBONES, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        names = ", ".join([*BACKBONES, *(f"{prefix}NAME" for prefix in INSTALLED)])
        raise ValueError(f"unknown backbone {name!r}.{hint} There are: {names}")
    builder = BACKBONES[name]
    allowed = set(inspect.signature(builder).parameters) - common
    unknown = sorted(options - allowed)
    if unknown:
        takes = ", ".join(sorted(allowed)) or "none"
        raise ValueError(f"backbone {name!r}: unknown option {', '.join(unknown)}; its options are: {takes}")
    return builder
