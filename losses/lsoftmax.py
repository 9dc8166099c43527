"""Heads that multiply the target's angle by an integer and ease into it: L-Softmax, A-Softmax. No real-valued m."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from losses.head import Head, SampleStatistics

_LARGEST_MARGIN = 4


def multiple_angle_psi(cosine: Tensor, multiple: int) -> Tensor:
    """psi = (-1)^k cos(m theta) - 2 k for theta in [k pi / m, (k + 1) pi / m], from the cosine alone.

    cos(m theta) is the Chebyshev polynomial T_m of the cosine, so that value and gradient are exact and finite from
    theta = 0 to pi, also where rounding has pushed the cosine past +-1; the gradient needs no bound.

    Args:
        cosine: cos(theta), any shape.
        multiple: m >= 1.

    Returns:
        Same shape; falls from 1 at theta = 0 to 1 - 2 m at theta = pi.
    """
    previous, current = torch.ones_like(cosine), cosine
    for _ in range(multiple - 1):
        previous, current = current, 2 * cosine * current - previous
    # theta = pi is left in the last interval, whose polynomial goes on smoothly past cosine -1.
    turns = torch.zeros_like(cosine)
    for index in range(1, multiple):
        turns = turns + (cosine < math.cos(index * math.pi / multiple)).to(cosine.dtype)
    return (1 - 2 * turns.remainder(2)) * current - 2 * turns


class LSoftmax(Head):
    """Large-margin softmax: the target's angle counts m times, blended with the plain logit while training begins.

    With l = max(minimum, base (1 + gamma step)^-power) and psi = (-1)^k cos(m theta) - 2 k, k = floor(m theta / pi),
    the target's logit is

        ||w_y|| ||x|| (l cos(theta) + psi) / (1 + l)

    and the other classes keep <w_j, x>. m = 1 is plain softmax.

    Source: Liu, Wen, Yu and Yang, "Large-Margin Softmax Loss for Convolutional Neural Networks", ICML 2016; the
    annealing and its defaults are those of the authors' code for MNIST (m = 4; base 1000, gamma 2.5e-5, power 35,
    minimum 0). For CIFAR-10 it has m = 2, power 45 and gamma 2e-5 (1e-5 with augmentation).
    Differs: the first step has step = 0, hence l = base, where the authors' counter starts at 1.

    Args:
        margin: m, an integer 1 .. 4.
        base: l at step 0, >= 0.
        gamma: how fast l falls, per step, >= 0.
        power: exponent of the fall, >= 0.
        minimum: lower bound of l, >= 0.

    Raises:
        ValueError: an argument outside its range.
    """

    def __init__(
        self,
        margin: int = 4,
        base: float = 1000.0,
        gamma: float = 2.5e-5,
        power: float = 35.0,
        minimum: float = 0.0,
    ) -> None:
        super().__init__()
        name = type(self).__name__.lower()
        if isinstance(margin, bool) or margin not in range(1, _LARGEST_MARGIN + 1):
            raise ValueError(f"{name}: margin must be an integer 1 .. {_LARGEST_MARGIN}, got {margin!r}")
        for option, value in (("base", base), ("gamma", gamma), ("power", power), ("minimum", minimum)):
            if not 0 <= value < math.inf:
                raise ValueError(f"{name}: {option} must be finite and >= 0, got {value}")
        self.margin = int(margin)
        self.base, self.gamma, self.power, self.minimum = base, gamma, power, minimum

    def softening(self, stats: SampleStatistics) -> Tensor:
        """l of this step, 0-dim: 0 is the full margin, infinity none."""
        step = stats.step.to(stats.target.dtype)
        return (self.base * (1 + self.gamma * step) ** -self.power).clamp_min(self.minimum)

    def length(self, stats: SampleStatistics) -> Tensor:
        """(N,) what a cosine is multiplied with to give the similarity: ||w_y|| ||x||."""
        return stats.prototype_norm * stats.embedding_norm

    def target_logit(self, stats: SampleStatistics) -> Tensor:
        """(N,) similarity with the margin; 0 for a zero embedding or (L-Softmax) a zero prototype."""
        if self.margin == 1:
            return stats.target  # exactly softmax: length * cosine would only round it
        psi = multiple_angle_psi(self.target_cosine(stats), self.margin)
        share = 1 / (1 + self.softening(stats))
        return (1 - share) * stats.target + share * self.length(stats) * psi


class ASoftmax(LSoftmax):
    """L-Softmax on unit prototypes: target logit ||x|| (l cos(theta) + psi) / (1 + l), others ||x|| cos(theta_j).

    Source: Liu et al., "SphereFace: Deep Hypersphere Embedding for Face Recognition", CVPR 2017; the annealing and its
    defaults are those of the authors' code (m = 4; base 1000, gamma 0.12, power 1, minimum 5). Differs: as LSoftmax;
    both gradients are exact, where that code rescales the prototypes in place, gives them the gradient of the plain
    inner product without the margin, does not project it, and rescales the margin's part of the embedding gradient; a
    zero prototype has the cosine 0.

    Args:
        margin: m, an integer 1 .. 4.
        base: l at step 0, >= 0.
        gamma: how fast l falls, per step, >= 0.
        power: exponent of the fall, >= 0.
        minimum: lower bound of l, >= 0; the authors' 5 never lets the margin act in full.

    Raises:
        ValueError: an argument outside its range.
    """

    normalize_prototypes = True

    def __init__(
        self, margin: int = 4, base: float = 1000.0, gamma: float = 0.12, power: float = 1.0, minimum: float = 5.0
    ) -> None:
        super().__init__(margin, base, gamma, power, minimum)

    def length(self, stats: SampleStatistics) -> Tensor:
        """(N,) ||x||."""
        return stats.embedding_norm
