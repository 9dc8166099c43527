"""Owns this rank's prototypes, samples classes, runs engine and head. Formulas live in heads, products in chunks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from losses.checks import check_head, check_layer
from losses.collectives import Collectives
from losses.head import ClassStatistics, Head
from losses.options import EngineOptions
from losses.products import has_bfloat16_products
from losses.prototype_optimizer import PrototypeOptimizer
from losses.regularizers import build_regularizers
from losses.sampled_rows import RowGradient, SampledRows
from losses.sampling import ClassSample, mixed_seed, refuse_labels, sample_classes
from losses.sharding import as_global, as_local, class_block, initial_prototypes
from losses.statistics import Batch, class_statistics

_DEFAULT_BUDGET = 256 << 20


class PartialFC(nn.Module):
    """Classification layer whose classes are sharded over ranks and, if wanted, sampled; works with any head.

    Rank r owns the block of classes that DTensor's Shard(0) gives it. The gradients are those of the mean loss over the
    global batch: never wrap this module in DistributedDataParallel. Without torch.distributed it is one plain module.
    ``weight`` is (C_local, D), or (C_local, sub_centers, D) where the head keeps several prototypes per class.

    Source of sampling: An et al., "Killing Two Birds with One Stone: Efficient and Robust Training of Face Recognition
    CNNs by Partial FC", CVPR 2022. Differs: every rank samples its own negatives, and rows that were not sampled do not
    move.

    Args:
        head: the margin head.
        embedding_size: D.
        num_classes: over all ranks, >= 2.
        sample_rate: share of the classes that take part in a step, 0 < rate <= 1; classes of the batch always do.
        sampling_correction: adds log((C_local - P) / (K - P)) to the logits of the sampled negatives (K of C_local
            classes sampled, P of them occurring in the batch), so that the sum over non-targets is unbiased
            (its logarithm only nearly).
        regularizers: registry name -> weight.
        interclass_filter: non-targets whose cosine exceeds it leave the sum; only for heads on cosines. None keeps all.
        class_counts: (num_classes,) images per class, for heads that need them.
        chunk_size: classes per chunk; None fits the cache.
        memory_budget: bytes of chunk results kept for the backward pass; None is 256 MiB. Nothing is kept for heads
            that compare prototypes, nor for ``sample_margin`` on heads that are not on cosines.
        seed: of initial values, sampling and noise.
        prototype_std: standard deviation of the initial prototypes' coordinates.
        process_group: ranks that share the classes; None is the default group.

    Raises:
        ValueError: an argument is out of its range.
    """

    def __init__(
        self, head: Head, embedding_size: int, num_classes: int, *, sample_rate: float = 1.0,
        sampling_correction: bool = False, regularizers: Mapping[str, float] | None = None,
        interclass_filter: float | None = None, class_counts: Tensor | None = None, chunk_size: int | None = None,
        memory_budget: int | None = None, seed: int = 0, prototype_std: float = 0.01,
        process_group: dist.ProcessGroup | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        class_counts = None if class_counts is None else torch.as_tensor(class_counts)
        check_layer(head, embedding_size, num_classes, sample_rate, interclass_filter, chunk_size, class_counts)
        self.head, self.embedding_size, self.num_classes = head, embedding_size, num_classes
        self.sample_rate, self.sampling_correction, self.seed = sample_rate, sampling_correction, seed
        self.regularizers = build_regularizers(regularizers or {})
        self.margin_factor = 1.0
        self.collectives = Collectives(process_group)
        self.class_range = class_block(num_classes, self.collectives.rank, self.collectives.world_size)
        rows = initial_prototypes(*self.class_range, embedding_size, prototype_std, seed, head.sub_centers)
        self.weight = nn.Parameter(rows)
        self.options = EngineOptions(
            chunk_size=chunk_size,
            memory_budget=_DEFAULT_BUDGET if memory_budget is None else memory_budget,
            interclass_filter=interclass_filter,
            wants_hardest_cosine=any(term.wants_hardest_cosine for term, _ in self.regularizers),
        )
        self.last_statistics: ClassStatistics | None = None
        self._sampled = SampledRows()
        self._rows: Tensor | None = None
        head.setup(num_classes, class_counts)
        check_head(head, num_classes, self.options)

    def forward(
        self, embeddings: Tensor, labels: Tensor, *, step: int = 0, micro_step: int = 0,
        batch_sizes: Sequence[int] | None = None,
    ) -> Tensor:  # fmt: skip
        """Mean loss over the global batch.

        Args:
            embeddings: (B, D) of this rank, not normalised.
            labels: (B,) global class ids in [0, num_classes).
            step: optimizer step; annealing, sampling and noise are functions of it.
            micro_step: index within the accumulation of one step.
            batch_sizes: B of every rank, where they differ; host integers.

        Returns:
            0-dim loss, equal on all ranks.

        Raises:
            ValueError: shapes or batch sizes do not fit; on CPU also a label out of range, on every rank. On a GPU,
                where a check would stall the device, such a label makes the loss NaN.
        """
        self._check_batch(embeddings, labels, batch_sizes)
        is_reduced = torch.is_autocast_enabled(embeddings.device.type) and has_bfloat16_products(embeddings.device)
        with torch.autocast(embeddings.device.type, enabled=False):
            local = embeddings if embeddings.dtype == torch.float64 else embeddings.float()
            if labels.dtype != torch.int64:
                labels = labels.long()
            everyone, labels, weight = self.collectives.gather_batch(local.detach(), labels, batch_sizes)
            weight = refuse_labels(labels, weight, self.num_classes)
            active, sample = self._activate(labels, step, micro_step)
            batch = self._batch(everyone, labels, weight, sample.column, step, micro_step)
            budget = self.options.memory_budget if torch.is_grad_enabled() else 0
            is_reduced = is_reduced and local.dtype == torch.float32
            options = replace(self.options, is_reduced=is_reduced, memory_budget=budget)
            stats = class_statistics(
                local, active, batch, self.head, options, self.collectives, sample.column_logit,
                update_head=self.training and torch.is_grad_enabled(),
            )  # fmt: skip
            loss = (self.head.loss(stats) * stats.weight).sum()
            for term, factor in self.regularizers:
                loss = loss + factor * term(stats, self.head, active, self.weight, self.collectives)
        self.last_statistics = stats.detach()
        return loss

    @property
    def sampled_classes(self) -> Tensor:
        """Global ids of this rank's classes that took part in the last forward pass, ascending."""
        rows = torch.arange(self.weight.shape[0], device=self.weight.device) if self._rows is None else self._rows
        return rows + self.class_range[0]

    def make_optimizer(self, kind: str, lr: float, **options: Any) -> PrototypeOptimizer:
        """Optimizer of the prototypes and the head's parameters: "sgd" (momentum, weight_decay) or "adamw"."""
        return PrototypeOptimizer(self, kind, lr, **options)

    def row_gradients(self) -> list[RowGradient]:
        """Gradients waiting for the optimizer, at most one; rows of micro-batches are merged."""
        return self._sampled.gradients(self.weight)

    def squared_grad_norm(self) -> Tensor:
        """Sum of squares of this rank's prototype gradients, 0-dim; non-finite as soon as one of them is."""
        total = self.weight.new_zeros(())
        for waiting in self.row_gradients():
            total = total + torch.linalg.vector_norm(waiting.gradient).square()
        return total

    def scale_grads_(self, factor: Tensor | float) -> None:
        """Multiplies the gradients of prototypes and head in place: averaging, unscaling, clipping."""
        gradients = [waiting.gradient for waiting in self.row_gradients()]
        gradients += [parameter.grad for parameter in self.head.parameters() if parameter.grad is not None]
        for gradient in gradients:
            gradient.mul_(factor)

    def clear_gradients(self) -> None:
        """Forgets the gradients of prototypes and head."""
        self.weight.grad = None
        self._sampled.clear()
        for parameter in self.head.parameters():
            parameter.grad = None

    def as_global(self, rows: Tensor) -> Tensor:
        """A per-class tensor of this rank (C_local, ...) as a DTensor over all classes; itself without a group."""
        return as_global(rows, self.num_classes, self.collectives)

    def sharded_state_dict(self) -> dict[str, Tensor]:
        """Prototypes keyed by global class, so that any world size can load them, and the head's own state."""
        state = {"weight": self.as_global(self.weight.detach())}
        return {**state, **{f"head.{name}": value for name, value in self.head.state_dict().items()}}

    def load_sharded_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Takes over what ``sharded_state_dict`` gave, resharded to this world size."""
        with torch.no_grad():
            self.weight.copy_(as_local(state["weight"]))
        self.head.load_state_dict({name[5:]: value for name, value in state.items() if name.startswith("head.")})

    def _activate(self, labels: Tensor, step: int, micro_step: int) -> tuple[Tensor, ClassSample]:
        """This step's prototypes: the parameter itself, or a leaf of the sampled rows."""
        seed = mixed_seed(self.seed, step, micro_step, self.collectives.rank)
        sample = sample_classes(
            labels, self.class_range, self.sample_rate, seed, has_correction=self.sampling_correction
        )  # fmt: skip
        self._rows = sample.rows
        if sample.rows is None:
            return self.weight, sample
        return self._sampled.take(self.weight, sample.rows), sample

    def _batch(
        self, everyone: Tensor, labels: Tensor, weight: Tensor, column: Tensor, step: int, micro_step: int
    ) -> Batch:
        generator = torch.Generator(everyone.device).manual_seed(mixed_seed(self.seed, step, micro_step))
        noise = torch.randn(labels.shape[0], generator=generator, device=everyone.device, dtype=everyone.dtype)
        return Batch(
            embeddings=everyone, labels=labels, weight=weight, column=column, num_classes=self.num_classes, noise=noise,
            step=everyone.new_full((), step), margin_factor=everyone.new_full((), self.margin_factor),
        )  # fmt: skip

    def _check_batch(self, embeddings: Tensor, labels: Tensor, batch_sizes: Sequence[int] | None) -> None:
        if embeddings.ndim != 2 or embeddings.shape[1] != self.embedding_size:
            raise ValueError(f"embeddings must be (B, {self.embedding_size}), got {tuple(embeddings.shape)}")
        dtype = torch.float64 if embeddings.dtype == torch.float64 else torch.float32
        if self.weight.dtype != dtype:
            raise ValueError(f"embeddings are {embeddings.dtype}, prototypes {self.weight.dtype}: call .to() on one")
        if labels.is_floating_point() or labels.is_complex():
            raise ValueError(f"labels must be integers (class ids), got {labels.dtype}")
        if labels.shape != embeddings.shape[:1]:
            raise ValueError(f"labels must be ({embeddings.shape[0]},) like the embeddings, got {tuple(labels.shape)}")
        if not (embeddings.shape[0] if batch_sizes is None else sum(batch_sizes)):
            raise ValueError("the global batch is empty: no rank has a sample")
        if batch_sizes is None:
            return
        rank, world_size = self.collectives.rank, self.collectives.world_size
        if len(batch_sizes) != world_size or batch_sizes[rank] != embeddings.shape[0]:
            raise ValueError(
                f"batch_sizes must give the batch of each of the {world_size} ranks, and {embeddings.shape[0]} for "
                f"rank {rank}; got {list(batch_sizes)}"
            )
