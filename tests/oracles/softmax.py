"""Oracles of the heads on inner products without a virtual class, written from their papers."""

from __future__ import annotations

from torch import Tensor

from tests.oracles.dense import Dense, cross_entropy


def softmax(batch: Dense) -> Tensor:
    """Cross entropy of the inner products, no bias (ArcFace eq. 1 without its bias)."""
    return cross_entropy(batch, batch.own(batch.products), batch.products)


ORACLES = {"softmax": softmax, "ce": softmax}
