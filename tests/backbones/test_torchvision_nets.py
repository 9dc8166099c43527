"""torchvision's nets: a stand-in module shows what is asked of it, so that the test needs no torchvision."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest
import torch
from torch import nn

from backbones import backbone_info, build_backbone


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, object]]:
    """A torchvision.models with one net; returns the list of what it was asked to build."""
    calls: list[dict[str, object]] = []
    models = ModuleType("torchvision.models")

    def get_model(name: str, **options: object) -> nn.Module:
        calls.append({"name": name, **options})
        return nn.Sequential(nn.Flatten(), nn.Linear(3 * 4 * 4, int(str(options["num_classes"]))))

    models.list_models = lambda module: ["resnet18"]  # type: ignore[attr-defined]
    models.get_model = get_model  # type: ignore[attr-defined]
    package = ModuleType("torchvision")
    package.models = models  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torchvision", package)
    monkeypatch.setitem(sys.modules, "torchvision.models", models)
    return calls


def test_the_last_layer_has_the_size_of_the_embedding(stand_in: list[dict[str, object]]) -> None:
    net = build_backbone("torchvision:resnet18", embedding_size=7, progress=False)
    assert stand_in == [{"name": "resnet18", "num_classes": 7, "progress": False}]
    assert backbone_info(net).name == "torchvision:resnet18"
    with torch.autocast("cpu", dtype=torch.bfloat16):
        embeddings = net(torch.rand(2, 3, 4, 4))
    assert embeddings.shape == (2, 7)
    assert embeddings.dtype == torch.float32


def test_what_it_cannot_do_is_refused(stand_in: list[dict[str, object]]) -> None:
    with pytest.raises(ValueError, match="torchvision has no such net; there are: resnet18"):
        build_backbone("torchvision:resnet19")
    with pytest.raises(ValueError, match=r"do not take dropout=0\.1, gradient_checkpointing=True, in_channels=1"):
        build_backbone("torchvision:resnet18", dropout=0.1, gradient_checkpointing=True, in_channels=1)
    assert stand_in == []


def test_a_missing_torchvision_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchvision", None)
    monkeypatch.setitem(sys.modules, "torchvision.models", None)
    with pytest.raises(ValueError, match=r"needs torchvision, .*requirements-optional\.txt"):
        build_backbone("torchvision:resnet18")
