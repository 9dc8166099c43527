"""Oracles of the heads whose margin differs from sample to sample, written from their papers."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from tests.oracles.dense import Dense, cross_entropy

_ADAFACE_EPSILON = 1e-3  # keeps the angle off 0 and pi, and the spread of the norms off 0; from the authors' code


def own_angle(batch: Dense) -> Tensor:
    """(N,) theta_y in radians; its derivative is infinite where the cosine is exactly +-1."""
    return batch.own(batch.cosines).clamp(-1, 1).acos()


def falling_cosine(angle: Tensor) -> Tensor:
    """(-1)^k cos(angle) - 2k on [k pi, (k + 1) pi]: cos up to pi, then continuous and still falling.

    The psi of Liu et al., L-Softmax, ICML 2016. Differentiable in the angle, so in a margin that is part of it.
    """
    k = torch.floor(angle.detach() / math.pi)
    return torch.where(k % 2 == 0, 1.0, -1.0) * angle.cos() - 2 * k


def _adaface_norms(batch: Dense) -> Tensor:
    return batch.embeddings.detach().norm(dim=1).clamp(0.001, 100)


def adaface_state(batch: Dense, momentum: float = 0.01, **_: Any) -> dict[str, Tensor]:
    """Running mean and unbiased std of the norms, this batch's with weight t_alpha; one sample alone has no std."""
    norms, old = _adaface_norms(batch), {name: value.double() for name, value in batch.state.items()}
    mean = momentum * norms.mean() + (1 - momentum) * old["norm_mean"]
    if len(norms) == 1:
        return {"norm_mean": mean, "norm_std": old["norm_std"]}
    return {"norm_mean": mean, "norm_std": momentum * norms.std(unbiased=True) + (1 - momentum) * old["norm_std"]}


def adaface(batch: Dense, scale: float = 64.0, margin: float = 0.4, h: float = 0.333, momentum: float = 0.01) -> Tensor:
    """Target logit s (cos(theta_y + g_angle) - g_add), the margins set by the norm of the embedding.

    g_angle = -m z and g_add = m + m z, where z = clip(h (|x| - mean) / std, -1, 1) is a constant to the gradient (Kim,
    Jain, Liu, "AdaFace: Quality Adaptive Margin for Face Recognition", CVPR 2022, section on the adaptive margin).
    From the authors' code: norms clipped to [0.001, 100], + 1e-3 below the fraction, the angle not below 1e-3, and the
    running mean and std that take in this batch before they are used. Past pi, where they clip too, it goes on as
    `falling_cosine`. Their clamp of every cosine to +-(1 - 1e-3), the non-targets' too, is left out.
    """
    state = adaface_state(batch, momentum)
    z = (h * (_adaface_norms(batch) - state["norm_mean"]) / (state["norm_std"] + _ADAFACE_EPSILON)).clamp(-1, 1)
    g_angle = -batch.margin_factor * margin * z
    g_add = batch.margin_factor * (margin + margin * z)
    angle = (own_angle(batch) + g_angle).clamp(min=_ADAFACE_EPSILON)
    return cross_entropy(batch, scale * (falling_cosine(angle) - g_add), scale * batch.cosines)


def magface(
    batch: Dense,
    scale: float = 64.0,
    lower_norm: float = 10.0,
    upper_norm: float = 110.0,
    lower_margin: float = 0.45,
    upper_margin: float = 0.8,
    norm_weight: float = 35.0,
) -> Tensor:
    """Target logit s cos(theta_y + m(a)), continued past pi, plus lambda g(a); a is |x| clipped to [l_a, u_a].

    m(a) runs straight from l_m at l_a to u_m at u_a, g(a) = 1 / a + a / u_a^2; both send their gradient to the norm,
    none where the clip acts (Meng et al., "MagFace: A Universal Representation for Face Recognition and Quality
    Assessment", CVPR 2021; the clip inside g and lambda = 35 are those of the authors' code and training script).
    """
    a = batch.embeddings.norm(dim=1).clamp(lower_norm, upper_norm)
    m = lower_margin + (upper_margin - lower_margin) * (a - lower_norm) / (upper_norm - lower_norm)
    g: Tensor = 1 / a + a / upper_norm**2
    target_logit = scale * falling_cosine(own_angle(batch) + batch.margin_factor * m)
    return cross_entropy(batch, target_logit, scale * batch.cosines) + norm_weight * g.mean()


def _elastic_margin(batch: Dense, margin: float, std: float) -> Tensor:
    """(N,) margins drawn from the normal distribution N(margin, std^2)."""
    assert batch.noise is not None, "this head draws its margins"
    return batch.margin_factor * (margin + std * batch.noise)


def elasticface_arc(batch: Dense, scale: float = 64.0, margin: float = 0.5, std: float = 0.05) -> Tensor:
    """Target logit s cos(theta_y + E), continued past pi, E drawn from N(m, std^2) for every sample.

    Boutros et al., "ElasticFace: Elastic Margin Loss for Deep Face Recognition", CVPR Workshops 2022.
    """
    target_logit = scale * falling_cosine(own_angle(batch) + _elastic_margin(batch, margin, std))
    return cross_entropy(batch, target_logit, scale * batch.cosines)


def elasticface_cos(batch: Dense, scale: float = 64.0, margin: float = 0.35, std: float = 0.05) -> Tensor:
    """Target logit s (cos theta_y - E), E drawn from N(m, std^2) for every sample (Boutros et al., as above)."""
    target_logit = scale * (batch.own(batch.cosines) - _elastic_margin(batch, margin, std))
    return cross_entropy(batch, target_logit, scale * batch.cosines)


ORACLES = {
    "adaface": adaface,
    "magface": magface,
    "elasticface_arc": elasticface_arc,
    "elasticface_cos": elasticface_cos,
}
STATES = {"adaface": adaface_state}
