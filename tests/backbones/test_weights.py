"""Weights files: reading them, refusing what is none, and recognising the net they belong to."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from backbones import BACKBONES, WeightsError, build_backbone, infer_backbone, load_weights, strip_prefixes
from backbones.registry import WITH_OPTIONS
from backbones.vit import NETS


def state_of(name: str, **options: int) -> dict[str, Tensor]:
    with torch.device("meta"):
        return build_backbone(name, **options).state_dict()


RECOGNISED = [name for name in BACKBONES if name not in WITH_OPTIONS]


@pytest.mark.parametrize("name", RECOGNISED)
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


def test_prefixes_go_only_where_every_key_carries_them() -> None:
    one = torch.zeros(1)
    assert list(strip_prefixes({"_orig_mod.module.a": one, "_orig_mod.module.b.module.c": one})) == ["a", "b.module.c"]
    assert list(strip_prefixes({"module.a": one, "b": one})) == ["module.a", "b"]
    assert strip_prefixes({}) == {}


@pytest.mark.parametrize("wrap", [lambda state: state, lambda state: {"epoch": 3, "state_dict_backbone": state}])
def test_a_wrapped_checkpoint_loads_strictly(tmp_path: Path, wrap) -> None:
    torch.manual_seed(0)
    net = build_backbone("tiny", embedding_size=16)
    file = tmp_path / "backbone.pth"
    torch.save(wrap({f"module.{key}": value for key, value in net.state_dict().items()}), file)
    state = load_weights(file)
    name, sizes = infer_backbone(state)
    loaded = build_backbone(name, **sizes)
    loaded.load_state_dict(state, strict=True)
    for key, value in net.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], value), key


class Intruder:
    """Unpickled the ordinary way it would write a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.write_text, (self.path, "here")


def test_files_that_are_no_weights_are_refused_by_name(tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(1)}, tmp_path / "model.pt")
    with pytest.raises(WeightsError, match=r"absent\.pt: does not exist; weights there: model\.pt"):
        load_weights(tmp_path / "absent.pt")
    with pytest.raises(WeightsError, match=r"is a folder, not a weights file; weights there: model\.pt"):
        load_weights(tmp_path)
    whole = (tmp_path / "model.pt").read_bytes()
    for name, content in {"cut.pt": whole[:-200], "text.pt": b"hello", "empty.pt": b""}.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(WeightsError, match=name):
            load_weights(tmp_path / name)
    for held, message in (
        ([torch.zeros(1)], "holds a list without tensors"),
        ({}, "holds a dict without tensors"),
        ({"weight": torch.zeros(1), "lr": 0.1}, "these entries are none: lr"),
    ):
        torch.save(held, tmp_path / "other.pt")
        with pytest.raises(WeightsError, match=message):
            load_weights(tmp_path / "other.pt")


def test_a_file_cannot_run_code(tmp_path: Path) -> None:
    target = tmp_path / "written"
    torch.save({"weight": Intruder(target)}, tmp_path / "model.pt")
    with pytest.raises(WeightsError, match=r"model\.pt: refused, because it is damaged or holds other objects"):
        load_weights(tmp_path / "model.pt")
    assert not target.exists()


@pytest.mark.parametrize("name", sorted(WITH_OPTIONS))
def test_nets_with_options_of_their_own_are_not_guessed(name: str) -> None:
    with pytest.raises(WeightsError, match=r"has options that the shapes of its weights do not tell.*config\.json"):
        infer_backbone(state_of(name), name)
    with pytest.raises(WeightsError, match=r"keep config\.json of its run beside the weights"):
        infer_backbone(state_of(name))
