"""What a file says of its origin, and reading that back from both formats."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path

import pytest
import torch

from backbones import BackboneInfo
from tests.tools.export.nets import mean_graph, settled
from tools.export.metadata import describe, graph_metadata, origin, words
from tools.export.safetensors_file import export_safetensors
from tools.export.variant import INT8, PIXELS, ExportError, Variant

RUN = {
    "commit": "abc123",
    "fingerprint": {
        "data": {"kind": "records", "images": 20, "classes": 4, "content_sha256": "12" * 32, "path": "secret"}
    },
}


def run_folder(folder: Path) -> Path:
    (folder / "run.json").write_text(json.dumps(RUN))
    (folder / "config.json").write_text(json.dumps({"head": "cosface", "network": "tiny"}))
    (folder / "model.pt").write_bytes(b"weights")
    return folder / "model.pt"


def test_the_run_is_named_without_its_paths(tmp_path: Path) -> None:
    assert origin(run_folder(tmp_path)) == {
        "weights": "model.pt",
        "weights_sha256": sha256(b"weights").hexdigest(),
        "training_data": "records, 20 images, 4 classes",
        "training_data_sha256": "12" * 32,
        "training_commit": "abc123",
        "head": "cosface",
    }


def test_weights_without_a_run_name_themselves(tmp_path: Path) -> None:
    (tmp_path / "backbone.pth").write_bytes(b"weights")
    assert set(origin(tmp_path / "backbone.pth")) == {"weights", "weights_sha256"}
    (tmp_path / "run.json").write_text('{"fingerprint": {"data": [1]}, "commit": 3}')
    assert set(origin(tmp_path / "backbone.pth")) == {"weights", "weights_sha256"}


@pytest.mark.parametrize("text", ["{", "[" * 100_000, '{"a": "\udc80"}'])
def test_a_damaged_run_is_told(text: str, tmp_path: Path) -> None:
    weights = run_folder(tmp_path)
    (tmp_path / "run.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(ExportError, match=r"run\.json: not the JSON that a run writes"):
        origin(weights)


def test_entries_tell_how_to_feed_a_file() -> None:
    found = graph_metadata(BackboneInfo("tiny", 16, 3, (112, 112)), Variant(PIXELS, True, INT8, 18), "dynamic")
    expected = {
        "input": "uint8-nhwc", "layout": "NHWC uint8, pixels as they are: the graph computes (pixel - mean) / std",
        "color_order": "RGB", "mean": "127.5", "std": "127.5", "image_size": "112x112", "embedding_size": "16",
        "network": "tiny", "embeddings_normalized": "true", "precision": "int8", "quantization": "dynamic",
        "opset": "18",
    }  # fmt: skip
    assert expected.items() <= found.items()
    assert graph_metadata(BackboneInfo("digits", 2, 1, (28, 28)), Variant())["color_order"] == "GRAY"


def test_an_onnx_file_is_described(tmp_path: Path) -> None:
    model = mean_graph(1.0)
    model.metadata_props.add(key="network", value="means")
    (tmp_path / "a.onnx").write_bytes(model.SerializeToString())
    facts = describe(tmp_path / "a.onnx")
    assert facts["sha256"] == sha256(model.SerializeToString()).hexdigest()
    assert facts["inputs"] == [{"name": "images", "type": "float", "shape": ["batch", 3, 112, 112]}]
    assert facts["outputs"] == [{"name": "embeddings", "type": "float", "shape": ["batch", 3]}]
    assert facts["opsets"] == {"ai.onnx": 20}
    assert "network               means" in words(facts).splitlines()


def test_text_that_is_no_utf_8_is_shown_all_the_same(tmp_path: Path) -> None:
    """Found by the fuzzer: protobuf hands such text out as bytes."""
    model = mean_graph(1.0)
    model.metadata_props.add(key="network", value="means")
    (tmp_path / "a.onnx").write_bytes(model.SerializeToString().replace(b"network", b"netw\xffrk"))
    assert "netw\ufffdrk               means" in words(describe(tmp_path / "a.onnx")).splitlines()


def test_weights_are_described(tmp_path: Path) -> None:
    net = settled("digits", 1)
    count = export_safetensors(net, tmp_path / "deep" / "a.safetensors", extra_metadata={"weights": "model.pt"})
    facts = describe(tmp_path / "deep" / "a.safetensors")
    assert facts["tensors"] == count == len(net.state_dict())
    assert facts["values"] == sum(value.numel() for value in net.state_dict().values())
    assert facts["metadata"]["network"] == "digits"
    assert facts["metadata"]["in_channels"] == "1"
    assert facts["metadata"]["weights"] == "model.pt"
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["a.safetensors"]


def test_what_cannot_be_described_is_told(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(1)}, tmp_path / "model.pt")
    for name, content, message in (
        ("absent.onnx", None, "no such file"),
        ("model.pt", None, "weights of torch.save say nothing"),
        ("text.onnx", b"hello", "no ONNX file, damaged or cut short"),
        ("empty.onnx", b"", "its graph has no output"),
        ("cut.onnx", mean_graph(1.0).SerializeToString()[:-40], "no ONNX file"),
    ):
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(ExportError, match=message):
            describe(tmp_path / name)
