"""Reduced precision within stated tolerances, and inputs at the edges of the formulas: everything stays finite."""

from __future__ import annotations

import inspect
import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from losses import HEADS, PartialFC, build_head
from tests.losses.harness import (
    EMBEDDING_SIZE,
    Case,
    buffers_of,
    build,
    compare,
    dense_batch,
    forward,
    make_problem,
    oracle_loss,
    prototype_gradient,
)
from tests.losses.options import NAMES, options_of
from tests.losses.problems import class_counts
from tests.ranks import RankPool

heads = pytest.mark.parametrize("name", NAMES)


def moderate(name: str) -> dict[str, Any]:
    """A scale at which rounding stays small, where the head has one by itself."""
    default = inspect.signature(HEADS[name]).parameters.get("scale")
    return {} if default is None or default.default is None else {"scale": 8.0}


def compare_under(cases: list[Case], autocast: torch.dtype | None) -> list[tuple[float, float, float]]:
    """(loss, embedding gradient, prototype gradient) errors of each case; inputs in case.dtype."""
    found = []
    for case in cases:
        with torch.autocast("cpu", dtype=autocast or torch.bfloat16, enabled=autocast is not None):
            outcome = compare(case)
        found.append((outcome.loss_error, outcome.embedding_error, outcome.prototype_error))
    return found


@heads
def test_float32_is_close_to_float64(ranks: RankPool, name: str) -> None:
    cases = [
        Case(name, options, num_classes=50, batch_sizes=(5, 4), chunk_size=chunk, dtype=torch.float32, seed=2)
        for options in ({}, moderate(name))
        for chunk in (None, 7)
    ]
    for errors in ranks.run(2, compare_under, cases, None):
        assert max(max(error) for error in errors) < 2e-5


@pytest.mark.parametrize("autocast", [torch.bfloat16, torch.float16], ids=str)
@heads
def test_autocast_rounds_operands_only(ranks: RankPool, name: str, autocast: torch.dtype) -> None:
    # rounding to bf16 moves a product by up to 2^-8 of itself: 8 * 2^-8 in a logit of scale 8, and its exp by 3 %
    cases = [Case(name, moderate(name), num_classes=50, batch_sizes=(5, 4), dtype=torch.float32, seed=2)]
    for (loss, embedding, prototype), *_ in ranks.run(2, compare_under, cases, autocast):
        assert loss < 0.02
        assert embedding < 0.06
        assert prototype < 0.06


EDGES = ["zero embedding", "zero prototype", "cosine 1", "cosine -1", "small norms", "large norms"]


def edge_problem(case: Case, kind: str) -> tuple[Tensor, Tensor, Tensor]:
    """The case's samples and classes, the first three samples at the edge."""
    embeddings, prototypes, labels = make_problem(case)
    own = prototypes.reshape(case.num_classes, -1, EMBEDDING_SIZE)[labels, 0]
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
    else:
        embeddings[:3] *= 1e4 / embeddings[:3].norm(dim=1, keepdim=True)
        prototypes *= 1e4
    return embeddings, prototypes, labels


def run_edge(case: Case, kind: str, autocast: torch.dtype | None = None) -> tuple[float, float]:
    """The loss and the oracle's; fails where the loss or a gradient is not finite."""
    embeddings, prototypes, labels = edge_problem(case, kind)
    fc = build(case, prototypes)
    state = buffers_of(fc)
    local = embeddings.to(case.dtype).requires_grad_()
    with torch.autocast("cpu", dtype=autocast or torch.bfloat16, enabled=autocast is not None):
        loss = forward(fc, local, labels, case)
    loss.backward()
    assert torch.isfinite(loss), f"{case}: loss {loss}"
    assert local.grad is not None
    assert torch.isfinite(local.grad).all(), f"{case}: gradient of the embeddings"
    assert torch.isfinite(prototype_gradient(fc)).all(), f"{case}: gradient of the prototypes"
    for parameter_name, parameter in fc.head.named_parameters():
        assert parameter.grad is None or torch.isfinite(parameter.grad).all(), f"{case}: gradient of {parameter_name}"
    wanted = oracle_loss(dense_batch(case, fc, state, embeddings, prototypes, labels), case)
    return float(loss.detach()), float(wanted.detach())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("kind", EDGES)
@heads
def test_edges_are_finite_and_right(name: str, kind: str, dtype: torch.dtype) -> None:
    for options in options_of(name):
        case = Case(name, options, num_classes=8, batch_sizes=(6,), seed=4, dtype=dtype)
        loss, wanted = run_edge(case, kind)
        if (name, kind) == ("wsoftmax", "zero prototype"):
            continue  # without a direction alpha w_y + w_j has no length that the angles give
        # at |cos| = 1 the guard sqrt(1e-7) of the sine moves a margin's target by up to 3e-4 of the scale
        assert loss == pytest.approx(wanted, rel=1e-3), case


@pytest.mark.parametrize("autocast", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("kind", EDGES)
@heads
def test_edges_are_finite_in_reduced_precision(name: str, kind: str, autocast: torch.dtype) -> None:
    run_edge(Case(name, num_classes=8, batch_sizes=(6,), seed=4, dtype=torch.float32), kind, autocast)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_the_singular_point_of_svsoftmax_is_finite(dtype: torch.dtype) -> None:
    for normalized in (False, True):
        options = {"margin": 0.5, "normalized": normalized}
        run_edge(Case("svsoftmax", options, num_classes=8, batch_sizes=(6,), dtype=dtype), "cosine 1")  # h = 0


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


@heads
def test_a_million_classes_stay_finite(name: str) -> None:
    fc = PartialFC(build_head(name), 16, 2**20, seed=1, class_counts=class_counts(2**20))
    embeddings = torch.randn(4, 16, generator=torch.Generator().manual_seed(0)).requires_grad_()
    loss = fc(embeddings, torch.tensor([0, 5, 2**19, 2**20 - 1]))
    loss.backward()
    assert torch.isfinite(loss)
    assert embeddings.grad is not None
    assert torch.isfinite(embeddings.grad).all()
    assert torch.isfinite(prototype_gradient(fc)).all()
