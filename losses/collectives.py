"""The few collectives of the engine over one process group, or none at all. Nothing else here talks to other ranks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor


class Collectives:
    """Gather, sum, max and reduce-scatter over a group; each is the identity for a single process without a group.

    Args:
        group: a process group, or None for the default group where one is running.
    """

    def __init__(self, group: dist.ProcessGroup | None = None) -> None:
        is_running = dist.is_available() and dist.is_initialized()
        self.group = group
        self.is_distributed = group is not None or is_running
        self.rank = dist.get_rank(group) if self.is_distributed else 0
        self.world_size = dist.get_world_size(group) if self.is_distributed else 1
        self._is_alone = self.world_size == 1

    def sum_(self, values: Tensor) -> Tensor:
        """In-place sum over ranks."""
        if not self._is_alone:
            dist.all_reduce(values, dist.ReduceOp.SUM, group=self.group)
        return values

    def max_(self, values: Tensor) -> Tensor:
        """In-place elementwise maximum over ranks."""
        if not self._is_alone:
            dist.all_reduce(values, dist.ReduceOp.MAX, group=self.group)
        return values

    def gather(self, block: Tensor) -> Tensor:
        """Blocks of equal shape (B, ...) of all ranks, in rank order -> (world_size * B, ...)."""
        if self._is_alone:
            return block
        blocks = block.new_empty((self.world_size * block.shape[0], *block.shape[1:]))
        dist.all_gather_single(blocks, block.contiguous(), group=self.group)
        return blocks

    def reduce_scatter(self, blocks: Tensor) -> Tensor:
        """Sum over ranks of (world_size * B, ...), of which this rank keeps its own block (B, ...)."""
        if self._is_alone:
            return blocks
        own = blocks.new_empty((blocks.shape[0] // self.world_size, *blocks.shape[1:]))
        dist.reduce_scatter_single(own, blocks.contiguous(), group=self.group)
        return own

    def gather_batch(
        self, embeddings: Tensor, labels: Tensor, batch_sizes: Sequence[int] | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Gathers one padded batch per rank in a single collective.

        gloo gathers blocks of one size only, so shorter batches are padded with ordinary values of weight 0: zeros
        would make NaN through 0 * inf. The embedding is 1/sqrt(D) everywhere, the label that of the batch's first
        sample, so that padding brings no class into a sampled step.

        Args:
            embeddings: (B, D), float32 or float64.
            labels: (B,) int64.
            batch_sizes: B of every rank, or None when all are equal.

        Returns:
            Embeddings (N, D), labels (N,) and weights (N,), N = world_size * max(batch_sizes); a weight is
            1 / number of real samples, or 0 on padding.
        """
        sizes = [embeddings.shape[0]] * self.world_size if batch_sizes is None else list(batch_sizes)
        longest = max(sizes)
        padding = longest - embeddings.shape[0]
        if padding:
            filler = embeddings.new_full((padding, embeddings.shape[1]), embeddings.shape[1] ** -0.5)
            embeddings = torch.cat([embeddings, filler])
            labels = torch.cat([labels, labels.new_zeros(padding)])
        weight = embeddings.new_full((len(sizes) * longest,), 1 / max(sum(sizes), 1))
        if min(sizes) < longest:
            for rank, size in enumerate(sizes):
                weight[rank * longest + size : (rank + 1) * longest] = 0
        if self._is_alone:
            return embeddings, labels, weight
        # Labels travel as the bits of an int64 beside the embedding: as float32 values they would be inexact past 2^24.
        label_bits = labels.to(torch.int64).unsqueeze(1).view(embeddings.dtype)
        packed = self.gather(torch.cat([embeddings, label_bits], dim=1))
        width = embeddings.shape[1]
        labels = packed[:, width:].contiguous().view(torch.int64).squeeze(1)
        if min(sizes) < longest:
            first = next(rank for rank, size in enumerate(sizes) if size) * longest
            labels = torch.where(weight > 0, labels, labels[first])
        return packed[:, :width].contiguous(), labels, weight
