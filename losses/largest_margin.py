"""Heads of "Learning Towards the Largest Margins": LM-Softmax, GM-Softmax. Its regularisers live in regularizers.py."""

from __future__ import annotations

import torch
from torch import Tensor

from losses.by_label import ByLabel, PerLabel
from losses.head import ClassStatistics, Head, softmax_loss


class LMSoftmax(Head):
    """Largest-margin softmax: the target is left out of the denominator, so that the loss never saturates.

        (logsumexp over j != y of s cos_j - s cos_y) / s

    It tends to max_{j != y} cos_j - cos_y as s grows, and is negative once a sample leads clearly. A sample with no
    competitor left (every non-target filtered out) has loss and gradient 0: minus infinity is no loss to minimise.

    Source: Zhou et al., "Learning Towards the Largest Margins", ICLR 2022; scale, the division by it and the class
    weights (a plain mean of w_y times the loss, not divided by the sum of the weights) as in the LM-Softmax of the
    SV-Softmax authors' comparison code.

    Args:
        scale: s > 0.
        class_weights: one factor > 0 for all classes, or (num_classes,) by label; None is 1.

    Raises:
        ValueError: scale or a weight out of range; in ``setup``, the wrong number of weights.
    """

    normalize_embeddings = True
    normalize_prototypes = True
    hardest_use = "value"

    def __init__(self, scale: float = 64.0, class_weights: PerLabel | None = None) -> None:
        super().__init__()
        if not scale > 0:
            raise ValueError(f"lm_softmax: scale must be > 0, got {scale}")
        self.scale = scale
        self.class_weights = None if class_weights is None else ByLabel("lm_softmax: class_weights", class_weights)
        if self.class_weights is not None and not (self.class_weights.values > 0).all():
            raise ValueError(f"lm_softmax: class_weights must be > 0, got {class_weights!r}")

    def setup(self, num_classes: int, class_counts: Tensor | None = None) -> None:
        """Checks that there is one class weight per class."""
        del class_counts
        if self.class_weights is not None:
            self.class_weights.check(num_classes)

    def loss(self, stats: ClassStatistics) -> Tensor:
        """(N,) losses in cosines, of either sign."""
        is_alone = torch.isneginf(stats.log_sum)
        others = torch.where(is_alone, 0, stats.log_sum)  # an infinity would make the masked gradient NaN
        loss = torch.where(is_alone, 0, others / self.scale - stats.target)
        return loss if self.class_weights is None else self.class_weights(stats) * loss


class GMSoftmax(Head):
    """Generalised margin softmax: the target enters numerator and denominator with factors and offsets of their own.

        log(e^{s (alpha2 cos_y + beta2)} + sum_{j != y} e^{s cos_j}) - s (alpha1 cos_y + beta1)

    alpha 1 and beta1 = beta2 = -m is CosFace; beta2 towards minus infinity approaches LM-Softmax, times s. A float
    counts for all classes, a sequence or tensor holds one value per class, by label.

    Source: Zhou et al., "Learning Towards the Largest Margins", ICLR 2022, the generalised margin softmax; the ranges
    of alpha are those its analysis assumes. beta stands inside the scale, in units of the cosine; presentations of
    the method also print it outside. The defaults are NormFace. The number is computed as
    softmax_loss(s (alpha2 cos_y + beta2), ...) + s ((alpha2 - alpha1) cos_y + beta2 - beta1), which does not lose the
    target's gradient in float32 as the difference above does. A sample with no competitor left keeps the second term.

    Args:
        scale: s > 0.
        alpha1: factor of the target in the numerator, >= 1/2.
        alpha2: factor of the target in the denominator, <= alpha1.
        beta1: offset of the target in the numerator, in cosine.
        beta2: offset of the target in the denominator, in cosine.

    Raises:
        ValueError: scale out of range or an option that is no finite number(s); in ``setup``, alpha1 < 1/2,
            alpha2 > alpha1 for some class, or the wrong number of values.
    """

    normalize_embeddings = True
    normalize_prototypes = True
    hardest_use = "value"

    def __init__(
        self,
        scale: float = 64.0,
        alpha1: PerLabel = 1.0,
        alpha2: PerLabel = 1.0,
        beta1: PerLabel = 0.0,
        beta2: PerLabel = 0.0,
    ) -> None:
        super().__init__()
        if not scale > 0:
            raise ValueError(f"gm_softmax: scale must be > 0, got {scale}")
        self.scale = scale
        self.alpha1 = ByLabel("gm_softmax: alpha1", alpha1)
        self.alpha2 = ByLabel("gm_softmax: alpha2", alpha2)
        self.beta1 = ByLabel("gm_softmax: beta1", beta1)
        self.beta2 = ByLabel("gm_softmax: beta2", beta2)

    def setup(self, num_classes: int, class_counts: Tensor | None = None) -> None:
        """Checks the lengths, then alpha1 >= 1/2 and alpha2 <= alpha1 class by class."""
        del class_counts
        for option in (self.alpha1, self.alpha2, self.beta1, self.beta2):
            option.check(num_classes)
        alpha1, alpha2 = self.alpha1.values.cpu(), self.alpha2.values.cpu()
        if (alpha1 < 0.5).any():
            raise ValueError(f"gm_softmax: alpha1 must be >= 1/2, got {float(alpha1.min())}")
        if (alpha2 > alpha1).any():
            by = float((alpha2 - alpha1).max())
            raise ValueError(f"gm_softmax: alpha2 must be <= alpha1 for every class, got one larger by {by}")

    def loss(self, stats: ClassStatistics) -> Tensor:
        """(N,) losses; negative where alpha1 cos_y + beta1 exceeds alpha2 cos_y + beta2 enough."""
        alpha2, beta2 = self.alpha2(stats), self.beta2(stats)
        within = softmax_loss(self.scale * (alpha2 * stats.target + beta2), stats.log_sum)
        extra = (alpha2 - self.alpha1(stats)) * stats.target + (beta2 - self.beta1(stats))
        return within + self.scale * extra
