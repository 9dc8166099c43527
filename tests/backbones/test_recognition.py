"""Recognising the net that weights belong to, and the options it was built with, by names and shapes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from backbones import BACKBONES, WeightsError, build_backbone, infer_backbone
from backbones.registry import WITH_OPTIONS
from backbones.vit import NETS


def state_of(name: str, **options: Any) -> dict[str, Tensor]:
    with torch.device("meta"):
        return build_backbone(name, **options).state_dict()


@pytest.mark.parametrize("name", BACKBONES)
@pytest.mark.parametrize(("prefix", "size", "channels"), [("", 512, 3), ("module._orig_mod.", 40, 1)])
def test_every_backbone_is_recognised(name: str, prefix: str, size: int, channels: int) -> None:
    state = {prefix + key: value for key, value in state_of(name, embedding_size=size, in_channels=channels).items()}
    # Names that differ in what is drawn in training only have the same weights.
    alike = NETS[name][0] if name in NETS else name
    assert infer_backbone(state) == (alike, {"embedding_size": size, "in_channels": channels})
    assert infer_backbone(state, name) == (name, {"embedding_size": size, "in_channels": channels})


def test_weights_without_counters_are_recognised() -> None:
    state = {key: value for key, value in state_of("mbf").items() if not key.endswith("num_batches_tracked")}
    assert infer_backbone(state)[0] == "mbf"


def test_unknown_weights_name_the_nearest_net_and_the_difference() -> None:
    state = state_of("r50")
    del state["layer3.13.conv2.weight"]
    with pytest.raises(WeightsError, match=r"Nearest is r50: layer3\.13\.conv2\.weight is missing\."):
        infer_backbone(state)
    state = state_of("r50")
    state["fc.weight"] = torch.empty(512, 10, device="meta")
    with pytest.raises(WeightsError, match=r"fc\.weight is \(512, 10\), not \(embedding_size, 25088\)"):
        infer_backbone(state)
    with pytest.raises(WeightsError, match=r"fit no backbone of mbf\. Nearest is mbf: .* and \d+ more"):
        infer_backbone(state_of("r18"), "mbf")
    with pytest.raises(WeightsError, match=r"unknown backbone 'r51'\. There are: r18"):
        infer_backbone(state, "r51")
    with pytest.raises(WeightsError, match="first 'none'"):
        infer_backbone({})


def test_an_embedding_size_that_two_weights_disagree_on_is_refused() -> None:
    state = state_of("r18", embedding_size=64)
    state["features.bias"] = torch.empty(63, device="meta")
    with pytest.raises(WeightsError, match=r"features\.bias is \(63\,\), not \(embedding_size\)"):
        infer_backbone(state)


@pytest.mark.parametrize("name", sorted(WITH_OPTIONS - {"plain"}))  # whose table tells its channels
@pytest.mark.parametrize("width", [0.25, 0.3, 0.01, 1.5])
def test_shapes_tell_the_width(name: str, width: float) -> None:
    state = state_of(name, embedding_size=24, in_channels=2, width=width)
    found, arguments = infer_backbone(state, name)
    assert {key: value.shape for key, value in state_of(found, **arguments).items()} == {
        key: value.shape for key, value in state.items()
    }
    assert (arguments["embedding_size"], arguments["in_channels"]) == (24, 2)
    if width != 0.01:  # there several numbers give the same few channels
        assert (found, arguments["width"]) == (name, width)
        assert infer_backbone(state) == (found, arguments)


def test_shapes_tell_the_stem_and_a_pooled_map_that_is_the_embedding() -> None:
    assert infer_backbone(state_of("resnet18", stem="imagenet", embedding_size=512))[1] == {
        "embedding_size": 512, "in_channels": 3, "stem": "imagenet",
    }  # fmt: skip
    state = state_of("resnet34", width=0.125, embedding_size=64, in_channels=1)
    assert not any(key.startswith("features") for key in state)
    assert infer_backbone(state) == ("resnet34", {"embedding_size": 64, "in_channels": 1, "width": 0.125})


def test_channels_that_no_width_gives_are_told() -> None:
    state = state_of("lsoftmax_mnist", width=0.25)
    state["stages.1.0.0.weight"] = torch.empty(40, 16, 3, 3, device="meta")
    with pytest.raises(WeightsError, match=r"mnist: stages\.1\.0\.0\.weight is \(40, 16, 3, 3\), not \(32, 16, 3, 3\)"):
        infer_backbone(state)
    huge = {key: value.new_empty([s * 100 for s in value.shape]) for key, value in state_of("lsoftmax_mnist").items()}
    with pytest.raises(WeightsError, match="fit no backbone of lsoftmax_mnist"):
        infer_backbone(huge, "lsoftmax_mnist")
    empty = {**state, "stem.0.weight": torch.empty(0, 1, 3, 3, device="meta")}
    with pytest.raises(WeightsError, match="fit no backbone of lsoftmax_mnist"):
        infer_backbone(empty, "lsoftmax_mnist")
