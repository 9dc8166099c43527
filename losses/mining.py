"""Heads that weight non-targets by how hard they are: CurricularFace, MV-Softmax, Circle. Margins alone: elsewhere."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor

from losses.angular import MonotoneAngle
from losses.head import Head, SampleStatistics, move_running_


class _HardClasses(Head):
    """Heads whose non-targets are hard where their cosine exceeds the target's with the margin in it."""

    normalize_embeddings = True
    normalize_prototypes = True
    supports_margin_warmup = True
    largest_margin: ClassVar[float] = math.pi

    def __init__(self, name: str, scale: float, margin: float) -> None:
        super().__init__()
        if not scale > 0:
            raise ValueError(f"{name}: scale must be > 0, got {scale}")
        if not 0 <= margin <= self.largest_margin:
            raise ValueError(f"{name}: margin must lie in 0 .. {self.largest_margin:.4g}, got {margin}")
        self.scale, self.margin = scale, margin

    def margined_cosine(self, stats: SampleStatistics) -> Tensor:
        """(N,) cos(theta + f m) with f = margin_factor, monotone past pi."""
        margin = stats.margin_factor * self.margin
        psi: Tensor = MonotoneAngle.apply(stats.target, torch.ones_like(margin), margin)
        return psi

    def context(self, pre: SampleStatistics) -> tuple[Tensor, ...]:
        """((N,) threshold,): it decides which class is hard, which has no derivative."""
        return (self.margined_cosine(pre).detach(),)

    def target_logit(self, stats: SampleStatistics) -> Tensor:
        """(N,) s times the margined cosine."""
        return self.scale * self.margined_cosine(stats)


class CurricularFace(_HardClasses):
    """ArcFace's target; a hard non-target weighs (t + cos theta_j), more the further training is.

    Target logit s T, T = cos(theta_y + m). Non-targets: s cos theta_j where T >= cos theta_j, else
    s cos theta_j (t + cos theta_j), differentiated through both factors. t (``mean_cosine``) is the running mean of
    cos theta_y, from 0; every training pass updates it before it uses it, and it has no gradient.

    Source: Huang et al., "CurricularFace: Adaptive Curriculum Learning Loss for Deep Face Recognition", CVPR 2020;
    the batch's weight of 0.01 and the order from the authors' code (github.com/HuangYG123/CurricularFace,
    head/metrics.py). Differs: theta + m continues monotonically past pi, in the target and in the threshold, where
    their code takes cos(theta) - m sin(m) for the one and the rising cosine for the other. The mean is that of the
    global batch, padding left out, where they take one GPU's.

    Args:
        scale: s > 0.
        margin: m, radians, 0 .. pi.
        momentum: weight of the new batch in t, 0 .. 1.

    Raises:
        ValueError: an argument out of its range.
    """

    mean_cosine: Tensor

    def __init__(self, scale: float = 64.0, margin: float = 0.5, momentum: float = 0.01) -> None:
        super().__init__("curricularface", scale, margin)
        if not 0 <= momentum <= 1:
            raise ValueError(f"curricularface: momentum (weight of the new batch) must lie in 0 .. 1, got {momentum}")
        self.momentum = momentum
        self.register_buffer("mean_cosine", torch.tensor(0.0))

    def update(self, pre: SampleStatistics) -> None:
        """Moves t towards the mean target cosine of the batch's real samples."""
        mean = (pre.target * pre.weight).sum()
        move_running_(self.mean_cosine, mean, self.momentum)

    def context(self, pre: SampleStatistics) -> tuple[Tensor, ...]:
        """((N,) threshold, 0-dim t)."""
        # a copy: the next forward pass writes the buffer, and this pass's backward still needs its value
        return (*super().context(pre), self.mean_cosine.to(pre.target.dtype, copy=True))

    def non_target(self, similarity: Tensor, *context: Tensor) -> Tensor:
        """(N, chunk) s cos theta_j, times (t + cos theta_j) where the class is hard."""
        threshold, mean_cosine = context
        hard = similarity * (mean_cosine + similarity)
        return self.scale * torch.where(similarity > threshold, hard, similarity)


class _MVSoftmax(_HardClasses):
    """What both have in common: the logit of a hard non-target."""

    def __init__(self, name: str, scale: float, margin: float, hard_weight: float) -> None:
        super().__init__(name, scale, margin)
        if not 1 <= hard_weight < math.inf:
            raise ValueError(f"{name}: hard_weight must be >= 1, got {hard_weight}")
        self.hard_weight = hard_weight

    def non_target(self, similarity: Tensor, *context: Tensor) -> Tensor:
        """(N, chunk) s cos theta_j, or s (w cos theta_j + w - 1) where the class is hard."""
        (threshold,) = context
        hard = self.hard_weight * similarity + (self.hard_weight - 1)
        return self.scale * torch.where(similarity > threshold, hard, similarity)


class MVArc(_MVSoftmax):
    """ArcFace's target; the logits of the non-targets that beat it are raised.

    Target logit s T, T = cos(theta_y + m). Non-targets: s cos theta_j where T >= cos theta_j, else
    s (w cos theta_j + w - 1); in the paper's words w - 1 is t, and the term of a hard class is multiplied by
    exp(s t (cos theta_j + 1)).

    Source: Wang et al., "Mis-classified Vector Guided Softmax Loss for Face Recognition", AAAI 2020 (the adaptive
    re-weighting); scale and t = 0.2 from the authors' code (github.com/xiaoboCASIA/SV-X-Softmax, fc_layers.py),
    which has one default margin, 0.35, set for the cosine variant; 0.5 is ArcFace's. Differs: theta + m continues
    monotonically past pi in target and threshold, and there is no ``easy_margin``, with which their code drops the
    margin of targets beyond 90 degrees.

    Args:
        scale: s > 0.
        margin: m, radians, 0 .. pi.
        hard_weight: w >= 1; 1 is ArcFace.

    Raises:
        ValueError: an argument out of its range.
    """

    def __init__(self, scale: float = 32.0, margin: float = 0.5, hard_weight: float = 1.2) -> None:
        super().__init__("mv_arc", scale, margin, hard_weight)


class MVAM(_MVSoftmax):
    """CosFace's target; the logits of the non-targets that beat it are raised.

    As MVArc with T = cos(theta_y) - m.

    Source: as MVArc; the margin too is from that code. Differs: no ``easy_margin``, see MVArc.

    Args:
        scale: s > 0.
        margin: m, in cosine, 0 .. 2.
        hard_weight: w >= 1; 1 is CosFace.

    Raises:
        ValueError: an argument out of its range.
    """

    largest_margin = 2.0

    def __init__(self, scale: float = 32.0, margin: float = 0.35, hard_weight: float = 1.2) -> None:
        super().__init__("mv_am", scale, margin, hard_weight)

    def margined_cosine(self, stats: SampleStatistics) -> Tensor:
        """(N,) cos(theta) - f m with f = margin_factor."""
        return stats.target - stats.margin_factor * self.margin


class Circle(Head):
    """Circle loss with class-level labels: every similarity pulls in proportion to its distance from its optimum.

    Target logit s a_p (cos theta_y - (1 - m)) with a_p = [1 + m - cos theta_y]_+; non-targets
    s a_n (cos theta_j - m) with a_n = [cos theta_j + m]_+. Neither a_p nor a_n is differentiated: they are weights.

    Source: Sun et al., "Circle Loss: A Unified Perspective of Pair Similarity Optimization", CVPR 2020, the case of
    class-level labels with its optima and margins expressed by one m; defaults and the detached weights as in
    FaceX-Zoo (github.com/JDAI-CV/FaceX-Zoo, head/CircleLoss.py).

    Args:
        scale: s > 0 (gamma in the paper).
        margin: m, -1 .. 1 exclusive; the smaller, the closer both similarities are driven to 1 and 0.

    Raises:
        ValueError: an argument out of its range.
    """

    normalize_embeddings = True
    normalize_prototypes = True

    def __init__(self, scale: float = 256.0, margin: float = 0.25) -> None:
        super().__init__()
        if not scale > 0:
            raise ValueError(f"circle: scale must be > 0, got {scale}")
        if not -1 < margin < 1:
            raise ValueError(f"circle: margin must lie between -1 and 1, got {margin}")
        self.scale, self.margin = scale, margin

    def target_logit(self, stats: SampleStatistics) -> Tensor:
        """(N,) s a_p (cos theta_y - (1 - m))."""
        weight = (1 + self.margin - stats.target.detach()).clamp_min(0)
        return self.scale * weight * (stats.target - (1 - self.margin))

    def non_target(self, similarity: Tensor, *context: Tensor) -> Tensor:
        """(N, chunk) s a_n (cos theta_j - m)."""
        del context
        weight = (similarity.detach() + self.margin).clamp_min(0)
        return self.scale * weight * (similarity - self.margin)
