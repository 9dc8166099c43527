"""ResNet-18 and -34 for classification: parameters as published, both stems, sizes of maps, what they refuse."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from backbones import build_backbone
from backbones.resnet import ResNet


@pytest.mark.parametrize(
    ("name", "stem", "parameters"),
    [
        # torchvision's counts, 11,689,512 and 21,797,672, without the 513,000 of its classifier
        ("resnet18", "imagenet", 11_176_512),
        ("resnet34", "imagenet", 21_284_672),
        # a 3 x 3 instead of a 7 x 7 stem has 64 * 3 * (49 - 9) weights less
        ("resnet18", "cifar", 11_176_512 - 7_680),
    ],
)
def test_parameters_are_those_of_the_published_nets(name: str, stem: str, parameters: int) -> None:
    with torch.device("meta"):
        net = ResNet(name, stem=stem, image_size=224 if stem == "imagenet" else 32)  # type: ignore[arg-type]
    assert sum(p.numel() for p in net.parameters()) == parameters


@pytest.mark.parametrize(("stem", "size", "last"), [("cifar", 32, 4), ("imagenet", 32, 1), ("imagenet", 64, 2)])
def test_the_last_map_is_as_large_as_the_stem_says(stem: str, size: int, last: int) -> None:
    net = build_backbone("resnet18", embedding_size=64, width=0.125, stem=stem, image_size=size)
    seen: list[torch.Size] = []
    net.blocks[-1].register_forward_hook(lambda _, args, out: seen.append(out.shape))  # type: ignore[index, union-attr]
    assert net(torch.randn(2, 3, size, size)).shape == (2, 64)
    assert seen == [(2, 64, last, last)]


def test_the_pooled_map_is_the_embedding_unless_another_size_is_asked_for() -> None:
    own = build_backbone("resnet18", embedding_size=64, width=0.125)
    assert not any(isinstance(m, nn.Linear) for m in own.modules())
    assert bool((own.eval()(torch.randn(2, 3, 32, 32)) >= 0).all())
    other = build_backbone("resnet18", embedding_size=10, width=0.125)
    assert [m.out_features for m in other.modules() if isinstance(m, nn.Linear)] == [10]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"stem": "vgg"}, "stem is 'vgg', must be one of cifar, imagenet"),
        ({"stem": "imagenet", "image_size": 28}, "image_size is 28; with stem 'imagenet' at least 32"),
        ({"image_size": 4}, "with stem 'cifar' at least 8"),
        ({"width": 0}, "width is 0, must be in"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        build_backbone("resnet18", **options)


def test_other_images_are_refused() -> None:
    net = build_backbone("resnet18", embedding_size=8, width=0.1)
    with pytest.raises(ValueError, match=r"resnet18: got an input of shape \(1, 3, 224, 224\), needs \(B, 3, 32, 32\)"):
        net(torch.zeros(1, 3, 224, 224))
