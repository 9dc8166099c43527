"""How the engine's backward passes run: outside of autocast, and once. No gradient is computed here."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

_Backward = TypeVar("_Backward", bound=Callable[..., Any])


def exact_backward(backward: _Backward) -> _Backward:
    """Makes the backward pass of an autograd function repeat the forward pass's products, whoever calls it.

    Inside of autocast its products would be rounded, so that recomputed similarities would not be those of the forward
    pass. And its result is no graph: differentiating a second time is refused.
    """

    @functools.wraps(backward)
    def run(ctx: Any, *grads: Tensor | None) -> Any:
        with torch.autocast(ctx.saved_tensors[0].device.type, enabled=False):
            return backward(ctx, *grads)

    return cast("_Backward", once_differentiable(run))
