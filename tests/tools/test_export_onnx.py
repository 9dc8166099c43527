"""ONNX files: one file, a batch that moves, metadata that feeds it, and a check that can fail."""

from __future__ import annotations

import json
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from eval import verification
from eval.embedder import load_embedder
from eval.pairs import write_bin
from tests.eval.faces import jpeg_pairs
from tests.tools.export.nets import settled, tiny, traced
from tools import export_onnx
from tools.export import onnx_file, parity
from tools.export.onnx_file import export
from tools.export.parity import CHECKED_BATCHES
from tools.export_onnx import main


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
    # by the length of the embeddings: their numbers are sums of large terms of both signs, rounded in another order
    scale = expected.norm(dim=1, keepdim=True)
    torch.testing.assert_close(load_embedder(out)(photographs) / scale, expected / scale, rtol=0, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "channels"), [("r18", 3), ("mbf", 3), ("digits", 1)])
def test_every_family_exports(name: str, channels: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parity, "CHECKED_BATCHES", (1, 3))  # tiny, in the tests above, is checked at all three
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

    monkeypatch.setattr(onnx_file, "to_onnx", wrong)
    out = tmp_path / "model.onnx"
    assert main([str(run_folder), "--out", str(out)]) == 1
    message = capsys.readouterr().err
    assert "was not written: at batch 1 onnxruntime differs from PyTorch by" in message
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_exported_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "model.onnx").write_bytes(b"")
    for arguments, message in (
        ([str(tmp_path / "absent")], "no such model"),
        ([str(tmp_path)], "best.pt or model.pt"),
        ([str(tmp_path / "model.onnx")], "is an ONNX file already"),
    ):
        assert main(arguments) == 2
        assert message in capsys.readouterr().err
    torch.save({"weight": torch.zeros(1)}, tmp_path / "model.pt")
    assert main([str(tmp_path)]) == 2
    assert "fit no backbone" in capsys.readouterr().err
    torch.save(settled("digits", in_channels=1).state_dict(), tmp_path / "model.pt")
    assert main([str(tmp_path), "--network", "r51"]) == 2
    assert "unknown backbone 'r51'" in capsys.readouterr().err


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run of the net that is traced once for all tests, and the set small.bin of 24 pairs."""
    monkeypatch.setattr(onnx_file, "to_onnx", traced)
    (tmp_path / "run").mkdir()
    torch.save(tiny().state_dict(), tmp_path / "run" / "model.pt")
    write_bin(tmp_path / "small.bin", *jpeg_pairs(24))
    return tmp_path


VARIANTS = [
    ([], "model.onnx"),
    (["--input", "uint8-nhwc", "--normalize"], "model_uint8_unit.onnx"),
    (["--precision", "fp16", "--input", "float16-nchw"], "model_float16_fp16.onnx"),
    (["--precision", "int8"], "model_int8.onnx"),
    (["--format", "safetensors"], "model.safetensors"),
]


@pytest.mark.parametrize(("options", "name"), VARIANTS)
def test_verification_takes_every_variant(
    options: list[str], name: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(place / "run"), *options, "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["file"] == str(place / "run" / name)
    assert facts["metadata"]["embedding_size"] == "16"
    before = torch.get_num_threads()
    arguments = ["--data", str(place), "--targets", "small", "--device", "cpu", "--out", str(place / "out")]
    assert verification.main(["--model", facts["file"], *arguments]) == 0
    torch.set_num_threads(before)
    results = json.loads((place / "out" / "results.json").read_text())
    assert results["weights_sha256"] == facts["sha256"]
    assert results["targets"]["small"]["protocols"]["exact"]["num_same"] == 12


def test_parity_and_throughput_as_words_and_json(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export_onnx, "compare_speeds", lambda embedders, images: [])
    command = [str(place / "run"), "--data", str(place), "--targets", "small", "--throughput"]
    assert main(command) == 0
    assert "small: accuracy" in (printed := capsys.readouterr().out)
    assert "on random images, small" in printed
    assert main([*command, "--precision", "int8", "--json"]) == 0
    out, err = capsys.readouterr()
    found = json.loads(out)["pairs"]["small"]
    assert found["pairs"] == 24
    assert 0.99 < found["worst_cosine"] < found["mean_cosine"] < 1
    assert " images and mirror images, unit embeddings differ by at most" in err


def test_a_file_that_fails_is_not_written(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On random images by a bar that int8 cannot reach; on faces where the random ones had passed."""
    out = place / "new" / "model.onnx"
    command = [str(place / "run"), "--precision", "int8", "--out", str(out), "--data", str(place), "--targets", "small"]
    assert main([*command, "--min-cosine", "1"]) == 1
    assert "model.onnx was not written: random images, batch 1: the worst cosine" in capsys.readouterr().err
    far = SimpleNamespace(agreement=SimpleNamespace(worst_cosine=0.9899))
    monkeypatch.setattr(export_onnx, "on_pairs", lambda expected, files, pairs, *, flip: dict.fromkeys(files, far))
    assert main([*command, "--json"]) == 1
    printed = capsys.readouterr()
    message = "model.onnx was not written: small: the worst cosine between PyTorch's and the file's embedding of one"
    assert message in printed.err
    assert message in json.loads(printed.out)["error"]
    assert not out.parent.exists()


def test_options_that_cannot_apply_are_refused(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, folder = str(place / "run"), str(place / "folder.onnx")
    Path(folder).mkdir()
    for arguments, message in (
        ([], "nothing to export: give a run folder or a weights file"),
        ([run, "--format", "safetensors", "--normalize", "--opset", "18"], "--normalize, --opset cannot apply"),
        ([run, "--calibrate", run], "--calibrate is for --precision int8; this one is fp32"),
        ([run, "--precision", "int8", "--calibrate", run], "no image in it"),
        ([run, "--data", str(place)], "add --targets lfw"),
        ([run, "--data", str(place), "--targets", "lfw"], "neither lfw.bin nor lfw/pairs.txt is in"),
        ([run, "--input", "float16-nchw"], "--input float16-nchw is for --precision fp16"),
        ([run, "--min-cosine", "2"], "a cosine lies in -1 .. 1"),
        ([run, "--threads", "0"], "must be at least 1"),
        ([run, "--out", run], "the file's name must end with .onnx, which is how readers know it"),
        ([run, "--out", folder], "is a folder; name a file to write"),
        ([run, "--out", f"{run}/model.pt"], "must end with .onnx"),
        (["--describe", f"{run}/model.pt"], "--describe takes an .onnx or .safetensors file"),
    ):
        assert main(arguments) == 2, message
        assert message in capsys.readouterr().err
    assert sorted(path.name for path in (place / "run").iterdir()) == ["model.pt"]
