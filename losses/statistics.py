"""The engine: embeddings and sharded prototypes in, one ClassStatistics out. The only code that sees (N, classes).

Two autograd functions with ordinary autograd between them. ``Enter`` computes each sample's own statistics and
hands the embeddings and prototypes on; ``Walk`` goes over this rank's classes in chunks. Walk's gradients flow
back into Enter, which adds the target rows: one prototype gradient, one reduce-scatter.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from losses.chunks import ChunkWalk
from losses.collectives import Collectives
from losses.head import ClassStatistics, Head, SampleStatistics
from losses.options import EngineOptions
from losses.products import inverse_norm


@dataclass(frozen=True)
class Batch:
    """The global batch as this rank sees it: samples of all ranks against the active classes of this one.

    Attributes:
        embeddings: (N, D) of all ranks, float32 or float64, without gradient.
        labels: (N,) int64 global class ids.
        weight: (N,) 1 / real samples, 0 on padding.
        column: (N,) int64, row of the sample's class among this rank's active prototypes, -1 where elsewhere.
        num_classes: over all ranks.
        noise: (N,) standard normals, equal on all ranks.
        step: 0-dim.
        margin_factor: 0-dim.
    """

    embeddings: Tensor
    labels: Tensor
    weight: Tensor
    column: Tensor
    num_classes: int
    noise: Tensor
    step: Tensor
    margin_factor: Tensor


class Enter(torch.autograd.Function):
    """Local embeddings (B, D) and active prototypes (C, D) -> target, norms, and what Walk walks over.

    Gradients count once: target and prototype-norm terms on the label's owner, embedding-norm terms and the
    projection through x / ||x|| on the rank that holds the embedding. Only the embedding gradient is multiplied by
    world_size, because data parallelism averages the backbone's gradient over ranks.
    """

    @staticmethod
    def forward(
        ctx: Any, local: Tensor, prototypes: Tensor, batch: Batch, head: Head, collectives: Collectives
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Returns target (N,), embedding_norm (N,), prototype_norm (N,), operand (N, D), prototypes (C, D)."""
        x = batch.embeddings
        norm = torch.linalg.vector_norm(x, dim=1)
        inverse = inverse_norm(norm)
        operand = x * inverse.unsqueeze(1) if head.normalize_embeddings else x.view_as(x)
        own = _own_rows(prototypes, batch.column)
        own_norm = torch.linalg.vector_norm(own, dim=1)
        target = torch.linalg.vecdot(operand, own)
        if head.normalize_prototypes:
            target = target * inverse_norm(own_norm)
        target, prototype_norm = collectives.sum_(torch.stack([target, own_norm])).unbind()
        ctx.save_for_backward(prototypes, operand, norm, target, prototype_norm)
        ctx.batch, ctx.head, ctx.collectives, ctx.size = batch, head, collectives, local.shape[0]
        ctx.set_materialize_grads(False)
        return target, norm, prototype_norm, operand, prototypes.view_as(prototypes)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, Tensor | None, None, None, None]:
        """Adds the target rows to Walk's gradients, then reduce-scatters the embeddings' once."""
        g_target, g_norm, g_own_norm, g_operand, g_prototypes = grads
        prototypes, operand, norm, target, own_norm = ctx.saved_tensors
        batch, head, collectives = ctx.batch, ctx.head, ctx.collectives
        g_operand = torch.zeros_like(operand) if g_operand is None else g_operand
        g_prototypes = torch.zeros_like(prototypes) if g_prototypes is None else g_prototypes
        if prototypes.shape[0]:
            is_own = (batch.column >= 0).to(operand.dtype)
            own = _own_rows(prototypes, batch.column)
            own_inverse = inverse_norm(own_norm)
            unit = own * own_inverse.unsqueeze(1)
            g_rows = torch.zeros_like(operand)
            if g_target is not None:
                g = (g_target * is_own).unsqueeze(1)
                if head.normalize_prototypes:
                    g_operand = torch.addcmul(g_operand, g, unit)
                    g_rows += g * own_inverse.unsqueeze(1) * (operand - target.unsqueeze(1) * unit)
                else:
                    g_operand = torch.addcmul(g_operand, g, own)
                    g_rows += g * operand
            if g_own_norm is not None:
                g_rows += (g_own_norm * is_own).unsqueeze(1) * unit
            # Walk allocated this gradient for us alone, so adding in place costs no second (C, D) buffer.
            g_prototypes.index_add_(0, batch.column.clamp_min(0), g_rows)
        block = operand.shape[0] // collectives.world_size
        mine = slice(collectives.rank * block, collectives.rank * block + ctx.size)
        g_local = collectives.reduce_scatter(g_operand)[: ctx.size]
        inverse = inverse_norm(norm[mine]).unsqueeze(1)
        if head.normalize_embeddings:
            unit_x = operand[mine]
            g_local = (g_local - torch.linalg.vecdot(g_local, unit_x).unsqueeze(1) * unit_x) * inverse
        if g_norm is not None:
            unit_x = operand[mine] if head.normalize_embeddings else operand[mine] * inverse
            g_local = g_local + g_norm[mine].unsqueeze(1) * unit_x
        return g_local * collectives.world_size, g_prototypes, None, None, None


class Walk(torch.autograd.Function):
    """Operand (N, D), prototypes (C, D) and the head's context, each (N,) -> hardest, log_sum, hardest_cosine."""

    @staticmethod
    def forward(
        ctx: Any, operand: Tensor, prototypes: Tensor, walk: ChunkWalk, collectives: Collectives, *context: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Walks the chunks once, then agrees with the other ranks in one MAX and one SUM."""
        found = walk.forward(operand, prototypes, context)
        largest = collectives.max_(torch.stack([found.hardest, found.hardest_cosine, found.largest]))
        hardest, hardest_cosine, top = largest.unbind()
        shift = torch.where(top.isinf(), 0, top)
        rescale = (found.largest - shift).exp()
        rows = [
            found.total * rescale,
            found.ties * (found.hardest == hardest),
            found.cosine_ties * (found.hardest_cosine == hardest_cosine),
            *(slope * rescale for slope in found.context_slopes),
        ]
        total, ties, cosine_ties, *slopes = collectives.sum_(torch.stack(rows)).unbind()
        safe_total = torch.where(total > 0, total, 1)
        ctx.save_for_backward(
            operand, prototypes, shift, safe_total, hardest, ties, hardest_cosine, cosine_ties,
            *context, *slopes, *walk.kept_tensors(),
        )  # fmt: skip
        ctx.walk, ctx.num_context, ctx.num_slopes = walk, len(context), len(slopes)
        ctx.set_materialize_grads(False)
        if not walk.differentiates_hardest:
            ctx.mark_non_differentiable(hardest)
        return hardest, shift + total.log(), hardest_cosine

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        """Local gradients of the operand (N, D) and the prototypes (C, D); those of the context need no collective."""
        g_hardest, g_log_sum, g_cosine = grads
        operand, prototypes, shift, total, hardest, ties, hardest_cosine, cosine_ties, *rest = ctx.saved_tensors
        context, slopes = rest[: ctx.num_context], rest[ctx.num_context : ctx.num_context + ctx.num_slopes]
        kept = rest[ctx.num_context + ctx.num_slopes :]
        g_log_sum = torch.zeros_like(total) if g_log_sum is None else g_log_sum
        coefficient = g_log_sum / total
        g_operand, g_prototypes = ctx.walk.backward(
            operand, prototypes, context, coefficient, shift, kept,
            None if g_hardest is None else (hardest, g_hardest / ties.clamp_min(1)),
            None if g_cosine is None else (hardest_cosine, g_cosine / cosine_ties.clamp_min(1)),
        )  # fmt: skip
        g_context: list[Tensor | None] = [None] * ctx.num_context
        for index, slope in zip(ctx.walk.differentiable_context, slopes, strict=True):
            g_context[index] = coefficient * slope
        return g_operand, g_prototypes, None, None, *g_context


def class_statistics(
    local: Tensor, prototypes: Tensor, batch: Batch, head: Head, options: EngineOptions, collectives: Collectives,
    column_logit: Tensor | None = None, update_head: bool = False,
) -> ClassStatistics:  # fmt: skip
    """Runs the engine for one batch.

    Args:
        local: (B, D) embeddings of this rank, with gradient.
        prototypes: (C, D) active prototypes of this rank, with gradient; C may be 0.
        batch: the gathered batch.
        head: supplies flags, context and non_target.
        options: how to walk.
        collectives: of the ranks that share the batch.
        column_logit: (C,) added to the non-target logit of each class, or None.
        update_head: whether ``head.update`` runs.

    Returns:
        Differentiable statistics, equal on every rank.
    """
    target, norm, own_norm, operand, walked = Enter.apply(local, prototypes, batch, head, collectives)
    known = {
        "target": target, "embedding_norm": norm, "prototype_norm": own_norm, "labels": batch.labels,
        "noise": batch.noise, "step": batch.step, "margin_factor": batch.margin_factor, "weight": batch.weight,
        "num_classes": batch.num_classes,
    }  # fmt: skip
    pre = SampleStatistics(**known)
    if update_head:
        with torch.no_grad():
            head.update(pre)
    context = tuple(value.expand_as(target) for value in head.context(pre))
    column_logit = None if column_logit is None else column_logit.to(local.dtype)
    walk = ChunkWalk(head, batch.column, norm.detach(), options, column_logit, [c.requires_grad for c in context])
    hardest, log_sum, cosine = Walk.apply(operand, walked, walk, collectives, *context)
    is_cosine = head.normalize_embeddings and head.normalize_prototypes
    hardest_cosine = (hardest if is_cosine else cosine) if options.wants_hardest_cosine else None
    return ClassStatistics(**known, log_sum=log_sum, hardest=hardest, hardest_cosine=hardest_cosine)


def _own_rows(prototypes: Tensor, column: Tensor) -> Tensor:
    """Prototype of each sample's class, (N, D); zeros where another rank owns it."""
    if not prototypes.shape[0]:
        return prototypes.new_zeros(column.shape[0], prototypes.shape[1])
    return prototypes.index_select(0, column.clamp_min(0)) * (column >= 0).unsqueeze(1)
