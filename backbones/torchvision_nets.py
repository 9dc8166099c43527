"""Nets of an installed torchvision as backbones ("torchvision:NAME"); it is imported only when one is asked for."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

PREFIX = "torchvision:"


class TorchvisionBackbone(nn.Module):
    """A torchvision classifier whose last layer gives the embedding: (B, 3, H, W) float -> (B, D) float32.

    Args:
        net: the classifier, built with ``num_classes = embedding_size``.
        embedding_size: D.
    """

    def __init__(self, net: nn.Module, embedding_size: int) -> None:
        super().__init__()
        self.net = net
        self.embedding_size = embedding_size

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, D); the last layer runs in the caller's autocast, its output is returned as float32."""
        out: Tensor = self.net(x)
        return out.to(torch.promote_types(out.dtype, torch.float32))


def build_torchvision(
    name: str,
    *,
    embedding_size: int,
    dropout: float,
    gradient_checkpointing: bool,
    in_channels: int,
    **options: Any,
) -> nn.Module:
    """Build ``torchvision.models.NAME`` with an embedding in place of its classes.

    Args:
        name: "torchvision:NAME", a classification net of the installed torchvision.
        embedding_size: D.
        dropout: must be 0; nets that have dropout take it in ``options``.
        gradient_checkpointing: must be False, these nets have none.
        in_channels: must be 3.
        **options: passed to torchvision (``weights=`` cannot be: its last layer has 1000 outputs).

    Raises:
        ValueError: torchvision is missing, has no such net, or a value it cannot honour was given.
    """
    try:
        models = import_module("torchvision.models")
    except ImportError as error:
        raise ValueError(
            f"backbone {name!r} needs torchvision, which cannot be imported ({error}): "
            "install the release named in requirements-optional.txt; it must match the torch build"
        ) from error
    refused = [
        text
        for text, wrong in (
            (f"dropout={dropout}", dropout != 0.0),
            ("gradient_checkpointing=True", gradient_checkpointing),
            (f"in_channels={in_channels}", in_channels != 3),
        )
        if wrong
    ]
    if refused:
        raise ValueError(f"backbone {name!r}: torchvision nets do not take {', '.join(refused)}")
    model_name = name.removeprefix(PREFIX)
    known = models.list_models(module=models)
    if model_name not in known:
        raise ValueError(f"backbone {name!r}: torchvision has no such net; there are: {', '.join(known)}")
    return TorchvisionBackbone(models.get_model(model_name, num_classes=embedding_size, **options), embedding_size)
