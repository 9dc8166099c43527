"""ONNX files: one file, a batch that moves, metadata that feeds it, and a check that can fail."""

from __future__ import annotations

import json
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from backbones import build_backbone
from eval.embedder import load_embedder
from tools import export_onnx
from tools.export_onnx import CHECKED_BATCHES, ExportError, export, main


def settled(name: str, in_channels: int = 3) -> nn.Module:
    """A net whose running statistics are those of data, as a trained one's are."""
    torch.manual_seed(0)
    net = build_backbone(name, embedding_size=16, in_channels=in_channels)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.momentum = 1.0
    edge = 28 if name == "digits" else 112
    with torch.no_grad():
        net(torch.rand(4, in_channels, edge, edge) * 2 - 1)
    return net


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a run leaves: a config and two models, of which the best one is exported by default."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "config.json").write_text(json.dumps({"network": "tiny", "embedding_size": 16}), encoding="utf-8")
    best = settled("tiny")
    torch.save(best.state_dict(), folder / "best.pt")
    torch.save({key: value * 2 for key, value in best.state_dict().items()}, folder / "model.pt")
    return folder


@pytest.fixture(scope="module")
def exported(run_folder: Path) -> Path:
    """The run folder's model.onnx, beside which lies what was printed."""
    with redirect_stdout(StringIO()) as printed:
        assert main([str(run_folder)]) == 0
    (run_folder / "printed.txt").write_text(printed.getvalue(), encoding="utf-8")
    return run_folder / "model.onnx"


def test_every_batch_size_is_checked_and_printed(exported: Path) -> None:
    printed = exported.with_name("printed.txt").read_text(encoding="utf-8")
    for batch in CHECKED_BATCHES:
        assert f"batch {batch:3}: max abs difference" in printed
    assert CHECKED_BATCHES == (1, 3, 32)
    assert "agrees with PyTorch" in printed
    names = sorted(path.name for path in exported.parent.iterdir())
    assert names == ["best.pt", "config.json", "model.onnx", "model.pt", "printed.txt"]


def test_one_file_with_a_dynamic_batch_and_its_metadata(exported: Path) -> None:
    model = onnx.load(str(exported), load_external_data=False)
    onnx.checker.check_model(model)
    assert not any(tensor.external_data for tensor in model.graph.initializer)
    (images,), (embeddings,) = model.graph.input, model.graph.output
    assert (images.name, embeddings.name) == ("images", "embeddings")
    dims = [dim.dim_param or dim.dim_value for dim in images.type.tensor_type.shape.dim]
    assert dims == ["batch", 3, 112, 112]
    assert [dim.dim_param or dim.dim_value for dim in embeddings.type.tensor_type.shape.dim] == ["batch", 16]
    entries = {entry.key: entry.value for entry in model.metadata_props}
    expected = {
        "input_name": "images", "output_name": "embeddings", "color_order": "RGB", "mean": "127.5", "std": "127.5",
        "image_size": "112x112", "network": "tiny", "embedding_size": "16", "weights": "best.pt",
    }  # fmt: skip
    assert expected.items() <= entries.items()
    assert entries["marginface_version"]


def test_the_file_embeds_photographs_as_the_weights_do(run_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "deep" / "last.onnx"
    assert main([str(run_folder), "--checkpoint", "last", "--out", str(out), "--opset", "18"]) == 0
    assert {entry.domain: entry.version for entry in onnx.load(str(out)).opset_import}[""] == 18
    photographs = torch.randint(0, 256, (5, 112, 112, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    expected = load_embedder(run_folder / "model.pt")(photographs)
    torch.testing.assert_close(load_embedder(out)(photographs), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "channels"), [("r18", 3), ("mbf", 3), ("digits", 1)])
def test_every_family_exports(name: str, channels: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export_onnx, "CHECKED_BATCHES", (1, 3))  # tiny, in the tests above, is checked at all three
    net = settled(name, channels)
    assert list(export(net, tmp_path / "model.onnx")) == [1, 3]
    assert net.training, "the mode was not restored"
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"), providers=["CPUExecutionProvider"])
    edge = 28 if name == "digits" else 112
    assert session.run(None, {"images": np.zeros((2, channels, edge, edge), np.float32)})[0].shape == (2, 16)
    order = "GRAY" if channels == 1 else "RGB"
    assert session.get_modelmeta().custom_metadata_map["color_order"] == order


def test_a_file_that_disagrees_is_not_written(
    run_folder: Path,
    exported: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def wrong(*_: object) -> onnx.ModelProto:
        model = onnx.load(str(exported))
        bias = next(tensor for tensor in model.graph.initializer if list(tensor.dims) == [16])
        bias.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(bias) + np.float32(0.01), bias.name))
        return model

    monkeypatch.setattr(export_onnx, "to_onnx", wrong)
    out = tmp_path / "model.onnx"
    assert main([str(run_folder), "--out", str(out)]) == 1
    message = capsys.readouterr().err
    assert "was not written: at batch 1 onnxruntime differs from PyTorch by" in message
    assert list(tmp_path.iterdir()) == []


def test_embeddings_that_are_not_finite_are_refused() -> None:
    with pytest.raises(ExportError, match="weights overflow float32"):
        export_onnx.require_agreement({1: (float("nan"), float("nan"))}, Path("model.onnx"))
    export_onnx.require_agreement({1: (0.0, 0.0)}, Path("model.onnx"))


def test_what_cannot_be_exported_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "model.onnx").write_bytes(b"")
    for arguments, message in (
        ([str(tmp_path / "absent")], "no such model"),
        ([str(tmp_path)], "best.pt or model.pt"),
        ([str(tmp_path / "model.onnx")], "is an ONNX file already"),
    ):
        assert main(arguments) == 1
        assert message in capsys.readouterr().err
    torch.save({"weight": torch.zeros(1)}, tmp_path / "model.pt")
    assert main([str(tmp_path)]) == 1
    assert "fit no backbone" in capsys.readouterr().err
    torch.save(settled("digits", in_channels=1).state_dict(), tmp_path / "model.pt")
    assert main([str(tmp_path), "--network", "r51"]) == 1
    assert "unknown backbone 'r51'" in capsys.readouterr().err
