"""Oracles of the heads for classes of very different sizes, written from their papers."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from tests.oracles.dense import Dense, cross_entropy
from tests.oracles.largest_margin import log_sum_of_others


def ldam(batch: Dense, scale: float = 30.0, max_margin: float = 0.5) -> Tensor:
    """Target logit s (cos theta_y - m_y), m_j = const / n_j^(1/4), the constant making the largest margin max_margin.

    Cao, Wei, Gaidon, Arechiga, Ma, "Learning Imbalanced Datasets with Label-Distribution-Aware Margin Loss", NeurIPS
    2019; the scale, the choice of the constant and the defaults from the authors' repository kaidic/LDAM-DRW.
    """
    assert batch.class_counts is not None
    margins = batch.class_counts.double() ** -0.25
    margins = margins * (max_margin / margins.max())
    cosine = batch.own(batch.cosines)
    target = scale * (cosine - batch.margin_factor * margins[batch.labels])
    return cross_entropy(batch, target, scale * batch.cosines)


def focal(batch: Dense, gamma: float = 2.0) -> Tensor:
    """Mean of -(1 - p)^gamma log p, p the softmax probability of the sample's class, logits the inner products.

    Lin, Goyal, Girshick, He, Dollar, "Focal Loss for Dense Object Detection", ICCV 2017, with the softmax's p in place
    of the sigmoid's, as the imbalance experiments of kaidic/LDAM-DRW have it.
    """
    log_sum, is_alone = log_sum_of_others(batch, batch.products)
    gap = batch.own(batch.products) - log_sum  # p = sigmoid(gap)
    log_p, log_rest = F.logsigmoid(gap), F.logsigmoid(-gap)
    return torch.where(is_alone, 0.0, -torch.exp(gamma * log_rest) * log_p).mean()


ORACLES: dict[str, Callable[..., Tensor]] = {"ldam": ldam, "focal": focal}
