"""Heads on plain logits: softmax, NormFace, soft margin, hinge. Margins on angles live in angular.py."""

from __future__ import annotations

from torch import Tensor

from losses.by_label import ByLabel, PerLabel, class_weight_factors
from losses.head import ClassStatistics, Head, SampleStatistics


class Softmax(Head):
    """Cross entropy on <w_j, x> without bias: -log(e^{<w_y,x>} / sum_j e^{<w_j,x>}). Norms are free.

    Args:
        class_weights: (num_classes,) weights > 0 of the losses by label; the batch's loss is then the weighted mean
            sum_i w_{y_i} l_i / sum_i w_{y_i}, as torch's cross_entropy(weight=). None weighs all alike.
    """

    hardest_use = "value"

    def __init__(self, class_weights: PerLabel | None = None) -> None:
        super().__init__()
        name = f"{type(self).__name__.lower()}: class_weights"
        self.class_weights = None if class_weights is None else ByLabel(name, class_weights)
        if self.class_weights is not None and not (self.class_weights.values > 0).all():
            raise ValueError(f"{name} must be > 0, got {class_weights!r}")

    def setup(self, num_classes: int, class_counts: Tensor | None = None) -> None:
        """Checks that there is a weight for every class."""
        del class_counts
        if self.class_weights is not None:
            self.class_weights.check(num_classes)

    def loss(self, stats: ClassStatistics) -> Tensor:
        """(N,) cross entropy, times the weight of the class over the batch's mean weight."""
        losses = super().loss(stats)
        return losses if self.class_weights is None else losses * class_weight_factors(self.class_weights, stats)


class NormFace(Softmax):
    """Cross entropy on scaled cosines: -log(e^{s cos_y} / sum_j e^{s cos_j}).

    Source: Wang et al., "NormFace: L2 Hypersphere Embedding for Face Verification", ACM MM 2017. The paper may
    learn the scale; here it is fixed.

    Args:
        scale: s > 0; 64 is usual with hundreds of thousands of classes, 20 to 32 with hundreds.
        class_weights: see Softmax.
    """

    normalize_embeddings = True
    normalize_prototypes = True

    def __init__(self, scale: float = 64.0, class_weights: PerLabel | None = None) -> None:
        super().__init__(class_weights)
        if not scale > 0:
            raise ValueError(f"normface: scale must be > 0, got {scale}")
        self.scale = scale


class SoftMargin(Head):
    """Cross entropy with a margin on the inner product: target logit <w_y, x> - m.

    Source: Liang et al., "Soft-Margin Softmax for Deep Classification", ICONIP 2017.

    Args:
        margin: m >= 0, in units of the logit. Norms are free, so a net can outgrow a fixed margin.
    """

    supports_margin_warmup = True

    def __init__(self, margin: float = 1.0) -> None:
        super().__init__()
        if not margin >= 0:
            raise ValueError(f"soft_margin: margin must be >= 0, got {margin}")
        self.margin = margin

    def target_logit(self, stats: SampleStatistics) -> Tensor:
        """(N,) <w_y, x> - f m, f the margin_factor."""
        return stats.target - stats.margin_factor * self.margin


class Hinge(Head):
    """Multi-class hinge loss max(0, m + max_{j != y} <w_j, x> - <w_y, x>): only the hardest class is pushed.

    Source: Crammer and Singer, "On the Algorithmic Implementation of Multiclass Kernel-based Vector Machines", JMLR
    2001. Equal hardest classes share the gradient. With sampled classes the hardest of them counts.

    Args:
        margin: m >= 0, in units of the inner product.
    """

    hardest_use = "gradient"
    supports_margin_warmup = True

    def __init__(self, margin: float = 1.0) -> None:
        super().__init__()
        if not margin >= 0:
            raise ValueError(f"hinge: margin must be >= 0, got {margin}")
        self.margin = margin

    def loss(self, stats: ClassStatistics) -> Tensor:
        """(N,) losses with the margin f m, f the margin_factor; no gradient once a sample is right by the margin."""
        return (stats.margin_factor * self.margin + stats.hardest - stats.target).relu()
