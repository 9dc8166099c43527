"""Walks one rank's classes in chunks, forward and backward. Knows nothing of other ranks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from losses.head import Head
from losses.kernels import ChunkKernel, Share, finite
from losses.options import EngineOptions
from losses.products import inverse_norm, matmul, project_rows_, project_unit, rounded
from losses.scores import NO_LOGIT, Scorer

# Bytes of logits per chunk: on CPU a chunk must stay in the cache between the product and its exponential; a GPU
# wants products large enough to fill it.
_CPU_CHUNK_BYTES = 1 << 20
_GPU_CHUNK_BYTES = 64 << 20


@dataclass
class Found:
    """What one rank found among its classes; every tensor is (N,).

    Attributes:
        hardest: largest similarity of a non-target, -inf where there is none.
        ties: how many classes share it (0 unless it is differentiated).
        hardest_cosine: the same in cosines, where it must be kept apart.
        cosine_ties: how many classes share that.
        largest: largest logit of a non-target; 0 where the head asks for a plain sum.
        total: sum over non-targets of exp(logit - largest), or of the terms themselves.
        context_slopes: for each differentiable context, the derivative of ``total`` by it.
    """

    hardest: Tensor
    ties: Tensor
    hardest_cosine: Tensor
    cosine_ties: Tensor
    largest: Tensor
    total: Tensor
    context_slopes: list[Tensor]


@dataclass(frozen=True)
class Upstream:
    """What flows back into a walk; every tensor is (N,).

    Attributes:
        coefficient: gradient of the loss by the global sum of exp(logit - shift), or of the terms.
        shift: what that sum is relative to.
        hardest: global value and gradient per tied class, where differentiated.
        hardest_cosine: the same in cosines.
    """

    coefficient: Tensor
    shift: Tensor
    hardest: tuple[Tensor, Tensor] | None
    hardest_cosine: tuple[Tensor, Tensor] | None


class ChunkWalk:
    """One walk over the classes and the way back.

    Prototypes are (C * sub_centers, D), the rows of a class side by side; chunks hold whole classes.

    Args:
        head: flags and non_target.
        column: (N,) column of the sample's class here, -1 where elsewhere.
        norm: (N,) embedding norms.
        options: chunk size, budget, precision, filter.
        column_logit: (C,) added to the logits of each class, or None.
        context_needs_grad: which of the head's context tensors are differentiated.
    """

    def __init__(
        self, head: Head, column: Tensor, norm: Tensor, options: EngineOptions, column_logit: Tensor | None,
        context_needs_grad: Sequence[bool],
    ) -> None:  # fmt: skip
        self.head, self.options = head, options
        self.differentiates_hardest = head.differentiates_hardest or (
            options.wants_hardest_cosine and head.is_on_cosines
        )
        self.differentiable_context = [index for index, needs in enumerate(context_needs_grad) if needs]
        self.unit = torch.ones_like(norm) if head.normalize_embeddings else inverse_norm(norm)
        self.scorer = Scorer(head, column, self.unit, options)
        self.kernel = ChunkKernel(head, column, options, column_logit, self.differentiable_context)
        self.kept: list[Tensor] = []
        self.inverses: list[Tensor] = []
        self.kept_per_chunk = 4 if self.differentiates_hardest else 2

    @property
    def is_sum(self) -> bool:
        """Whether log_sum is the plain sum of what non_target returns."""
        return self.kernel.is_sum

    def kept_tensors(self) -> list[Tensor]:
        """Hands over what the backward pass reuses: inverse norms of all rows, then chunk by chunk what was kept.

        Keep it through save_for_backward, or it outlives the backward pass.
        """
        kept, inverses, self.kept, self.inverses = self.kept, self.inverses, [], []
        return [torch.cat(inverses) if inverses else self.unit.new_empty(0), *kept]

    def forward(self, operand: Tensor, prototypes: Tensor, own: Tensor | None, context: Sequence[Tensor]) -> Found:
        """Online max and sum over the chunks.

        Args:
            operand: (N, D).
            prototypes: (C * sub_centers, D).
            own: (N, D) the samples' own prototypes, where the head needs them.
            context: (N,) each.
        """
        empty = operand.new_full((operand.shape[0],), NO_LOGIT)
        zero = operand.new_zeros(operand.shape[0])
        slopes = [zero.clone() for _ in self.differentiable_context]
        found = Found(empty, zero, empty, zero, zero if self.is_sum else empty, zero, slopes)
        needs_products = self.scorer.wants_cosine or own is not None
        budget = 0 if needs_products else self.options.memory_budget
        operand, own = self._rounded(operand), None if own is None else self._rounded(own)
        for classes, rows in self._chunks(prototypes, operand.shape[0]):
            scores = self.scorer(operand, own, prototypes[rows], classes.start)
            self.inverses.append(scores.inverse)
            hardest, is_hardest = scores.similarity.amax(dim=1), None
            if self.differentiates_hardest:
                is_hardest = scores.similarity == hardest.unsqueeze(1)
                found.ties = _count_ties(found.hardest, found.ties, hardest, is_hardest)
            found.hardest = torch.maximum(found.hardest, hardest)
            if scores.cosine is not None:
                top = scores.cosine.amax(dim=1)
                is_top = scores.cosine == top.unsqueeze(1)
                found.cosine_ties = _count_ties(found.hardest_cosine, found.cosine_ties, top, is_top)
                found.hardest_cosine = torch.maximum(found.hardest_cosine, top)
            # A mark of the hardest class is a byte: kept too, so that no equality of recomputed products decides.
            size = scores.similarity.element_size() + (0 if is_hardest is None else 1)
            budget -= scores.similarity.numel() * size * self.head.sub_centers
            needs_slopes = budget >= 0 or bool(self.differentiable_context)
            share = self.kernel(
                scores, classes.start, context, found.largest, hardest=hardest, needs_slopes=needs_slopes
            )
            shift = _add(found, share)
            if budget >= 0:
                self.kept += [self.scorer.spread(share.kernel, scores.winner), shift]
                self.kept += [] if is_hardest is None else [self.scorer.spread(is_hardest, scores.winner), hardest]
        return found

    def backward(
        self, operand: Tensor, prototypes: Tensor, own: Tensor | None, context: Sequence[Tensor], upstream: Upstream,
        kept: Sequence[Tensor],
    ) -> tuple[Tensor, Tensor, Tensor | None]:  # fmt: skip
        """Gradients of the operand (N, D), the prototypes (C * sub_centers, D) and, where needed, ``own`` (N, D).

        Args:
            operand: (N, D).
            prototypes: (C * sub_centers, D).
            own: (N, D) or None.
            context: (N,) each.
            upstream: gradients of what the walk found.
            kept: what ``kept_tensors`` handed over.
        """
        g_operand, g_prototypes = torch.zeros_like(operand), torch.empty_like(prototypes)
        g_unit = torch.zeros_like(operand) if upstream.hardest_cosine is not None else None
        g_own = torch.zeros_like(own) if own is not None else None
        inverses, *kept = kept
        num_kept = len(kept) // self.kept_per_chunk
        unit_operand = operand * self.unit.unsqueeze(1) if g_unit is not None else operand
        factor = upstream.coefficient * (self.head.scale if self.kernel.is_plain else 1.0)
        normalizes, operand = self.head.normalize_prototypes, self._rounded(operand)
        own = None if own is None else self._rounded(own)
        for index, (classes, rows) in enumerate(self._chunks(prototypes, operand.shape[0])):
            chunk, inverse, scores, share = prototypes[rows], inverses[rows], None, None
            if index < num_kept:
                kernel, shift, *marks = kept[index * self.kept_per_chunk : (index + 1) * self.kept_per_chunk]
                slope = kernel * (factor * (shift - upstream.shift).exp()).unsqueeze(1)
                if upstream.hardest is not None:
                    is_hardest, top = marks
                    slope += is_hardest * (upstream.hardest[1] * (top == upstream.hardest[0])).unsqueeze(1)
            else:
                scores = self.scorer(operand, own, chunk, classes.start, inverse)
                # Recomputed by the same product of the same shape: ties compare equal bit for bit.
                ties = _ties(scores.similarity, upstream.hardest)
                share = self.kernel(scores, classes.start, context, upstream.shift, upstream.shift)
                slope = share.kernel * factor.unsqueeze(1)
                slope = self.scorer.spread(slope if ties is None else slope + ties, scores.winner)
            if normalizes:
                slope *= inverse
            slope, rounded_chunk = self._rounded(slope), self._rounded(chunk)
            g_operand += matmul(slope, rounded_chunk)
            # Written in place: a result of its own would be copied, and for a cheap head that is a tenth of the step.
            g_chunk = matmul(slope.t(), operand, out=g_prototypes[rows])
            if own is not None and g_own is not None and share is not None and share.between is not None:
                slope = share.between * factor.unsqueeze(1)
                slope = self._rounded(slope * inverse if normalizes else slope)
                g_own += matmul(slope, rounded_chunk)
                g_chunk += matmul(slope.t(), own)
            if normalizes:
                project_rows_(g_chunk, chunk, inverse)
            ties = _ties(scores.cosine, upstream.hardest_cosine) if scores is not None else None
            if g_unit is not None and scores is not None and ties is not None:
                slope = self.scorer.spread(ties, scores.cosine_winner) * inverse
                g_unit += slope @ chunk
                g_chunk += project_rows_(slope.t() @ unit_operand, chunk, inverse)
        if g_unit is not None:
            g_operand += g_unit if self.head.normalize_embeddings else project_unit(g_unit, unit_operand, self.unit)
        return g_operand, g_prototypes, g_own

    def _rounded(self, operand: Tensor) -> Tensor:
        return rounded(operand, self.options.is_reduced)

    def _chunks(self, prototypes: Tensor, num_samples: int) -> Iterator[tuple[slice, slice]]:
        """Classes of each chunk, and their rows."""
        width, size = self.head.sub_centers, self.options.chunk_size
        if size is None:
            wanted = _GPU_CHUNK_BYTES if prototypes.is_cuda else _CPU_CHUNK_BYTES
            size = max(64, wanted // max(1, num_samples * prototypes.element_size() * width))
        num_classes = prototypes.shape[0] // width
        for start in range(0, num_classes, size):
            stop = min(start + size, num_classes)
            yield slice(start, stop), slice(start * width, stop * width)


def _add(found: Found, share: Share) -> Tensor:
    """Adds a chunk's share to the running sum; returns what its kernel is relative to, (N,)."""
    top = torch.maximum(found.largest, share.largest)
    shift = finite(top)
    rescale = (found.largest - shift).exp()
    found.total = found.total * rescale + share.total
    pairs = zip(found.context_slopes, share.context_slopes, strict=True)
    found.context_slopes = [old * rescale + new for old, new in pairs]
    found.largest = top
    return shift


def _ties(values: Tensor | None, hardest: tuple[Tensor, Tensor] | None) -> Tensor | None:
    """(N, chunk) gradient of the maximum: ``hardest[1]`` where a value equals ``hardest[0]``."""
    if values is None or hardest is None:
        return None
    return (values == hardest[0].unsqueeze(1)) * hardest[1].unsqueeze(1)


def _count_ties(best: Tensor, ties: Tensor, top: Tensor, is_top: Tensor) -> Tensor:
    """Number of classes that share max(best, top), (N,), given how many shared ``best`` and which equal ``top``."""
    here = is_top.sum(dim=1)
    return ties * (best >= top) + here * (top >= best)
