"""Margins on the angle or cosine of the target: CosFace, ArcFace and their combination."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from losses.head import ClassStatistics, Head, softmax_loss

_LARGEST_COSINE = 1 - 1e-7  # the next float32 below 1 that keeps 1 - cos^2 away from 0


class MonotoneAngle(torch.autograd.Function):
    """psi(cos theta) = (-1)^k cos(phi) - 2 k with phi = m1 theta + m2 and k = floor(phi / pi).

    psi falls over the whole range of theta, where cos(phi) alone would rise again past pi and reward a worse
    angle. In float32 one in six cosines of x = 3 w exceeds 1 by rounding, so theta is atan2 of a clamped sine, never
    acos. The derivative m1 (-1)^k sin(phi) / sin(theta) has poles at cos theta = +-1; it is taken at
    |cos theta| <= 1 - 1e-7, which bounds it by about 2236 m1.
    """

    @staticmethod
    def forward(ctx: Any, cosine: Tensor, angle_factor: Tensor, angle_margin: Tensor) -> Tensor:
        """(N,) cosines and 0-dim m1, m2 (radians) -> (N,) psi."""
        ctx.save_for_backward(cosine, angle_factor, angle_margin)
        sine = ((1 - cosine) * (1 + cosine)).clamp_min(0).sqrt()
        phi = angle_factor * torch.atan2(sine, cosine) + angle_margin
        turns = (phi / math.pi).floor()
        return (1 - 2 * turns.remainder(2)) * phi.cos() - 2 * turns

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        """Gradient for the cosine only: margins are not learned."""
        cosine, angle_factor, angle_margin = ctx.saved_tensors
        clamped = cosine.clamp(-_LARGEST_COSINE, _LARGEST_COSINE)
        sine = ((1 - clamped) * (1 + clamped)).sqrt()
        phi = angle_factor * torch.atan2(sine, clamped) + angle_margin
        turns = (phi / math.pi).floor()
        slope = angle_factor * (1 - 2 * turns.remainder(2)) * phi.sin() / sine
        return grads[0] * slope, None, None


class Combined(Head):
    """Target logit s (psi(m1 theta + m2) - m3): SphereFace's, ArcFace's and CosFace's margins in one formula.

    Source: Deng et al., "ArcFace: Additive Angular Margin Loss for Deep Face Recognition", CVPR 2019, the section
    that combines multiplicative angular, additive angular and additive cosine margins in one framework. Differs: psi is
    continued monotonically past pi (see MonotoneAngle), and its gradient is exact.

    Args:
        scale: s > 0.
        m1: factor of the angle, >= 1.
        m2: angle added, radians, 0 .. pi.
        m3: cosine subtracted, >= 0.
    """

    normalize_embeddings = True
    normalize_prototypes = True
    hardest_use = "value"
    supports_margin_warmup = True

    def __init__(self, scale: float = 64.0, m1: float = 1.0, m2: float = 0.0, m3: float = 0.0) -> None:
        super().__init__()
        name = type(self).__name__.lower()
        if not scale > 0:
            raise ValueError(f"{name}: scale must be > 0, got {scale}")
        if not m1 >= 1:
            raise ValueError(f"{name}: m1 (factor of the angle) must be >= 1, got {m1}")
        if not 0 <= m2 <= math.pi:
            raise ValueError(f"{name}: the angular margin (radians) must lie in 0 .. pi, got {m2}")
        if not m3 >= 0:
            raise ValueError(f"{name}: the cosine margin must be >= 0, got {m3}")
        self.scale, self.m1, self.m2, self.m3 = scale, m1, m2, m3

    def loss(self, stats: ClassStatistics) -> Tensor:
        """(N,) cross entropy with the margins on the target; margin_factor f uses 1 + f (m1 - 1), f m2 and f m3."""
        factor = stats.margin_factor
        psi = stats.target
        if self.m1 != 1 or self.m2 != 0:
            psi = MonotoneAngle.apply(stats.target, 1 + factor * (self.m1 - 1), factor * self.m2)
        return softmax_loss(self.scale * (psi - factor * self.m3), stats.log_sum)


class ArcFace(Combined):
    """Target logit s cos(theta + m), monotone past pi, with its exact gradient s sin(theta + m) / sin(theta).

    Source: Deng et al., "ArcFace: Additive Angular Margin Loss for Deep Face Recognition", CVPR 2019, eq. 3.

    Args:
        scale: s > 0.
        margin: m, radians, 0 .. pi.
    """

    def __init__(self, scale: float = 64.0, margin: float = 0.5) -> None:
        super().__init__(scale=scale, m2=margin)


class CosFace(Combined):
    """Target logit s (cos(theta) - m).

    Source: Wang et al., "CosFace: Large Margin Cosine Loss for Deep Face Recognition", CVPR 2018, eq. 4.

    Args:
        scale: s > 0.
        margin: m >= 0, in cosine.
    """

    def __init__(self, scale: float = 64.0, margin: float = 0.4) -> None:
        super().__init__(scale=scale, m3=margin)
