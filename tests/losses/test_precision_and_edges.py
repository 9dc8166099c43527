"""Reduced precision within stated tolerances, and inputs at the edges of the formulas: everything stays finite."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from losses import HEADS, PartialFC, build_head
from tests.losses.harness import EMBEDDING_SIZE, Case, build, compare, forward, make_problem, prototype_gradient
from tests.oracles import HEAD_ORACLES, Dense
from tests.ranks import RankPool

ALL_HEADS = sorted({head: name for name, head in reversed(HEADS.items())}.values())  # one name a class
MODERATE = {
    "normface": {"scale": 8.0},
    "cosface": {"scale": 8.0},
    "arcface": {"scale": 8.0},
    "combined": {"scale": 8.0},
}


def compare_under(cases: list[Case], autocast: torch.dtype | None) -> list[tuple[float, float, float]]:
    """(loss, embedding gradient, prototype gradient) errors of each case; inputs in case.dtype."""
    found = []
    for case in cases:
        with torch.autocast("cpu", dtype=autocast or torch.bfloat16, enabled=autocast is not None):
            outcome = compare(case)
        found.append((outcome.loss_error, outcome.embedding_error, outcome.prototype_error))
    return found


@pytest.mark.parametrize("name", ALL_HEADS)
def test_float32_is_close_to_float64(ranks: RankPool, name: str) -> None:
    cases = [
        Case(name, options, num_classes=50, batch_sizes=(5, 4), chunk_size=chunk, dtype=torch.float32, seed=2)
        for options in ({}, MODERATE.get(name, {}))
        for chunk in (None, 7)
    ]
    for errors in ranks.run(2, compare_under, cases, None):
        assert max(max(error) for error in errors) < 2e-5


@pytest.mark.parametrize("autocast", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", ALL_HEADS)
def test_autocast_rounds_operands_only(ranks: RankPool, name: str, autocast: torch.dtype) -> None:
    # rounding to bf16 moves a product by up to 2^-8 of itself: 8 * 2^-8 in a logit of scale 8, and its exp by 3 %
    cases = [Case(name, MODERATE.get(name, {}), num_classes=50, batch_sizes=(5, 4), dtype=torch.float32, seed=2)]
    for (loss, embedding, prototype), *_ in ranks.run(2, compare_under, cases, autocast):
        assert loss < 0.02
        assert embedding < 0.06
        assert prototype < 0.06


def edge_problem(kind: str) -> tuple[Tensor, Tensor, Tensor]:
    """Six samples of eight classes, the first three at the edge."""
    embeddings, prototypes, labels = make_problem(Case("", num_classes=8, batch_sizes=(6,), seed=4))
    own = prototypes[labels]
    if kind == "zero embedding":
        embeddings[:3] = 0
    elif kind == "zero prototype":
        prototypes[labels[0]] = 0
    elif kind == "cosine 1":
        embeddings[:3] = 3 * own[:3]
    elif kind == "cosine -1":
        embeddings[:3] = -0.7 * own[:3]
    elif kind == "small norms":
        embeddings[:3] *= 1e-4 / embeddings[:3].norm(dim=1, keepdim=True)
        prototypes *= 1e-4
    elif kind == "large norms":
        embeddings[:3] *= 1e4 / embeddings[:3].norm(dim=1, keepdim=True)
    return embeddings, prototypes, labels


EDGES = ["zero embedding", "zero prototype", "cosine 1", "cosine -1", "small norms", "large norms"]


def run_edge(case: Case, kind: str, autocast: torch.dtype | None = None) -> tuple[Tensor, Tensor, Tensor, float]:
    """Loss, both gradients and the oracle's loss."""
    embeddings, prototypes, labels = edge_problem(kind)
    fc = build(case, prototypes)
    local = embeddings.to(case.dtype).requires_grad_()
    with torch.autocast("cpu", dtype=autocast or torch.bfloat16, enabled=autocast is not None):
        loss = forward(fc, local, labels, case)
    loss.backward()
    assert local.grad is not None
    wanted = HEAD_ORACLES[case.head](Dense(embeddings, prototypes, labels), **case.options)
    return loss.detach(), local.grad, prototype_gradient(fc), float(wanted.detach())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("kind", EDGES)
@pytest.mark.parametrize("name", ALL_HEADS)
def test_edges_are_finite_and_right(name: str, kind: str, dtype: torch.dtype) -> None:
    for options in [{}, {"margin": 1.5}] if name == "arcface" else [{}]:
        case = Case(name, options, num_classes=8, batch_sizes=(6,), dtype=dtype)
        loss, embedding_gradient, gradient, wanted = run_edge(case, kind)
        assert torch.isfinite(loss)
        assert torch.isfinite(embedding_gradient).all()
        assert torch.isfinite(gradient).all()
        # at |cos| = 1 the guard sqrt(1e-7) of the sine moves a margin's target by up to 3e-4 of the scale
        assert float(loss) == pytest.approx(wanted, rel=1e-3)


@pytest.mark.parametrize("autocast", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("kind", EDGES)
@pytest.mark.parametrize("name", ALL_HEADS)
def test_edges_are_finite_in_reduced_precision(name: str, kind: str, autocast: torch.dtype) -> None:
    case = Case(name, num_classes=8, batch_sizes=(6,), dtype=torch.float32)
    loss, embedding_gradient, gradient, _ = run_edge(case, kind, autocast)
    assert torch.isfinite(loss)
    assert torch.isfinite(embedding_gradient).all()
    assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_the_singular_point_of_svsoftmax_is_finite(dtype: torch.dtype) -> None:
    case = Case("svsoftmax", {"margin": 0.5}, num_classes=8, batch_sizes=(6,), dtype=dtype)
    loss, embedding_gradient, gradient, _ = run_edge(case, "cosine 1")  # h = 0
    assert torch.isfinite(loss)
    assert torch.isfinite(embedding_gradient).all()
    assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("name", ["arcface", "combined"])
def test_target_logit_falls_with_theta_past_pi(name: str) -> None:
    options = {"scale": 4.0, "margin": 2.0} if name == "arcface" else {"scale": 4.0, "m1": 2.0, "m2": 1.0}
    losses = []
    for theta in torch.linspace(0.01, math.pi - 0.01, 60).tolist():
        case = Case(name, options, num_classes=2, batch_sizes=(1,))
        prototypes = torch.zeros(2, EMBEDDING_SIZE, dtype=torch.float64)
        prototypes[0, 0] = prototypes[1, 2] = 1  # the other class is orthogonal to every embedding
        embeddings = torch.zeros(1, EMBEDDING_SIZE, dtype=torch.float64)
        embeddings[0, 0], embeddings[0, 1] = math.cos(theta), math.sin(theta)
        losses.append(float(forward(build(case, prototypes), embeddings, torch.tensor([0]), case).detach()))
    assert all(earlier < later for earlier, later in itertools.pairwise(losses))


@pytest.mark.parametrize("name", ALL_HEADS)
def test_a_million_classes_stay_finite(name: str) -> None:
    fc = PartialFC(build_head(name), 16, 2**20, seed=1)
    embeddings = torch.randn(4, 16, generator=torch.Generator().manual_seed(0)).requires_grad_()
    loss = fc(embeddings, torch.tensor([0, 5, 2**19, 2**20 - 1]))
    loss.backward()
    assert torch.isfinite(loss)
    assert embeddings.grad is not None
    assert torch.isfinite(embeddings.grad).all()
    assert torch.isfinite(prototype_gradient(fc)).all()
