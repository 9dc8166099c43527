"""Dense float64 formulas of every head and regulariser, written from the papers; never imports product code.

Each oracle builds the whole (N, C) logit matrix and leaves the derivative to autograd: slow, large, and obvious.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from tests.oracles import (
    adaptive,
    angular,
    comparison,
    imbalance,
    largest_margin,
    lsoftmax,
    mining,
    regularizers,
    softmax,
    virtual,
)
from tests.oracles.dense import Dense, cross_entropy, is_right, unit

HEAD_ORACLES: dict[str, Callable[..., Tensor]] = {
    **softmax.ORACLES,
    **angular.ORACLES,
    **virtual.ORACLES,
    **lsoftmax.ORACLES,
    **largest_margin.ORACLES,
    **imbalance.ORACLES,
    **comparison.ORACLES,
    **adaptive.ORACLES,
    **mining.ORACLES,
}
# the head's running statistics as a training pass leaves them, by buffer name
STATE_ORACLES: dict[str, Callable[..., dict[str, Tensor]]] = {**adaptive.STATES, **mining.STATES}
REGULARIZER_ORACLES: dict[str, Callable[[Dense], Tensor]] = regularizers.ORACLES

__all__ = ["HEAD_ORACLES", "REGULARIZER_ORACLES", "STATE_ORACLES", "Dense", "cross_entropy", "is_right", "unit"]
