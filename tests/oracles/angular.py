"""Oracles of the heads with a margin on the target's angle or cosine, written from their papers."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tests.oracles.dense import Dense, cross_entropy


def normface(batch: Dense, scale: float = 64.0) -> Tensor:
    """Cross entropy of scaled cosines (Wang et al., NormFace, ACM MM 2017; ArcFace eq. 2)."""
    return combined(batch, scale, 1.0, 0.0, 0.0)


def cosface(batch: Dense, scale: float = 64.0, margin: float = 0.4) -> Tensor:
    """Target logit s (cos theta_y - m) (Wang et al., CosFace, CVPR 2018, eq. 4)."""
    logits = scale * batch.cosines
    return cross_entropy(batch, batch.own(logits) - scale * margin * batch.margin_factor, logits)


def arcface(batch: Dense, scale: float = 64.0, margin: float = 0.5) -> Tensor:
    """Target logit s cos(theta_y + m), continued past pi (Deng et al., ArcFace, CVPR 2019, eq. 3)."""
    return combined(batch, scale, 1.0, margin, 0.0)


def combined(batch: Dense, scale: float = 64.0, m1: float = 1.0, m2: float = 0.0, m3: float = 0.0) -> Tensor:
    """Target logit s (cos(m1 theta_y + m2) - m3) (ArcFace eq. 4).

    Past pi, which ArcFace leaves open, it continues as (-1)^k cos(phi) - 2k on [k pi, (k+1) pi], continuous and falling
    with theta: the psi of Liu et al., L-Softmax, ICML 2016. Autograd's derivative here is the exact one, and infinite
    where the cosine is exactly +-1.
    """
    factor = batch.margin_factor
    cosines = batch.cosines
    phi = (1 + (m1 - 1) * factor) * batch.own(cosines).clamp(-1, 1).acos() + m2 * factor
    k = torch.floor(phi.detach() / math.pi)
    psi = torch.where(k % 2 == 0, 1.0, -1.0) * phi.cos() - 2 * k
    return cross_entropy(batch, scale * (psi - m3 * factor), scale * cosines)


ORACLES = {"normface": normface, "cosface": cosface, "arcface": arcface, "combined": combined}
