"""Finite differences against the gradients of embeddings, prototypes and learned parameters; oracles live elsewhere."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.func import functional_call

from losses import PartialFC, build_head
from tests.losses.options import NAMES, WARMED_HEADS, options_of
from tests.losses.problems import Case, make_problem
from tests.losses.test_properties import run

N, C, D = 4, 5, 3

# Heads whose gradient is, on purpose, not that of the value; their oracles detach the same terms.
DETACHED = {
    "circle": "the weights a_p and a_n are not differentiated",
    "adaface": "the quality z does not send a gradient to the norm; where z is clipped it is constant (tested below)",
}
STRAIGHT_THROUGH = "gradient"  # the option of arcface, sphereface and combined that replaces the exact gradient


def differentiable_cases() -> list[Any]:
    """Every head and set of options that promises the gradient of its value."""
    return [
        pytest.param(name, options, id=str(Case(name, options, num_classes=C)))
        for name in NAMES
        if name not in DETACHED
        for options in options_of(name)
        if options.get(STRAIGHT_THROUGH) != "straight_through"
    ]


def problem(num_centers: int, length: float = 2.0, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Embeddings, prototypes and labels: two samples near their class, one anywhere, one behind it."""
    random = torch.Generator().manual_seed(seed)
    prototypes = torch.randn(C, num_centers, D, generator=random, dtype=torch.float64)
    labels = torch.tensor([3, 0, 3, 1])
    pull = torch.tensor([2.0, 1.2, 0.0, -1.5], dtype=torch.float64)
    embeddings = pull[:, None] * prototypes[labels, 0] + torch.randn(N, D, generator=random, dtype=torch.float64)
    embeddings *= length / embeddings.norm(dim=1, keepdim=True) * torch.linspace(0.6, 1.5, N).double()[:, None]
    return embeddings.requires_grad_(), prototypes.squeeze(1).requires_grad_(), labels


def is_gradient_right(
    fc: PartialFC, embeddings: Tensor, prototypes: Tensor, labels: Tensor, *, by_entry: bool = False
) -> bool:
    """gradcheck of the whole layer, entry by entry or along random directions.

    Eval mode keeps running statistics still, which makes the layer a function.
    """
    fc = fc.double().eval()
    names = [f"head.{name}" for name, _ in fc.head.named_parameters()]
    parameters = [value.detach().clone().requires_grad_() for value in fc.head.parameters()]

    def loss(x: Tensor, w: Tensor, *learned: Tensor) -> Tensor:
        return functional_call(fc, {"weight": w, **dict(zip(names, learned, strict=True))}, (x, labels), {"step": 6})

    inputs = (embeddings, prototypes, *parameters)
    return torch.autograd.gradcheck(loss, inputs, eps=1e-6, atol=2e-6, rtol=1e-5, fast_mode=not by_entry)


def layer(name: str, options: dict[str, Any], **settings: Any) -> PartialFC:
    head = build_head(name, **Case(name, options, num_classes=C).head_options)
    counts = torch.tensor([1, 4, 30, 2, 9])
    return PartialFC(head, D, C, **{"chunk_size": 2, "class_counts": counts, "seed": 1, **settings})


@pytest.mark.parametrize(("name", "options"), differentiable_cases())
def test_gradients_are_those_of_the_loss(name: str, options: dict[str, Any]) -> None:
    for length, seed in ((2.0, 0), (9.0, 3)):  # short and long: inside and outside of caps and norm bounds
        fc = layer(name, options)
        assert is_gradient_right(fc, *problem(fc.head.sub_centers, length, seed), by_entry=seed == 0)


@pytest.mark.parametrize(
    ("name", "factor"),
    [(name, 0.3) for name in NAMES if name not in DETACHED]
    + [(name, 0.0) for name in WARMED_HEADS if name not in DETACHED],
)
def test_gradients_while_the_margin_warms_up_and_with_regularizers(name: str, factor: float) -> None:
    fc = layer(name, {}, regularizers={"sample_margin": 0.7, "zero_centroid": 2.0}, memory_budget=0)
    fc.margin_factor = factor
    assert is_gradient_right(fc, *problem(fc.head.sub_centers))


@pytest.mark.parametrize("name", [name for name in NAMES if build_head(name).is_on_cosines and name not in DETACHED])
def test_gradients_with_an_interclass_filter(name: str) -> None:
    fc = layer(name, {}, interclass_filter=0.3, chunk_size=None)
    assert is_gradient_right(fc, *problem(fc.head.sub_centers))


def test_adaface_where_its_quality_is_clipped() -> None:
    fc = layer("adaface", {"scale": 8.0, "h": 1e6})
    embeddings, prototypes, labels = problem(1)
    fc.head.norm_mean.fill_(2.0)  # z is -1 for two samples, 1 for the others
    assert is_gradient_right(fc, embeddings, prototypes, labels)


@pytest.mark.parametrize("name", ["curricularface", "adaface"])
def test_running_statistics_are_not_differentiated(name: str) -> None:
    """The pass that moves them has the gradient of one that finds them moved."""
    fc = layer(name, {"scale": 8.0, "momentum": 0.5}).double()
    embeddings, prototypes, labels = problem(1)
    gradients, states = [], []
    for is_training in (True, False):
        fc.train(is_training)
        loss = functional_call(fc, {"weight": prototypes}, (embeddings, labels))
        gradients.append(torch.autograd.grad(loss, (embeddings, prototypes)))
        states.append([value.clone() for value in fc.head.buffers()])
    assert all(torch.equal(one, other) for one, other in zip(*gradients, strict=True))
    assert all(torch.equal(one, other) for one, other in zip(*states, strict=True))
    assert not torch.equal(states[0][0], next(layer(name, {}).head.buffers()).double()), "they never moved"


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("circle", {"scale": 8.0}),
        ("adaface", {"scale": 8.0, "h": 0.5}),
        ("arcface", {"scale": 8.0, "gradient": "straight_through"}),
        ("sphereface", {"scale": 8.0, "gradient": "straight_through"}),
        ("combined", {"scale": 8.0, "m1": 1.5, "gradient": "straight_through"}),
    ],
)
def test_a_detached_term_is_seen(name: str, options: dict[str, Any]) -> None:
    """The check is sharp: it fails for the heads that promise another gradient than that of their value."""
    fc = layer(name, options)
    if name == "adaface":
        fc.head.norm_mean.fill_(2.0)
        fc.head.norm_std.fill_(1.0)
    with pytest.raises(RuntimeError, match="Jacobian mismatch"):
        is_gradient_right(fc, *problem(1))


@pytest.mark.parametrize("name", NAMES)
def test_a_batch_of_classes_of_one_image(name: str) -> None:
    """Every class once: the loss is finite, and a short step against the gradient lowers it."""
    labels = torch.randperm(10, generator=torch.Generator().manual_seed(5))
    counts = torch.ones(10, dtype=torch.int64)
    for options in options_of(name):
        x, w, _ = make_problem(Case(name, options, batch_sizes=(10,), seed=6))
        one = run(name, options, (x, w, labels), is_training=False, class_counts=counts)
        size = float((one.x.square().sum() + one.w.square().sum()).sqrt())
        assert math.isfinite(float(one.loss) + size), options
        moved = (x - 1e-4 * one.x / size, w - 1e-4 * one.w / size, labels)
        after = run(name, options, moved, is_training=False, class_counts=counts)
        assert after.loss < one.loss - 1e-6 * size, options
