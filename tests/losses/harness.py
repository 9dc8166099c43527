"""Runs PartialFC on the ranks and the dense oracle beside it, and measures how far they are apart; holds no tests."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, distributed

from losses import PartialFC, build_head
from tests.losses.problems import EMBEDDING_SIZE, Case, class_counts, make_problem, relative, relative_by_row
from tests.oracles import HEAD_ORACLES, REGULARIZER_ORACLES, STATE_ORACLES, Dense, is_right


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
    parameter_error: float
    state_error: float
    num_right: int
    num_samples: int
    sampled: tuple[int, ...]
    class_range: tuple[int, int]
    losses_agree: bool
    buffers_agree: bool

    def worst(self) -> float:
        """The largest error of all; NaN counts as infinite."""
        whole = (self.loss_error, self.embedding_error, self.prototype_error, self.parameter_error, self.state_error)
        errors = (*whole, self.embedding_row_error, self.prototype_row_error)
        return math.inf if any(math.isnan(error) for error in errors) else max(errors)


def world() -> tuple[int, int]:
    """(rank, world_size), also without a process group."""
    if not distributed.is_initialized():
        return 0, 1
    return distributed.get_rank(), distributed.get_world_size()


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
        "class_counts": class_counts(case.num_classes),
    }
    head = build_head(case.head, **case.head_options)
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
    """(C_local, D) or (C_local, K, D) gradient of this rank's prototypes, zeros where nothing was sampled."""
    gradient = torch.zeros_like(fc.weight)
    for waiting in fc.row_gradients():
        gradient[slice(None) if waiting.rows is None else waiting.rows] += waiting.gradient
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
    loss = HEAD_ORACLES[case.head](batch, **case.head_options)
    for name, weight in case.regularizers.items():
        loss = loss + weight * REGULARIZER_ORACLES[name](batch)
    return loss


def new_state(batch: Dense, case: Case) -> dict[str, Tensor]:
    """The head's running statistics after the pass; every other buffer stays as it was."""
    state = dict(batch.state)
    if case.head in STATE_ORACLES:
        state |= STATE_ORACLES[case.head](batch, **case.head_options)
    return state


def buffers_of(fc: PartialFC) -> dict[str, Tensor]:
    """Copies of the head's buffers, by name, in float64 where they hold floats."""
    copies = {name: buffer.detach().clone() for name, buffer in fc.head.named_buffers()}
    return {name: copy.double() if copy.is_floating_point() else copy for name, copy in copies.items()}


def run_earlier_passes(fc: PartialFC, case: Case) -> None:
    """Training passes on other, longer or shorter embeddings than those of the comparison, gradients thrown away."""
    for index in range(case.earlier_passes):
        embeddings, _, labels = make_problem(replace(case, seed=case.seed + 100 + index))
        rows = local_rows(case)
        local = ((3.0 + index) * embeddings[rows]).to(case.dtype).requires_grad_()
        forward(fc, local, labels[rows], case, micro_step=index + 1).backward()
        fc.clear_gradients()


def dense_batch(case: Case, fc: PartialFC, state: dict[str, Tensor], *problem: Tensor) -> Dense:
    """The problem as the oracle sees it, after PartialFC's forward pass (it drew the classes and the noise)."""
    embeddings, prototypes, labels = (tensor.clone() for tensor in problem)
    assert fc.last_statistics is not None
    is_real = fc.last_statistics.weight > 0
    return Dense(
        embeddings=embeddings.requires_grad_(),
        prototypes=prototypes.requires_grad_(),
        labels=labels,
        shift=sampling_shift(fc, case, labels),
        filter=case.interclass_filter,
        margin_factor=case.margin_factor,
        step=case.step,
        noise=fc.last_statistics.noise[is_real].double(),
        class_counts=class_counts(case.num_classes),
        state=state,
        parameters={name: p.detach().double().clone().requires_grad_() for name, p in fc.head.named_parameters()},
    )


def compare(case: Case) -> Outcome:
    """Run one case on this rank and measure it against the oracle."""
    _, size = world()
    embeddings, prototypes, labels = make_problem(case)
    fc = build(case, prototypes)
    run_earlier_passes(fc, case)
    state = buffers_of(fc)
    rows = local_rows(case)
    local = embeddings[rows].to(case.dtype).requires_grad_()
    loss = forward(fc, local, labels[rows], case)
    loss.backward()
    value = float(loss.detach())

    batch = dense_batch(case, fc, state, embeddings, prototypes, labels)
    wanted = oracle_loss(batch, case)
    leaves = [batch.embeddings, batch.prototypes, *batch.parameters.values()]
    wanted_x, wanted_w, *wanted_p = torch.autograd.grad(wanted, leaves, allow_unused=True, materialize_grads=True)
    start, stop = fc.class_range
    if batch.shift is not None:  # the centroid's gradient reaches this step's rows only
        wanted_w[batch.shift == -math.inf] = 0
    assert local.grad is not None
    # DDP averages the backbone's gradient over the ranks, so each rank's share is world_size times the global one
    got_x, got_w = local.grad.double() / size, prototype_gradient(fc).double()
    got_p = [torch.zeros_like(p) if p.grad is None else p.grad.double() for p in fc.head.parameters()]
    scale_x, scale_w = (gradient.abs().max().clamp_min(1e-300) for gradient in (wanted_x, wanted_w))
    wanted_x, wanted_w = wanted_x[rows], wanted_w[start:stop]
    wanted_value = float(wanted.detach())
    return Outcome(
        loss=value,
        oracle_loss=wanted_value,
        loss_error=abs(value - wanted_value) / max(abs(wanted_value), 1e-300),
        embedding_error=float((got_x - wanted_x).abs().max() / scale_x) if len(wanted_x) else 0.0,
        embedding_row_error=relative_by_row(got_x, wanted_x, 1e-9 * float(scale_x)),
        prototype_error=float((got_w - wanted_w).abs().max() / scale_w) if len(wanted_w) else 0.0,
        prototype_row_error=relative_by_row(got_w, wanted_w, 1e-9 * float(scale_w)),
        parameter_error=max((relative(got, p) for got, p in zip(got_p, wanted_p, strict=True)), default=0.0),
        state_error=max(
            (relative(buffers_of(fc)[name], new) for name, new in new_state(batch, case).items()), default=0
        ),
        num_right=int(is_right(batch).sum()),
        num_samples=len(labels),
        sampled=tuple(fc.sampled_classes.tolist()) if case.sample_rate < 1 else tuple(range(start, stop)),
        class_range=(start, stop),
        losses_agree=len(set(gathered(value))) == 1,
        buffers_agree=are_equal(gathered(buffers_of(fc))),
    )


def are_equal(by_rank: Sequence[dict[str, Tensor]]) -> bool:
    """Whether the buffers of all ranks are the same, bit for bit."""
    return all(torch.equal(value, by_rank[0][name]) for buffers in by_rank for name, value in buffers.items())


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
        if not outcome.worst() <= tolerance or not outcome.losses_agree or not outcome.buffers_agree
    ]
