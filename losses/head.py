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
        log_sum: logsumexp over the non-targets j != y of ``head.non_target(similarity_j, *context)``; where the head's
            ``reduction`` is "sum", their plain sum.
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
    """Base of every margin head: set the flags, write ``target_logit`` or ``loss``; everything else has a default.

    The engine hands ``loss`` the same numbers however the classes are sharded, sampled or chunked.

    Attributes:
        normalize_embeddings: similarities are taken with x / ||x|| instead of x.
        normalize_prototypes: similarities are taken with w / ||w|| instead of w.
        reduction: what ``log_sum`` is: "logsumexp" of the non-targets' logits, or the plain "sum" of what
            ``non_target`` returns.
        sub_centers: prototypes per class, >= 1; the similarity with a class is that of its best one.
        needs_prototype_similarity: ``non_target`` also receives the similarity of w_y and w_j, as its second argument;
            it costs a second product over the classes.
        hardest_use: "gradient" when ``loss`` differentiates ``hardest`` (its marks then keep one more byte per result),
            "value" when it only compares with it. None is the safe choice: "gradient" where the head writes its own
            ``loss``.
        supports_margin_warmup: whether the loss honours ``margin_factor``.
        scale: factor of the default ``target_logit`` and ``non_target``.
    """

    normalize_embeddings: bool = False
    normalize_prototypes: bool = False
    reduction: ClassVar[Literal["logsumexp", "sum"]] = "logsumexp"
    sub_centers: int = 1
    needs_prototype_similarity: ClassVar[bool] = False
    hardest_use: ClassVar[Literal["value", "gradient"] | None] = None
    supports_margin_warmup: ClassVar[bool] = False
    scale: float = 1.0

    @property
    def is_on_cosines(self) -> bool:
        """Whether similarities are cosines."""
        return self.normalize_embeddings and self.normalize_prototypes

    @property
    def differentiates_hardest(self) -> bool:
        """Whether the loss may send a gradient through ``hardest``."""
        if self.hardest_use is None:
            return type(self).loss is not Head.loss
        return self.hardest_use == "gradient"

    def setup(self, num_classes: int, class_counts: Tensor | None = None) -> None:
        """Told once by PartialFC how many classes there are and, where known, images per class, (num_classes,)."""
        del num_classes, class_counts

    def update(self, pre: SampleStatistics) -> None:
        """Called without gradients once per training forward pass: the only place where buffers may change."""
        del pre

    def context(self, pre: SampleStatistics) -> tuple[Tensor, ...]:
        """Tensors, (N,) or 0-dim, that ``non_target`` needs beside the similarity: a threshold, a parameter.

        What ``non_target`` reads from the head itself gets no gradient, so learned numbers must come this way.
        """
        del pre
        return ()

    def non_target(self, similarity: Tensor, *context: Tensor) -> Tensor:
        """Logit of the non-targets (with ``reduction`` "sum": their terms of the loss), elementwise on a chunk.

        Must be finite, with a finite derivative, at similarity 0: the engine feeds 0 in the target's place and
        discards what comes out.

        Args:
            similarity: (N, chunk).
            *context: what ``context`` returned, each (N, 1); before it, where the head needs it, the similarity of w_y
                and w_j, (N, chunk), also 0 in the target's place.

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

    def target_logit(self, stats: SampleStatistics) -> Tensor:
        """Logit of the sample's own class, (N,), with the margin in it."""
        return self.scale * stats.target

    def loss(self, stats: ClassStatistics) -> Tensor:
        """Loss of every sample, (N,); a pure function of ``stats`` and the head's parameters."""
        return softmax_loss(self.target_logit(stats), stats.log_sum)


def softmax_loss(target_logit: Tensor, *others: Tensor) -> Tensor:
    """Cross entropy -log(e^t / (e^t + sum_i e^{o_i})) from the target's logit and logsumexps of the rest.

    Written as -logsigmoid(t - logsumexp(others)): ``logsumexp([t, o]) - t`` has lost the target's gradient in
    float32 as soon as t leads by 16.

    Args:
        target_logit: (N,).
        *others: one or more (N,) logits or logsumexps of logits; -inf stands for none.

    Returns:
        (N,) losses >= 0; 0, without gradient, where there is no other.
    """
    rest = others[0]
    if len(others) > 1:
        logits = torch.stack(others)
        is_alone = logits.isneginf().all(dim=0)  # logsumexp of nothing has the gradient NaN
        rest = torch.logsumexp(torch.where(is_alone, 0, logits), dim=0).masked_fill(is_alone, float("-inf"))
    return -F.logsigmoid(target_logit - rest)


def move_running_(running: Tensor, new: Tensor, momentum: float) -> None:
    """Moves a head's running statistic towards that of the batch, in place; one that is not finite moves nothing.

    Args:
        running: 0-dim buffer.
        new: 0-dim value of this batch; a damaged batch must not stay in the statistic for good.
        momentum: weight of the new value, 0 .. 1.
    """
    running.copy_(torch.where(new.isfinite(), momentum * new + (1 - momentum) * running, running))
