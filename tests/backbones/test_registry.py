"""Names, options and errors of `build_backbone`."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from backbones import BACKBONES, BackboneInfo, backbone_info, build_backbone
from backbones.plain import PLANS

# one net of each family; the deeper ones differ in their number of blocks only
FAMILIES = {
    "r18": 3, "mbf": 3, "vit_t": 3, "sphereface20": 3, "small": 3, "tiny": 3, "digits": 1, "lsoftmax_mnist": 1,
    "lsoftmax_cifar": 3, "lenet_plus": 1, "resnet18": 3,
}  # fmt: skip
EDGES = {
    "digits": 28,
    "plain": 32,
    "resnet18": 32,
    "resnet34": 32,
    **{name: plan.image_size for name, plan in PLANS.items()},
}

NOTHING_RANDOM = {"vit_t": {"drop_path_rate": 0.0, "mask_ratio": 0.0}}


def images_for(net: nn.Module, batch: int = 2) -> torch.Tensor:
    info = backbone_info(net)
    return torch.rand(batch, info.in_channels, *info.image_size, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.mark.parametrize("name", BACKBONES)
def test_every_name_builds_and_says_what_it_takes(name: str) -> None:
    with torch.device("meta"):
        net = build_backbone(name, embedding_size=96, in_channels=1)
    edge = EDGES.get(name, 112)
    assert backbone_info(net) == BackboneInfo(name, 96, 1, (edge, edge))
    assert "gradient_checkpointing" in vars(net)


@pytest.mark.parametrize("name", FAMILIES)
def test_embeddings_are_float32_inside_autocast_too(name: str) -> None:
    net = build_backbone(name, embedding_size=32, in_channels=FAMILIES[name])
    images = images_for(net)
    inputs_of_fc: list[torch.dtype] = []
    last_linear = [module for module in net.modules() if isinstance(module, nn.Linear)][-1]
    last_linear.register_forward_hook(lambda _, args, out: inputs_of_fc.extend((args[0].dtype, out.dtype)))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        reduced = net(images)
    full = net(images)
    assert reduced.shape == full.shape == (2, 32)
    assert reduced.dtype == full.dtype == torch.float32
    assert inputs_of_fc == [torch.float32] * 4
    assert not torch.equal(reduced, full), "autocast reached no layer"


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("training", [False, True])
def test_channels_last_gives_the_same_embeddings(name: str, training: bool) -> None:
    """Eight images for batch statistics: those of two divide rounding by the distance of values that nearly agree."""
    net = build_backbone(name, embedding_size=32, in_channels=FAMILIES[name], **NOTHING_RANDOM.get(name, {}))
    net.train(training)
    images = images_for(net, batch=8 if training else 2)
    expected = net(images)
    state = {key: value.clone() for key, value in net.state_dict().items()}
    net = net.to(memory_format=torch.channels_last)
    got = net(images.to(memory_format=torch.channels_last))
    tolerance = 2e-3 if training else 5e-5
    torch.testing.assert_close(got, expected, rtol=0, atol=tolerance * expected.abs().max().item())
    assert state.keys() == net.state_dict().keys()


def test_wrong_names_and_values_are_answered_with_the_right_ones() -> None:
    with pytest.raises(ValueError, match=r"unknown backbone 'r51'. Did you mean 'r\d+'\? There are: r18, r34, r50"):
        build_backbone("r51")
    with pytest.raises(ValueError, match=r"backbone 'r18': unknown option depth; its options are: none"):
        build_backbone("r18", depth=3)
    with pytest.raises(ValueError, match=r"backbone 'mbf': embedding_size is 0, must be at least 1"):
        build_backbone("mbf", embedding_size=0)
    with pytest.raises(ValueError, match=r"backbone 'mbf': dropout is 1\.0, must be in \[0, 1\)"):
        build_backbone("mbf", dropout=1.0)
    with pytest.raises(ValueError, match=r"backbone 'mbf': in_channels is 0, must be at least 1"):
        build_backbone("mbf", in_channels=0)


def test_a_net_built_elsewhere_has_no_info() -> None:
    with pytest.raises(ValueError, match="Linear says nothing about its images and embeddings"):
        backbone_info(nn.Linear(1, 1))
