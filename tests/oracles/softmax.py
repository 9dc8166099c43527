"""Oracles of the heads on inner products or cosines that add no class and bend no angle, written from their papers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from tests.oracles.dense import Dense, cross_entropies, cross_entropy, hardest

Weights = Tensor | Sequence[float] | float | None


def _weighted_mean(batch: Dense, losses: Tensor, class_weights: Weights) -> Tensor:
    """sum_i w_{y_i} l_i / sum_i w_{y_i}, what torch documents for the `weight` of its cross entropy."""
    if class_weights is None:
        return losses.mean()
    own = torch.as_tensor(class_weights, dtype=torch.float64).expand(batch.num_classes)[batch.labels]
    return (own * losses).sum() / own.sum()


def softmax(batch: Dense, class_weights: Weights = None) -> Tensor:
    """Cross entropy of the inner products, no bias (ArcFace eq. 1 without its bias)."""
    return _weighted_mean(batch, cross_entropies(batch, batch.own(batch.products), batch.products), class_weights)


def normface(batch: Dense, scale: float = 64.0, class_weights: Weights = None) -> Tensor:
    """Cross entropy of scaled cosines (Wang et al., NormFace, ACM MM 2017; ArcFace eq. 2)."""
    logits = scale * batch.cosines
    return _weighted_mean(batch, cross_entropies(batch, batch.own(logits), logits), class_weights)


def hinge(batch: Dense, margin: float = 1.0) -> Tensor:
    """max(0, m + max_{j != y} <w_j, x> - <w_y, x>) (Crammer and Singer, JMLR 2001, their multiclass hinge)."""
    return (
        (margin * batch.margin_factor + hardest(batch, batch.products) - batch.own(batch.products)).clamp_min(0).mean()
    )


def soft_margin(batch: Dense, margin: float = 1.0) -> Tensor:
    """Target logit <w_y, x> - m (Liang et al., Soft-Margin Softmax for deep classification, ICONIP 2017)."""
    return cross_entropy(batch, batch.own(batch.products) - margin * batch.margin_factor, batch.products)


ORACLES = {"softmax": softmax, "ce": softmax, "normface": normface, "hinge": hinge, "soft_margin": soft_margin}
