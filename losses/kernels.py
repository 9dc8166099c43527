"""From a chunk's similarities to its share of log_sum and the slopes of that share. Knows heads, but no products."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from losses.head import Head
from losses.options import EngineOptions
from losses.scores import NO_LOGIT, Scores, overwrite_target


@dataclass
class Share:
    """What one chunk adds to the sum, relative to a shift of the logits.

    Attributes:
        kernel: (N, chunk) derivative of the sum by the similarity (without the scale of a plain head).
        between: (N, chunk) derivative by <w_y, w_j>, where the head needs it.
        context_slopes: for each differentiable context (N,), the derivative of the sum by it.
        largest: (N,) largest logit of the chunk.
        total: (N,) the sum.
    """

    kernel: Tensor
    between: Tensor | None
    context_slopes: list[Tensor]
    largest: Tensor
    total: Tensor


class ChunkKernel:
    """Applies head.non_target, the interclass filter and the sampling correction to a chunk.

    Args:
        head: non_target, its scale and reduction.
        column: (N,) column of the sample's class here, -1 where elsewhere.
        options: the filter.
        column_logit: (C,) added to the logits of each class, or None.
        differentiable_context: indices of the context tensors that need a gradient.
    """

    def __init__(
        self, head: Head, column: Tensor, options: EngineOptions, column_logit: Tensor | None,
        differentiable_context: Sequence[int],
    ) -> None:  # fmt: skip
        self.head, self.column, self.column_logit = head, column, column_logit
        self.limit = options.interclass_filter
        self.is_sum = head.reduction == "sum"
        self.is_plain = type(head).non_target is Head.non_target and not self.is_sum
        self.differentiable_context = differentiable_context

    def __call__(
        self, scores: Scores, start: int, context: Sequence[Tensor], running: Tensor, shift: Tensor | None = None,
        hardest: Tensor | None = None, needs_slopes: bool = True,
    ) -> Share:  # fmt: skip
        """Share of the chunk whose first class is ``start``; the similarities are consumed.

        Args:
            scores: of the chunk.
            start: first class of the chunk.
            context: (N,) each.
            running: (N,) largest logit so far.
            shift: (N,) what the sum is relative to; None takes the largest logit including this chunk.
            hardest: (N,) largest similarity of the chunk, where the largest logit may be derived from it.
            needs_slopes: whether kernel and slopes are wanted, or the sum alone.
        """
        dropped = scores.similarity > self.limit if self.limit is not None else None
        leaves: list[Tensor] = []
        largest = None
        if self.is_plain:
            logit = output = scores.similarity.mul_(self.head.scale)
            if hardest is not None and dropped is None and self.column_logit is None:
                largest = self.head.scale * hardest  # saves a pass over the chunk
        else:
            output, leaves = self._non_target(scores, start, context, needs_slopes)
            logit = output.detach().clone()
            overwrite_target(logit, self.column, start, NO_LOGIT)
        if dropped is not None:
            logit = logit.masked_fill(dropped, NO_LOGIT)
        if self.is_sum:
            weight = self._counted(logit, start)
            total, largest = torch.where(weight > 0, logit * weight, 0).sum(dim=1), running
        else:
            if self.column_logit is not None:
                logit = logit + self.column_logit[start : start + logit.shape[1]]
            if largest is None:
                largest = logit.amax(dim=1)
            if shift is None:
                shift = finite(torch.maximum(largest, running))
            weight = logit.sub_(shift.unsqueeze(1)).exp_()
            total = weight.sum(dim=1)
        if self.is_plain or not needs_slopes:
            return Share(weight, None, [], largest, total)
        kernel, *slopes = torch.autograd.grad(output, leaves, weight, allow_unused=True, materialize_grads=True)
        between = slopes.pop(0) if scores.prototype_similarity is not None else None
        return Share(kernel, between, [slope.sum(dim=1) for slope in slopes], largest, total)

    def _non_target(
        self, scores: Scores, start: int, context: Sequence[Tensor], needs_slopes: bool
    ) -> tuple[Tensor, list[Tensor]]:
        """Output of head.non_target, and the leaves to differentiate it by."""
        overwrite_target(scores.similarity, self.column, start, 0.0)
        leaves = [scores.similarity.detach().requires_grad_()]
        if scores.prototype_similarity is not None:
            overwrite_target(scores.prototype_similarity, self.column, start, 0.0)
            leaves.append(scores.prototype_similarity.detach().requires_grad_())
        columns = [value.detach().unsqueeze(1) for value in context]
        for index in self.differentiable_context:
            columns[index].requires_grad_()
        with torch.set_grad_enabled(needs_slopes):
            output = self.head.non_target(*leaves, *columns)
        return output, [*leaves, *(columns[index] for index in self.differentiable_context)]

    def _counted(self, terms: Tensor, start: int) -> Tensor:
        """(N, chunk) how often each term of a plain sum counts: 0 for targets and filtered ones."""
        counted = (terms > NO_LOGIT).to(terms.dtype)
        if self.column_logit is None:
            return counted
        return counted * self.column_logit[start : start + terms.shape[1]].exp()


def finite(top: Tensor) -> Tensor:
    """A shift for exponentials: 0 where there is no logit at all (a rank without classes, a filter that drops all)."""
    return torch.where(top.isinf(), 0, top)
