"""The engine under heads that no registry holds: every flag, contexts and parameters with gradient, ties, odd ranks."""

from __future__ import annotations

import itertools
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, distributed, nn
from torch.nn import functional as F

from losses import ClassStatistics, Head, PartialFC, SampleStatistics, softmax_loss
from tests.losses.harness import (
    EMBEDDING_SIZE,
    Case,
    build,
    forward,
    local_rows,
    make_problem,
    prototype_gradient,
    relative,
    sampling_shift,
    world,
)
from tests.oracles import Dense, cross_entropy, unit
from tests.ranks import RankPool

SIZES = {1: (9,), 2: (6, 3), 3: (1, 5, 2)}
world_sizes = pytest.mark.parametrize("world_size", [1, 2, 3])


class Hinge(Head):
    """max(0, 1 + hardest - target) on inner products: differentiates the hardest class."""

    def loss(self, stats: ClassStatistics) -> Tensor:
        return (1 + stats.hardest - stats.target).clamp_min(0)


class Everything(Head):
    """Uses every statistic, a context that depends on the sample, and two learned parameters."""

    hardest_use: ClassVar[Any] = "gradient"

    def __init__(self, of_embeddings: bool, of_prototypes: bool) -> None:
        super().__init__()
        self.normalize_embeddings, self.normalize_prototypes = of_embeddings, of_prototypes  # type: ignore[misc]
        self.temperature = nn.Parameter(torch.tensor(1.3, dtype=torch.float64))
        self.bias = nn.Parameter(torch.tensor(0.2, dtype=torch.float64))

    def context(self, pre: SampleStatistics) -> tuple[Tensor, ...]:
        return 0.3 * pre.target.tanh() + 0.05 * pre.prototype_norm, self.temperature

    def non_target(self, similarity: Tensor, *context: Tensor) -> Tensor:
        threshold, temperature = context
        return temperature * torch.where(similarity > threshold, similarity * (1 + 0.1 * threshold), 0.9 * similarity)

    def loss(self, stats: ClassStatistics) -> Tensor:
        extra = 0.01 * stats.prototype_norm * stats.embedding_norm.sqrt()
        return softmax_loss(stats.target + self.bias, stats.log_sum, extra) + 0.1 * stats.hardest


def dense_hinge(batch: Dense) -> Tensor:
    products = batch.products
    hardest = products.masked_fill(~batch.is_competitor, -torch.inf).amax(1)
    return (1 + hardest - batch.own(products)).clamp_min(0).mean()


def dense_everything(batch: Dense, head: Everything, temperature: Tensor, bias: Tensor) -> Tensor:
    x = unit(batch.embeddings) if head.normalize_embeddings else batch.embeddings
    w = unit(batch.prototypes) if head.normalize_prototypes else batch.prototypes
    similarity, own_norm = x @ w.T, batch.prototypes[batch.labels].norm(dim=1)
    target = batch.own(similarity)
    threshold = (0.3 * target.tanh() + 0.05 * own_norm)[:, None]
    logits = temperature * torch.where(similarity > threshold, similarity * (1 + 0.1 * threshold), 0.9 * similarity)
    hardest = similarity.masked_fill(~batch.is_competitor, -torch.inf).amax(1)
    extra = 0.01 * own_norm * batch.embeddings.norm(dim=1).sqrt()
    return cross_entropy(batch, target + bias, logits, extra) + 0.1 * hardest.mean()


def compare_outside_head(case: Case, flags: tuple[bool, bool] | None) -> float:
    """Worst relative error of loss, both gradients and the head's parameters; `flags` None is Hinge."""
    _, size = world()
    embeddings, prototypes, labels = make_problem(case)
    rows = local_rows(case)
    head = Hinge() if flags is None else Everything(*flags)
    settings = {"chunk_size": case.chunk_size, "memory_budget": case.memory_budget, "sample_rate": case.sample_rate}
    settings |= {"sampling_correction": case.sampling_correction, "interclass_filter": case.interclass_filter}
    fc = PartialFC(head, EMBEDDING_SIZE, case.num_classes, **settings).double()
    start, stop = fc.class_range
    with torch.no_grad():
        fc.weight.copy_(prototypes[start:stop])
    local = embeddings[rows].clone().requires_grad_()
    loss = forward(fc, local, labels[rows], case)
    loss.backward()
    x, w = embeddings.clone().requires_grad_(), prototypes.clone().requires_grad_()
    shift = sampling_shift(fc, case, labels)
    batch = Dense(x, w, labels, shift, case.interclass_filter)
    parameters = [parameter.detach().clone().requires_grad_() for parameter in head.parameters()]
    wanted = dense_everything(batch, head, *parameters) if isinstance(head, Everything) else dense_hinge(batch)
    wanted_x, wanted_w, *wanted_p = torch.autograd.grad(wanted, [x, w, *parameters])
    assert local.grad is not None
    errors = [relative(loss.detach(), wanted.detach()), relative(local.grad / size, wanted_x[rows])]
    errors.append(relative(prototype_gradient(fc), wanted_w[start:stop]) if wanted_w[start:stop].any() else 0.0)
    for parameter, gradient in zip(head.parameters(), wanted_p, strict=True):  # whole on every rank
        assert parameter.grad is not None
        errors.append(relative(parameter.grad, gradient))
    return max(errors)


def compare_outside_heads(runs: list[tuple[Case, tuple[bool, bool] | None]]) -> list[float]:
    return [compare_outside_head(case, flags) for case, flags in runs]


@world_sizes
def test_any_flags_contexts_and_parameters(ranks: RankPool, world_size: int) -> None:
    runs = [
        (
            Case(
                "",
                num_classes=count,
                batch_sizes=SIZES[world_size],
                chunk_size=chunk,
                memory_budget=budget,
                sample_rate=rate,
                sampling_correction=rate < 1,
                seed=seed,
            ),
            flags,
        )
        for flags in (None, *itertools.product((False, True), repeat=2))
        for seed, (count, chunk, budget, rate) in enumerate(
            [(10, 3, None, 1.0), (10, None, 0, 1.0), (4, 1, None, 1.0), (60, 7, None, 0.3)]
        )
    ]
    runs += [(Case("", batch_sizes=SIZES[world_size], interclass_filter=0.1, chunk_size=3), (True, True))]
    for errors in ranks.run(world_size, compare_outside_heads, runs):
        wrong = [(str(case), flags, error) for (case, flags), error in zip(runs, errors, strict=True) if error > 1e-9]
        assert not wrong


@world_sizes
def test_equal_hardest_classes_share_the_gradient_over_all_ranks(ranks: RankPool, world_size: int) -> None:
    runs = [(Case("", batch_sizes=SIZES[world_size], chunk_size=chunk, tie=True), None) for chunk in (None, 3, 1)]
    for errors in ranks.run(world_size, compare_outside_heads, runs):
        assert max(errors) <= 1e-9


def test_a_rank_may_hold_no_sample(ranks: RankPool) -> None:
    for sizes in [(5, 0, 3), (0, 6, 2), (0, 4)]:
        runs: list[tuple[Case, Any]] = [(Case("", batch_sizes=sizes, chunk_size=3), (True, True))]
        assert max(max(errors) for errors in ranks.run(len(sizes), compare_outside_heads, runs)) <= 1e-9


def spoil(case: Case, where: str) -> tuple[float, int]:
    """The loss after one NaN on the last rank alone."""
    embeddings, prototypes, labels = make_problem(case)
    rank, size = world()
    fc, rows = build(case, prototypes), local_rows(case)
    local = embeddings[rows].clone()
    if rank == size - 1:
        with torch.no_grad():
            (local if where == "embedding" else fc.weight)[0, 0] = torch.nan
    return float(forward(fc, local, labels[rows], case).detach()), rank


@pytest.mark.parametrize("where", ["embedding", "prototype"])
@pytest.mark.parametrize("head", ["softmax", "arcface", "svsoftmax"])
def test_a_nan_on_one_rank_is_seen_by_all(ranks: RankPool, head: str, where: str) -> None:
    losses = ranks.run(3, spoil, Case(head, batch_sizes=(3, 3, 3)), where)
    assert all(loss != loss for loss, _ in losses)


def in_a_subgroup(case: Case) -> float | None:
    """PartialFC on ranks 1 and 2 of three; rank 0 stays out."""
    group = distributed.new_group([1, 2])
    rank, _ = world()
    if rank == 0:
        return None
    embeddings, prototypes, labels = make_problem(case)
    fc = PartialFC(Hinge(), EMBEDDING_SIZE, case.num_classes, process_group=group).double()
    start, stop = fc.class_range
    with torch.no_grad():
        fc.weight.copy_(prototypes[start:stop])
    rows = slice(0, 4) if rank == 1 else slice(4, 8)
    local = embeddings[rows].clone().requires_grad_()
    fc(local, labels[rows]).backward()
    dense = embeddings.clone().requires_grad_()
    dense_hinge(Dense(dense, prototypes, labels)).backward()
    assert local.grad is not None
    assert dense.grad is not None
    assert fc.sharded_state_dict()["weight"].shape == (case.num_classes, EMBEDDING_SIZE)
    return relative(local.grad / 2, dense.grad[rows])


def test_a_process_group_of_its_own(ranks: RankPool) -> None:
    errors = ranks.run(3, in_a_subgroup, Case("", batch_sizes=(4, 4)))
    assert errors[0] is None
    assert max(errors[1:]) <= 1e-9


def test_the_graph_is_freed_with_the_backward_pass() -> None:
    case = Case("cosface", num_classes=50)
    embeddings, prototypes, labels = make_problem(case)
    loss = forward(build(case, prototypes), embeddings.requires_grad_(), labels, case)
    loss.backward()
    with pytest.raises(RuntimeError, match="second time"):
        loss.backward()


def test_the_loss_helper_keeps_the_gradient_of_a_well_classified_sample() -> None:
    target = torch.tensor([20.0], requires_grad=True)  # float32: log(e^20 + 1) - 20 is 0 with gradient 0
    softmax_loss(target, torch.tensor([0.0])).sum().backward()
    assert target.grad is not None
    assert target.grad.item() == pytest.approx(float(-F.sigmoid(torch.tensor(-20.0, dtype=torch.float64))), rel=1e-5)
