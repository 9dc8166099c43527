"""Dense float64 formulas of every head and regulariser, written from the papers; never imports product code.

Each oracle builds the whole (N, C) logit matrix and leaves the derivative to autograd: slow, large, and obvious.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Dense:
    """One global batch and all prototypes, with whatever the engine adds around a head.

    Attributes:
        embeddings: (N, D) float64.
        prototypes: (C, D) float64.
        labels: (N,) class ids.
        shift: (C,) or (N, C), added to non-target logits: -inf where a class was not sampled, the sampling correction.
        filter: cosine above which a non-target leaves the sum.
        margin_factor: 0 .. 1, the share of the margin during its warm-up.
    """

    embeddings: Tensor
    prototypes: Tensor
    labels: Tensor
    shift: Tensor | None = None
    filter: float | None = None
    margin_factor: float = 1.0

    @property
    def is_target(self) -> Tensor:
        """(N, C) bool, the column of each sample's own class."""
        return F.one_hot(self.labels, len(self.prototypes)).bool()

    @property
    def products(self) -> Tensor:
        """(N, C), <w_j, x_i>."""
        return self.embeddings @ self.prototypes.T

    @property
    def cosines(self) -> Tensor:
        """(N, C), <w_j, x_i> / (|w_j| |x_i|)."""
        return unit(self.embeddings) @ unit(self.prototypes).T

    @property
    def is_competitor(self) -> Tensor:
        """(N, C) bool, the sampled classes other than the sample's own."""
        competitor = ~self.is_target
        return competitor if self.shift is None else competitor & (self.shift > -math.inf)

    def own(self, matrix: Tensor) -> Tensor:
        """(N, C) -> (N,), the target column."""
        return matrix[torch.arange(len(self.labels)), self.labels]


def unit(rows: Tensor) -> Tensor:
    """Rows over their norms; a zero row stays zero and has gradient zero."""
    norms = rows.norm(dim=1, keepdim=True)
    is_zero = norms == 0
    return torch.where(is_zero, 0.0, rows / torch.where(is_zero, 1.0, norms))


def cross_entropy(batch: Dense, target_logit: Tensor, logits: Tensor, extra: Tensor | None = None) -> Tensor:
    """Mean over the batch of log(1 + sum over j != y of exp(logit_j - target_logit)), with an extra negative logit."""
    if batch.shift is not None:
        logits = logits + batch.shift.clamp_min(-1e300)  # unsampled classes leave by the mask below
    counts = batch.is_competitor
    if batch.filter is not None:
        counts = counts & ~(batch.cosines > batch.filter)
    if extra is not None:
        logits = torch.cat([logits, extra[:, None]], dim=1)
        counts = torch.cat([counts, torch.isfinite(extra)[:, None]], dim=1)
    is_alone = ~counts.any(dim=1)
    shown = torch.where(counts, logits, -math.inf)
    shown = torch.where(is_alone[:, None], 0.0, shown)  # keeps autograd finite; the row is replaced below
    gap = target_logit - torch.logsumexp(shown, dim=1)
    # -logsigmoid keeps the relative accuracy of well classified samples, which log(sum of all) - target loses
    return torch.where(is_alone, 0.0, -F.logsigmoid(gap)).mean()


def softmax(batch: Dense) -> Tensor:
    """Cross entropy of the inner products, no bias (ArcFace eq. 1 without its bias)."""
    return cross_entropy(batch, batch.own(batch.products), batch.products)


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


def _capped(logit: Tensor, cap: float | None) -> Tensor:
    """The clamp of the SV-Softmax authors' code, [1e-10, cap]; None is the paper's own formula."""
    return logit if cap is None else logit.clamp(1e-10, cap)


def _warmed(batch: Dense, extra: Tensor) -> Tensor:
    """An extra class of weight f: + log f; f = 0 is plain softmax."""
    return extra + math.log(batch.margin_factor) if batch.margin_factor > 0 else torch.full_like(extra, -math.inf)


def virtual_softmax(batch: Dense, virtual_logit_cap: float | None = 15.0) -> Tensor:
    """One more negative class W_virt = |w_y| x / |x|, different for every sample (Chen et al., NeurIPS 2018)."""
    own = batch.prototypes[batch.labels]
    virtual = own.norm(dim=1, keepdim=True) * unit(batch.embeddings)
    extra = _capped((virtual * batch.embeddings).sum(1), virtual_logit_cap)
    return cross_entropy(batch, batch.own(batch.products), batch.products, _warmed(batch, extra))


def svsoftmax(batch: Dense, margin: float = 0.6, virtual_logit_cap: float | None = 15.0) -> Tensor:
    """The extra class is w_synth where the sample is right, W_virt where it is wrong.

    w_synth = |w_y| h / |h| with h = m x / |x| - (1 - m) w_y / |w_y| (Chen, Huang, Zhang, "Large-margin Softmax loss
    using synthetic virtual class", Neural Networks 193, doi 10.1016/j.neunet.2025.108068). A tie counts as right.
    """
    own = batch.prototypes[batch.labels]
    h = margin * unit(batch.embeddings) - (1 - margin) * unit(own)
    synthetic = own.norm(dim=1, keepdim=True) * unit(h)
    virtual = own.norm(dim=1, keepdim=True) * unit(batch.embeddings)
    chosen = torch.where(is_right(batch)[:, None], synthetic, virtual)
    extra = _capped((chosen * batch.embeddings).sum(1), virtual_logit_cap)
    return cross_entropy(batch, batch.own(batch.products), batch.products, _warmed(batch, extra))


def is_right(batch: Dense) -> Tensor:
    """(N,) bool: no (sampled) class has a larger inner product than the sample's own."""
    products = batch.products.detach()
    return batch.own(products) >= products.masked_fill(~batch.is_competitor, -math.inf).amax(1)


def sample_margin(batch: Dense) -> Tensor:
    """R_sm: hardest non-target cosine minus target cosine, averaged (Zhou et al., ICLR 2022, sample margin).

    `amax` shares the gradient evenly among equal maxima.
    """
    hardest = batch.cosines.masked_fill(~batch.is_competitor, -math.inf).amax(1)
    return (hardest - batch.own(batch.cosines)).mean()


def zero_centroid(batch: Dense) -> Tensor:
    """Squared norm of the mean prototype, all classes (Zhou et al., ICLR 2022, zero-centroid regularisation)."""
    return batch.prototypes.mean(0).square().sum()


HEAD_ORACLES: dict[str, Callable[..., Tensor]] = {
    "softmax": softmax,
    "ce": softmax,
    "normface": normface,
    "cosface": cosface,
    "arcface": arcface,
    "combined": combined,
    "virtual_softmax": virtual_softmax,
    "svsoftmax": svsoftmax,
}
REGULARIZER_ORACLES: dict[str, Callable[[Dense], Tensor]] = {
    "sample_margin": sample_margin,
    "zero_centroid": zero_centroid,
}
