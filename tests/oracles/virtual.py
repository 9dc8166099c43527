"""Oracles of the heads with a virtual class, written from their papers."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tests.oracles.dense import Dense, cross_entropy, is_right, unit


def _capped(logit: Tensor, cap: float | None) -> Tensor:
    """The clamp of the SV-Softmax authors' code, [1e-10, cap]; None is the paper's own formula."""
    return logit if cap is None else logit.clamp(1e-10, cap)


def _warmed(batch: Dense, extra: Tensor) -> Tensor:
    """An extra class of weight f: + log f; f = 0 is plain softmax."""
    return extra + math.log(batch.margin_factor) if batch.margin_factor > 0 else torch.full_like(extra, -math.inf)


def virtual_softmax(batch: Dense, virtual_logit_cap: float | None = 15.0) -> Tensor:
    """One more negative class W_virt = |w_y| x / |x|, different for every sample (Chen et al., NeurIPS 2018)."""
    own = batch.prototypes[batch.labels]
    virtual = own.norm(dim=1, keepdim=True) * unit(batch.embeddings)
    extra = _capped((virtual * batch.embeddings).sum(1), virtual_logit_cap)
    return cross_entropy(batch, batch.own(batch.products), batch.products, _warmed(batch, extra))


def svsoftmax(batch: Dense, margin: float = 0.6, virtual_logit_cap: float | None = 15.0) -> Tensor:
    """The extra class is w_synth where the sample is right, W_virt where it is wrong.

    w_synth = |w_y| h / |h| with h = m x / |x| - (1 - m) w_y / |w_y| (Chen, Huang, Zhang, "Large-margin Softmax loss
    using synthetic virtual class", Neural Networks 193, doi 10.1016/j.neunet.2025.108068). A tie counts as right.
    """
    own = batch.prototypes[batch.labels]
    h = margin * unit(batch.embeddings) - (1 - margin) * unit(own)
    synthetic = own.norm(dim=1, keepdim=True) * unit(h)
    virtual = own.norm(dim=1, keepdim=True) * unit(batch.embeddings)
    chosen = torch.where(is_right(batch)[:, None], synthetic, virtual)
    extra = _capped((chosen * batch.embeddings).sum(1), virtual_logit_cap)
    return cross_entropy(batch, batch.own(batch.products), batch.products, _warmed(batch, extra))


ORACLES = {"virtual_softmax": virtual_softmax, "svsoftmax": svsoftmax}
