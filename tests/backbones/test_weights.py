"""Weights files: reading them, and refusing what is none."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from backbones import WeightsError, build_backbone, infer_backbone, load_weights, strip_prefixes


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
