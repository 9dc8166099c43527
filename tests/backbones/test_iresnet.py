"""arcface_torch's parameter list for every net of its; of iResNet the frozen last scale, dropout, and wrong input."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from backbones import build_backbone
from tools.compare_upstream_backbones import shapes_of, unfold_keys

UPSTREAM = json.loads((Path(__file__).parent / "arcface_torch_keys.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("name", "num_keys"),
    [
        ("r18", 187), ("r34", 331), ("r50", 475), ("r100", 925), ("r200", 1807), ("mbf", 333), ("vit_t", 150),
        ("vit_s", 150), ("vit_b", 282), ("vit_l_dp005_mask_005", 282), ("vit_h", 546),
    ],
)  # fmt: skip
def test_keys_and_shapes_are_those_of_arcface_torch(name: str, num_keys: int) -> None:
    """The list was written by tools.compare_upstream_backbones from the code at the commit it names."""
    assert UPSTREAM["commit"] == "7fadd420c2351d0ffa8cac403421c1a3ed733365"
    with torch.device("meta"):
        ours = shapes_of(build_backbone(name))
    assert len(ours) == num_keys
    assert ours == unfold_keys(UPSTREAM["networks"][name])


def test_only_the_last_scale_is_not_trained() -> None:
    with torch.device("meta"):
        net = build_backbone("r34")
    assert [key for key, value in net.named_parameters() if not value.requires_grad] == ["features.weight"]


def test_convolutions_start_as_in_arcface_torch() -> None:
    torch.manual_seed(0)
    net = build_backbone("r18", embedding_size=8)
    weight = net.get_parameter("layer4.0.conv2.weight")
    assert abs(weight.mean().item()) < 1e-3
    assert abs(weight.std().item() - 0.1) < 1e-3
    assert torch.equal(net.get_parameter("features.weight"), torch.ones(8))


def test_dropout_acts_in_training_only() -> None:
    net = build_backbone("r18", embedding_size=8, dropout=0.5)
    images = torch.rand(2, 3, 112, 112)
    seen: list[torch.Tensor] = []
    net.get_submodule("fc").register_forward_hook(lambda _, args, out: seen.append(args[0]))
    net(images)
    net.eval()(images)
    in_training, in_eval = ((values == 0).float().mean().item() for values in seen)
    assert 0.45 < in_training < 0.55
    assert in_eval < 0.01


@pytest.mark.parametrize("name", ["r18", "mbf"])
@pytest.mark.parametrize("shape", [(2, 112, 112, 3), (2, 3, 96, 112), (3, 112, 112), (2, 1, 112, 112)])
def test_a_wrong_shape_is_named_with_the_right_one(name: str, shape: tuple[int, ...]) -> None:
    with torch.device("meta"):
        net = build_backbone(name)
        with pytest.raises(ValueError, match=rf"{name}: got an input of shape .*, needs \(B, 3, 112, 112\)"):
            net(torch.empty(shape))
