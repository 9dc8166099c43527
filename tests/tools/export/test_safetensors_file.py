"""Weights as .safetensors: the same net comes back by every way in, and an unchecked file never appears."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import pytest
import torch

from backbones import WeightsError, load_weights
from eval.embedder import EmbedderError, ModuleEmbedder, load_embedder, load_module
from tests.tools.export.nets import IMAGES, tiny
from tools.export import safetensors_file
from tools.export.safetensors_file import export_safetensors
from tools.export.variant import DisagreementError
from utils.safetensors_files import read_safetensors, write_safetensors


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "model.safetensors"
    export_safetensors(tiny(), path)
    return path


def test_the_same_net_comes_back(file: Path) -> None:
    state = load_weights(file)
    assert state.keys() == tiny().state_dict().keys()
    assert all(torch.equal(state[key], value) for key, value in tiny().state_dict().items())
    assert torch.equal(load_embedder(file)(IMAGES), load_embedder(file, network="tiny")(IMAGES))
    torch.testing.assert_close(load_embedder(file)(IMAGES), ModuleEmbedder(tiny())(IMAGES), atol=1e-4, rtol=1e-4)


def test_without_metadata_the_shapes_tell(tmp_path: Path) -> None:
    state = {f"module.{key}": value for key, value in tiny().state_dict().items()}
    write_safetensors(tmp_path / "a.safetensors", state, {})
    assert load_module(tmp_path / "a.safetensors").info.name == "tiny"  # type: ignore[union-attr]
    (tmp_path / "config.json").write_text('{"network": "small"}')
    with pytest.raises(WeightsError, match="fit no backbone of small"):
        load_module(tmp_path / "a.safetensors")


@pytest.mark.parametrize(("metadata", "message"), [
    ({"color_order": "BGR"}, "color_order = BGR; images are given as color_order = RGB"),
    ({"network": "r51"}, "unknown backbone 'r51'"),
    ({"network": "torchvision:resnet18"}, "its metadata must say embedding_size and in_channels"),
    ({"network": "torchvision:resnet18", "embedding_size": "60000", "in_channels": "3"}, "as its tensors have them"),
    ({"network": "torchvision:resnet18", "embedding_size": "9" * 5000, "in_channels": "3"}, "a number from 1 to 65536"),
])  # fmt: skip
def test_metadata_that_does_not_fit_is_refused(metadata: dict[str, str], message: str, tmp_path: Path) -> None:
    """Before a net is built from it: a small file must not take the memory that it announces."""
    write_safetensors(tmp_path / "a.safetensors", tiny().state_dict(), metadata)
    with pytest.raises((EmbedderError, WeightsError), match=message):
        load_module(tmp_path / "a.safetensors")


def test_a_file_that_reads_back_otherwise_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def flipped(path: Path) -> dict[str, torch.Tensor]:
        state = read_safetensors(path)
        state["fc.weight"][3, 5] += 1e-6
        return state

    (tmp_path / "a.safetensors").write_bytes(b"before")
    monkeypatch.setattr(safetensors_file, "read_safetensors", flipped)
    with pytest.raises(DisagreementError, match=r"was not written: fc\.weight came back as something else"):
        export_safetensors(tiny(), tmp_path / "a.safetensors")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"before"]


def test_what_a_killed_export_leaves_cannot_be_taken_for_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there: list[str] = []

    def looked(path: Path) -> dict[str, torch.Tensor]:
        there.extend(entry.name for entry in tmp_path.iterdir())
        with pytest.raises(WeightsError, match="refused"):
            load_weights(path)
        return read_safetensors(path)

    monkeypatch.setattr(safetensors_file, "read_safetensors", looked)
    export_safetensors(tiny(), tmp_path / "a.safetensors")
    assert there == [f".a.safetensors.{os.getpid()}.partial"]
    assert [path.name for path in tmp_path.iterdir()] == ["a.safetensors"]


def test_model_pt_needs_no_torchscript(tmp_path: Path) -> None:
    """What torch.jit writes holds code/ and constants.pkl; a state dict is one pickle and the numbers."""
    torch.save(tiny().state_dict(), tmp_path / "model.pt")
    with zipfile.ZipFile(tmp_path / "model.pt") as archive:
        names = [name.split("/", 1)[1] for name in archive.namelist()]
    assert "data.pkl" in names
    assert not [name for name in names if name.startswith("code/") or name == "constants.pkl"]
    state = torch.load(tmp_path / "model.pt", weights_only=True)
    assert {type(value) for value in state.values()} == {torch.Tensor}
