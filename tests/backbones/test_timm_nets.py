"""timm's nets: a stand-in module shows what is asked of it, so that the test needs no timm."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from backbones import backbone_info, build_backbone
from utils.config import ConfigError, load_config


class Net(nn.Module):
    """What timm returns for num_classes=0: pooled features."""

    num_features = 9

    def __init__(self, in_chans: int, has_norm: bool, hidden: int | None) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_chans, hidden or self.num_features, 3, stride=8)
        self.norm = nn.BatchNorm2d(hidden or self.num_features) if has_norm else nn.Identity()
        if hidden is not None:
            self.head_hidden_size = hidden
        self.is_checkpointing = False

    def set_grad_checkpointing(self, enable: bool) -> None:
        self.is_checkpointing = enable

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x)).mean((2, 3))


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """A timm with three nets; returns the list of what it was asked to build."""
    calls: list[dict[str, Any]] = []
    nets = {"resnet18": (True, None), "vit_tiny": (False, None), "wide_head": (True, 12)}

    def create_model(name: str, **options: Any) -> nn.Module:
        calls.append({"name": name, **options})
        if "wrong" in options:
            raise TypeError("unexpected keyword argument 'wrong'")
        return Net(options["in_chans"], *nets[name])

    timm = ModuleType("timm")
    timm.create_model = create_model  # type: ignore[attr-defined]
    timm.is_model = lambda name: name in nets  # type: ignore[attr-defined]
    timm.list_models = lambda: list(nets)  # type: ignore[attr-defined]
    timm.get_pretrained_cfg = lambda name: SimpleNamespace(fixed_input_size=name == "vit_tiny")  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "timm", timm)
    return calls


def test_a_face_net_with_an_embedding_in_float32(stand_in: list[dict[str, Any]]) -> None:
    net = build_backbone("timm:resnet18", embedding_size=7, in_channels=1, dropout=0.5, drop_path_rate=0.1)
    assert stand_in == [
        {"name": "resnet18", "pretrained": False, "num_classes": 0, "in_chans": 1, "drop_path_rate": 0.1}
    ]
    info = backbone_info(net)
    assert (info.name, info.image_size, info.embedding_size, info.in_channels) == ("timm:resnet18", (112, 112), 7, 1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        embeddings = net(torch.rand(2, 1, 112, 112))
    assert (embeddings.shape, embeddings.dtype) == ((2, 7), torch.float32)
    torch.testing.assert_close(embeddings.mean(dim=0), torch.zeros(7), atol=1e-5, rtol=0)  # the norm at the end
    assert list(net.state_dict())[-1] == "features.num_batches_tracked"
    with pytest.raises(ValueError, match=r"timm:resnet18: got an input of shape .*, needs \(B, 1, 112, 112\)"):
        net(torch.rand(2, 1, 224, 224))


def test_a_net_for_one_size_is_built_for_faces(stand_in: list[dict[str, Any]]) -> None:
    build_backbone("timm:vit_tiny")
    assert stand_in[0]["img_size"] == 112


def test_features_are_counted_where_the_net_has_a_head_of_its_own(stand_in: list[dict[str, Any]]) -> None:
    assert build_backbone("timm:wide_head", embedding_size=5)(torch.rand(2, 3, 112, 112)).shape == (2, 5)


def test_checkpointing_is_timms_and_refused_where_it_would_count_twice(stand_in: list[dict[str, Any]]) -> None:
    net = build_backbone("timm:vit_tiny", gradient_checkpointing=True)
    assert net.get_submodule("net").is_checkpointing
    with pytest.raises(ValueError, match="running statistics of its batch norms twice a step"):
        build_backbone("timm:resnet18", gradient_checkpointing=True)


@pytest.mark.usefixtures("stand_in")
def test_what_it_cannot_do_is_told() -> None:
    with pytest.raises(ValueError, match=r"timm:resnet19.*no such net\. Similar: resnet18\. All: timm\.list_models"):
        build_backbone("timm:resnet19")
    with pytest.raises(ValueError, match=r"cannot build it with in_chans=3, wrong=1: unexpected keyword"):
        build_backbone("timm:resnet18", wrong=1)


def test_a_missing_timm_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ValueError, match=r"needs timm, .*requirements-optional\.txt"):
        build_backbone("timm:resnet18")
    with pytest.raises(ValueError, match=r"There are: r18, .*torchvision:NAME, timm:NAME"):
        build_backbone("times:resnet18")


def test_a_config_may_name_it() -> None:
    backbones = {"r18": None}
    overrides = ["rec=anywhere", "network=timm:resnet18"]
    assert load_config("base", overrides, backbones=backbones).network == "timm:resnet18"
    with pytest.raises(ConfigError, match=r"Have: r18, timm:NAME, torchvision:NAME"):
        load_config("base", ["rec=anywhere", "network=r19"], backbones=backbones)
