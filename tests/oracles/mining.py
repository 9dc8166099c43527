"""Oracles of the heads that weigh hard non-targets more, written from their papers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tests.oracles.adaptive import falling_cosine, own_angle
from tests.oracles.dense import Dense, cross_entropy


def curricularface_state(batch: Dense, momentum: float = 0.01, **_: Any) -> dict[str, Tensor]:
    """The running mean of the target's cosine, this batch's with the momentum as its weight."""
    mean_cosine = batch.own(batch.cosines.detach()).mean()
    return {"mean_cosine": momentum * mean_cosine + (1 - momentum) * batch.state["mean_cosine"].double()}


def curricularface(batch: Dense, scale: float = 64.0, margin: float = 0.5, momentum: float = 0.01) -> Tensor:
    """Target logit s T, T = cos(theta_y + m) continued past pi; a hard non-target's is s cos_j (t + cos_j).

    Hard is cos_j > T. t is the running mean of the target's cosine (no margin in it), a constant to the gradient, and
    takes in this batch before it is used, as in the authors' code (Huang et al., "CurricularFace: Adaptive Curriculum
    Learning Loss for Deep Face Recognition", CVPR 2020). The hard logit's own cosines are differentiated, both of them.
    """
    cosines = batch.cosines
    t = curricularface_state(batch, momentum)["mean_cosine"]
    target = falling_cosine(own_angle(batch) + batch.margin_factor * margin)
    is_hard = cosines > target[:, None]
    modulated = torch.where(is_hard, cosines * (t + cosines), cosines)
    return cross_entropy(batch, scale * target, scale * modulated)


def _mv_softmax(batch: Dense, scale: float, target: Tensor, hard_weight: float) -> Tensor:
    """Non-targets above the target's f(m, theta_y) become w cos_j + w - 1, the adaptive form: (1 + t) cos_j + t.

    Wang et al., "Mis-classified Vector Guided Softmax Loss for Face Recognition", AAAI 2020; w = 1 + t.
    """
    cosines = batch.cosines
    is_hard = cosines > target[:, None]
    emphasised = torch.where(is_hard, hard_weight * cosines + (hard_weight - 1), cosines)
    return cross_entropy(batch, scale * target, scale * emphasised)


def mv_arc(batch: Dense, scale: float = 32.0, margin: float = 0.5, hard_weight: float = 1.2) -> Tensor:
    """MV-Softmax with ArcFace's target, f = cos(theta_y + m) continued past pi."""
    return _mv_softmax(batch, scale, falling_cosine(own_angle(batch) + batch.margin_factor * margin), hard_weight)


def mv_am(batch: Dense, scale: float = 32.0, margin: float = 0.35, hard_weight: float = 1.2) -> Tensor:
    """MV-Softmax with CosFace's target, f = cos theta_y - m."""
    return _mv_softmax(batch, scale, batch.own(batch.cosines) - batch.margin_factor * margin, hard_weight)


def circle(batch: Dense, scale: float = 256.0, margin: float = 0.25) -> Tensor:
    """Logits s alpha (cos - Delta): alpha_p = [1 + m - cos_y]+, Delta_p = 1 - m; alpha_n = [cos_j + m]+, Delta_n = m.

    Sun et al., "Circle Loss: A Unified Perspective of Pair Similarity Optimization", CVPR 2020, for class labels, where
    log(1 + sum_n exp(s alpha_n (s_n - Delta_n)) sum_p exp(-s alpha_p (s_p - Delta_p))) has one positive: a cross
    entropy. The alphas weigh the gradient and get none.
    """
    cosines = batch.cosines
    alpha_p = (1 + margin - cosines.detach()).clamp_min(0)
    alpha_n = (cosines.detach() + margin).clamp_min(0)
    target_logit = batch.own(scale * alpha_p * (cosines - (1 - margin)))
    return cross_entropy(batch, target_logit, scale * alpha_n * (cosines - margin))


ORACLES = {"curricularface": curricularface, "mv_arc": mv_arc, "mv_am": mv_am, "circle": circle}
STATES = {"curricularface": curricularface_state}
