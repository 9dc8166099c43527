"""Keeps what a forward pass moves besides the weights, so that a step can be undone. No decision is made here."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Buffers:
    """The buffers of some modules as they were before a step: running statistics, in the main.

    A forward pass with a bad number leaves it in batch-norm's running statistics for good: there an average never
    forgets a NaN. Copies stay on the device and are made in one launch per type of number.
    """

    def __init__(self, *modules: nn.Module) -> None:
        self._modules = modules
        now = self._now()
        self._then = [torch.empty_like(tensor) for tensor in now]
        _copy_all(self._then, now)

    def stayed_finite(self, like: Tensor) -> Tensor:
        """Whether no buffer has become infinite or NaN since, 0-dim, on the device of ``like``; waits for nothing."""
        pairs = [(now, then) for now, then in zip(self._now(), self._then, strict=True) if now.is_floating_point()]
        both = norms([tensor for pair in zip(*pairs, strict=True) for tensor in pair], like)
        after, before = torch.isfinite(both).view(2, -1)
        return (after | ~before).all()  # what was not finite before (a mask of -inf) may stay so

    @torch.no_grad()
    def put_back(self) -> None:
        """Undoes what the step did to them."""
        _copy_all(self._now(), self._then)

    def _now(self) -> list[Tensor]:
        # Asked for each time: a module may put another tensor in a buffer's place.
        return [buffer for module in self._modules for buffer in module.buffers()]


def norms(tensors: Sequence[Tensor], like: Tensor) -> Tensor:
    """The Euclidean norm of each tensor, one vector; not finite where a number is not, or where its square is not.

    The largest magnitude would not overflow, but takes torch fifteen times as long on the CPU.
    """
    present = [tensor for tensor in tensors if tensor.numel()]
    if not present:
        return like.new_zeros(0)
    return torch.stack([norm.to(like.dtype) for norm in torch._foreach_norm(present)])


def _copy_all(targets: Sequence[Tensor], sources: Sequence[Tensor]) -> None:
    """Copies tensors bit for bit, those of one type together."""
    for dtype in {tensor.dtype for tensor in sources}:
        pairs = [(to, source) for to, source in zip(targets, sources, strict=True) if source.dtype == dtype]
        torch._foreach_copy_([to for to, _ in pairs], [source for _, source in pairs])
