"""Heads that add one virtual class to the denominator: Virtual Softmax and SV-Softmax."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from losses.head import ClassStatistics, Head, SampleStatistics, softmax_loss

_SMALLEST_LOGIT = 1e-10  # the lower clamp of the SV-Softmax authors' code, for both
_SMALLEST_NORM = 1e-12  # keeps the gradient of a zero norm finite
_CAP = 15.0  # of the SV-Softmax authors' code
_SCALE = 32.0

Cap = float | None | Literal["auto"]


class VirtualSoftmax(Head):
    """Cross entropy with one more negative, whose prototype points along the embedding: extra logit ||w_y|| ||x||.

    Source: Chen, Deng and Shen, "Virtual Class Enhanced Discriminative Embedding Learning", NeurIPS 2018. Differs:
    the extra logit can be capped, as in the code of the SV-Softmax authors; None is the paper's formula. And
    ``normalized=True`` is ours: the same on unit prototypes and embeddings, logits s cos(theta_j) and s.

    Args:
        virtual_logit_cap: the extra logit is clamped to 1e-10 .. cap, > 0, with no gradient outside; None: no clamp;
            "auto": 15, but no clamp with ``normalized``, where the logit never exceeds s.
        normalized: whether embeddings and prototypes are normalised.
        scale: s > 0 of the normalised logits; None is 32. Without ``normalized`` there is none.
    """

    hardest_use = "value"
    supports_margin_warmup = True

    def __init__(self, virtual_logit_cap: Cap = "auto", normalized: bool = False, scale: float | None = None) -> None:
        super().__init__()
        name = type(self).__name__.lower()
        if virtual_logit_cap == "auto":
            virtual_logit_cap = None if normalized else _CAP
        if virtual_logit_cap is not None and not virtual_logit_cap > _SMALLEST_LOGIT:
            raise ValueError(
                f"{name}: virtual_logit_cap must be > 0, None for no cap, or 'auto', got {virtual_logit_cap}"
            )
        if scale is not None and not (normalized and scale > 0):
            raise ValueError(f"{name}: scale must be > 0 and goes with normalized=True, got {scale}")
        self.virtual_logit_cap = virtual_logit_cap
        self.normalize_embeddings = self.normalize_prototypes = self.normalized = normalized
        self.scale = (_SCALE if scale is None else scale) if normalized else 1.0

    def extra_logit(self, stats: ClassStatistics) -> Tensor:
        """(N,) logit of the virtual class."""
        return self._cap(self._length(stats))

    def loss(self, stats: ClassStatistics) -> Tensor:
        """(N,) losses; margin_factor f gives the virtual class the weight f, so that f = 0 is plain softmax."""
        extra = self.extra_logit(stats) + stats.margin_factor.log()
        return softmax_loss(self.target_logit(stats), stats.log_sum, extra)

    def _length(self, stats: SampleStatistics) -> Tensor:
        """(N,) logit of a prototype along the embedding, before the cap."""
        if self.normalized:
            return torch.full_like(stats.target, self.scale)
        return stats.prototype_norm * stats.embedding_norm

    def _cap(self, logit: Tensor) -> Tensor:
        return logit if self.virtual_logit_cap is None else logit.clamp(_SMALLEST_LOGIT, self.virtual_logit_cap)


class SVSoftmax(VirtualSoftmax):
    """Virtual Softmax whose virtual prototype is synthesised from embedding and prototype once a sample is right.

    With h = m x/||x|| - (1 - m) w_y/||w_y||, the extra logit is ||w_y|| <h/||h||, x> where <w_y, x> is at least
    the hardest non-target, else ||w_y|| ||x||. In closed form, c = cos(theta_y):

        ||w_y|| ||x|| (m - (1 - m) c) / sqrt(m^2 + (1 - m)^2 - 2 m (1 - m) c)

    Source: J. Chen, X. Huang and S. Zhang, "Large-margin Softmax loss using synthetic virtual class", Neural Networks
    193 (2026) 108068; both logits are clamped as in its authors' code. At m = 0.5 and c = 1 the formula is singular
    (h = 0): the squared norm of h is bounded below by 1e-12 there, which makes the extra logit 0.

    Args:
        margin: m in 0 .. 1. m = 1 is Virtual Softmax; a smaller m is content with a larger angle: uncapped, the extra
            logit exceeds the target's until cos(theta_y) = m / (2 (1 - m)), 41.4 degrees for 0.6, 60 for 0.5.
        virtual_logit_cap: see VirtualSoftmax. The authors' code uses 50 for MNIST and CIFAR-10 and 15 elsewhere.
        normalized: see VirtualSoftmax.
        scale: see VirtualSoftmax.
    """

    def __init__(
        self, margin: float = 0.6, virtual_logit_cap: Cap = "auto", normalized: bool = False,
        scale: float | None = None,
    ) -> None:  # fmt: skip
        super().__init__(virtual_logit_cap, normalized, scale)
        if not 0 <= margin <= 1:
            raise ValueError(f"svsoftmax: margin must lie in 0 .. 1, got {margin}")
        self.margin = margin

    def synthetic_logit(self, stats: SampleStatistics) -> Tensor:
        """(N,) logit of the synthetic prototype, before the cap."""
        m, rest = self.margin, 1 - self.margin
        length = self._length(stats)
        cosine = (self.target_logit(stats) / length.clamp_min(_SMALLEST_NORM)).clamp(-1, 1)
        squared_norm = m * m + rest * rest - 2 * m * rest * cosine
        return length * (m - rest * cosine) / squared_norm.clamp_min(_SMALLEST_NORM).sqrt()

    def extra_logit(self, stats: ClassStatistics) -> Tensor:
        """(N,) logit of the virtual class: synthetic where the sample is classified right, else along x."""
        is_right = stats.target >= stats.hardest
        return self._cap(torch.where(is_right, self.synthetic_logit(stats), self._length(stats)))
