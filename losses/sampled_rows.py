"""The rows of a shard that waiting gradients belong to. No engine, no optimizer, no collectives."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class RowGradient:
    """A prototype gradient that waits for the optimizer.

    Attributes:
        rows: (R,) int64 rows of the shard, no two equal, or None for all of them.
        gradient: (R, ...).
        values: (R, ...) the rows' present values, the optimizer's to overwrite; None: read them from the shard.
    """

    rows: Tensor | None
    gradient: Tensor
    values: Tensor | None = None


class SampledRows:
    """Collects, between two optimizer steps, the leaves that sampled classes were differentiated by."""

    def __init__(self) -> None:
        self._taken: list[tuple[Tensor, Tensor, int]] = []  # rows, leaf, version of the shard they were read from

    def take(self, weight: Tensor, rows: Tensor) -> Tensor:
        """A copy (R, ...) of some rows of ``weight``; where gradients are recorded, a leaf that collects them."""
        leaf = weight.detach().index_select(0, rows)
        if torch.is_grad_enabled() and weight.requires_grad:
            leaf.requires_grad_()
            self._taken.append((rows, leaf, weight._version))
        return leaf

    def clear(self) -> None:
        """Forgets all leaves."""
        self._taken = []

    def gradients(self, weight: Tensor) -> list[RowGradient]:
        """What waits for the optimizer: at most one gradient, since the rows of micro-batches are merged."""
        ready = [(rows, leaf, version) for rows, leaf, version in self._taken if leaf.grad is not None]
        waiting = [taken for taken in self._taken if taken[1].grad is None]  # their backward is still to come
        if weight.grad is not None:  # all rows, where a larger batch left nothing to sample from
            for rows, leaf, _ in ready:
                assert leaf.grad is not None
                weight.grad.index_add_(0, rows, leaf.grad)
            self._taken = waiting
            return [RowGradient(None, weight.grad)]
        if not ready:
            return []
        if len(ready) > 1:
            ready = [_merged(ready, weight)]
            self._taken = [*ready, *waiting]
        rows, leaf, version = ready[0]
        assert leaf.grad is not None
        is_fresh = version == weight._version  # nothing has moved the rows since they were read
        return [RowGradient(rows, leaf.grad, leaf.detach() if is_fresh else None)]


def _merged(taken: list[tuple[Tensor, Tensor, int]], weight: Tensor) -> tuple[Tensor, Tensor, int]:
    """One leaf for several micro-batches, each of which sampled rows of its own.

    Their union has a size that only the device knows: the one place, once per accumulated step, that waits for it.
    """
    union, places = torch.unique(torch.cat([rows for rows, _, _ in taken]), return_inverse=True)
    gradient = weight.new_zeros(union.shape[0], *weight.shape[1:])
    gradient.index_add_(0, places, torch.cat([leaf.grad for _, leaf, _ in taken if leaf.grad is not None]))
    leaf = weight.detach().index_select(0, union)
    leaf.grad = gradient
    return union, leaf, weight._version
