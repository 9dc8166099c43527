"""What heads obey whatever their formula: parents, invariances, monotony. Closed forms are in test_closed_forms.py."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from losses import PartialFC
from losses.head import ClassStatistics
from tests.losses.harness import EMBEDDING_SIZE, Case, build, forward, make_problem, prototype_gradient, relative
from tests.losses.options import NAMES, WARMED_HEADS, options_of

E = dict[str, Any]
heads = pytest.mark.parametrize("name", NAMES)


@dataclass(frozen=True)
class Found:
    """One pass of PartialFC: the loss, both gradients, and the layer that gave them."""

    loss: Tensor
    x: Tensor
    w: Tensor
    fc: PartialFC

    @property
    def stats(self) -> ClassStatistics:
        assert self.fc.last_statistics is not None
        return self.fc.last_statistics

    @property
    def losses(self) -> Tensor:
        """(N,) of every sample."""
        return self.fc.head.loss(self.stats).detach()


def run(
    name: str, options: Mapping[str, Any], problem: tuple[Tensor, Tensor, Tensor], *, factor: float = 1.0,
    is_training: bool = True, dtype: torch.dtype = torch.float64, **settings: Any,
) -> Found:  # fmt: skip
    """Loss and gradients of a head on embeddings, prototypes and labels."""
    x, w, labels = problem[0].detach().to(dtype, copy=True).requires_grad_(), problem[1], problem[2]
    shape: E = {"num_classes": len(w), "batch_sizes": (len(x),), "chunk_size": 3, "dtype": dtype}
    case = Case(name, options, margin_factor=factor, **shape)
    fc = build(case, w, **settings).train(is_training)
    loss = forward(fc, x, labels, case)
    loss.backward()
    assert x.grad is not None
    return Found(loss.detach(), x.grad, prototype_gradient(fc), fc)


def assert_equal(one: Found, other: Found, tolerance: float = 1e-10) -> None:
    assert float(one.loss) == pytest.approx(float(other.loss), rel=tolerance)
    assert relative(one.x, other.x) < tolerance
    assert relative(one.w, other.w) < tolerance


FAR = {"lower_norm": 0.1, "upper_norm": 50.0, "norm_weight": 0.0}
FREE = {"virtual_logit_cap": None}
# (head, its options, parent, the parent's options): equal in loss and both gradients
PARENTS: list[tuple[str, E, str, E]] = [
    ("softmax", {"class_weights": 2.5}, "softmax", {}),
    ("normface", {"class_weights": 2.5}, "normface", {}),
    ("cosface", {"margin": 0.0}, "normface", {}),
    ("cosface", {"margin": 0.3, "scale": 8.0}, "combined", {"m1": 1.0, "m2": 0.0, "m3": 0.3, "scale": 8.0}),
    ("arcface", {"margin": 0.0}, "normface", {}),
    ("arcface", {"margin": 0.0, "gradient": "straight_through"}, "normface", {}),
    ("arcface", {"margin": 0.3, "scale": 8.0}, "combined", {"m2": 0.3, "scale": 8.0}),
    ("combined", {}, "normface", {}),
    ("sphereface", {"margin": 1.0}, "normface", {"scale": 30.0}),
    ("sphereface", {"margin": 1.7, "scale": 8.0}, "combined", {"m1": 1.7, "scale": 8.0}),
    ("subcenter_arcface", {"sub_centers": 1, "scale": 8.0}, "arcface", {"scale": 8.0}),
    ("soft_margin", {"margin": 0.0}, "softmax", {}),
    ("svsoftmax", {"margin": 1.0}, "virtual_softmax", {}),
    ("svsoftmax", {"margin": 1.0, **FREE}, "virtual_softmax", FREE),
    ("svsoftmax", {"margin": 1.0, "normalized": True}, "virtual_softmax", {"normalized": True}),
    ("virtual_softmax", {"virtual_logit_cap": 2e-10}, "svsoftmax", {"virtual_logit_cap": 2e-10}),  # e^0 either way
    ("lsoftmax", {"margin": 1}, "softmax", {}),
    ("lsoftmax", {"margin": 4, "minimum": 1e30}, "softmax", {}),  # annealed away
    ("asoftmax", {"margin": 1}, "wsoftmax", {"alpha": 0.0}),  # both softmax on unit prototypes
    ("lm_softmax", {"scale": 8.0, "class_weights": 1.0}, "lm_softmax", {"scale": 8.0}),
    ("gm_softmax", {"scale": 8.0}, "normface", {"scale": 8.0}),
    ("gm_softmax", {"scale": 8.0, "beta1": -0.3, "beta2": -0.3}, "cosface", {"scale": 8.0, "margin": 0.3}),
    ("ldam", {"max_margin": 0.0}, "normface", {"scale": 30.0}),
    ("focal", {"gamma": 0.0}, "softmax", {}),
    ("adaface", {"margin": 0.0}, "normface", {}),
    ("magface", {**FAR, "lower_margin": 0.0, "upper_margin": 0.0}, "normface", {}),
    ("magface", {**FAR, "lower_margin": 0.7, "upper_margin": 0.7}, "arcface", {"margin": 0.7}),
    ("elasticface_arc", {"std": 0.0, "scale": 8.0}, "arcface", {"scale": 8.0}),
    ("elasticface_cos", {"std": 0.0, "scale": 8.0}, "cosface", {"margin": 0.35, "scale": 8.0}),
    ("elasticface_cos", {"std": 0.0, "margin": 0.0}, "normface", {}),
    ("mv_arc", {"hard_weight": 1.0, "scale": 8.0}, "arcface", {"scale": 8.0}),
    ("mv_am", {"hard_weight": 1.0, "scale": 8.0}, "cosface", {"scale": 8.0, "margin": 0.35}),
    ("mv_am", {"hard_weight": 1.0, "margin": 0.0, "scale": 8.0}, "normface", {"scale": 8.0}),
]  # fmt: skip

# what the defaults become while margin_factor is 0
UNWARMED: dict[str, tuple[str, E]] = {
    "soft_margin": ("softmax", {}),
    "hinge": ("hinge", {"margin": 0.0}),
    "cosface": ("normface", {}),
    "arcface": ("normface", {}),
    "combined": ("normface", {}),
    "sphereface": ("normface", {"scale": 30.0}),
    "subcenter_arcface": ("subcenter_arcface", {"margin": 0.0}),
    "virtual_softmax": ("softmax", {}),
    "svsoftmax": ("softmax", {}),
    "wsoftmax": ("wsoftmax", {"alpha": 0.0}),
    "uniface": ("uniface", {"margin": 0.0}),
    "ldam": ("normface", {"scale": 30.0}),
    "adaface": ("normface", {}),
    "magface": ("magface", {"lower_margin": 0.0, "upper_margin": 0.0}),
    "elasticface_arc": ("normface", {}),
    "elasticface_cos": ("normface", {}),
    "curricularface": ("curricularface", {"margin": 0.0}),
    "mv_arc": ("mv_arc", {"margin": 0.0}),
    "mv_am": ("mv_am", {"margin": 0.0}),
}
# Heads whose loss depends on the length of x although the cosines do not.
LENGTH_MATTERS = ("adaface", "magface")
# More margin can lower a loss: CurricularFace weighs a hard class by t + cos(theta_j), which may be below 1; W-Softmax
# turns the others towards a w_y that may lie behind x.
NOT_MONOTONE_IN_MARGIN = ("curricularface", "wsoftmax")


@pytest.mark.parametrize(("name", "options", "parent", "parent_options"), PARENTS)
def test_the_parent_head(name: str, options: E, parent: str, parent_options: E) -> None:
    for seed in (0, 1):
        problem = make_problem(Case(name, options, seed=seed))
        one, other = run(name, options, problem), run(parent, parent_options, problem)
        assert_equal(one, other)


def test_every_head_that_warms_up_says_what_it_starts_as() -> None:
    assert set(UNWARMED) == set(WARMED_HEADS)


@pytest.mark.parametrize("name", UNWARMED)
def test_no_margin_before_it_has_warmed_up(name: str) -> None:
    parent, options = UNWARMED[name]
    problem = make_problem(Case(name, seed=2))
    assert_equal(run(name, {}, problem, factor=0.0), run(parent, options, problem))


@pytest.mark.parametrize("name", [name for name in WARMED_HEADS if name not in NOT_MONOTONE_IN_MARGIN])
def test_more_margin_never_lowers_a_loss(name: str) -> None:
    for options in options_of(name):
        if options.get("std", 0) > 0.1:
            continue  # drawn margins below 0
        problem = make_problem(Case(name, options, seed=3))
        losses = torch.stack([run(name, options, problem, factor=factor).losses for factor in (0, 0.4, 0.7, 1)])
        assert (losses.diff(dim=0) >= -1e-9).all(), options


def permuted(options: E, order: Tensor) -> E:
    """Options with a value per class, for classes renumbered so that the new class i is the old order[i]."""
    return {key: value[order] if isinstance(value, Tensor) else value for key, value in options.items()}


@heads
def test_class_ids_are_mere_names(name: str) -> None:
    counts = torch.tensor([1, 50, 3, 7, 2, 90, 11, 1, 4, 6])
    order = torch.tensor([3, 8, 0, 1, 9, 5, 2, 7, 4, 6])
    for seed, options in enumerate(options_of(name)):
        case = Case(name, options, seed=seed)
        x, w, labels = make_problem(case)
        one = run(name, case.head_options, (x, w, labels), class_counts=counts)
        renamed = (x, w[order], order.argsort()[labels])
        other = run(name, permuted(case.head_options, order), renamed, class_counts=counts[order])
        assert_equal(other, replace(one, w=one.w[order]))


@heads
def test_lengths_that_are_normalised_away_do_not_matter(name: str) -> None:
    for seed, options in enumerate(options_of(name)):
        x, w, labels = make_problem(Case(name, options, seed=seed))
        one = run(name, options, (x, w, labels))
        if one.fc.head.normalize_prototypes:
            lengths = torch.logspace(-2, 3, w[..., 0].numel(), dtype=torch.float64).view(*w.shape[:-1], 1)
            other = run(name, options, (x, w * lengths, labels))
            assert_equal(replace(other, w=other.w * lengths), one, 1e-9)
            assert (one.w * w).sum(-1).abs().max() < 1e-9 * one.w.abs().max(), "a gradient along the prototype"
        if one.fc.head.normalize_embeddings and name != "magface":
            assert (one.x * x).sum(1).abs().max() < 1e-9 * (one.x * x).abs().max(), "a gradient along the embedding"
        if one.fc.head.normalize_embeddings and name not in LENGTH_MATTERS:
            lengths = torch.logspace(-2, 3, len(x), dtype=torch.float64)[:, None]
            other = run(name, options, (x * lengths, w, labels))
            assert_equal(replace(other, x=other.x * lengths), one, 1e-9)


@heads
def test_a_sample_does_not_feel_the_others(name: str) -> None:
    """Outside of running statistics (still in eval mode) and class weights (a mean over the batch)."""
    for options in options_of(name):
        if "class_weights" in options:
            continue
        x, w, labels = make_problem(Case(name, options, seed=4))
        whole = run(name, options, (x, w, labels), is_training=False)
        few = run(name, options, (x[:3], w, labels[:3]), is_training=False)
        torch.testing.assert_close(few.losses, whole.losses[:3], rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(few.x * 3, whole.x[:3] * 9, rtol=1e-9, atol=1e-12)


def turning(sub_centers: int) -> tuple[Tensor, Tensor, Tensor]:
    """361 embeddings that turn from their prototype (theta = 0) to its opposite, at right angles to all others."""
    theta = torch.linspace(0, torch.pi, 361, dtype=torch.float64)
    x = torch.zeros(361, EMBEDDING_SIZE, dtype=torch.float64)
    x[:, 0], x[:, 1] = 3 * theta.cos(), 3 * theta.sin()
    w = torch.zeros(4, sub_centers, EMBEDDING_SIZE, dtype=torch.float64)
    w[0, :, 0], w[1, :, 3], w[2, :, 4], w[3, :, 5] = 2, 1, 5, 2
    return x, w.squeeze(1), torch.zeros(361, dtype=torch.int64)


@heads
def test_a_larger_angle_has_a_lower_target_logit_and_a_larger_loss(name: str) -> None:
    """Past pi / m too. Only SV-Softmax's loss may have a dip, inside the angle that it asks for: see closed forms."""
    for options in options_of(name):
        found = run(name, options, turning(Case(name, options, num_classes=4).sub_centers), is_training=False)
        zero = torch.zeros_like(found.stats.target)
        stats = replace(found.stats, noise=zero, hardest=zero, log_sum=zero + 1)
        logits, losses = found.fc.head.target_logit(stats).detach(), found.fc.head.loss(stats).detach()
        assert (logits.diff() <= 1e-12).all(), options
        assert logits[-1] < logits[180] < logits[0]
        if name != "svsoftmax":
            assert (losses.diff() >= -1e-9).all(), options
        assert losses[0] < losses[-1]


@pytest.mark.parametrize("options", [FREE, {}, {"virtual_logit_cap": 2.0}, {"normalized": True, "scale": 8.0}])
@pytest.mark.parametrize("margin", [0.0, 0.3, 0.6, 0.9])
def test_a_virtual_class_never_lowers_a_loss(options: E, margin: float) -> None:
    """And a synthetic one raises it at most as much as one along the embedding."""
    plain = ("normface", {"scale": 8.0}) if options.get("normalized") else ("softmax", {})
    for seed in range(4):
        problem = make_problem(Case("softmax", seed=seed))
        lowest = run(*plain, problem).losses
        synthetic = run("svsoftmax", {"margin": margin, **options}, problem).losses
        highest = run("virtual_softmax", options, problem).losses
        assert (synthetic >= lowest).all()
        assert (highest >= synthetic - 1e-12 * highest).all()
        assert (highest > lowest + 1e-3).any()
