"""Shared memory that batches travel in from worker processes, used again and again. Knows no images and no loader."""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Sequence

import torch
from torch import Tensor


class SharedSlots:
    """Slots of shared memory for uint8 tensors of one shape; fresh pages for every batch cost a third of decoding it.

    The process that trains takes slots and opens them; workers inherit ``tensors`` and fill them. A slot is free again
    when the last tensor over it is gone, whoever holds it, so a batch never changes while somebody looks at it.

    Args:
        count: number of slots, 0 for none.
        shape: of every slot's tensor.
    """

    def __init__(self, count: int, shape: Sequence[int]) -> None:
        self.tensors = [torch.zeros(tuple(shape), dtype=torch.uint8).share_memory_() for _ in range(count)]
        self._free = deque(range(count))

    def take(self) -> int | None:
        """A free slot, or None: what does not fit travels in memory of its own."""
        return self._free.popleft() if self._free else None

    def open(self, slot: int) -> Tensor:
        """The tensor in a slot, whose memory gives the slot back when nothing refers to it any more."""
        pixels = self.tensors[slot].numpy()[:]  # an object of its own, which the tensor keeps alive
        weakref.finalize(pixels, self._free.append, slot).atexit = False
        return torch.from_numpy(pixels)
