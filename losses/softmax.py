"""Heads without a margin: plain softmax and NormFace. Margins live in angular.py and virtual.py."""

from __future__ import annotations

from torch import Tensor

from losses.head import ClassStatistics, Head, softmax_loss


class Softmax(Head):
    """Cross entropy on <w_j, x> without bias: -log(e^{<w_y,x>} / sum_j e^{<w_j,x>}). Norms are free."""

    hardest_use = "value"

    def loss(self, stats: ClassStatistics) -> Tensor:
        """(N,) cross entropy."""
        return softmax_loss(stats.target, stats.log_sum)


class NormFace(Head):
    """Cross entropy on scaled cosines: -log(e^{s cos_y} / sum_j e^{s cos_j}).

    Source: Wang et al., "NormFace: L2 Hypersphere Embedding for Face Verification", ACM MM 2017. The paper may
    learn the scale; here it is fixed.

    Args:
        scale: s > 0; 64 is usual with hundreds of thousands of classes, 20 to 32 with hundreds.
    """

    normalize_embeddings = True
    normalize_prototypes = True
    hardest_use = "value"

    def __init__(self, scale: float = 64.0) -> None:
        super().__init__()
        if not scale > 0:
            raise ValueError(f"normface: scale must be > 0, got {scale}")
        self.scale = scale

    def loss(self, stats: ClassStatistics) -> Tensor:
        """(N,) cross entropy of the scaled cosines."""
        return softmax_loss(self.scale * stats.target, stats.log_sum)
