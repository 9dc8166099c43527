"""Heads against class imbalance: LDAM (margins by class frequency) and focal. Class weights live in softmax.py."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from losses.by_label import ByLabel
from losses.head import ClassStatistics, Head, SampleStatistics, softmax_loss


class LDAM(Head):
    """Label-distribution-aware margins: CosFace with the larger a margin, the fewer images a class has.

    Target logit s (cos_y - m_y), m_j = max_margin n_j^{-1/4} / max_i n_i^{-1/4}, n_j the images of class j: the rarest
    class has max_margin.

    Source: Cao et al., "Learning Imbalanced Datasets with Label-Distribution-Aware Margin Loss", NeurIPS 2019; the
    normalisation by the largest margin, the scale and both defaults are those of the authors' code. Its deferred
    re-weighting is a training schedule and not part of the head.

    Args:
        scale: s > 0.
        max_margin: margin of the rarest class, >= 0, in cosine.

    Raises:
        ValueError: an argument out of range; in ``setup``, class counts that are missing, not one per class, or < 1.
    """

    normalize_embeddings = True
    normalize_prototypes = True
    supports_margin_warmup = True

    def __init__(self, scale: float = 30.0, max_margin: float = 0.5) -> None:
        super().__init__()
        if not scale > 0:
            raise ValueError(f"ldam: scale must be > 0, got {scale}")
        if not 0 <= max_margin < math.inf:
            raise ValueError(f"ldam: max_margin must be finite and >= 0, got {max_margin}")
        self.scale, self.max_margin = scale, max_margin
        self.margins: ByLabel | None = None  # by label, once the class counts are known

    def setup(self, num_classes: int, class_counts: Tensor | None = None) -> None:
        """Margins of all classes from their numbers of images."""
        needs = f"ldam: class_counts must hold the number of images, >= 1, of each of the {num_classes} classes"
        if class_counts is None:
            raise ValueError(f"{needs}, got None; give them to PartialFC")
        counts = torch.as_tensor(class_counts, dtype=torch.float64)
        if counts.shape != (num_classes,):
            raise ValueError(f"{needs}, got shape {tuple(counts.shape)}")
        is_wrong = ~((counts >= 1) & counts.isfinite())
        if is_wrong.any():
            first = int(is_wrong.nonzero()[0])
            raise ValueError(f"{needs}, got {float(counts[first])} for class {first}")
        rarity = counts**-0.25
        self.margins = ByLabel("ldam: class_counts", self.max_margin * rarity / rarity.max())

    def target_logit(self, stats: SampleStatistics) -> Tensor:
        """(N,) s (cos_y - f m_y), f the margin_factor."""
        if self.margins is None:
            raise ValueError("ldam: class_counts must be given by calling setup before the first loss")
        return self.scale * (stats.target - stats.margin_factor * self.margins(stats))


class Focal(Head):
    """Focal loss: cross entropy on <w_j, x>, times (1 - p_y)^gamma, so that easy samples weigh little.

    Source: Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017, in the softmax form that the LDAM authors'
    code compares with; gamma = 2 is the paper's recommendation. Differs: no balancing factor alpha and no bias; 1 - p_y
    is taken from the logits, sigmoid(log_sum - <w_y, x>), and keeps its relative accuracy where p_y rounds to 1.

    Args:
        gamma: exponent >= 0; 0 is plain softmax.

    Raises:
        ValueError: gamma is negative or not finite.
    """

    hardest_use = "value"

    def __init__(self, gamma: float = 2.0) -> None:
        super().__init__()
        if not 0 <= gamma < math.inf:
            raise ValueError(f"focal: gamma must be finite and >= 0, got {gamma}")
        self.gamma = gamma

    def loss(self, stats: ClassStatistics) -> Tensor:
        """(N,) losses >= 0."""
        target = self.target_logit(stats)
        cross_entropy = softmax_loss(target, stats.log_sum)
        if self.gamma == 0:
            return cross_entropy  # 0 * log(1 - p) is NaN for a sample without competitors
        return (self.gamma * F.logsigmoid(stats.log_sum - target)).exp() * cross_entropy
