"""Oracles of the heads with a virtual class, written from their papers."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tests.oracles.dense import Dense, cross_entropy, hardest, is_right, unit


def _capped(logit: Tensor, cap: float | None) -> Tensor:
    """The clamp of the SV-Softmax authors' code, [1e-10, cap]; None is the paper's own formula."""
    return logit if cap is None else logit.clamp(1e-10, cap)


def _warmed(batch: Dense, extra: Tensor) -> Tensor:
    """An extra class of weight f: + log f; f = 0 is plain softmax."""
    return extra + math.log(batch.margin_factor) if batch.margin_factor > 0 else torch.full_like(extra, -math.inf)


def _auto(cap: float | str | None, normalized: bool) -> float | None:
    """ "auto" is the authors' 15 on inner products and no clamp on cosines, whose logits the scale bounds already."""
    if isinstance(cap, str):
        assert cap == "auto"
        return None if normalized else 15.0
    return cap


def _scale(scale: float | None) -> float:
    """The scale of the normalised forms, 32 where nothing is said."""
    return 32.0 if scale is None else scale


def virtual_softmax(
    batch: Dense, virtual_logit_cap: float | str | None = "auto", normalized: bool = False, scale: float | None = None
) -> Tensor:
    """One more negative class W_virt = |w_y| x / |x|, different for every sample (Chen et al., NeurIPS 2018).

    `normalized` is not in the paper: the same on the unit sphere, with logits s cos theta and the extra logit s.
    """
    if normalized:
        logits = _scale(scale) * batch.cosines
        extra = torch.full_like(batch.own(logits), _scale(scale))
    else:
        logits, own = batch.products, batch.prototypes[batch.labels]
        virtual = own.norm(dim=1, keepdim=True) * unit(batch.embeddings)
        extra = (virtual * batch.embeddings).sum(1)
    extra = _capped(extra, _auto(virtual_logit_cap, normalized))
    return cross_entropy(batch, batch.own(logits), logits, _warmed(batch, extra))


def svsoftmax(
    batch: Dense, margin: float = 0.6, virtual_logit_cap: float | str | None = "auto", normalized: bool = False,
    scale: float | None = None,
) -> Tensor:  # fmt: skip
    """The extra class is w_synth where the sample is right, W_virt where it is wrong.

    w_synth = |w_y| h / |h| with h = m x / |x| - (1 - m) w_y / |w_y| (Chen, Huang, Zhang, "Large-margin Softmax loss
    using synthetic virtual class", Neural Networks 193, doi 10.1016/j.neunet.2025.108068). A tie counts as right.
    `normalized` is not in the paper: the same on the unit sphere with logits s cos theta, where the angle decides who
    is right and, with c = cos theta_y, <h, x> / (|h| |x|) = (m - (1 - m) c) / sqrt(m^2 + (1 - m)^2 - 2 m (1 - m) c).
    """
    if normalized:
        logits, c = _scale(scale) * batch.cosines, batch.own(batch.cosines)
        along = (margin - (1 - margin) * c) / (margin**2 + (1 - margin) ** 2 - 2 * margin * (1 - margin) * c).sqrt()
        right = c.detach() >= hardest(batch, batch.cosines.detach())
        extra = _scale(scale) * torch.where(right, along, 1.0)
    else:
        logits, own = batch.products, batch.prototypes[batch.labels]
        h = margin * unit(batch.embeddings) - (1 - margin) * unit(own)
        direction = torch.where(is_right(batch)[:, None], unit(h), unit(batch.embeddings))
        extra = (own.norm(dim=1, keepdim=True) * direction * batch.embeddings).sum(1)
    extra = _capped(extra, _auto(virtual_logit_cap, normalized))
    return cross_entropy(batch, batch.own(logits), logits, _warmed(batch, extra))


ORACLES = {"virtual_softmax": virtual_softmax, "svsoftmax": svsoftmax}
