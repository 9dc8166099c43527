"""Walks one rank's classes in chunks, forward and backward. Knows heads and products; knows nothing of other ranks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from losses.head import Head
from losses.options import EngineOptions
from losses.products import inverse_norm, matmul, project_rows, project_unit

_NO_LOGIT = float("-inf")
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
        largest: largest logit of a non-target.
        total: sum over non-targets of exp(logit - largest).
        context_slopes: for each differentiable context, sum of exp(logit - largest) * d logit / d context.
    """

    hardest: Tensor
    ties: Tensor
    hardest_cosine: Tensor
    cosine_ties: Tensor
    largest: Tensor
    total: Tensor
    context_slopes: list[Tensor]


class ChunkWalk:
    """One walk over the classes and the way back.

    Args:
        head: flags and non_target.
        column: (N,) row of the sample's class here, -1 where elsewhere.
        norm: (N,) embedding norms.
        options: chunk size, budget, precision, filter.
        column_logit: (C,) added to the logits of each class, or None.
        context_needs_grad: which of the head's context tensors are differentiated.
    """

    def __init__(
        self, head: Head, column: Tensor, norm: Tensor, options: EngineOptions, column_logit: Tensor | None,
        context_needs_grad: Sequence[bool],
    ) -> None:  # fmt: skip
        is_cosine = head.normalize_embeddings and head.normalize_prototypes
        self.head, self.column, self.options, self.column_logit = head, column, options, column_logit
        self.is_plain = type(head).non_target is Head.non_target
        self.wants_cosine = options.wants_hardest_cosine and not is_cosine
        self.differentiates_hardest = head.hardest_use == "gradient" or (options.wants_hardest_cosine and is_cosine)
        self.differentiable_context = [index for index, needs in enumerate(context_needs_grad) if needs]
        self.unit = torch.ones_like(norm) if head.normalize_embeddings else inverse_norm(norm)
        self.kept: list[Tensor] = []
        self.kept_shifts: list[Tensor] = []

    def kept_tensors(self) -> list[Tensor]:
        """Hands over what the backward pass reuses: kernels, then shifts. Keep them through save_for_backward."""
        kept, self.kept, shifts, self.kept_shifts = self.kept, [], self.kept_shifts, []
        return [*kept, *shifts]

    def forward(self, operand: Tensor, prototypes: Tensor, context: Sequence[Tensor]) -> Found:
        """Online max and sum over the chunks; (N, D), (C, D) and (N,) contexts in."""
        empty = operand.new_full((operand.shape[0],), _NO_LOGIT)
        zero = operand.new_zeros(operand.shape[0])
        slopes = [zero.clone() for _ in self.differentiable_context]
        found = Found(empty, zero, empty, zero, empty, zero, slopes)
        budget = 0 if self.differentiates_hardest or self.wants_cosine else self.options.memory_budget
        for rows in self._chunks(prototypes, operand):
            similarity, cosine = self._similarity(operand, prototypes, rows)
            hardest = similarity.amax(dim=1)
            if self.differentiates_hardest:
                found.ties = _count_ties(found.hardest, found.ties, hardest, similarity)
            found.hardest = torch.maximum(found.hardest, hardest)
            if cosine is not None:
                top = cosine.amax(dim=1)
                found.cosine_ties = _count_ties(found.hardest_cosine, found.cosine_ties, top, cosine)
                found.hardest_cosine = torch.maximum(found.hardest_cosine, top)
            budget -= similarity.numel() * similarity.element_size()
            self._accumulate(found, similarity, hardest, rows, context, keep=budget >= 0)
        return found

    def backward(
        self, operand: Tensor, prototypes: Tensor, context: Sequence[Tensor], coefficient: Tensor, shift: Tensor,
        kept: Sequence[Tensor], hardest: tuple[Tensor, Tensor] | None, hardest_cosine: tuple[Tensor, Tensor] | None,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """Gradients of the operand and the prototypes.

        Args:
            operand: (N, D).
            prototypes: (C, D).
            context: each (N,).
            coefficient: (N,) upstream gradient of log_sum over the global sum of exp(logit - shift).
            shift: (N,) what the global sum is relative to.
            kept: what ``kept_tensors`` handed over.
            hardest: global value and gradient per tied class, (N,) each, where differentiated.
            hardest_cosine: the same in cosines.

        Returns:
            (N, D) and (C, D).
        """
        g_operand, g_prototypes = torch.zeros_like(operand), torch.empty_like(prototypes)
        g_unit = torch.zeros_like(operand) if hardest_cosine is not None else None
        kernels, shifts = kept[: len(kept) // 2], kept[len(kept) // 2 :]
        unit_operand = operand * self.unit.unsqueeze(1) if g_unit is not None else operand
        factor = self.head.scale if self.is_plain else 1.0
        for index, rows in enumerate(self._chunks(prototypes, operand)):
            chunk, cosine = prototypes[rows], None
            if index < len(kernels):
                slope = kernels[index] * (coefficient * factor * (shifts[index] - shift).exp()).unsqueeze(1)
            else:
                similarity, cosine = self._similarity(operand, prototypes, rows)
                # Recomputed by the same product of the same shape: ties compare equal bit for bit.
                ties = similarity == hardest[0].unsqueeze(1) if hardest is not None else None
                slope = self._kernel(similarity, rows, context, shift)[0] * (coefficient * factor).unsqueeze(1)
                if hardest is not None and ties is not None:
                    slope += ties * hardest[1].unsqueeze(1)
            inverse = inverse_norm(torch.linalg.vector_norm(chunk, dim=1))
            if self.head.normalize_prototypes:
                slope = slope * inverse
            g_operand += matmul(slope, chunk, self.options.is_reduced)
            g_chunk = matmul(slope.t(), operand, self.options.is_reduced)
            if self.head.normalize_prototypes:
                g_chunk = project_rows(g_chunk, chunk, inverse)
            if g_unit is not None and hardest_cosine is not None and cosine is not None:
                slope = (cosine == hardest_cosine[0].unsqueeze(1)) * hardest_cosine[1].unsqueeze(1) * inverse
                g_unit += slope @ chunk
                g_chunk = g_chunk + project_rows(slope.t() @ unit_operand, chunk, inverse)
            g_prototypes[rows] = g_chunk
        if g_unit is not None:
            g_operand += g_unit if self.head.normalize_embeddings else project_unit(g_unit, unit_operand, self.unit)
        return g_operand, g_prototypes

    def _chunks(self, prototypes: Tensor, operand: Tensor) -> Iterator[slice]:
        size = self.options.chunk_size
        if size is None:
            wanted = _GPU_CHUNK_BYTES if operand.is_cuda else _CPU_CHUNK_BYTES
            size = max(64, wanted // max(1, operand.shape[0] * operand.element_size()))
        for start in range(0, prototypes.shape[0], size):
            yield slice(start, min(start + size, prototypes.shape[0]))

    def _similarity(self, operand: Tensor, prototypes: Tensor, rows: slice) -> tuple[Tensor, Tensor | None]:
        """(N, chunk) similarities and, where asked for, cosines; -inf in the target's place."""
        chunk = prototypes[rows]
        similarity = matmul(operand, chunk.t(), self.options.is_reduced)
        cosine = None
        if self.head.normalize_prototypes or self.wants_cosine:
            inverse = inverse_norm(torch.linalg.vector_norm(chunk, dim=1))
            if self.wants_cosine:
                cosine = similarity * inverse * self.unit.unsqueeze(1)
                self._overwrite_target(cosine, rows, _NO_LOGIT)
            if self.head.normalize_prototypes:
                similarity *= inverse
        self._overwrite_target(similarity, rows, _NO_LOGIT)
        return similarity, cosine

    def _overwrite_target(self, values: Tensor, rows: slice, fill: float) -> None:
        """Writes ``fill`` where a sample meets its own class; by index, so that no shape depends on data."""
        place = self.column - rows.start
        inside = (place >= 0) & (place < values.shape[1])
        place = place.clamp(0, values.shape[1] - 1).unsqueeze(1)
        current = values.gather(1, place)
        values.scatter_(1, place, torch.where(inside.unsqueeze(1), fill, current))

    def _accumulate(
        self, found: Found, similarity: Tensor, hardest: Tensor, rows: slice, context: Sequence[Tensor], keep: bool
    ) -> None:
        """Adds one chunk to the running sum; ``similarity`` is consumed."""
        if self.is_plain and self.column_logit is None and self.options.interclass_filter is None:
            largest = self.head.scale * hardest  # saves a pass over the chunk
            kernel, slopes, _ = self._kernel(similarity, rows, context, None, found.largest, largest)
            total = kernel.sum(dim=1)
        else:
            kernel, slopes, (largest, total) = self._kernel(similarity, rows, context, None, found.largest)
        top = torch.maximum(found.largest, largest)
        shift = _finite(top)
        rescale = (found.largest - shift).exp()
        found.total = found.total * rescale + total
        found.context_slopes = [old * rescale + new for old, new in zip(found.context_slopes, slopes, strict=True)]
        found.largest = top
        if keep:
            self.kept.append(kernel)
            self.kept_shifts.append(shift)

    def _kernel(
        self, similarity: Tensor, rows: slice, context: Sequence[Tensor], shift: Tensor | None,
        running: Tensor | None = None, largest: Tensor | None = None,
    ) -> tuple[Tensor, list[Tensor], tuple[Tensor, Tensor]]:  # fmt: skip
        """exp(logit - shift) * d logit / d similarity (without the plain scale), slopes by context, (max, sum).

        ``shift`` None takes the running maximum including this chunk, of which ``largest`` may already be known.
        """
        limit = self.options.interclass_filter
        dropped = similarity > limit if limit is not None else None
        if self.is_plain:
            logit, leaves = similarity.mul_(self.head.scale), []
        else:
            self._overwrite_target(similarity, rows, 0.0)
            with torch.enable_grad():
                leaf = similarity.detach().requires_grad_()
                columns = [value.detach().unsqueeze(1) for value in context]
                for index in self.differentiable_context:
                    columns[index].requires_grad_()
                output = self.head.non_target(leaf, *columns)
            leaves = [leaf, *(columns[index] for index in self.differentiable_context)]
            logit = output.detach().clone()
            self._overwrite_target(logit, rows, _NO_LOGIT)
        if self.column_logit is not None:
            logit = logit + self.column_logit[rows]
        if dropped is not None:
            logit = logit.masked_fill(dropped, _NO_LOGIT)
        if largest is None:
            largest = logit.amax(dim=1)
        if shift is None:
            shift = _finite(torch.maximum(largest, running if running is not None else largest))
        weight = logit.sub_(shift.unsqueeze(1)).exp_()
        if not leaves:
            return weight, [], (largest, weight.sum(dim=1))
        slopes = torch.autograd.grad(output, leaves, weight, allow_unused=True, materialize_grads=True)
        return slopes[0], [slope.sum(dim=1) for slope in slopes[1:]], (largest, weight.sum(dim=1))


def _finite(top: Tensor) -> Tensor:
    """A shift for exponentials: 0 where there is no logit at all (a rank without classes, a filter that drops all)."""
    return torch.where(top.isinf(), 0, top)


def _count_ties(best: Tensor, ties: Tensor, top: Tensor, values: Tensor) -> Tensor:
    """Number of classes that share max(best, top), (N,), given how many shared ``best``."""
    here = (values == top.unsqueeze(1)).sum(dim=1)
    return ties * (best >= top) + here * (top >= best)
