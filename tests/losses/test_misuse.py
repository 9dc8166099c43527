"""Unusual use that must work, and use that must be refused: autocast around backward, odd graphs, damaged batches."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from losses import ClassStatistics, Head, PartialFC, SampleStatistics, build_head, softmax_loss
from losses.by_label import ByLabel
from tests.losses.harness import EMBEDDING_SIZE, Case, build, forward, make_problem, prototype_gradient, relative
from tests.losses.options import NAMES


def gradients(case: Case, is_inside: bool) -> tuple[Tensor, Tensor]:
    """Both gradients of a forward pass under autocast, with the backward pass inside of it or outside."""
    embeddings, prototypes, labels = make_problem(case)
    fc = build(case, prototypes)
    local = embeddings.float().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = forward(fc, local, labels, case)
        if is_inside:
            loss.backward()
    if not is_inside:
        loss.backward()
    assert local.grad is not None
    return local.grad, prototype_gradient(fc)


@pytest.mark.parametrize("budget", [0, None])
@pytest.mark.parametrize("name", NAMES)
def test_backward_inside_of_autocast_is_the_same(name: str, budget: int | None) -> None:
    case = Case(name, num_classes=40, chunk_size=7, memory_budget=budget, dtype=torch.float32)
    for one, other in zip(gradients(case, True), gradients(case, False), strict=True):
        assert torch.equal(one, other)


def test_no_other_class_at_all_has_neither_loss_nor_gradient() -> None:
    target = torch.tensor([3.0, 3.0], requires_grad=True)
    others = torch.tensor([[-math.inf, 1.0], [-math.inf, -math.inf]], requires_grad=True)
    losses = softmax_loss(target, others[0], others[1])
    losses.sum().backward()
    assert losses[0] == 0
    assert losses[1] > 0
    for gradient in (target.grad, others.grad):
        assert gradient is not None
        assert gradient.isfinite().all()
        assert not gradient[..., 0].any()


def test_a_virtual_class_that_weighs_nothing_beside_filtered_ones() -> None:
    case = Case(
        "svsoftmax", {"normalized": True}, batch_sizes=(9,), interclass_filter=-0.9999, margin_factor=0.0
    )  # fmt: skip
    embeddings, prototypes, labels = make_problem(case)
    fc = build(case, prototypes)
    loss = forward(fc, embeddings.requires_grad_(), labels, case)
    loss.backward()
    assert loss == 0
    assert embeddings.grad is not None
    assert not embeddings.grad.any()


def test_values_by_label_survive_a_label_that_is_none() -> None:
    values = ByLabel("test", [1.0, 2.0, 3.0])
    vector = torch.zeros(3)
    labels = torch.tensor([0, 99, -1])  # on a GPU only their weight, NaN, says that they are wrong
    stats = SampleStatistics(vector, vector, vector, labels, vector, vector[0], vector[0], vector, 3)
    assert values(stats).tolist() == [1, 3, 1]


class Shifted(Head):
    """Softmax with a learned shift of the non-targets, taken from the right or the wrong place."""

    def __init__(self, by_context: bool) -> None:
        super().__init__()
        self.by_context = by_context
        self.shift = nn.Parameter(torch.tensor(0.5))

    def context(self, pre: SampleStatistics) -> tuple[Tensor, ...]:
        return (self.shift,) if self.by_context else ()

    def non_target(self, similarity: Tensor, *context: Tensor) -> Tensor:
        return similarity + (context[0] if self.by_context else self.shift)


class LearnedScale(Head):
    """A scale that is no number."""

    scale = torch.tensor(3.0)  # type: ignore[assignment]

    def loss(self, stats: ClassStatistics) -> Tensor:
        return softmax_loss(stats.target, stats.log_sum)


class RawSubCenters(Head):
    """Sub-centres on inner products."""

    sub_centers = 2


@pytest.mark.parametrize(
    ("head", "options", "message"),
    [
        (Shifted(False), {}, r"Shifted\.non_target reads a learned number .*shift.*return it from context"),
        (LearnedScale(), {}, "scale must be a float"),
        (RawSubCenters(), {"regularizers": {"sample_margin": 1.0}}, "2 sub-centres on inner products"),
        (build_head("cosface"), {"interclass_filter": math.nan}, "interclass_filter is a cosine, -1 .. 1, got nan"),
        (build_head("cosface"), {"memory_budget": -1}, "memory_budget must be >= 0 bytes, got -1"),
        (build_head("ldam"), {"class_counts": [1, 2]}, r"class_counts must be \(5,\), one per class, got \(2,\)"),
        (build_head("ldam"), {}, "class_counts must hold the number of images"),
        (build_head("normface", class_weights=[1, 2]), {}, "has 2 values, but there are 5 classes"),
    ],
)
def test_what_could_not_be_trained_is_refused(head: Head, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PartialFC(head, EMBEDDING_SIZE, 5, **options)


def test_a_learned_number_of_the_context_is_accepted_and_moves() -> None:
    fc = PartialFC(Shifted(True), EMBEDDING_SIZE, 5)
    fc(torch.ones(2, EMBEDDING_SIZE), torch.tensor([0, 1])).backward()
    assert isinstance(fc.head, Shifted)
    assert fc.head.shift.grad is not None
    assert fc.head.shift.grad > 0.1


@pytest.mark.parametrize(
    ("embeddings", "labels", "message"),
    [
        (torch.ones(2, EMBEDDING_SIZE, dtype=torch.float64), torch.tensor([0, 1]), "embeddings are torch.float64"),
        (torch.ones(2, EMBEDDING_SIZE), torch.tensor([0.0, 1.0]), "labels must be integers"),
        (torch.ones(2, 5), torch.tensor([0, 1]), r"embeddings must be \(B, 6\)"),
    ],
)
def test_a_batch_of_wrong_types_is_refused(embeddings: Tensor, labels: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PartialFC(build_head("softmax"), EMBEDDING_SIZE, 5)(embeddings, labels)


def test_small_integers_are_labels() -> None:
    fc = PartialFC(build_head("softmax"), EMBEDDING_SIZE, 50, sample_rate=0.2)
    assert fc(torch.ones(2, EMBEDDING_SIZE), torch.tensor([0, 49], dtype=torch.int32)).isfinite()


def test_frozen_prototypes_stay_when_classes_are_sampled() -> None:
    fc = PartialFC(build_head("softmax"), EMBEDDING_SIZE, 50, sample_rate=0.2)
    fc.weight.requires_grad_(False)
    optimizer, before = fc.make_optimizer("sgd", lr=1.0), fc.weight.clone()
    embeddings = torch.ones(2, EMBEDDING_SIZE, requires_grad=True)
    fc(embeddings, torch.tensor([0, 1])).backward()
    optimizer.step()
    assert embeddings.grad is not None
    assert torch.equal(fc.weight, before)


def test_a_backward_pass_still_to_come_is_not_forgotten() -> None:
    case = Case("cosface", num_classes=60, batch_sizes=(4,), sample_rate=0.2)
    embeddings, prototypes, labels = make_problem(case)
    found = []
    for looks_between in (False, True):
        fc = build(case, prototypes)
        losses = [forward(fc, embeddings, labels, case, micro_step=index) for index in range(3)]
        losses[0].backward()
        losses[1].backward()
        if looks_between:
            fc.squared_grad_norm()
        losses[2].backward()
        found.append(prototype_gradient(fc))
    assert relative(found[1], found[0]) < 1e-12


def test_sampling_leaves_a_negative_for_a_batch_of_one() -> None:
    fc = PartialFC(build_head("cosface"), 4, 10, sample_rate=0.1, regularizers={"sample_margin": 1.0})
    loss = fc(torch.ones(1, 4), torch.tensor([3]))
    assert len(fc.sampled_classes) == 2
    assert loss.isfinite()


@pytest.mark.parametrize("name", ["curricularface", "adaface"])
@pytest.mark.parametrize("damage", [math.nan, math.inf])
def test_a_damaged_batch_does_not_stay_in_running_statistics(name: str, damage: float) -> None:
    fc = PartialFC(build_head(name), 4, 10)
    fc(torch.ones(2, 4), torch.tensor([0, 1]))
    fc(torch.full((2, 4), damage), torch.tensor([0, 1]))
    assert all(buffer.isfinite().all() for buffer in fc.head.buffers())
    before = [buffer.clone() for buffer in fc.head.buffers()]
    fc(torch.rand(2, 4) + torch.arange(2).unsqueeze(1), torch.tensor([0, 1]))
    assert all(not torch.equal(buffer, old) for buffer, old in zip(fc.head.buffers(), before, strict=True))


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_a_graph_of_the_weights_before_a_step_is_refused(kind: str) -> None:
    fc = PartialFC(build_head("softmax"), 4, 10)
    optimizer = fc.make_optimizer(kind, lr=0.1)
    old = fc(torch.ones(2, 4), torch.tensor([0, 1]))
    fc(torch.ones(2, 4), torch.tensor([0, 1])).backward()
    optimizer.step()
    with pytest.raises(RuntimeError, match=r"modified.* inplace"):
        old.backward()


@pytest.mark.parametrize("options", [{"lr": -1.0}, {"lr": 0.1, "momentum": math.nan}])
def test_rates_below_zero_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must be finite and >= 0"):
        PartialFC(build_head("softmax"), 4, 10).make_optimizer("sgd", **options)
