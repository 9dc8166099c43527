"""Numbers that can be worked out by hand, for single heads: angles, limits, singular points. No oracles."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from losses import build_head
from tests.losses.harness import EMBEDDING_SIZE, Case, make_problem
from tests.losses.test_properties import FREE, assert_equal, run

DEGREES = math.pi / 180


def at_angles(theta: Tensor, lengths: tuple[float, float] = (3.0, 2.0)) -> tuple[Tensor, Tensor, Tensor]:
    """Embeddings at these angles (radians) to w_0, all in the plane of axes 0 and 1; w_1 and w_2 lie along 3 and 4."""
    x = torch.zeros(len(theta), EMBEDDING_SIZE, dtype=torch.float64)
    x[:, 0], x[:, 1] = lengths[0] * theta.cos(), lengths[0] * theta.sin()
    w = torch.zeros(3, EMBEDDING_SIZE, dtype=torch.float64)
    w[0, 0], w[1, 3], w[2, 4] = lengths[1], 1.0, 2.0
    return x, w, torch.zeros(len(theta), dtype=torch.int64)


def degrees(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64) * DEGREES


@pytest.mark.parametrize("margin", [0.0, 0.2, 0.5, 0.6, 0.8, 1.0])
def test_svsoftmax_logit_along_h_and_its_closed_form(margin: float) -> None:
    problem = make_problem(Case("svsoftmax", batch_sizes=(40,)))
    found = run("svsoftmax", {"margin": margin, **FREE}, problem)
    x, w, labels = problem
    own = w[labels]
    h = margin * F.normalize(x) - (1 - margin) * F.normalize(own)
    synthetic = own.norm(dim=1) * (F.normalize(h) * x).sum(1)
    length, cosine = own.norm(dim=1) * x.norm(dim=1), F.cosine_similarity(x, own)
    written = length * (margin - (1 - margin) * cosine)
    written = written / (margin**2 + (1 - margin) ** 2 - 2 * margin * (1 - margin) * cosine).sqrt()
    torch.testing.assert_close(written, synthetic, rtol=1e-10, atol=1e-10)

    logits = x @ w.T
    target = logits.gather(1, labels[:, None])[:, 0]
    is_right = target >= logits.scatter(1, labels[:, None], -math.inf).amax(1)
    assert 5 < int(is_right.sum()) < 35
    extra = torch.where(is_right, synthetic, length)
    head = found.fc.head
    torch.testing.assert_close(head.extra_logit(found.stats), extra, rtol=1e-9, atol=1e-9)  # type: ignore[operator]
    losses = torch.logsumexp(torch.cat([logits, extra[:, None]], dim=1), dim=1) - target
    torch.testing.assert_close(found.losses, losses, rtol=1e-9, atol=1e-12)


def lead_of_synthetic(margin: float, theta: Tensor) -> Tensor:
    """Synthetic minus target logit of SV-Softmax, relative to ||w|| ||x||, at these angles."""
    found = run("svsoftmax", {"margin": margin, **FREE}, at_angles(theta))
    assert (found.stats.target >= found.stats.hardest).all()
    return (found.fc.head.extra_logit(found.stats) - found.stats.target) / 6.0  # type: ignore[operator]


def test_svsoftmax_pushes_a_sample_until_it_is_within_41_4_degrees() -> None:
    """The synthetic class leads the target where theta > arccos(m / (2 (1 - m))): 41.4 degrees at m = 0.6."""
    below, above = lead_of_synthetic(0.6, degrees(41.3, 41.5))
    assert below < 0 < above
    assert math.acos(0.75) / DEGREES == pytest.approx(41.4, abs=0.01)
    for margin in (0.1, 0.3, 0.5, 0.6, 0.66):
        exact = math.acos(margin / (2 * (1 - margin)))
        theta = torch.tensor([exact - 1e-3, exact, exact + 1e-3], dtype=torch.float64)
        leads = lead_of_synthetic(margin, theta)
        assert leads[0] < 0 < leads[2]
        assert abs(float(leads[1])) < 1e-9
        everywhere = torch.linspace(1e-3, math.pi / 2, 200, dtype=torch.float64)
        leads = lead_of_synthetic(margin, everywhere)
        assert torch.equal(leads > 0, everywhere > exact)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("normalized", [False, True])
@pytest.mark.parametrize("tilt", [0.0, 0.3])
def test_svsoftmax_at_one_half_and_cosine_one(dtype: torch.dtype, normalized: bool, tilt: float) -> None:
    """There h = 0 and its direction is undefined. Its squared norm counts as at least 1e-12, so the extra logit is 0.

    That is the limit of the formula, ||w|| ||x|| sqrt((1 - c) / 2), as c goes to 1; the logit's slope, which grows
    without bound towards c = 1, stays finite, and the sample is trained as if the virtual class had the logit 0.
    """
    w = torch.eye(4, EMBEDDING_SIZE, dtype=dtype) * torch.tensor([2.0, 1.0, 0.5, 3.0], dtype=dtype)[:, None]
    w[:, 4] = tilt  # then c is 1 only up to rounding
    found = run("svsoftmax", {"margin": 0.5, "normalized": normalized}, (3 * w, w, torch.arange(4)), dtype=dtype)
    scale = 32.0 if normalized else 1.0
    length = scale if normalized else found.stats.embedding_norm * found.stats.prototype_norm
    extra = found.fc.head.extra_logit(found.stats)  # type: ignore[operator]
    # an ulp of the cosine is worth the root of an ulp of the length; exactly 1 leaves the lower clamp, 1e-10
    assert (extra.abs() <= (2 * torch.finfo(dtype).eps ** 0.5 * length if tilt else 1.01e-10)).all()
    without = torch.logaddexp(found.stats.log_sum, torch.zeros(4, dtype=dtype))
    torch.testing.assert_close(found.losses, -F.logsigmoid(scale * found.stats.target - without), rtol=2e-2, atol=1e-12)
    assert (found.x.abs() < 0.3).all()  # plain softmax: 0.15 and 0.29; not NaN either
    assert (found.w.abs() < 0.3).all()


@pytest.mark.parametrize("name", ["virtual_softmax", "svsoftmax"])
def test_normalized_virtual_heads_are_the_plain_ones_on_vectors_of_fixed_length(name: str) -> None:
    x, w, labels = make_problem(Case(name))
    one = run(name, {"normalized": True, "scale": 8.0}, (x, w, labels))
    other = run(name, FREE, (F.normalize(x), 8 * F.normalize(w), labels))
    torch.testing.assert_close(one.losses, other.losses, rtol=1e-10, atol=1e-12)
    virtual = torch.logsumexp(torch.cat([8 * F.normalize(x) @ F.normalize(w).T, torch.full((9, 1), 8.0)], 1), 1)
    if name == "virtual_softmax":
        torch.testing.assert_close(one.losses, virtual - 8 * one.stats.target, rtol=1e-10, atol=1e-12)


def test_lm_softmax_is_negative_for_a_sample_that_leads_and_tends_to_the_lead() -> None:
    problem = at_angles(degrees(10.0, 80.0, 170.0))
    losses = run("lm_softmax", {"scale": 1e4}, problem).losses
    assert losses[0] < -0.9  # where every softmax is >= 0
    torch.testing.assert_close(losses, -problem[0][:, 0] / 3, rtol=0, atol=1e-3)
    assert float(run("lm_softmax", {}, problem).losses[0]) < 0
    # GM-Softmax without the target in its denominator is s times LM-Softmax
    one = run("gm_softmax", {"scale": 8.0, "beta2": -20.0}, problem)
    torch.testing.assert_close(one.losses, 8 * run("lm_softmax", {"scale": 8.0}, problem).losses, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("learn_bias", [True, False])
def test_uniface_with_a_fixed_bias(learn_bias: bool) -> None:
    x, w, labels = make_problem(Case("uniface"))
    found = run("uniface", {"scale": 8.0, "bias": 3.0, "learn_bias": learn_bias}, (x, w, labels))
    bias = torch.tensor(3.0, dtype=torch.float64, requires_grad=True)
    cosines = F.normalize(x) @ F.normalize(w).T
    total = torch.zeros((), dtype=torch.float64)
    for sample, label in enumerate(labels.tolist()):
        total = total + torch.log1p(torch.exp(-(8 * (cosines[sample, label] - 0.4) - bias)))
        for j in range(10):
            total = total + (torch.log1p(torch.exp(8 * cosines[sample, j] - bias)) if j != label else 0)
    (total / 9).backward()
    assert float(found.loss) == pytest.approx(float(total.detach()) / 9, rel=1e-10)
    gradients = [parameter.grad for parameter in found.fc.head.parameters()]
    assert len(gradients) == int(learn_bias)
    if learn_bias:
        torch.testing.assert_close(gradients[0], bias.grad)
        start = run("uniface", {}, (x, w, labels)).fc.head.bias
        assert float(start.detach()) == pytest.approx(math.log(100))


def test_equal_sub_centers_are_one() -> None:
    x, w, labels = make_problem(Case("arcface"))
    one = run("subcenter_arcface", {"scale": 8.0, "sub_centers": 3}, (x, w[:, None].repeat(1, 3, 1), labels))
    other = run("arcface", {"scale": 8.0}, (x, w, labels))
    assert_equal(replace(one, w=one.w.sum(1)), other)
    behind = torch.stack([w, w - 100 * x[2]], dim=1)
    one = run("subcenter_arcface", {"scale": 8.0, "sub_centers": 2}, (x[2:3], behind, labels[2:3]))
    other = run("arcface", {"scale": 8.0}, (x[2:3], w, labels[2:3]))
    assert_equal(replace(one, w=one.w[:, 0]), other)
    assert (one.w[:, 1] == 0).all(), "a sub-centre that loses gets a gradient"


@pytest.mark.parametrize(("name", "option"), [("arcface", {"margin": 0.5}), ("sphereface", {"margin": 1.7})])
def test_straight_through_keeps_the_loss_and_takes_s_for_the_slope(name: str, option: dict[str, float]) -> None:
    theta = degrees(20.0, 60.0, 100.0)
    x, w, labels = at_angles(theta)
    slopes = {}
    for gradient in ("exact", "straight_through"):
        found = run(name, {"scale": 8.0, **option, "gradient": gradient}, (x, w, labels))
        # d loss / d cos(theta_0): x's axis 0 carries nothing else, since w_1 and w_2 are at right angles to it
        by_cosine = found.x[:, 0] * 3 * len(theta) / theta.sin() ** 2
        slopes[gradient] = -by_cosine / -torch.expm1(-found.losses)  # over 1 - p
        slopes[gradient + " loss"] = found.losses
    torch.testing.assert_close(slopes["exact loss"], slopes["straight_through loss"], rtol=1e-12, atol=0)
    factor = option["margin"] if name == "sphereface" else 1.0
    phi = factor * theta + (option["margin"] if name == "arcface" else 0.0)
    torch.testing.assert_close(slopes["straight_through"], torch.full_like(theta, 8.0), rtol=1e-9, atol=0)
    torch.testing.assert_close(slopes["exact"], 8 * factor * phi.sin() / theta.sin(), rtol=1e-9, atol=0)


def test_circle_without_a_margin_has_so_softmax_s_loss_and_half_its_gradient() -> None:
    """Where no cosine is negative: s (1 - c)^2 and s c^2, whose one factor Circle does not differentiate."""
    x, w, labels = make_problem(Case("circle"))
    problem = (x.abs(), w.abs(), labels)
    one = run("circle", {"scale": 8.0, "margin": 0.0}, problem)
    other = run("so_softmax", {"lambda_p": 8.0, "lambda_n": 8.0, "margin": 0.0}, problem)
    assert_equal(replace(one, x=2 * one.x, w=2 * one.w), other)


@pytest.mark.parametrize(("quality", "parent"), [(-1, "arcface"), (0, "cosface"), (1, "combined")])
def test_adaface_is_arcface_for_poor_and_cosface_for_average_images(quality: int, parent: str) -> None:
    """z = -1 adds m to the angle; z = 0 takes m from the cosine; z = 1 takes 2 m, and m from the angle."""
    problem = at_angles(degrees(30.0, 80.0, 140.0))
    options = {"scale": 8.0, "margin": 0.4, "momentum": 0.0, "h": 1e-12 if quality == 0 else 1e12}
    found = run("adaface", options, (problem[0] * (100 if quality > 0 else 1), *problem[1:]))
    if quality <= 0:
        assert_equal(found, run(parent, {"scale": 8.0, ("m2" if parent == "combined" else "margin"): 0.4}, problem))
    target = (degrees(30.0, 80.0, 140.0) - 0.4 * quality).cos() - 0.4 * (1 + quality)
    torch.testing.assert_close(found.fc.head.target_logit(found.stats), 8 * target)


@pytest.mark.parametrize(
    ("name", "parent", "margin"),
    [("mv_arc", "arcface", 0.5), ("mv_am", "cosface", 0.35), ("curricularface", "arcface", 0.5)],
)
def test_easy_samples_meet_no_hard_class(name: str, parent: str, margin: float) -> None:
    easy = at_angles(degrees(5.0, 20.0, 40.0))
    options = {"scale": 8.0, "margin": margin}
    assert_equal(run(name, options, easy), run(parent, options, easy))
    hard = make_problem(Case(name))
    assert float(run(name, options, hard).loss) != pytest.approx(float(run(parent, options, hard).loss), rel=1e-6)


def test_ldam_gives_classes_of_one_image_the_largest_margin() -> None:
    problem = make_problem(Case("ldam"))
    alone = run("ldam", {"scale": 8.0}, problem, class_counts=torch.ones(10, dtype=torch.int64))
    assert_equal(alone, run("cosface", {"scale": 8.0, "margin": 0.5}, problem))
    counts = torch.tensor([1, 16, 81, 256, 1, 1, 1, 1, 1, 1])
    head = run("ldam", {"scale": 8.0}, problem, class_counts=counts).fc.head
    expected = torch.tensor([0.5, 0.25, 0.5 / 3, 0.125], dtype=torch.float64)
    torch.testing.assert_close(head.margins.values[:4], expected)  # type: ignore[union-attr]


@pytest.mark.parametrize("name", ["lsoftmax", "asoftmax"])
def test_annealing_and_the_multiple_angle(name: str) -> None:
    """psi(m theta) is (-1)^k cos(m theta) - 2 k; half of it counts where lambda is 1."""
    theta = torch.linspace(0, math.pi, 50, dtype=torch.float64)
    length = 6.0 if name == "lsoftmax" else 3.0
    for m in (1, 2, 3, 4):
        turns = (m * theta / math.pi).floor().clamp_max(m - 1)
        psi = (1 - 2 * turns.remainder(2)) * (m * theta).cos() - 2 * turns
        for softening, share in ((0.0, 1.0), (1.0, 0.5), (3.0, 0.25)):
            found = run(name, {"margin": m, "base": 0.0, "minimum": softening}, at_angles(theta))
            expected = length * ((1 - share) * theta.cos() + share * psi)
            torch.testing.assert_close(found.fc.head.target_logit(found.stats), expected, rtol=1e-9, atol=1e-9)
    head = build_head(name, base=1000.0, gamma=0.1, power=2.0, minimum=5.0)
    for step, expected in ((0, 1000.0), (10, 250.0), (10**6, 5.0)):
        stats = replace(found.stats, step=torch.tensor(float(step), dtype=torch.float64))
        assert float(head.softening(stats)) == pytest.approx(expected)  # type: ignore[operator]


def test_magface_is_arcface_and_a_price_for_short_embeddings() -> None:
    """m(a) and g(a) at norms below, within and above the bounds 10 and 110."""
    theta, norms = degrees(30.0, 60.0, 120.0), torch.tensor([4.0, 60.0, 200.0], dtype=torch.float64)
    x, w, labels = at_angles(theta, (1.0, 2.0))
    found = run("magface", {"scale": 8.0}, (x * norms[:, None], w, labels))
    margins = torch.tensor([0.45, 0.625, 0.8], dtype=torch.float64)
    target = 8 * torch.cos(theta + margins)
    torch.testing.assert_close(found.fc.head.target_logit(found.stats), target)
    clamped = norms.clamp(10, 110)
    price = 35 * (1 / clamped + clamped / 110**2)
    torch.testing.assert_close(found.losses, price - F.logsigmoid(target - found.stats.log_sum))
