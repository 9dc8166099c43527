"""What every oracle starts from: one dense batch, its (N, C) matrices, cross entropy over them. No head's formula."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Dense:
    """One global batch and all prototypes, with whatever the engine adds around a head.

    Attributes:
        embeddings: (N, D) float64.
        prototypes: (C, D) float64, or (C, K, D) with K sub-centres a class.
        labels: (N,) class ids.
        shift: (C,) or (N, C), added to non-target logits: -inf where a class was not sampled, the sampling correction.
        filter: cosine above which a non-target leaves the sum.
        margin_factor: 0 .. 1, the share of the margin during its warm-up.
        step: optimizer step.
        noise: (N,) the standard normals that the head was given.
        class_counts: (C,) images per class.
        state: the head's buffers by name, as they were before this forward pass.
        parameters: the head's learned parameters by name, leaves of this graph.
    """

    embeddings: Tensor
    prototypes: Tensor
    labels: Tensor
    shift: Tensor | None = None
    filter: float | None = None
    margin_factor: float = 1.0
    step: int = 0
    noise: Tensor | None = None
    class_counts: Tensor | None = None
    state: Mapping[str, Tensor] = field(default_factory=dict)
    parameters: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def is_target(self) -> Tensor:
        """(N, C) bool, the column of each sample's own class."""
        return F.one_hot(self.labels, len(self.prototypes)).bool()

    @property
    def products(self) -> Tensor:
        """(N, C), <w_j, x_i>, of the best sub-centre where a class has several."""
        return _best_product(self.embeddings, self.prototypes)

    @property
    def cosines(self) -> Tensor:
        """(N, C), <w_j, x_i> / (|w_j| |x_i|), of the best sub-centre where a class has several."""
        return _best_product(unit(self.embeddings), unit(self.prototypes))

    @property
    def num_classes(self) -> int:
        """C."""
        return len(self.prototypes)

    @property
    def is_summed(self) -> Tensor:
        """(N, C) bool, the competitors that the interclass filter leaves in the sum."""
        if self.filter is None:
            return self.is_competitor
        return self.is_competitor & ~(self.cosines > self.filter)

    @property
    def is_competitor(self) -> Tensor:
        """(N, C) bool, the sampled classes other than the sample's own."""
        competitor = ~self.is_target
        return competitor if self.shift is None else competitor & (self.shift > -math.inf)

    def own(self, matrix: Tensor) -> Tensor:
        """(N, C) -> (N,), the target column."""
        return matrix[torch.arange(len(self.labels)), self.labels]


def _best_product(embeddings: Tensor, prototypes: Tensor) -> Tensor:
    """(N, D), (C, D) or (C, K, D) -> (N, C)."""
    if prototypes.ndim == 2:
        return embeddings @ prototypes.T
    return torch.einsum("nd,ckd->nck", embeddings, prototypes).amax(2)


def unit(rows: Tensor) -> Tensor:
    """Rows (..., D) over their norms; a zero row stays zero and has gradient zero."""
    norms = rows.norm(dim=-1, keepdim=True)
    is_zero = norms == 0
    return torch.where(is_zero, 0.0, rows / torch.where(is_zero, 1.0, norms))


def hardest(batch: Dense, matrix: Tensor) -> Tensor:
    """(N, C) -> (N,), the largest of the sampled non-targets; equal ones share the gradient evenly."""
    return matrix.masked_fill(~batch.is_competitor, -math.inf).amax(1)


def cross_entropy(batch: Dense, target_logit: Tensor, logits: Tensor, extra: Tensor | None = None) -> Tensor:
    """The mean of `cross_entropies` over the batch."""
    return cross_entropies(batch, target_logit, logits, extra).mean()


def cross_entropies(batch: Dense, target_logit: Tensor, logits: Tensor, extra: Tensor | None = None) -> Tensor:
    """(N,), log(1 + sum over j != y of exp(logit_j - target_logit)), with an extra negative logit."""
    if batch.shift is not None:
        logits = logits + batch.shift.clamp_min(-1e300)  # unsampled classes leave by the mask below
    counts = batch.is_summed
    if extra is not None:
        logits = torch.cat([logits, extra[:, None]], dim=1)
        counts = torch.cat([counts, torch.isfinite(extra)[:, None]], dim=1)
    is_alone = ~counts.any(dim=1)
    shown = torch.where(counts, logits, -math.inf)
    shown = torch.where(is_alone[:, None], 0.0, shown)  # keeps autograd finite; the row is replaced below
    gap = target_logit - torch.logsumexp(shown, dim=1)
    # -logsigmoid keeps the relative accuracy of well classified samples, which log(sum of all) - target loses
    return torch.where(is_alone, 0.0, -F.logsigmoid(gap))


def is_right(batch: Dense) -> Tensor:
    """(N,) bool: no (sampled) class has a larger inner product than the sample's own."""
    products = batch.products.detach()
    return batch.own(products) >= products.masked_fill(~batch.is_competitor, -math.inf).amax(1)
