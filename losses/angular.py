"""Margins on the angle or cosine of the target: CosFace, ArcFace, SphereFace, sub-centre ArcFace, combinations."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor

from losses.head import Head, SampleStatistics

_LARGEST_COSINE = 1 - 1e-7  # rounds to two float32 steps below 1, which keeps 1 - cos^2 away from 0


class MonotoneAngle(torch.autograd.Function):
    """psi(cos theta) = (-1)^k cos(phi) - 2 k with phi = m1 theta + m2 and k = floor(phi / pi).

    psi falls over the whole range of theta, where cos(phi) alone would rise again past pi and reward a worse
    angle. In float32 one in five or six cosines of x = 3 w exceeds 1 by rounding, so theta is atan2 of a clamped
    sine, never acos. The derivative m1 (-1)^k sin(phi) / sin(theta) has poles at cos theta = +-1; it is taken at
    |cos theta| <= 1 - 1e-7, which bounds it by about 2236 m1 (2048 m1 in float32).
    """

    @staticmethod
    def forward(ctx: Any, cosine: Tensor, angle_factor: Tensor, angle_margin: Tensor) -> Tensor:
        """(N,) cosines, m1 and m2 (radians), each 0-dim or (N,) -> (N,) psi."""
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
    continued monotonically past pi (see MonotoneAngle), and its gradient is exact unless asked otherwise.

    Args:
        scale: s > 0.
        m1: factor of the angle, >= 1.
        m2: angle added, radians, 0 .. pi.
        m3: cosine subtracted, >= 0.
        gradient: "exact", or "straight_through": d psi / d cos(theta) is taken as 1, as in implementations that
            compute the margin without gradients.
    """

    normalize_embeddings = True
    normalize_prototypes = True
    supports_margin_warmup = True

    def __init__(
        self, scale: float = 64.0, m1: float = 1.0, m2: float = 0.0, m3: float = 0.0,
        gradient: Literal["exact", "straight_through"] = "exact",
    ) -> None:  # fmt: skip
        super().__init__()
        name = type(self).__name__.lower()
        if not scale > 0:
            raise ValueError(f"{name}: scale must be > 0, got {scale}")
        if not m1 >= 1:
            raise ValueError(f"{name}: the factor of the angle must be >= 1, got {m1}")
        if not 0 <= m2 <= math.pi:
            raise ValueError(f"{name}: the angular margin (radians) must lie in 0 .. pi, got {m2}")
        if not m3 >= 0:
            raise ValueError(f"{name}: the cosine margin must be >= 0, got {m3}")
        if gradient not in ("exact", "straight_through"):
            raise ValueError(f"{name}: gradient must be 'exact' or 'straight_through', got {gradient!r}")
        self.scale, self.m1, self.m2, self.m3, self.gradient = scale, m1, m2, m3, gradient

    def target_logit(self, stats: SampleStatistics) -> Tensor:
        """(N,) logit with the margins; margin_factor f uses 1 + f (m1 - 1), f m2 and f m3."""
        factor, psi = stats.margin_factor, stats.target
        if self.m1 != 1 or self.m2 != 0:
            psi = MonotoneAngle.apply(stats.target, 1 + factor * (self.m1 - 1), factor * self.m2)
        if self.gradient == "straight_through":
            psi = stats.target + (psi - stats.target).detach()
        return self.scale * (psi - factor * self.m3)


class ArcFace(Combined):
    """Target logit s cos(theta + m), monotone past pi, with its exact gradient s sin(theta + m) / sin(theta).

    Source: Deng et al., "ArcFace: Additive Angular Margin Loss for Deep Face Recognition", CVPR 2019, eq. 3.

    Args:
        scale: s > 0.
        margin: m, radians, 0 .. pi.
        gradient: "exact", or "straight_through" for the gradient s of implementations that compute the margin without
            gradients (insightface's arcface_torch). They agree in value while theta + m <= pi; past it
            those let the logit rise again, ours keeps falling.
    """

    def __init__(
        self, scale: float = 64.0, margin: float = 0.5, gradient: Literal["exact", "straight_through"] = "exact"
    ) -> None:
        super().__init__(scale=scale, m2=margin, gradient=gradient)


class SubCenterArcFace(ArcFace):
    """ArcFace with K sub-centres per class: cos(theta_j) = max_k cos(w_jk, x), for the target and all others.

    Source: Deng et al., "Sub-center ArcFace: Boosting Face Recognition by Large-Scale Noisy Web Faces", ECCV 2020. The
    gradient goes to the best sub-centre alone. K = 1 is ArcFace. Prototypes and their optimizer state take K times the
    memory, the product over the classes K times the time.

    Args:
        scale: s > 0.
        margin: m, radians, 0 .. pi.
        sub_centers: K >= 1; the paper prefers 3.
    """

    def __init__(self, scale: float = 64.0, margin: float = 0.5, sub_centers: int = 3) -> None:
        super().__init__(scale=scale, margin=margin)
        if sub_centers < 1:
            raise ValueError(f"subcenter_arcface: sub_centers must be >= 1, got {sub_centers}")
        self.sub_centers = sub_centers


class SphereFace(Combined):
    """Target logit s psi(m theta), with embeddings and prototypes normalised.

    Source: the psi of Liu et al., "SphereFace: Deep Hypersphere Embedding for Face Recognition", CVPR 2017, on
    normalised embeddings as in Liu et al., "SphereFace Revived: Unifying Hyperspherical Face Recognition", TPAMI 2022.
    Differs: the latter proposes to detach the margin from the gradient; ours is exact unless asked otherwise. Its two
    new forms of the margin (SphereFace-R v1 and v2) are not here.

    Args:
        scale: s > 0.
        margin: m >= 1, real.
        gradient: "exact", or "straight_through" for the detached margin.
    """

    def __init__(
        self, scale: float = 30.0, margin: float = 1.5, gradient: Literal["exact", "straight_through"] = "exact"
    ) -> None:
        super().__init__(scale=scale, m1=margin, gradient=gradient)


class CosFace(Combined):
    """Target logit s (cos(theta) - m).

    Source: Wang et al., "CosFace: Large Margin Cosine Loss for Deep Face Recognition", CVPR 2018, eq. 4.

    Args:
        scale: s > 0.
        margin: m >= 0, in cosine.
    """

    def __init__(self, scale: float = 64.0, margin: float = 0.4) -> None:
        super().__init__(scale=scale, m3=margin)
