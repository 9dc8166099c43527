"""The one list of backbones and the function that builds them by name; no layer is defined here."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

from torch import nn

from backbones.iresnet import DEPTHS, IResNet
from backbones.mobilefacenet import MobileFaceNet
from backbones.torchvision_nets import PREFIX, build_torchvision

# name -> builder(*, embedding_size, dropout, gradient_checkpointing, in_channels, and options of its own)
BACKBONES: dict[str, Callable[..., nn.Module]] = {
    **{name: partial(IResNet, name) for name in DEPTHS},
    "mbf": MobileFaceNet,
}


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
        name: a key of BACKBONES, or "torchvision:NAME" where torchvision is installed.
        embedding_size: D, at least 1.
        dropout: probability before the last linear layer, in [0, 1).
        gradient_checkpointing: recompute blocks in the backward pass: less memory, about a third more time.
        in_channels: channels of the images, 3 for RGB.
        **options: further arguments of the named net; most have none.

    Returns:
        A module (B, in_channels, H, W) float -> (B, embedding_size) float32, not normalised.

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
    if name.startswith(PREFIX):
        return build_torchvision(name, **common, **options)
    if name not in BACKBONES:
        close = difflib.get_close_matches(name, BACKBONES, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"unknown backbone {name!r}.{hint} There are: {', '.join(BACKBONES)}, {PREFIX}NAME")
    builder = BACKBONES[name]
    allowed = set(inspect.signature(builder).parameters) - set(common)
    unknown = sorted(set(options) - allowed)
    if unknown:
        takes = ", ".join(sorted(allowed)) or "none"
        raise ValueError(f"backbone {name!r}: unknown option {', '.join(unknown)}; its options are: {takes}")
    return builder(**common, **options)
