"""Nets of an installed timm as backbones ("timm:NAME"); it is imported only when one is asked for."""

from __future__ import annotations

import difflib
from importlib import import_module
from typing import Any, cast

from torch import Tensor, nn

from backbones.recompute import FACE_SIZE, check_face_batch, full_precision

PREFIX = "timm:"


class TimmBackbone(nn.Module):
    """A timm net without its classifier, then dropout, a linear layer and a norm, as at the end of ArcFace's nets.

    (B, in_channels, 112, 112) float -> (B, embedding_size), not normalised. Autocast is the caller's; the linear layer
    and the norm run in the precision of their weights.

    Args:
        name: for messages.
        net: built without classes: (B, in_channels, 112, 112) -> (B, num_features).
        num_features: what the net returns for an image.
        embedding_size: D.
        dropout: probability before the linear layer, in [0, 1).
        in_channels: of the images.
    """

    def __init__(
        self, name: str, net: nn.Module, num_features: int, *, embedding_size: int, dropout: float, in_channels: int
    ) -> None:
        super().__init__()
        self.name = name
        self.in_channels = in_channels
        self.embedding_size = embedding_size
        self.net = net
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(num_features, embedding_size)
        self.features = nn.BatchNorm1d(embedding_size)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, 112, 112) -> (B, embedding_size) in the dtype of the weights; ValueError for others."""
        check_face_batch(x, self.in_channels, self.name)
        x = self.dropout(self.net(x))
        with full_precision(x):
            return cast(Tensor, self.features(self.fc(x.to(self.fc.weight.dtype))))


def build_timm(
    name: str,
    *,
    embedding_size: int,
    dropout: float,
    gradient_checkpointing: bool,
    in_channels: int,
    **options: Any,
) -> nn.Module:
    """Build ``timm.create_model(NAME)`` for faces, with fresh weights and an embedding in place of its classes.

    A net that is made for one size of images is built for 112 x 112.

    Args:
        name: "timm:NAME", a net of the installed timm.
        embedding_size: D.
        dropout: probability before the last linear layer.
        gradient_checkpointing: timm's own, for nets without batch norms: with them it would move their running
            statistics twice a step.
        in_channels: of the images.
        **options: passed to timm, such as ``drop_path_rate``.

    Raises:
        ValueError: timm is missing, has no such net, or the net cannot do what was asked for.
    """
    try:
        timm = import_module("timm")
    except ImportError as error:
        raise ValueError(
            f"backbone {name!r} needs timm, which cannot be imported ({error}): pip install timm, and the torchvision "
            "release named in requirements-optional.txt, which timm imports and which must match the torch build"
        ) from error
    model_name = name.removeprefix(PREFIX)
    if not timm.is_model(model_name):
        near = difflib.get_close_matches(model_name, timm.list_models(), n=4)
        there = f" Similar: {', '.join(near)}." if near else ""
        raise ValueError(f"backbone {name!r}: timm has no such net.{there} All: timm.list_models()")
    described = timm.get_pretrained_cfg(model_name)
    if described is not None and getattr(described, "fixed_input_size", False):
        options.setdefault("img_size", FACE_SIZE)
    try:
        net = timm.create_model(model_name, pretrained=False, num_classes=0, in_chans=in_channels, **options)
    except (TypeError, ValueError, AssertionError, RuntimeError) as error:  # what timm's nets raise for bad arguments
        given = ", ".join(f"{key}={value}" for key, value in {"in_chans": in_channels, **options}.items())
        raise ValueError(f"backbone {name!r}: timm cannot build it with {given}: {error}") from error
    if gradient_checkpointing:
        _checkpoint(name, net)
    num_features = getattr(net, "head_hidden_size", None) or net.num_features
    return TimmBackbone(
        name, net, int(num_features), embedding_size=embedding_size, dropout=dropout, in_channels=in_channels
    )


def _checkpoint(name: str, net: Any) -> None:
    if any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in net.modules()):
        raise ValueError(
            f"backbone {name!r}: gradient_checkpointing=True would move the running statistics of its batch norms "
            "twice a step: leave it off, or choose a net without batch norms"
        )
    try:
        net.set_grad_checkpointing(True)
    except (AttributeError, AssertionError) as error:
        raise ValueError(f"backbone {name!r}: this net of timm has no gradient_checkpointing: leave it off") from error
