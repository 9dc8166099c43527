"""Numbers that a head looks up by label: class weights, margins per class. Knows no formulas."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from losses.head import SampleStatistics

PerLabel = float | Sequence[float] | Tensor


class ByLabel(nn.Module):
    """One number for all classes, or one per class.

    The values are an option of the head, not something it learned: they move with the module, but checkpoints do not
    hold them.

    Args:
        name: head and option, for error messages: "gm_softmax: alpha1".
        value: a float, or (num_classes,) floats by global class id.

    Raises:
        ValueError: the value is neither, or not finite.
    """

    values: Tensor

    def __init__(self, name: str, value: PerLabel) -> None:
        super().__init__()
        self.name = name
        try:
            values = torch.as_tensor(value, dtype=torch.float64)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{name} must be a number, or one number per class, got {value!r}") from error
        if values.ndim > 1 or not values.numel() or not values.isfinite().all():
            raise ValueError(f"{name} must be a finite number, or one per class, got {value!r}")
        self.register_buffer("values", values.detach().clone(), persistent=False)

    def check(self, num_classes: int) -> None:
        """Call it in the head's ``setup``.

        Raises:
            ValueError: there are values per class, but not one for each of ``num_classes``.
        """
        if self.values.ndim and self.values.shape[0] != num_classes:
            raise ValueError(f"{self.name} has {self.values.shape[0]} values, but there are {num_classes} classes")

    def forward(self, stats: SampleStatistics) -> Tensor:
        """Value of each sample's class, (N,), or 0-dim where all classes share it; in the statistics' precision."""
        values = self.values
        if values.ndim:
            # A label out of range has made its weight NaN by now; on a GPU, indexing with it would end the process.
            values = values[stats.labels.clamp(0, values.shape[0] - 1)]
        return values.to(stats.target.dtype)


def class_weight_factors(weights: ByLabel, stats: SampleStatistics) -> Tensor:
    """(N,) factors w_y / (weighted mean of w_y over the batch), so that their weighted sum is a weighted mean.

    As the ``weight`` of torch.nn.functional.cross_entropy: the sum of the weighted losses over the sum of the weights.
    """
    own = weights(stats).expand_as(stats.weight)
    return own / (own * stats.weight).sum()
