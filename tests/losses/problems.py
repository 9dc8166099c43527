"""What a comparison of head and oracle needs: a Case, its batch and prototypes, distances of results; runs nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from torch import Tensor

from losses import HEADS, build_head

EMBEDDING_SIZE = 6


@dataclass(frozen=True)
class ByClass:
    """A head's option with one value for each class, evenly spaced from low to high."""

    low: float
    high: float


@dataclass(frozen=True)
class Case:
    """One comparison: a head, the shapes it meets, and what the engine adds."""

    head: str
    options: Mapping[str, Any] = field(default_factory=dict)
    num_classes: int = 10
    num_labels: int | None = None  # how many of the classes occur in the batch, the first ones
    batch_sizes: Sequence[int] = (9,)  # one for each rank
    chunk_size: int | None = None
    memory_budget: int | None = None
    sample_rate: float = 1.0
    sampling_correction: bool = False
    regularizers: Mapping[str, float] = field(default_factory=dict)
    interclass_filter: float | None = None
    margin_factor: float = 1.0
    seed: int = 0
    step: int = 0
    earlier_passes: int = 0  # training passes on other data, which move the head's running statistics
    tie: bool = False  # the first and the last class share their prototype, the hardest one of every other sample
    dtype: torch.dtype = torch.float64

    def __str__(self) -> str:
        changed = {item.name: getattr(self, item.name) for item in fields(self) if item.name not in ("head", "options")}
        defaults = {item.name: item.default for item in fields(self)}
        changed = {key: value for key, value in changed.items() if value != defaults[key] and value != {}}
        return ", ".join([self.head, *(f"{key}={value}" for key, value in {**self.options, **changed}.items())])

    @property
    def head_options(self) -> dict[str, Any]:
        """The options with a value for each class where ByClass stands."""
        return {key: self._resolved(value) for key, value in self.options.items()}

    @property
    def sub_centers(self) -> int:
        """Prototypes per class, as the head says."""
        return build_head(self.head, **self.head_options).sub_centers if self.head in HEADS else 1

    def _resolved(self, value: Any) -> Any:
        if isinstance(value, ByClass):
            return torch.linspace(value.low, value.high, self.num_classes, dtype=torch.float64)
        return value


def class_counts(num_classes: int) -> Tensor:
    """(C,) images per class, all between 1 and 23."""
    return 1 + (7 * torch.arange(num_classes)) % 23


def make_problem(case: Case) -> tuple[Tensor, Tensor, Tensor]:
    """Global embeddings, prototypes, labels in float64: samples right and wrong, one opposite its prototype.

    Samples lie along one of their class's sub-centres, where there are several: not all of them along the same.
    """
    random = torch.Generator().manual_seed(1000 + case.seed)
    num_samples, num_centers = sum(case.batch_sizes), case.sub_centers
    sizes = {"generator": random, "dtype": torch.float64}
    prototypes = torch.randn(case.num_classes, num_centers, EMBEDDING_SIZE, **sizes)
    prototypes *= 0.5 + 2 * torch.rand(case.num_classes, num_centers, 1, **sizes)
    labels = torch.randint(case.num_classes, (num_samples,), generator=random) % (case.num_labels or case.num_classes)
    if case.tie:
        labels = 1 + labels % (case.num_classes - 2)
        prototypes[0] *= 0.1
        prototypes[0, :, 0] = 5
        prototypes[-1] = prototypes[0]
    labels[1:2] = labels[0]  # a class of two images
    own = prototypes[labels, torch.arange(num_samples) % num_centers]
    own = own / own.norm(dim=1, keepdim=True)
    pull = torch.linspace(-0.5, 2.5, num_samples, dtype=torch.float64)[:, None]
    embeddings = pull * own + 0.4 * torch.randn(num_samples, EMBEDDING_SIZE, **sizes)
    embeddings[0] = -3 * own[0] + 0.1 * torch.randn(EMBEDDING_SIZE, **sizes)  # theta + m beyond pi
    embeddings *= 0.5 + 4 * torch.rand(num_samples, 1, **sizes)
    if case.tie:
        embeddings[::2, 1:] = 0  # products of one term: equal in any order of summation
        embeddings[::2, 0] = 1 + torch.arange(len(embeddings[::2]))
    return embeddings, prototypes.squeeze(1), labels


def relative(got: Tensor, wanted: Tensor) -> float:
    """Largest difference over the largest wanted entry."""
    return 0.0 if wanted.numel() == 0 else float((got - wanted).abs().max() / wanted.abs().max().clamp_min(1e-300))


def relative_by_row(got: Tensor, wanted: Tensor, floor: float) -> float:
    """As `relative`, each row by itself; rows below `floor` (rounding noise of the others) do not count."""
    difference, largest = (got - wanted).abs().flatten(0, -2).amax(1), wanted.abs().flatten(0, -2).amax(1)
    rows = largest > floor
    return float((difference[rows] / largest[rows]).max()) if rows.any() else 0.0
