"""Products and projections shared by the two halves of the engine; pure functions of tensors."""

from __future__ import annotations

import torch
from torch import Tensor


def inverse_norm(norm: Tensor) -> Tensor:
    """1 / norm, and 0 for a zero vector: F.normalize would give such a vector a gradient of 1e12."""
    return torch.where(norm > 0, norm.reciprocal(), 0)


def has_bfloat16_products(device: torch.device) -> bool:
    """Whether reduced precision pays: GPUs before Ampere only emulate bfloat16, and are faster in float32."""
    return device.type != "cuda" or torch.cuda.is_bf16_supported(including_emulation=False)


def rounded(values: Tensor, is_reduced: bool) -> Tensor:
    """An operand as reduced precision multiplies it, rounded once for several products; itself in full precision.

    CPU has no product of bfloat16 with float32 results, so there the rounded values stay float32.
    """
    if not is_reduced:
        return values
    return values.bfloat16() if values.is_cuda else values.bfloat16().to(values.dtype)


def matmul(left: Tensor, right: Tensor, out: Tensor | None = None) -> Tensor:
    """Product of operands that ``rounded`` gave, with float32 results (float64 of float64).

    A bfloat16 result would move a logit of scale 64 by up to 0.125.
    """
    if left.dtype == torch.bfloat16:
        product = torch.mm(left, right, out_dtype=torch.float32)
        return product if out is None else out.copy_(product)
    return torch.mm(left, right, out=out)


def project_rows_(gradient: Tensor, rows: Tensor, inverse: Tensor) -> Tensor:
    """Gradient (C, D) through w / ||w||, given one that carries 1 / ||w||: removes the part along w, in place."""
    along = torch.linalg.vecdot(gradient, rows) * inverse * inverse
    return gradient.addcmul_(rows, along.unsqueeze(1), value=-1)


def project_unit(gradient: Tensor, unit: Tensor, inverse: Tensor) -> Tensor:
    """Gradient through x / ||x|| at the unit vectors ``unit``, (N, D)."""
    return (gradient - unit * torch.linalg.vecdot(gradient, unit).unsqueeze(1)) * inverse.unsqueeze(1)
