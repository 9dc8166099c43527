"""Weights -> a checked .safetensors file: tensors and what a reader must know to use them. No graph."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from backbones import backbone_info
from tools.export.metadata import net_metadata
from tools.export.variant import DisagreementError
from utils.safetensors_files import read_safetensors, write_safetensors


def export_safetensors(backbone: nn.Module, out: Path, *, extra_metadata: Mapping[str, str] | None = None) -> int:
    """Write a net's state dict; it appears under its name once it has been read back bit for bit.

    Until then it is `.NAME.PID.partial`; only a killed export leaves that behind, and it may be removed.

    Args:
        backbone: what ``build_backbone`` returned.
        out: the file; its folder is made.
        extra_metadata: more entries.

    Returns:
        The number of tensors.

    Raises:
        DisagreementError: a tensor came back as another: the disk is failing.
    """
    state = backbone.state_dict()
    metadata = {"format": "pt", **net_metadata(backbone_info(backbone)), **(extra_metadata or {})}
    out.parent.mkdir(parents=True, exist_ok=True)
    # what a killed export leaves has no suffix that a reader of weights knows, and a name that a listing hides
    unchecked = out.with_name(f".{out.name}.{os.getpid()}.partial")
    try:
        write_safetensors(unchecked, state, metadata)
        back = read_safetensors(unchecked)
        differing = [name for name, tensor in state.items() if not _is_same(tensor.cpu(), back.get(name))]
        if differing or len(back) != len(state):
            raise DisagreementError(f"{out} was not written: {', '.join(differing[:5])} came back as something else")
        os.replace(unchecked, out)
    finally:
        unchecked.unlink(missing_ok=True)
    return len(state)


def _is_same(tensor: torch.Tensor, other: torch.Tensor | None) -> bool:
    """Equal in type, shape and every bit; NaN is not equal to itself, its bytes are."""
    if other is None or tensor.dtype != other.dtype or tensor.shape != other.shape:
        return False
    pair = [one.contiguous().reshape(-1).view(torch.uint8) for one in (tensor, other)]
    return torch.equal(*pair)
