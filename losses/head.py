"""What a margin head is: statistics of a sample in, its loss out. No matrix of logits, no ranks, no config."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True)
class SampleStatistics:
    """What is known of every sample before the classes are walked.

    Vectors have shape (N,), N the global batch (padding included), and hold the same values on every rank.

    Attributes:
        target: similarity with the sample's own class: cos(theta_y), or <w_y, x>, as the head's flags say.
        embedding_norm: ||x||.
        prototype_norm: ||w_y||.
        labels: global class ids, int64.
        noise: standard normals drawn from (seed, step, micro_step).
        step: optimizer step, 0-dim; annealing is a pure function of it.
        margin_factor: 0-dim, 0 .. 1 while the margin warms up, then 1.
        weight: 1 / number of real samples, 0 on padding: the batch's loss is ``(head.loss(s) * s.weight).sum()``.
        num_classes: classes over all ranks.
    """

    target: Tensor
    embedding_norm: Tensor
    prototype_norm: Tensor
    labels: Tensor
    noise: Tensor
    step: Tensor
    margin_factor: Tensor
    weight: Tensor
    num_classes: int


@dataclass(frozen=True)
class ClassStatistics(SampleStatistics):
    """What is known after the classes were walked: everything a margin loss needs, each of shape (N,).

    Attributes:
        log_sum: logsumexp over the non-targets j != y of ``head.non_target(similarity_j, *context)``.
        hardest: max over the non-targets of the similarity, before any filter. Differentiable where the head's
            ``hardest_use`` is "gradient": split evenly among equals, over all ranks.
        hardest_cosine: the same in cosines, differentiable, where a regulariser asks for it; else None.
    """

    log_sum: Tensor
    hardest: Tensor
    hardest_cosine: Tensor | None

    def detach(self) -> ClassStatistics:
        """The same numbers without their gradients, to look at after the step."""
        values: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(self)}
        values |= {name: value.detach() for name, value in values.items() if isinstance(value, Tensor)}
        return ClassStatistics(**values)


class Head(nn.Module):
    """Base of every margin head: set the flags, write ``loss``; everything else has a default.

    The engine hands ``loss`` the same numbers however the classes are sharded, sampled or chunked.

    Attributes:
        normalize_embeddings: similarities are taken with x / ||x|| instead of x.
        normalize_prototypes: similarities are taken with w / ||w|| instead of w.
        scale: factor of the default ``non_target``.
        hardest_use: "gradient" when ``loss`` differentiates ``hardest`` (it then costs a second product in the
            backward pass), "value" when it only compares with it. The default is the safe one.
        supports_margin_warmup: whether ``loss`` honours ``margin_factor``.
    """

    normalize_embeddings: ClassVar[bool] = False
    normalize_prototypes: ClassVar[bool] = False
    hardest_use: ClassVar[Literal["value", "gradient"]] = "gradient"
    supports_margin_warmup: ClassVar[bool] = False
    scale: float = 1.0

    def setup(self, num_classes: int, class_counts: Tensor | None = None) -> None:
        """Told once by PartialFC how many classes there are and, where known, images per class, (num_classes,)."""
        del num_classes, class_counts

    def update(self, pre: SampleStatistics) -> None:
        """Called without gradients once per training forward pass: the only place where buffers may change."""
        del pre

    def context(self, pre: SampleStatistics) -> tuple[Tensor, ...]:
        """Tensors, (N,) or 0-dim, that ``non_target`` needs beside the similarity: a threshold, a parameter."""
        del pre
        return ()

    def non_target(self, similarity: Tensor, *context: Tensor) -> Tensor:
        """Logit of the non-targets, elementwise on a chunk.

        Must be finite, with a finite derivative, at similarity 0: the engine feeds 0 in the target's place and
        discards what comes out.

        Args:
            similarity: (N, chunk).
            *context: what ``context`` returned, each (N, 1).

        Returns:
            (N, chunk).
        """
        del context
        return self.scale * similarity

    def target_cosine(self, stats: SampleStatistics) -> Tensor:
        """cos(theta_y) of every sample, (N,), whatever the similarity is; 0 for a zero vector."""
        cosine = stats.target
        for is_unit, norm in (
            (self.normalize_embeddings, stats.embedding_norm),
            (self.normalize_prototypes, stats.prototype_norm),
        ):
            if not is_unit:
                cosine = torch.where(norm > 0, cosine / torch.where(norm > 0, norm, 1), 0)
        return cosine

    def loss(self, stats: ClassStatistics) -> Tensor:
        """Loss of every sample, (N,); a pure function of ``stats`` and the head's parameters."""
        raise NotImplementedError(f"{type(self).__name__} must define loss(stats) -> (N,) tensor")


def softmax_loss(target_logit: Tensor, *others: Tensor) -> Tensor:
    """Cross entropy -log(e^t / (e^t + sum_i e^{o_i})) from the target's logit and logsumexps of the rest.

    Written as -logsigmoid(t - logsumexp(others)): ``logsumexp([t, o]) - t`` has lost the target's gradient in
    float32 as soon as t leads by 16.

    Args:
        target_logit: (N,).
        *others: one or more (N,) logits or logsumexps of logits; -inf stands for none.

    Returns:
        (N,) losses >= 0.
    """
    rest = others[0] if len(others) == 1 else torch.logsumexp(torch.stack(others), dim=0)
    return -F.logsigmoid(target_logit - rest)
