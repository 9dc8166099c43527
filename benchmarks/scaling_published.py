"""arcface_torch's published speeds against the form of the model: three constants fitted, all other rows predicted.

Source: insightface, recognition/arcface_torch/docs/speed_benchmark.md: 8 x V100 32 GB, synthetic identities. The
example beside the table is r50 in mixed precision with a global batch of 1024; the table is taken to be the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

RANKS, BATCH, WIDTH = 8, 1024, 512
# identities -> images/s, all 8 cards together
MODEL_PARALLEL = {
    125_000: 4824, 250_000: 4521, 500_000: 4013, 1_000_000: 3449, 1_400_000: 3043, 2_000_000: 2593, 4_000_000: 1748,
    5_500_000: 1389,
}  # fmt: skip
PARTIAL_FC = {
    125_000: 5004, 250_000: 4976, 500_000: 4900, 1_000_000: 4803, 1_400_000: 4738, 2_000_000: 4626, 4_000_000: 4208,
    5_500_000: 3975, 8_000_000: 3565, 16_000_000: 2679, 29_000_000: 1855,
}  # fmt: skip
# The rows that the constants are fitted to; the other twelve are predictions.
FITTED = ((125_000, 1.0), (125_000, 0.1), (1_400_000, 1.0), (1_400_000, 0.1), (5_500_000, 1.0), (5_500_000, 0.1),
          (29_000_000, 0.1))  # fmt: skip


@dataclass(frozen=True)
class Fit:
    """Seconds of a step = fixed + active classes a card * 6 N D / product_rate + classes a card * per_class.

    Attributes:
        fixed: backbone and everything that does not depend on the classes, seconds.
        product_rate: FLOP/s in the head, its elementwise passes included.
        per_class: seconds per class of a card when sampling: drawing them, and whatever touches all rows.
    """

    fixed: float
    product_rate: float
    per_class: float

    def images_per_second(self, identities: int, sample_rate: float) -> float:
        """Of all cards together."""
        local = identities / RANKS
        product = 6 * BATCH * WIDTH * local * sample_rate / self.product_rate
        return BATCH / (self.fixed + product + (local * self.per_class if sample_rate < 1 else 0))


@dataclass(frozen=True)
class Row:
    """One published speed beside the model's."""

    identities: int
    sample_rate: float
    published: float
    model: float
    is_fitted: bool

    @property
    def error(self) -> float:
        """Relative."""
        return self.model / self.published - 1


def published(identities: int, sample_rate: float) -> float:
    """Images per second of 8 cards."""
    return (MODEL_PARALLEL if sample_rate == 1 else PARTIAL_FC)[identities]


def fit(rows: Sequence[tuple[int, float]] = FITTED) -> Fit:
    """Least squares of the relative errors of the seconds per step."""
    seconds = torch.tensor([BATCH / published(*row) for row in rows], dtype=torch.float64)
    terms = torch.tensor([[1, c / RANKS * rate, c / RANKS if rate < 1 else 0] for c, rate in rows], dtype=torch.float64)
    fixed, product, per_class = torch.linalg.lstsq(terms / seconds[:, None], torch.ones(len(rows), 1).double())[0]
    return Fit(float(fixed), 6 * BATCH * WIDTH / float(product), float(per_class))


def compare(found: Fit) -> list[Row]:
    """All 19 rows of the table."""
    keys = [(c, 1.0) for c in MODEL_PARALLEL] + [(c, 0.1) for c in PARTIAL_FC]
    return [Row(*key, published(*key), found.images_per_second(*key), key in FITTED) for key in keys]
