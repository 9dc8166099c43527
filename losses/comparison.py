"""Heads that the SV-Softmax authors compare with: SO-Softmax, W-Softmax, UniFace. Nothing shared between them."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from losses.head import ClassStatistics, Head, SampleStatistics

_SMALLEST_SQUARED_NORM = 1e-6  # above the rounding of ||alpha w_y + w_j||^2 in float32


class SOSoftmax(Head):
    """Cosine-similarity-optimising softmax: cosines enter quadratically, each with a goal of its own.

    Target logit lambda_p (m^2 - (cos_y - 1)^2), non-target logits lambda_n (cos_j^2 - m^2): targets are drawn to 1,
    non-targets to 0 from either side.

    Source: Zhang et al., "SO-softmax loss for discriminable embedding learning in CNNs", Pattern Recognition 131
    (2022) 108877, as in the SV-Softmax authors' comparison code, whose defaults these are.

    Args:
        lambda_p: weight of the target's square, > 0.
        lambda_n: weight of the non-targets' squares, > 0.
        margin: relaxation m >= 0, in cosine.

    Raises:
        ValueError: an argument out of range.
    """

    normalize_embeddings = True
    normalize_prototypes = True

    def __init__(self, lambda_p: float = 2.0, lambda_n: float = 2.0, margin: float = 0.3) -> None:
        super().__init__()
        for option, value in (("lambda_p", lambda_p), ("lambda_n", lambda_n)):
            if not 0 < value < math.inf:
                raise ValueError(f"so_softmax: {option} must be finite and > 0, got {value}")
        if not 0 <= margin < math.inf:
            raise ValueError(f"so_softmax: margin must be finite and >= 0, got {margin}")
        self.lambda_p, self.lambda_n, self.margin = lambda_p, lambda_n, margin

    def non_target(self, similarity: Tensor, *context: Tensor) -> Tensor:
        """(N, chunk) lambda_n (cos_j^2 - m^2)."""
        del context
        return self.lambda_n * (similarity * similarity - self.margin**2)

    def target_logit(self, stats: SampleStatistics) -> Tensor:
        """(N,) lambda_p (m^2 - (cos_y - 1)^2)."""
        return self.lambda_p * (self.margin**2 - (stats.target - 1).square())


class WSoftmax(Head):
    """Weights-biased softmax: every non-target prototype is turned towards the target's before it competes.

    Prototypes have length 1 and embeddings keep theirs. Target logit <x, w_y>, non-target logits

        <x, alpha w_y + w_j> / ||alpha w_y + w_j||,  ||alpha w_y + w_j||^2 = alpha^2 + 1 + 2 alpha <w_y, w_j>

    Source: Li and Wang, "Learning Discriminative Features Via Weights-biased Softmax Loss", Pattern Recognition 107
    (2020) 107405, as in the SV-Softmax authors' comparison code, whose default alpha is this. Differs: the squared norm
    is bounded below by 1e-6, which matters only for alpha within 0.001 of 1 and a w_j opposite to w_y, where the
    formula is singular: that non-target's logit then tends to 0. Of a w_j of length 0 the numbers at hand know only
    that it is orthogonal to everything, so that its logit is alpha <x, w_y> / sqrt(alpha^2 + 1) and not <x, w_y>; a w_y
    of length 0 turns nothing.

    Args:
        alpha: how far the others are turned, >= 0; 0 is softmax on unit prototypes.

    Raises:
        ValueError: alpha is negative or not finite.
    """

    normalize_prototypes = True
    needs_prototype_similarity = True
    supports_margin_warmup = True

    def __init__(self, alpha: float = 1.5) -> None:
        super().__init__()
        if not 0 <= alpha < math.inf:
            raise ValueError(f"wsoftmax: alpha must be finite and >= 0, got {alpha}")
        self.alpha = alpha

    def context(self, pre: SampleStatistics) -> tuple[Tensor, ...]:
        """(N,) <x, w_y>, and (N,) alpha times the margin_factor."""
        alpha = (self.alpha * pre.margin_factor).to(pre.target.dtype).expand_as(pre.target)
        return pre.target, torch.where(pre.prototype_norm > 0, alpha, 0)

    def non_target(self, similarity: Tensor, *context: Tensor) -> Tensor:
        """(N, chunk) inner product of x and the unit vector along alpha w_y + w_j."""
        prototype_similarity, target, alpha = context
        squared_norm = alpha * alpha + 1 + 2 * alpha * prototype_similarity
        return (alpha * target + similarity) * squared_norm.clamp_min(_SMALLEST_SQUARED_NORM).rsqrt()


class UniFace(Head):
    """Unified cross entropy: every class is a yes-or-no question with one threshold b for all of them.

        softplus(-(s (cos_y - m) - b)) + sum_{j != y} softplus(s cos_j - b)

    Source: Zhou et al., "UniFace: Unified Cross-Entropy Loss for Deep Face Recognition", ICCV 2023; defaults and
    starting value as in the authors' code. Differs: the authors' code clamps both arguments to -s .. s and so cuts the
    gradient of the worst samples; that clamp is left out. b starts from ln(10 C) at any sample rate, where their code
    multiplies C by the rate. Their factor on the sum over non-targets, 1 by default, is left out.

    Args:
        scale: s > 0.
        margin: m >= 0, in cosine.
        bias: starting value of b; None: ln(10 C).
        learn_bias: train b. Otherwise it is a buffer, kept in checkpoints under the same name.

    Raises:
        ValueError: an argument out of range.
    """

    normalize_embeddings = True
    normalize_prototypes = True
    reduction = "sum"
    hardest_use = "value"
    supports_margin_warmup = True

    bias: Tensor

    def __init__(
        self, scale: float = 64.0, margin: float = 0.4, bias: float | None = None, learn_bias: bool = True
    ) -> None:
        super().__init__()
        if not scale > 0:
            raise ValueError(f"uniface: scale must be > 0, got {scale}")
        if not 0 <= margin < math.inf:
            raise ValueError(f"uniface: margin must be finite and >= 0, got {margin}")
        if bias is not None and not math.isfinite(bias):
            raise ValueError(f"uniface: bias must be a finite number, or None for ln(10 C), got {bias}")
        self.scale, self.margin, self.start, self.learn_bias = scale, margin, bias, learn_bias
        if learn_bias:
            self.register_parameter("bias", None)
        else:
            self.register_buffer("bias", None)

    def setup(self, num_classes: int, class_counts: Tensor | None = None) -> None:
        """Makes b, 0-dim float32."""
        del class_counts
        value = math.log(10 * num_classes) if self.start is None else self.start
        bias = torch.tensor(value, dtype=torch.float32)
        self.bias = nn.Parameter(bias) if self.learn_bias else bias

    def context(self, pre: SampleStatistics) -> tuple[Tensor, ...]:
        """0-dim b."""
        return (self.bias.to(pre.target.dtype),)

    def non_target(self, similarity: Tensor, *context: Tensor) -> Tensor:
        """(N, chunk) softplus(s cos_j - b)."""
        return -F.logsigmoid(context[0] - self.scale * similarity)  # F.softplus turns linear at 20

    def loss(self, stats: ClassStatistics) -> Tensor:
        """(N,) losses > 0; margin_factor f uses f m."""
        logit = self.scale * (stats.target - stats.margin_factor * self.margin) - self.bias.to(stats.target.dtype)
        return stats.log_sum - F.logsigmoid(logit)
