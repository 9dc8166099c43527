"""MobileFaceNet: what is trained, its residuals, its start; the parameter list is compared beside iResNet's."""

from __future__ import annotations

import torch

from backbones import build_backbone
from backbones.mobilefacenet import Bottleneck


def test_everything_is_trained() -> None:
    with torch.device("meta"):
        net = build_backbone("mbf")
    assert all(parameter.requires_grad for parameter in net.parameters())


def test_a_bottleneck_adds_its_input_only_where_it_keeps_the_map() -> None:
    images = torch.rand(2, 4, 8, 8)
    for stride, expected in ((1, images), (2, torch.zeros(2, 4, 4, 4))):
        block = Bottleneck(4, 4, inner=8, stride=stride)
        for parameter in block.parameters():
            torch.nn.init.zeros_(parameter)
        assert torch.equal(block(images), expected)


def test_convolutions_start_as_in_arcface_torch() -> None:
    torch.manual_seed(0)
    net = build_backbone("mbf")
    weight = net.get_parameter("conv_sep.layers.0.weight")
    assert abs(weight.std().item() / (2 / 512) ** 0.5 - 1) < 0.02


def test_dropout_acts_in_training_only() -> None:
    net = build_backbone("mbf", embedding_size=8, dropout=0.5)
    seen: list[torch.Tensor] = []
    net.get_submodule("features.layers.2").register_forward_hook(lambda _, args, out: seen.append(args[0]))
    images = torch.rand(2, 3, 112, 112)
    net(images)
    net.eval()(images)
    in_training, in_eval = ((values == 0).float().mean().item() for values in seen)
    assert 0.4 < in_training < 0.6
    assert in_eval < 0.01
