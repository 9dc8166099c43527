"""Oracles of the heads that multiply the target's angle by an integer, written from their papers; no other margins."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from tests.oracles.dense import Dense, cross_entropy, unit


def lsoftmax(
    batch: Dense,
    margin: int = 4,
    base: float = 1000.0,
    gamma: float = 0.000025,
    power: float = 35.0,
    minimum: float = 0.0,
) -> Tensor:
    """Target logit |w_y| |x| (lambda cos theta_y + psi(theta_y)) / (1 + lambda), no bias.

    Liu, Wen, Yu, Yang, "Large-Margin Softmax Loss for Convolutional Neural Networks", ICML 2016. Defaults: the usage
    example and the MNIST model of the authors' repository wy1iu/LargeMargin_Softmax_Loss.
    """
    own = batch.prototypes[batch.labels]
    length = own.norm(dim=1) * batch.embeddings.norm(dim=1)
    target = length * _annealed(batch, own, margin, _annealing(batch.step, base, gamma, power, minimum))
    return cross_entropy(batch, target, batch.products)


def asoftmax(
    batch: Dense,
    margin: int = 4,
    base: float = 1000.0,
    gamma: float = 0.12,
    power: float = 1.0,
    minimum: float = 5.0,
) -> Tensor:
    """L-Softmax with prototypes of length 1: target logit |x| (lambda cos theta_y + psi(theta_y)) / (1 + lambda).

    Liu, Wen, Yu, Li, Raj, Song, "SphereFace: Deep Hypersphere Embedding for Face Recognition", CVPR 2017. Defaults: the
    training models of the authors' repository wy1iu/sphereface. Their layer rescales the gradient of the margin term to
    length 1 on its way back; here it is the formula's own.
    """
    prototypes = unit(batch.prototypes)
    annealing = _annealing(batch.step, base, gamma, power, minimum)
    target = batch.embeddings.norm(dim=1) * _annealed(batch, prototypes[batch.labels], margin, annealing)
    return cross_entropy(batch, target, batch.embeddings @ prototypes.T)


def _annealing(step: int, base: float, gamma: float, power: float, minimum: float) -> float:
    """Lambda at this step: max(minimum, base (1 + gamma step)^-power), the notes for training of both repositories."""
    annealed: float = base * (1 + gamma * step) ** -power
    return max(minimum, annealed)


def _annealed(batch: Dense, own: Tensor, margin: int, annealing: float) -> Tensor:
    """(N,), (lambda cos theta + psi(theta)) / (1 + lambda).

    psi = (-1)^k cos(m theta) - 2k where k pi <= m theta <= (k + 1) pi.
    """
    theta = _angle(batch.embeddings, own)
    k = torch.floor(margin * theta.detach() / math.pi)
    psi = torch.where(k % 2 == 0, 1.0, -1.0) * torch.cos(margin * theta) - 2 * k
    return (annealing * torch.cos(theta) + psi) / (1 + annealing)


def _angle(a: Tensor, b: Tensor) -> Tensor:
    """(N,) angles between rows; a zero row is at a right angle to everything.

    2 atan(|u - v| / |u + v|) of the unit rows u, v is the same as acos <u, v>, but keeps all its digits, and its
    derivative stays finite, at angles 0 and pi, where acos loses both. Nothing is clamped.
    """
    u, v = unit(a), unit(b)
    apart, together = (u - v).norm(dim=1), (u + v).norm(dim=1)
    is_undefined = (apart == 0) & (together == 0)  # two zero rows
    return 2 * torch.atan2(torch.where(is_undefined, 1.0, apart), torch.where(is_undefined, 1.0, together))


ORACLES: dict[str, Callable[..., Tensor]] = {"lsoftmax": lsoftmax, "asoftmax": asoftmax}
