"""Oracles of the heads with a margin on the target's angle or cosine, written from their papers."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tests.oracles.dense import Dense, cross_entropy


def psi(phi: Tensor) -> Tensor:
    """(-1)^k cos(phi) - 2k on [k pi, (k+1) pi]: continuous, falling with phi >= 0.

    Liu et al., L-Softmax, ICML 2016, for phi = m theta. Autograd's derivative here is the exact one, so it is infinite
    in the cosine where that is exactly +-1.
    """
    k = torch.floor(phi.detach() / math.pi)
    return torch.where(k % 2 == 0, 1.0, -1.0) * phi.cos() - 2 * k


def cosface(batch: Dense, scale: float = 64.0, margin: float = 0.4) -> Tensor:
    """Target logit s (cos theta_y - m) (Wang et al., CosFace, CVPR 2018, eq. 4)."""
    logits = scale * batch.cosines
    return cross_entropy(batch, batch.own(logits) - scale * margin * batch.margin_factor, logits)


def combined(
    batch: Dense, scale: float = 64.0, m1: float = 1.0, m2: float = 0.0, m3: float = 0.0, gradient: str = "exact"
) -> Tensor:
    """Target logit s (cos(m1 theta_y + m2) - m3) (ArcFace eq. 4), past pi continued as psi, which it leaves open."""
    return _with_margins(batch, scale, m1, m2, m3, gradient)


def arcface(batch: Dense, scale: float = 64.0, margin: float = 0.5, gradient: str = "exact") -> Tensor:
    """Target logit s cos(theta_y + m), continued past pi (Deng et al., ArcFace, CVPR 2019, eq. 3).

    "straight_through": arcface_torch writes the margin into the cosines under no_grad, so that its backward pass takes
    the target logit for s cos(theta_y).
    """
    return _with_margins(batch, scale, 1.0, margin, 0.0, gradient)


def sphereface(batch: Dense, scale: float = 30.0, margin: float = 1.5, gradient: str = "exact") -> Tensor:
    """Target logit s psi(m theta_y) (Liu et al., SphereFace, CVPR 2017, psi), on unit embeddings.

    "straight_through": the logit is cos + d, the difference d = psi(m theta) - cos detached, as in its authors' code.
    """
    return _with_margins(batch, scale, margin, 0.0, 0.0, gradient)


def subcenter_arcface(batch: Dense, scale: float = 64.0, margin: float = 0.5, sub_centers: int = 3) -> Tensor:
    """ArcFace on max_k cos(x, w_jk) (Deng et al., Sub-center ArcFace, ECCV 2020); `batch.cosines` takes the maximum."""
    assert batch.prototypes.ndim == (2 if sub_centers == 1 else 3)
    assert sub_centers == 1 or batch.prototypes.shape[1] == sub_centers
    return _with_margins(batch, scale, 1.0, margin, 0.0, "exact")


def _with_margins(batch: Dense, scale: float, m1: float, m2: float, m3: float, gradient: str) -> Tensor:
    factor = batch.margin_factor
    own = batch.own(batch.cosines)
    target = psi((1 + (m1 - 1) * factor) * own.clamp(-1, 1).acos() + m2 * factor) - m3 * factor
    if gradient == "straight_through":
        target = own + (target - own).detach()
    else:
        assert gradient == "exact"
    return cross_entropy(batch, scale * target, scale * batch.cosines)


ORACLES = {
    "cosface": cosface,
    "arcface": arcface,
    "combined": combined,
    "sphereface": sphereface,
    "subcenter_arcface": subcenter_arcface,
}
