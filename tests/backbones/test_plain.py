"""The plain convolutional nets of the margin papers: topology, sizes, widths, initial values, what they refuse."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from backbones import WeightsError, build_backbone, infer_backbone
from backbones.plain import PLANS, PlainNet


def convolutions(net: nn.Module) -> list[tuple[int, int, int]]:
    """(inputs, outputs, kernel) of every convolution, in order."""
    return [(m.in_channels, m.out_channels, m.kernel_size[0]) for m in net.modules() if isinstance(m, nn.Conv2d)]


def test_topology_of_l_softmax_on_mnist() -> None:
    """The layers of the authors' published net, and the parameters counted by hand."""
    net = PlainNet("lsoftmax_mnist", PLANS["lsoftmax_mnist"])
    first = [(1, 64, 3), *[(64, 64, 3)] * 3]
    assert convolutions(net) == [*first, (64, 128, 3), *[(128, 128, 3)] * 2, (128, 256, 3), *[(256, 256, 3)] * 2]
    weights = 9 * (64 + 3 * 64 * 64 + 64 * 128 + 2 * 128 * 128 + 128 * 256 + 2 * 256 * 256)
    norms = 2 * (4 * 64 + 3 * 128 + 3 * 256)
    linear = 256 * 3 * 3 * 512 + 512 + 2 * 512
    assert sum(p.numel() for p in net.parameters()) == weights + norms + linear
    assert not any(isinstance(m, nn.PReLU) for m in net.modules())


def test_the_net_for_drawings_has_large_kernels_and_prelu() -> None:
    net = build_backbone("lenet_plus", embedding_size=2, in_channels=1)
    assert [out for _, out, kernel in convolutions(net) if kernel == 5] == [32, 32, 64, 64, 128, 128]
    assert sum(isinstance(m, nn.PReLU) for m in net.modules()) == 6
    assert net(torch.randn(3, 1, 28, 28)).shape == (3, 2)


@pytest.mark.parametrize("name", PLANS)
def test_width_scales_all_channels_and_not_the_embedding(name: str) -> None:
    plan = PLANS[name]
    net = build_backbone(name, embedding_size=16, in_channels=plan.in_channels, width=0.25)
    expected = [plan.stem // 4] * bool(plan.stem) + [c // 4 for c, depth in plan.stages for _ in range(depth)]
    assert [out for _, out, _ in convolutions(net)] == expected
    embeddings = net(torch.randn(4, plan.in_channels, plan.image_size, plan.image_size))
    assert embeddings.shape == (4, 16)
    assert bool((embeddings < 0).any()), "an activation at the end would keep embeddings in one orthant"
    narrowest = build_backbone(name, embedding_size=4, in_channels=plan.in_channels, width=0.001)
    assert {out for _, out, _ in convolutions(narrowest)} == {1}


def test_initial_values_keep_the_size_of_the_signal() -> None:
    torch.manual_seed(0)
    net = PlainNet("lsoftmax_mnist", PLANS["lsoftmax_mnist"])
    deep = next(m for m in net.modules() if isinstance(m, nn.Conv2d) and m.in_channels == 256)
    assert float(deep.weight.detach().std()) == pytest.approx((2 / (256 * 9)) ** 0.5, rel=0.02)
    assert float(net.fc.weight.detach().std()) == pytest.approx((2 / 2304) ** 0.5, rel=0.02)
    assert float(net.fc.bias.detach().abs().max()) == 0


@pytest.mark.parametrize("width", [0.0, -1.0, 65.0, float("nan")])
def test_a_width_out_of_range_is_refused(width: float) -> None:
    with pytest.raises(ValueError, match=r"backbone 'lsoftmax_mnist': width is .*, must be in \(0, 64\]"):
        PlainNet("lsoftmax_mnist", PLANS["lsoftmax_mnist"], width=width)


def test_other_images_are_refused() -> None:
    net = build_backbone("lsoftmax_cifar", embedding_size=8, width=0.1)
    with pytest.raises(
        ValueError, match=r"lsoftmax_cifar: got an input of shape \(2, 3, 28, 28\), needs \(B, 3, 32, 32\)"
    ):
        net(torch.zeros(2, 3, 28, 28))


def test_a_table_of_ones_own_is_the_net_that_the_table_says() -> None:
    options = {"image_size": 28, "stem": 64, "stages": ((64, 3), (128, 3), (256, 3))}
    own = build_backbone("plain", embedding_size=16, in_channels=1, width=0.25, **options)
    named = build_backbone("lsoftmax_mnist", embedding_size=16, in_channels=1, width=0.25)
    own.load_state_dict(named.state_dict())
    images = torch.randn(4, 1, 28, 28)
    torch.testing.assert_close(own(images), named(images), rtol=0, atol=0)
    large = build_backbone("plain", embedding_size=2, kernel_size=5, prelu=True, stages=((8, 1), (4, 2)), image_size=10)
    assert convolutions(large) == [(3, 8, 5), (8, 4, 5), (4, 4, 5)]
    assert sum(isinstance(m, nn.PReLU) for m in large.modules()) == 3
    assert large(torch.randn(2, 3, 10, 10)).shape == (2, 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stages": ()}, r"stages is \(\), must be \(channels, convolutions\)"),
        ({"stages": ((64, 3), (128,))}, "stages is .*must be"),
        ({"stages": ((64, 0),)}, "stages is .*all at least 1"),
        ({"stages": ((8, 1),) * 6}, "6 stages halve images of 32 pixels until nothing is left; at most 5 fit"),
        ({"kernel_size": 4}, "kernel_size is 4, must be odd"),
        ({"stem": -1}, "stem is -1, must be at least 1, or 0"),
        ({"width": 0.0}, "backbone 'plain': width is 0.0"),
    ],
)
def test_a_table_that_is_none_is_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_backbone("plain", **options)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"image_size": 24, "stem": 7, "stages": ((8, 1), (4, 3)), "kernel_size": 5},
        {"image_size": 96, "stages": ((6, 2),), "prelu": True},
        {"width": 0.25},
    ],
)
def test_the_table_is_told_by_the_weights(options: dict[str, object]) -> None:
    net = build_backbone("plain", embedding_size=5, in_channels=2, **options)
    name, found = infer_backbone(net.state_dict())
    assert (name, found["embedding_size"], found["in_channels"]) == ("plain", 5, 2)
    again = build_backbone(name, **found)
    again.load_state_dict(net.state_dict())
    assert again.image_size == net.image_size
    images = torch.randn(3, 2, net.image_size, net.image_size)
    torch.testing.assert_close(again(images), net(images), rtol=0, atol=0)


@pytest.mark.parametrize(
    "broken", ["stages.0.0.0.weight", "fc.weight", "stages.1.1.0.weight", "stages.2.0.0.weight", "features.weight"]
)
def test_weights_that_are_no_table_fit_no_net(broken: str) -> None:
    state = build_backbone("plain", embedding_size=5).state_dict()
    for shape in ((), (0,), (0, 3, 3, 3), (3, 0), None):
        changed = {**state, broken: torch.zeros(shape)} if shape is not None else {**state}
        if shape is None:
            del changed[broken]
        with pytest.raises(WeightsError, match="fit no backbone"):
            infer_backbone(changed)
