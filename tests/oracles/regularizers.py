"""Oracles of the regularisers, written from their papers."""

from __future__ import annotations

import math

from torch import Tensor

from tests.oracles.dense import Dense


def sample_margin(batch: Dense) -> Tensor:
    """R_sm: hardest non-target cosine minus target cosine, averaged (Zhou et al., ICLR 2022, sample margin).

    `amax` shares the gradient evenly among equal maxima.
    """
    hardest = batch.cosines.masked_fill(~batch.is_competitor, -math.inf).amax(1)
    return (hardest - batch.own(batch.cosines)).mean()


def zero_centroid(batch: Dense) -> Tensor:
    """Squared norm of the mean prototype, all classes (Zhou et al., ICLR 2022, zero-centroid regularisation).

    Every sub-centre counts as a prototype.
    """
    return batch.prototypes.flatten(0, -2).mean(0).square().sum()


ORACLES = {"sample_margin": sample_margin, "zero_centroid": zero_centroid}
