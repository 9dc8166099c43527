"""Terms added to any head's loss, with a weight from the config; they see statistics and prototypes, never logits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from losses.collectives import Collectives
from losses.head import ClassStatistics, Head


class Regularizer:
    """Base: a scalar from the batch's statistics or from the prototypes, equal on all ranks.

    Attributes:
        wants_hardest_cosine: asks the engine for ``hardest_cosine``.
    """

    wants_hardest_cosine: ClassVar[bool] = False

    def __call__(
        self, stats: ClassStatistics, head: Head, active: Tensor, prototypes: Tensor, collectives: Collectives
    ) -> Tensor:
        """0-dim term; ``active`` are this step's prototypes (with gradient), ``prototypes`` all of this rank."""
        raise NotImplementedError(f"{type(self).__name__} must define __call__")


class SampleMargin(Regularizer):
    """R_sm: mean over the batch of max_{j != y} cos(theta_j) - cos(theta_y), always in cosines.

    Source: Zhou et al., "Learning Towards the Largest Margins", ICLR 2022, the largest sample-margin regularisation.
    In cosines whatever the head's similarity is: raw inner products are unbounded below.
    """

    wants_hardest_cosine = True

    def __call__(
        self, stats: ClassStatistics, head: Head, active: Tensor, prototypes: Tensor, collectives: Collectives
    ) -> Tensor:
        """0-dim, in -2 .. 2."""
        del active, prototypes, collectives
        if stats.hardest_cosine is None:
            raise RuntimeError("sample_margin: the engine was not asked for hardest_cosine")
        return ((stats.hardest_cosine - head.target_cosine(stats)) * stats.weight).sum()


class _CentroidNorm(torch.autograd.Function):
    """||mean_j w_j||^2 over all prototypes, with a gradient for the active rows only."""

    @staticmethod
    def forward(ctx: Any, active: Tensor, mean: Tensor, num_rows: int) -> Tensor:
        ctx.save_for_backward(mean)
        ctx.shape, ctx.num_rows = active.shape, num_rows
        return mean.square().sum()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (mean,) = ctx.saved_tensors
        return (grads[0] * 2 / ctx.num_rows * mean).expand(ctx.shape), None, None


class ZeroCentroid(Regularizer):
    """R_w: ||(1/C) sum_j w_j||^2, which keeps the prototypes centred at zero.

    Source: Zhou et al., "Learning Towards the Largest Margins", ICLR 2022, zero-centroid regularisation. Departure:
    with sampled classes the value is that of all classes, the gradient reaches only the rows sampled in this step.
    Sub-centres count as prototypes.
    """

    def __call__(
        self, stats: ClassStatistics, head: Head, active: Tensor, prototypes: Tensor, collectives: Collectives
    ) -> Tensor:
        """0-dim, >= 0."""
        num_rows = stats.num_classes * head.sub_centers
        total = prototypes.detach().reshape(-1, prototypes.shape[-1]).sum(dim=0)
        return _CentroidNorm.apply(active, collectives.sum_(total) / num_rows, num_rows)


REGULARIZERS: dict[str, type[Regularizer]] = {
    "sample_margin": SampleMargin,
    "zero_centroid": ZeroCentroid,
}


def build_regularizers(weights: Mapping[str, float]) -> list[tuple[Regularizer, float]]:
    """Registry name -> weight into terms with their weights.

    Raises:
        ValueError: unknown name; the message lists the right ones.
    """
    unknown = sorted(set(weights) - set(REGULARIZERS))
    if unknown:
        raise ValueError(f"unknown regularizers {unknown}; there are {sorted(REGULARIZERS)}")
    return [(REGULARIZERS[name](), float(weight)) for name, weight in weights.items()]
