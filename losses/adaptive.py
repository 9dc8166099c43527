"""Margins that differ by sample: AdaFace, MagFace, ElasticFace. No weighting of the non-targets (mining.py)."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor

from losses.angular import MonotoneAngle
from losses.head import ClassStatistics, Head, SampleStatistics, move_running_

_SMALLEST_ANGLE = 1e-3  # of AdaFace


def _added_angle(cosine: Tensor, margin: Tensor) -> Tensor:
    """cos(theta + margin), monotone outside 0 .. pi; (N,) cosines, margins (N,) or 0-dim that get no gradient."""
    psi: Tensor = MonotoneAngle.apply(cosine, torch.ones_like(margin), margin)
    return psi


def _theta(cosine: Tensor) -> Tensor:
    """Angles of (N,) cosines in radians, as numbers without gradient; a cosine past +-1 by rounding is 0 or pi."""
    cosine = cosine.detach()
    return torch.atan2(((1 - cosine) * (1 + cosine)).clamp_min(0).sqrt(), cosine)


def _safe_norms(stats: SampleStatistics) -> Tensor:
    return stats.embedding_norm.detach().clamp(0.001, 100)


class AdaFace(Head):
    """Target logit s (cos(theta + g_angle) - g_add), whose margins follow the image quality that ||x|| stands for.

    z = clip(h (||x|| - mean) / (std + 1e-3), -1, 1), g_angle = -m z, g_add = m z + m, all without gradient: z = -1 is
    ArcFace's margin m, z = 0 CosFace's, z = 1 takes 2 m off the cosine and m off the angle. Mean and standard
    deviation of ||x|| are running ones, and every training pass updates them before it uses them.

    Source: Kim, Jain, Liu, "AdaFace: Quality Adaptive Margin for Face Recognition", CVPR 2022, the section on the
    adaptive margin; from the authors' code (github.com/mk-minchul/AdaFace, head.py): norms are clamped to 0.001 .. 100,
    1e-3 is added to the standard deviation, the running values start at 20 and 100 and take 0.01 of every batch
    (``t_alpha``), and theta + g_angle is clipped below at 1e-3, so that an easy sample of high quality has no gradient
    from its target. Differs: past pi the angle continues monotonically (their code clips there too) and cosines are not
    clamped to +-0.999. The statistics are those of the global batch, padding left out; a single sample, whose deviation
    is undefined, leaves ``norm_std`` as it is.

    Args:
        scale: s > 0.
        margin: m, radians and cosine at once, 0 .. pi.
        h: > 0; how far one standard deviation moves z.
        momentum: weight of the new batch in the running statistics, 0 .. 1.

    Raises:
        ValueError: an argument out of its range.
    """

    normalize_embeddings = True
    normalize_prototypes = True
    supports_margin_warmup = True
    norm_mean: Tensor
    norm_std: Tensor

    def __init__(self, scale: float = 64.0, margin: float = 0.4, h: float = 0.333, momentum: float = 0.01) -> None:
        super().__init__()
        if not scale > 0:
            raise ValueError(f"adaface: scale must be > 0, got {scale}")
        if not 0 <= margin <= math.pi:
            raise ValueError(f"adaface: margin must lie in 0 .. pi, got {margin}")
        if not h > 0:
            raise ValueError(f"adaface: h must be > 0, got {h}")
        if not 0 <= momentum <= 1:
            raise ValueError(f"adaface: momentum (weight of the new batch) must lie in 0 .. 1, got {momentum}")
        self.scale, self.margin, self.h, self.momentum = scale, margin, h, momentum
        self.register_buffer("norm_mean", torch.tensor(20.0))
        self.register_buffer("norm_std", torch.tensor(100.0))

    def update(self, pre: SampleStatistics) -> None:
        """Moves the running mean and (unbiased) standard deviation of the norms towards those of the batch."""
        is_real = pre.weight > 0
        count = is_real.sum()
        norms = torch.where(is_real, _safe_norms(pre), 0)
        mean = norms.sum() / count.clamp_min(1)
        variance = torch.where(is_real, norms - mean, 0).square().sum() / (count - 1).clamp_min(1)
        for running, new, least in ((self.norm_mean, mean, 1), (self.norm_std, variance.sqrt(), 2)):
            move_running_(running, torch.where(count >= least, new, math.nan), self.momentum)

    def quality(self, stats: SampleStatistics) -> Tensor:
        """z of every sample, (N,) in -1 .. 1, without gradient."""
        mean, std = self.norm_mean.to(stats.target.dtype), self.norm_std.to(stats.target.dtype)
        return (self.h * (_safe_norms(stats) - mean) / (std + 1e-3)).clamp(-1, 1)

    def target_logit(self, stats: SampleStatistics) -> Tensor:
        """(N,) s (cos(max(theta - f m z, 1e-3)) - f (m z + m)) with f = margin_factor."""
        margin = stats.margin_factor * self.margin
        shift = margin * self.quality(stats)
        is_clipped = _theta(stats.target) - shift < _SMALLEST_ANGLE
        psi = torch.where(is_clipped, math.cos(_SMALLEST_ANGLE), _added_angle(stats.target, -shift))
        return self.scale * (psi - (shift + margin))


class MagFace(Head):
    """Target logit s cos(theta + m(a)) with a margin that grows with a = ||x||, plus a regulariser that makes a grow.

    m(a) = lower_margin + (upper_margin - lower_margin) (a - lower_norm) / (upper_norm - lower_norm) and
    g(a) = 1 / a + a / upper_norm^2, which falls until upper_norm; loss = cross entropy + norm_weight g(a) for every
    sample. Both are differentiated through a, so that easy samples get long embeddings and hard ones short ones.

    Source: Meng et al., "MagFace: A Universal Representation for Face Recognition and Quality Assessment", CVPR 2021;
    values of the authors' run script (github.com/IrvingMeng/MagFace, run/run.sh), and from their code: a is clamped
    to lower_norm .. upper_norm in both terms, without gradient outside. Their trainer takes for feasible
    norm_weight >= s k u^2 l^2 / (u^2 - l^2), k the slope of m, u and l the norms (22.6 at the defaults). Differs:
    theta + m(a) continues monotonically past pi, where their code drops the margin of every sample beyond 90 degrees
    (``easy_margin``).

    Args:
        scale: s > 0.
        lower_norm: > 0, the smallest norm that is told apart.
        upper_norm: > lower_norm, the largest.
        lower_margin: margin at lower_norm, radians, >= 0.
        upper_margin: margin at upper_norm, radians, lower_margin .. pi.
        norm_weight: weight of g, >= 0 (lambda_g).

    Raises:
        ValueError: an argument out of its range.
    """

    normalize_embeddings = True
    normalize_prototypes = True
    hardest_use = "value"
    supports_margin_warmup = True

    def __init__(
        self,
        scale: float = 64.0,
        lower_norm: float = 10.0,
        upper_norm: float = 110.0,
        lower_margin: float = 0.45,
        upper_margin: float = 0.8,
        norm_weight: float = 35.0,
    ) -> None:
        super().__init__()
        if not scale > 0:
            raise ValueError(f"magface: scale must be > 0, got {scale}")
        if not 0 < lower_norm < upper_norm < math.inf:
            raise ValueError(f"magface: norms must be 0 < lower < upper, got {lower_norm} and {upper_norm}")
        if not 0 <= lower_margin <= upper_margin <= math.pi:
            raise ValueError(f"magface: margins must be 0 <= lower <= upper <= pi, got {lower_margin}, {upper_margin}")
        if not norm_weight >= 0:
            raise ValueError(f"magface: norm_weight must be >= 0, got {norm_weight}")
        self.scale, self.norm_weight = scale, norm_weight
        self.lower_norm, self.upper_norm = lower_norm, upper_norm
        self.lower_margin, self.upper_margin = lower_margin, upper_margin

    def _norm(self, stats: SampleStatistics) -> Tensor:
        return stats.embedding_norm.clamp(self.lower_norm, self.upper_norm)

    def margin(self, stats: SampleStatistics) -> Tensor:
        """m(a) of every sample, (N,) radians, differentiable."""
        slope = (self.upper_margin - self.lower_margin) / (self.upper_norm - self.lower_norm)
        return self.lower_margin + slope * (self._norm(stats) - self.lower_norm)

    def target_logit(self, stats: SampleStatistics) -> Tensor:
        """(N,) s cos(theta + f m(a)) with f = margin_factor."""
        margin = stats.margin_factor * self.margin(stats)
        fixed = margin.detach()
        phi = _theta(stats.target) + fixed
        slope = (2 * (phi / math.pi).floor().remainder(2) - 1) * phi.sin()
        # the last term is 0 and brings the derivative by the margin, which MonotoneAngle does not give; it is bounded
        # by 1, so nothing of it needs clamping where the cosine is +-1
        return self.scale * (_added_angle(stats.target, fixed) + slope * (margin - fixed))

    def loss(self, stats: ClassStatistics) -> Tensor:
        """(N,) cross entropy + norm_weight g(a); the regulariser does not warm up."""
        norm = self._norm(stats)
        return super().loss(stats) + self.norm_weight * (1 / norm + norm / self.upper_norm**2)


class _ElasticFace(Head):
    """What both have in common: a margin of its own for every sample and step, from N(margin, std^2)."""

    normalize_embeddings = True
    normalize_prototypes = True
    supports_margin_warmup = True
    largest_margin: ClassVar[float] = math.pi

    def __init__(self, name: str, scale: float, margin: float, std: float) -> None:
        super().__init__()
        if not scale > 0:
            raise ValueError(f"{name}: scale must be > 0, got {scale}")
        if not 0 <= margin <= self.largest_margin:
            raise ValueError(f"{name}: margin must lie in 0 .. {self.largest_margin:.4g}, got {margin}")
        if not 0 <= std < math.inf:
            raise ValueError(f"{name}: std (of the margin) must be >= 0, got {std}")
        self.scale, self.margin, self.std = scale, margin, std

    def drawn_margin(self, stats: SampleStatistics) -> Tensor:
        """f (m + std noise), (N,)."""
        return stats.margin_factor * (self.margin + self.std * stats.noise.to(stats.target.dtype))


class ElasticFaceArc(_ElasticFace):
    """Target logit s cos(theta + E) with E drawn from N(m, std^2), anew for every sample and step.

    Source: Boutros et al., "ElasticFace: Elastic Margin Loss for Deep Face Recognition", CVPR Workshops 2022; values of
    the authors' config (github.com/fdbtrs/ElasticFace, config/config.py). Differs: theta + E continues monotonically
    outside 0 .. pi. The "+" variant, which sorts the drawn margins by the cosines of the batch, is not here.

    Args:
        scale: s > 0.
        margin: m, mean of the margin, radians, 0 .. pi.
        std: standard deviation of the margin, radians, >= 0; 0 is ArcFace.

    Raises:
        ValueError: an argument out of its range.
    """

    def __init__(self, scale: float = 64.0, margin: float = 0.5, std: float = 0.05) -> None:
        super().__init__("elasticface_arc", scale, margin, std)

    def target_logit(self, stats: SampleStatistics) -> Tensor:
        """(N,) s cos(theta + f (m + std noise)) with f = margin_factor."""
        return self.scale * _added_angle(stats.target, self.drawn_margin(stats))


class ElasticFaceCos(_ElasticFace):
    """Target logit s (cos(theta) - E) with E drawn from N(m, std^2), anew for every sample and step.

    Source: as ElasticFaceArc. Differs: the "+" variant is not here.

    Args:
        scale: s > 0.
        margin: m, mean of the margin, in cosine, 0 .. 2.
        std: standard deviation of the margin, >= 0; 0 is CosFace.

    Raises:
        ValueError: an argument out of its range.
    """

    largest_margin = 2.0

    def __init__(self, scale: float = 64.0, margin: float = 0.35, std: float = 0.05) -> None:
        super().__init__("elasticface_cos", scale, margin, std)

    def target_logit(self, stats: SampleStatistics) -> Tensor:
        """(N,) s (cos(theta) - f (m + std noise)) with f = margin_factor."""
        return self.scale * (stats.target - self.drawn_margin(stats))
