"""Runs PartialFC on the ranks and the dense oracle beside it, and measures how far they are apart; holds no tests."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from torch import Tensor, distributed

from losses import PartialFC, build_head
from tests.oracles import HEAD_ORACLES, REGULARIZER_ORACLES, Dense, is_right

EMBEDDING_SIZE = 6


@dataclass(frozen=True)
class Case:
    """One comparison: a head, the shapes it meets, and what the engine adds."""

    head: str
    options: Mapping[str, Any] = field(default_factory=dict)
    num_classes: int = 10
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
    tie: bool = False  # the first and the last class share their prototype, the hardest one of every other sample
    dtype: torch.dtype = torch.float64

    def __str__(self) -> str:
        changed = {item.name: getattr(self, item.name) for item in fields(self) if item.name not in ("head", "options")}
        changed = {key: value for key, value in changed.items() if value != getattr(Case(""), key)}
        return ", ".join([self.head, *(f"{key}={value}" for key, value in {**self.options, **changed}.items())])


@dataclass(frozen=True)
class Outcome:
    """How far a rank is from the oracle; errors relative to the largest entry (`_row`: of each row)."""

    loss: float
    oracle_loss: float
    loss_error: float
    embedding_error: float
    embedding_row_error: float
    prototype_error: float
    prototype_row_error: float
    num_right: int
    num_samples: int
    sampled: tuple[int, ...]
    class_range: tuple[int, int]
    losses_agree: bool

    def worst(self) -> float:
        """The largest error of all; NaN counts as infinite."""
        whole = (self.loss_error, self.embedding_error, self.prototype_error)
        errors = (*whole, self.embedding_row_error, self.prototype_row_error)
        return math.inf if any(math.isnan(error) for error in errors) else max(errors)


def world() -> tuple[int, int]:
    """(rank, world_size), also without a process group."""
    if not distributed.is_initialized():
        return 0, 1
    return distributed.get_rank(), distributed.get_world_size()


def make_problem(case: Case) -> tuple[Tensor, Tensor, Tensor]:
    """Global embeddings, prototypes, labels in float64: samples right and wrong, one opposite its prototype."""
    random = torch.Generator().manual_seed(1000 + case.seed)
    num_samples = sum(case.batch_sizes)
    sizes = {"generator": random, "dtype": torch.float64}
    prototypes = torch.randn(case.num_classes, EMBEDDING_SIZE, **sizes)
    prototypes *= 0.5 + 2 * torch.rand(case.num_classes, 1, **sizes)
    labels = torch.randint(case.num_classes, (num_samples,), generator=random)
    if case.tie:
        labels = 1 + labels % (case.num_classes - 2)
        prototypes[0] *= 0.1
        prototypes[0, 0] = 5
        prototypes[-1] = prototypes[0]
    labels[1:2] = labels[0]  # a class of two images
    own = prototypes[labels] / prototypes[labels].norm(dim=1, keepdim=True)
    pull = torch.linspace(-0.5, 2.5, num_samples, dtype=torch.float64)[:, None]
    embeddings = pull * own + 0.4 * torch.randn(num_samples, EMBEDDING_SIZE, **sizes)
    embeddings[0] = -3 * own[0] + 0.1 * torch.randn(EMBEDDING_SIZE, **sizes)  # theta + m beyond pi
    embeddings *= 0.5 + 4 * torch.rand(num_samples, 1, **sizes)
    if case.tie:
        embeddings[::2, 1:] = 0  # products of one term: equal in any order of summation
        embeddings[::2, 0] = 1 + torch.arange(len(embeddings[::2]))
    return embeddings, prototypes, labels


def build(case: Case, prototypes: Tensor, **changes: Any) -> PartialFC:
    """PartialFC of a case whose local rows are those of the given global prototypes."""
    settings = {
        "sample_rate": case.sample_rate,
        "sampling_correction": case.sampling_correction,
        "regularizers": dict(case.regularizers),
        "interclass_filter": case.interclass_filter,
        "chunk_size": case.chunk_size,
        "memory_budget": case.memory_budget,
        "seed": case.seed,
    }
    head = build_head(case.head, **case.options)
    fc = PartialFC(head, EMBEDDING_SIZE, case.num_classes, **{**settings, **changes}).to(case.dtype)
    fc.margin_factor = case.margin_factor
    start, stop = fc.class_range
    with torch.no_grad():
        fc.weight.copy_(prototypes[start:stop])
    return fc


def local_rows(case: Case) -> slice:
    """Which rows of the global batch this rank holds."""
    rank, _ = world()
    start = sum(case.batch_sizes[:rank])
    return slice(start, start + case.batch_sizes[rank])


def forward(fc: PartialFC, embeddings: Tensor, labels: Tensor, case: Case, **steps: int) -> Tensor:
    """The loss of this rank's slice of the global batch."""
    sizes = tuple(case.batch_sizes)
    even = len(set(sizes)) == 1
    step, micro_step = steps.get("step", case.step), steps.get("micro_step", 0)
    return fc(embeddings, labels, step=step, micro_step=micro_step, batch_sizes=None if even else sizes)


def prototype_gradient(fc: PartialFC) -> Tensor:
    """(C_local, D) gradient of this rank's prototypes, zeros where nothing was sampled."""
    gradient = torch.zeros_like(fc.weight)
    for rows, part in fc.row_gradients():
        gradient[slice(None) if rows is None else rows] += part
    return gradient


def gathered(value: Any) -> list[Any]:
    """The value of every rank."""
    _, size = world()
    if size == 1:
        return [value]
    values: list[Any] = [None] * size
    distributed.all_gather_object(values, value)
    return values


def sampling_shift(fc: PartialFC, case: Case, labels: Tensor) -> Tensor | None:
    """(C,) what sampling adds to the non-targets: -inf where a class is absent, else the correction."""
    if case.sample_rate >= 1:
        return None
    shift = torch.full((case.num_classes,), -math.inf, dtype=torch.float64)
    for (start, stop), sampled in gathered((tuple(fc.class_range), fc.sampled_classes.tolist())):
        positives = {label for label in labels.tolist() if start <= label < stop}
        chosen = len(sampled) - len(positives)
        for class_id in sampled:
            # a positive is always there: only the drawn negatives stand for those that were not
            stands_for = (stop - start - len(positives)) / chosen if class_id not in positives else 1.0
            shift[class_id] = math.log(stands_for) if case.sampling_correction else 0.0
    return shift


def oracle_loss(batch: Dense, case: Case) -> Tensor:
    """Head and regularisers by the dense formulas."""
    loss = HEAD_ORACLES[case.head](batch, **case.options)
    for name, weight in case.regularizers.items():
        loss = loss + weight * REGULARIZER_ORACLES[name](batch)
    return loss


def relative(got: Tensor, wanted: Tensor) -> float:
    """Largest difference over the largest wanted entry."""
    return 0.0 if wanted.numel() == 0 else float((got - wanted).abs().max() / wanted.abs().max().clamp_min(1e-300))


def relative_by_row(got: Tensor, wanted: Tensor, floor: float) -> float:
    """As `relative`, each row by itself; rows below `floor` (rounding noise of the others) do not count."""
    largest = wanted.abs().amax(1)
    rows = largest > floor
    return float(((got - wanted).abs().amax(1)[rows] / largest[rows]).max()) if rows.any() else 0.0


def compare(case: Case) -> Outcome:
    """Run one case on this rank and measure it against the oracle."""
    _, size = world()
    embeddings, prototypes, labels = make_problem(case)
    fc = build(case, prototypes)
    rows = local_rows(case)
    local = embeddings[rows].to(case.dtype).requires_grad_()
    loss = forward(fc, local, labels[rows], case)
    loss.backward()
    value = float(loss.detach())

    dense_x, dense_w = embeddings.clone().requires_grad_(), prototypes.clone().requires_grad_()
    shift = sampling_shift(fc, case, labels)
    batch = Dense(dense_x, dense_w, labels, shift, case.interclass_filter, case.margin_factor)
    wanted = oracle_loss(batch, case)
    wanted_x, wanted_w = torch.autograd.grad(wanted, [dense_x, dense_w])
    start, stop = fc.class_range
    if shift is not None:  # the centroid's gradient reaches this step's rows only
        wanted_w = torch.where((shift > -math.inf)[:, None], wanted_w, 0.0)
    assert local.grad is not None
    # DDP averages the backbone's gradient over the ranks, so each rank's share is world_size times the global one
    got_x, got_w = local.grad.double() / size, prototype_gradient(fc).double()
    scale_x, scale_w = (gradient.abs().max().clamp_min(1e-300) for gradient in (wanted_x, wanted_w))
    wanted_x, wanted_w = wanted_x[rows], wanted_w[start:stop]
    return Outcome(
        loss=value,
        oracle_loss=float(wanted.detach()),
        loss_error=abs(value - float(wanted.detach())) / max(abs(float(wanted.detach())), 1e-300),
        embedding_error=float((got_x - wanted_x).abs().max() / scale_x) if len(wanted_x) else 0.0,
        embedding_row_error=relative_by_row(got_x, wanted_x, 1e-9 * float(scale_x)),
        prototype_error=float((got_w - wanted_w).abs().max() / scale_w) if len(wanted_w) else 0.0,
        prototype_row_error=relative_by_row(got_w, wanted_w, 1e-9 * float(scale_w)),
        num_right=int(is_right(batch).sum()),
        num_samples=len(labels),
        sampled=tuple(fc.sampled_classes.tolist()) if case.sample_rate < 1 else tuple(range(start, stop)),
        class_range=(start, stop),
        losses_agree=len(set(gathered(value))) == 1,
    )


def compare_all(cases: Sequence[Case]) -> list[Outcome]:
    """Every case in one call of the pool."""
    outcomes = []
    for case in cases:
        try:
            outcomes.append(compare(case))
        except Exception as error:
            raise RuntimeError(f"case {case}: {error}") from error
    return outcomes


def failures(cases: Sequence[Case], by_rank: Sequence[Sequence[Outcome]], tolerance: float = 1e-9) -> list[str]:
    """A line for every rank and case that is further from the oracle than the tolerance."""
    return [
        f"rank {rank} of {len(by_rank)}: {case}: {outcome}"
        for rank, outcomes in enumerate(by_rank)
        for case, outcome in zip(cases, outcomes, strict=True)
        if not outcome.worst() <= tolerance or not outcome.losses_agree
    ]
