"""Oracles of the losses of Learning Towards the Largest Margins, written from the paper; not its regularisers.

Zhou, Liu, Zhai, Jiang, Gao, Ji, "Learning Towards the Largest Margins", ICLR 2022.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from tests.oracles.dense import Dense, cross_entropy

PerLabel = float | Sequence[float] | Tensor


def lm_softmax(batch: Dense, scale: float = 64.0, class_weights: PerLabel | None = None) -> Tensor:
    """Mean of w_y / s log(sum over j != y of exp(s cos theta_j) / exp(s cos theta_y)): the target is not in the sum.

    The division by s and the plain mean of the weighted losses (not over the sum of the weights) as in the class
    LMSoftmaxLoss of 10zhou/SV-Softmax. The loss may be negative; that of a sample with no competitor is 0.
    """
    logits = scale * batch.cosines
    log_sum, is_alone = log_sum_of_others(batch, logits)
    losses = torch.where(is_alone, 0.0, log_sum - batch.own(logits)) / scale
    if class_weights is not None:
        losses = losses * by_label(batch, class_weights)
    return losses.mean()


def gm_softmax(
    batch: Dense,
    scale: float = 64.0,
    alpha1: PerLabel = 1.0,
    alpha2: PerLabel = 1.0,
    beta1: PerLabel = 0.0,
    beta2: PerLabel = 0.0,
) -> Tensor:
    """-log(exp(s (a1 t + b1)) / (exp(s (a2 t + b2)) + sum over j != y of exp(s cos theta_j))), t = cos theta_y.

    Generalised margin softmax of the paper. Computed as the cross entropy with target logit s (a2 t + b2), minus what
    the numerator's exponent s (a1 t + b1) has more than that.
    """
    a1, a2, b1, b2 = (by_label(batch, value) for value in (alpha1, alpha2, beta1, beta2))
    cosine = batch.own(batch.cosines)
    excess = (a1 - a2) * cosine + b1 - b2  # as one term: two that cancel would drown the small gradients
    return cross_entropy(batch, scale * (a2 * cosine + b2), scale * batch.cosines) - scale * excess.mean()


def by_label(batch: Dense, value: PerLabel) -> Tensor:
    """A number for all samples, or (C,) numbers looked up by label."""
    values = torch.as_tensor(value, dtype=torch.float64)
    return values[batch.labels] if values.ndim else values


def log_sum_of_others(batch: Dense, logits: Tensor) -> tuple[Tensor, Tensor]:
    """(N,) log of the sum over j != y of exp(logit_j), and (N,) bool: nothing is summed, the value means nothing."""
    if batch.shift is not None:
        logits = logits + batch.shift.clamp_min(-1e300)  # unsampled classes leave by the mask below
    is_alone = ~batch.is_summed.any(dim=1)
    shown = torch.where(batch.is_summed, logits, -math.inf)
    return torch.logsumexp(torch.where(is_alone[:, None], 0.0, shown), dim=1), is_alone


ORACLES: dict[str, Callable[..., Tensor]] = {"lm_softmax": lm_softmax, "gm_softmax": gm_softmax}
