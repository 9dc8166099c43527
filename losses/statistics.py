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

from losses.backward import exact_backward
from losses.chunks import ChunkWalk, Upstream
from losses.collectives import Collectives
from losses.head import ClassStatistics, Head, SampleStatistics
from losses.kernels import finite
from losses.options import EngineOptions
from losses.products import inverse_norm, project_unit


@dataclass(frozen=True)
class Batch:
    """The global batch as this rank sees it: samples of all ranks against the active classes of this one.

    Attributes:
        embeddings: (N, D) of all ranks, float32 or float64, without gradient.
        labels: (N,) int64 global class ids.
        weight: (N,) 1 / real samples, 0 on padding.
        column: (N,) int64, place of the sample's class among this rank's active ones, -1 where elsewhere.
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
    """Local embeddings (B, D) and active prototypes (R, D) -> target, norms, and what Walk walks over.

    Gradients count once: target and prototype-norm terms on the label's owner, embedding-norm terms and the
    projection through x / ||x|| on the rank that holds the embedding. Only the embedding gradient is multiplied by
    world_size, because data parallelism averages the backbone's gradient over ranks.
    """

    @staticmethod
    def forward(
        ctx: Any, local: Tensor, prototypes: Tensor, batch: Batch, head: Head, collectives: Collectives
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor | None]:
        """Returns target (N,), embedding_norm (N,), prototype_norm (N,), operand (N, D), prototypes (R, D).

        And, where the head compares prototypes, the samples' own ones (N, D), as its flags say; else None.
        """
        x = batch.embeddings
        norm = torch.linalg.vector_norm(x, dim=1)
        inverse = inverse_norm(norm)
        operand = x * inverse.unsqueeze(1) if head.normalize_embeddings else x.view_as(x)
        place = _own_places(operand, prototypes, batch.column, head)
        own = _own_rows(prototypes, place)
        own_norm = torch.linalg.vector_norm(own, dim=1)
        if head.normalize_prototypes:
            own *= inverse_norm(own_norm).unsqueeze(1)
        packed = [torch.linalg.vecdot(operand, own).unsqueeze(1), own_norm.unsqueeze(1)]
        packed += [own] if head.needs_prototype_similarity else []
        found = collectives.sum_(torch.cat(packed, dim=1))
        target, prototype_norm = found[:, 0].contiguous(), found[:, 1].contiguous()
        ctx.save_for_backward(prototypes, operand, norm, target, prototype_norm, place)
        ctx.head, ctx.collectives, ctx.size = head, collectives, local.shape[0]
        ctx.set_materialize_grads(False)
        shared = found[:, 2:].contiguous() if head.needs_prototype_similarity else None
        return target, norm, prototype_norm, operand, prototypes.view_as(prototypes), shared

    @staticmethod
    @exact_backward
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, Tensor | None, None, None, None]:
        """Adds the target rows to Walk's gradients, then reduce-scatters the embeddings' once."""
        g_target, g_norm, g_own_norm, g_operand, g_prototypes, g_own = grads
        prototypes, operand, norm, target, own_norm, place = ctx.saved_tensors
        head, collectives = ctx.head, ctx.collectives
        g_operand = torch.zeros_like(operand) if g_operand is None else g_operand
        g_prototypes = torch.zeros_like(prototypes) if g_prototypes is None else g_prototypes
        if g_own is not None:
            g_own = collectives.sum_(g_own.clone())
        if prototypes.shape[0]:
            is_own = (place >= 0).to(operand.dtype)
            own = _own_rows(prototypes, place)
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
            if g_own is not None:
                through = project_unit(g_own, unit, own_inverse) if head.normalize_prototypes else g_own
                g_rows += is_own.unsqueeze(1) * through
            # Walk allocated this gradient for us alone, so adding in place costs no second (R, D) buffer.
            g_prototypes.index_add_(0, place.clamp_min(0), g_rows)
        block = operand.shape[0] // collectives.world_size
        mine = slice(collectives.rank * block, collectives.rank * block + ctx.size)
        g_local = collectives.reduce_scatter(g_operand)[: ctx.size]
        inverse = inverse_norm(norm[mine])
        if head.normalize_embeddings:
            g_local = project_unit(g_local, operand[mine], inverse)
        if g_norm is not None:
            unit_x = operand[mine] if head.normalize_embeddings else operand[mine] * inverse.unsqueeze(1)
            g_local = g_local + g_norm[mine].unsqueeze(1) * unit_x
        return g_local * collectives.world_size, g_prototypes, None, None, None


class Walk(torch.autograd.Function):
    """Operand (N, D), prototypes (R, D) and the head's context, each (N,) -> hardest, log_sum, hardest_cosine."""

    @staticmethod
    def forward(
        ctx: Any, operand: Tensor, prototypes: Tensor, own: Tensor | None, walk: ChunkWalk, collectives: Collectives,
        *context: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
        """Walks the chunks once, then agrees with the other ranks in one MAX and one SUM."""
        found = walk.forward(operand, prototypes, own, context)
        largest = collectives.max_(torch.stack([found.hardest, found.hardest_cosine, found.largest]))
        hardest, hardest_cosine, top = largest.unbind()
        shift = finite(top)
        rescale = (found.largest - shift).exp()
        rows = [
            found.total * rescale,
            found.ties * (found.hardest == hardest),
            found.cosine_ties * (found.hardest_cosine == hardest_cosine),
            *(slope * rescale for slope in found.context_slopes),
        ]
        total, ties, cosine_ties, *slopes = collectives.sum_(torch.stack(rows)).unbind()
        # What the sum's gradient is divided by: nothing, for a plain sum.
        divisor = torch.ones_like(total) if walk.is_sum else torch.where(total > 0, total, 1)
        ctx.save_for_backward(
            operand, prototypes, own, shift, divisor, hardest, ties, hardest_cosine, cosine_ties,
            *context, *slopes, *walk.kept_tensors(),
        )  # fmt: skip
        ctx.walk, ctx.num_context, ctx.num_slopes = walk, len(context), len(slopes)
        ctx.set_materialize_grads(False)
        if not walk.differentiates_hardest:
            ctx.mark_non_differentiable(hardest)
        return hardest, total.clone() if walk.is_sum else shift + total.log(), hardest_cosine

    @staticmethod
    @exact_backward
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        """Local gradients of the operand (N, D) and the prototypes (R, D); those of the context need no collective."""
        g_hardest, g_log_sum, g_cosine = grads
        operand, prototypes, own, shift, divisor, hardest, ties, hardest_cosine, cosine_ties, *rest = ctx.saved_tensors
        context, slopes = rest[: ctx.num_context], rest[ctx.num_context : ctx.num_context + ctx.num_slopes]
        kept = rest[ctx.num_context + ctx.num_slopes :]
        g_log_sum = torch.zeros_like(divisor) if g_log_sum is None else g_log_sum
        coefficient = g_log_sum / divisor
        upstream = Upstream(
            coefficient,
            shift,
            None if g_hardest is None else (hardest, g_hardest / ties.clamp_min(1)),
            None if g_cosine is None else (hardest_cosine, g_cosine / cosine_ties.clamp_min(1)),
        )
        g_operand, g_prototypes, g_own = ctx.walk.backward(operand, prototypes, own, context, upstream, kept)
        g_context: list[Tensor | None] = [None] * ctx.num_context
        for index, slope in zip(ctx.walk.differentiable_context, slopes, strict=True):
            g_context[index] = coefficient * slope
        return g_operand, g_prototypes, g_own, None, None, *g_context


def class_statistics(
    local: Tensor, prototypes: Tensor, batch: Batch, head: Head, options: EngineOptions, collectives: Collectives,
    column_logit: Tensor | None = None, update_head: bool = False,
) -> ClassStatistics:  # fmt: skip
    """Runs the engine for one batch.

    Args:
        local: (B, D) embeddings of this rank, with gradient.
        prototypes: (C, D) active prototypes of this rank, or (C, sub_centers, D), with gradient; C may be 0.
        batch: the gathered batch.
        head: supplies flags, context and non_target.
        options: how to walk.
        collectives: of the ranks that share the batch.
        column_logit: (C,) added to the non-target logit of each class, or None.
        update_head: whether ``head.update`` runs.

    Returns:
        Differentiable statistics, equal on every rank.
    """
    rows = prototypes.reshape(-1, prototypes.shape[-1])
    target, norm, own_norm, operand, walked, own = Enter.apply(local, rows, batch, head, collectives)
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
    hardest, log_sum, cosine = Walk.apply(operand, walked, own, walk, collectives, *context)
    hardest_cosine = (hardest if head.is_on_cosines else cosine) if options.wants_hardest_cosine else None
    return ClassStatistics(**known, log_sum=log_sum, hardest=hardest, hardest_cosine=hardest_cosine)


def _own_places(operand: Tensor, prototypes: Tensor, column: Tensor, head: Head) -> Tensor:
    """(N,) row of each sample's own prototype, of its best sub-centre where there are several; -1 where elsewhere."""
    if head.sub_centers == 1 or not prototypes.shape[0]:
        return column
    candidates = prototypes.unflatten(0, (-1, head.sub_centers)).index_select(0, column.clamp_min(0))
    similarity = torch.einsum("nd,nkd->nk", operand, candidates)
    if head.normalize_prototypes:
        similarity *= inverse_norm(torch.linalg.vector_norm(candidates, dim=2))
    return torch.where(column < 0, -1, column * head.sub_centers + similarity.argmax(dim=1))


def _own_rows(prototypes: Tensor, place: Tensor) -> Tensor:
    """Own prototype of each sample, (N, D); zeros where another rank owns it."""
    if not prototypes.shape[0]:
        return prototypes.new_zeros(place.shape[0], prototypes.shape[1])
    return prototypes.index_select(0, place.clamp_min(0)) * (place >= 0).unsqueeze(1)
