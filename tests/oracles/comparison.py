"""Oracles of the losses that Large-margin Softmax using a synthetic virtual class was compared with.

Formulas from the papers, as the comparison code of that work (10zhou/SV-Softmax) reads them.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from tests.oracles.dense import Dense, cross_entropy, unit


def so_softmax(batch: Dense, lambda_p: float = 2.0, lambda_n: float = 2.0, margin: float = 0.3) -> Tensor:
    """Target logit lp (m^2 - (cos theta_y - 1)^2), the others ln (cos^2 theta_j - m^2).

    Zhang, Yang, Zhang et al., "SO-softmax loss for discriminable embedding learning in CNNs", Pattern Recognition 131,
    2022.
    """
    target = lambda_p * (margin**2 - (batch.own(batch.cosines) - 1) ** 2)
    others = lambda_n * (batch.cosines**2 - margin**2)
    return cross_entropy(batch, target, others)


def wsoftmax(batch: Dense, alpha: float = 1.5) -> Tensor:
    """Prototypes of length 1; target logit <x, w_y>, the others <x, unit(alpha w_y + w_j)>.

    Li, Wang, "Learning Discriminative Features Via Weights-biased Softmax Loss", Pattern Recognition 107, 2020.
    """
    prototypes = unit(batch.prototypes)
    own = prototypes[batch.labels]
    biased = unit(batch.margin_factor * alpha * own[:, None, :] + prototypes[None, :, :])  # (N, C, D)
    logits = torch.einsum("nd,ncd->nc", batch.embeddings, biased)
    return cross_entropy(batch, (batch.embeddings * own).sum(1), logits)


def uniface(
    batch: Dense, scale: float = 64.0, margin: float = 0.4, bias: float | None = None, learn_bias: bool = True
) -> Tensor:
    """softplus(-(s (cos theta_y - m) - b)) + sum over j != y of softplus(s cos theta_j - b), one b for all classes.

    Zhou, Jia, Li, Shen, Duan, "UniFace: Unified Cross-Entropy Loss for Deep Face Recognition", ICCV 2023; the start
    ln(10 C) of b from the authors' repository CVI-SZU/UniFace. Their clamp of both arguments to [-s, s], a guard of
    the exponential that also cuts the gradient, is left out. ``learn_bias`` changes no value: a b that is not learned
    is the head's state.
    """
    start = torch.tensor(math.log(10 * len(batch.prototypes)) if bias is None else bias, dtype=torch.float64)
    b = batch.parameters.get("bias", batch.state.get("bias", start))
    # torch's softplus is cut to a straight line above 20, 2e-9 off; -logsigmoid(-z) is the same function without that
    positive = -F.logsigmoid(scale * (batch.own(batch.cosines) - margin * batch.margin_factor) - b)
    negative = -F.logsigmoid(b - scale * batch.cosines)
    if batch.shift is not None:
        negative = negative * batch.shift.exp()
    return (positive + torch.where(batch.is_summed, negative, 0.0).sum(1)).mean()


ORACLES: dict[str, Callable[..., Tensor]] = {"so_softmax": so_softmax, "wsoftmax": wsoftmax, "uniface": uniface}
