"""SphereFace's nets against the numbers that their authors and others published."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from backbones import build_backbone
from backbones.sphereface import Unit


@pytest.mark.parametrize("layers", [20, 36, 64])
def test_the_name_counts_the_convolutions(layers: int) -> None:
    with torch.device("meta"):
        net = build_backbone(f"sphereface{layers}")
    convolutions = [module for module in net.modules() if isinstance(module, nn.Conv2d)]
    assert len(convolutions) == layers
    assert {module.kernel_size for module in convolutions} == {(3, 3)}
    assert [module.out_channels for module in convolutions if module.stride == (2, 2)] == [64, 128, 256, 512]
    assert not any(isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d) for module in net.modules())


def test_parameters_of_the_published_model() -> None:
    """The authors' Caffe model of 20 layers, which takes 112 x 96, has 22.671 million."""
    with torch.device("meta"):
        net = build_backbone("sphereface20")
    ours = sum(parameter.numel() for parameter in net.parameters())
    narrower_images = (7 * 7 - 7 * 6) * 512 * 512
    idle_biases = sum(2 * module.conv1.out_channels for module in net.modules() if isinstance(module, Unit))
    assert round((ours - narrower_images + idle_biases) / 1e6, 3) == 22.671


def test_initial_values_are_caffes() -> None:
    torch.manual_seed(0)
    net = build_backbone("sphereface20", embedding_size=64)
    for name, inputs in (("layer1.0.conv", 27), ("layer4.0.conv", 256 * 9), ("fc", 512 * 49)):
        weight = net.get_parameter(f"{name}.weight").detach()
        assert abs(weight.std().item() * inputs**0.5 - 1) < 0.05
        assert weight.abs().max().item() <= (3 / inputs) ** 0.5
        assert not net.get_parameter(f"{name}.bias").any()
    assert abs(net.get_parameter("layer3.2.conv1.weight").std().item() - 0.01) < 1e-4


def test_a_unit_adds_its_input_after_the_activation() -> None:
    unit = Unit(4)
    images = torch.randn(2, 4, 6, 6)
    inner = unit.prelu2(unit.conv2(unit.prelu1(unit.conv1(images))))
    torch.testing.assert_close(unit(images), images + inner)
