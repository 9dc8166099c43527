"""ONNX files of any origin: which inputs are taken, with which pixels, and what is said of the others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from eval.embedder import EmbedderError, OnnxEmbedder, load_embedder
from utils.images import ImageFormat

IMAGES = torch.randint(0, 256, (3, 112, 112, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
PLANES, PIXELS = ("batch", 3, 112, 112), ("batch", 112, 112, 3)


def means(kind: int, shape: tuple[object, ...], metadata: dict[str, str] | None = None) -> bytes:
    """A graph that gives the mean of each channel of whatever it is given, (batch, 3) float32."""
    values = helper.make_node("Cast", ["x"], ["values"], to=TensorProto.FLOAT)
    axes = [2, 3] if len(shape) == 4 and shape[-1] != 3 else [1, 2]
    mean = helper.make_node("ReduceMean", ["values", "axes"], ["y"], keepdims=0)
    constant = onnx.numpy_helper.from_array(np.array(axes, np.int64), "axes")
    ends = helper.make_tensor_value_info("x", kind, shape), helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph([values, mean], "means", [ends[0]], [ends[1]], [constant])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    for key, value in (metadata or {}).items():
        model.metadata_props.add(key=key, value=value)
    content: bytes = model.SerializeToString()
    return content


WANTED = IMAGES.double().mean(dim=(1, 2))


@pytest.mark.parametrize(("kind", "tolerance"), [(TensorProto.FLOAT, 1e-5), (TensorProto.FLOAT16, 1e-3)])
def test_planes_are_normalised_here(kind: int, tolerance: float, tmp_path: Path) -> None:
    (tmp_path / "a.onnx").write_bytes(means(kind, PLANES))
    got = load_embedder(tmp_path / "a.onnx")(IMAGES)
    torch.testing.assert_close(got.double(), (WANTED - 127.5) / 127.5, atol=tolerance, rtol=0)


@pytest.mark.parametrize("shape", [PIXELS, (1, 112, 112, 3), (2, 112, 112, 3), ("b", "h", "w", 3)])
def test_pixels_go_in_as_they_are(shape: tuple[object, ...]) -> None:
    embedder = OnnxEmbedder(means(TensorProto.UINT8, shape))
    torch.testing.assert_close(embedder(IMAGES).double(), WANTED, atol=1e-3, rtol=0)
    mirrored = IMAGES.flip(2).transpose(1, 2).transpose(1, 2)
    torch.testing.assert_close(embedder(mirrored).double(), WANTED, atol=1e-3, rtol=0)
    with pytest.raises(EmbedderError, match=r"takes uint8 \(B, H, W, 3\); got torch.float32"):
        embedder(IMAGES.float())


@pytest.mark.parametrize(("kind", "shape"), [
    (TensorProto.UINT8, PLANES), (TensorProto.FLOAT, PIXELS), (TensorProto.INT32, PIXELS), (TensorProto.DOUBLE, PLANES),
    (TensorProto.FLOAT, ("batch", 1, 28, 28)), (TensorProto.FLOAT, ("batch", 3, 112)),
])  # fmt: skip
def test_other_inputs_are_refused(kind: int, shape: tuple[object, ...]) -> None:
    with pytest.raises(
        EmbedderError, match=r"needs one input \(batch, 3, 112, 112\) float, or \(batch, 112, 112, 3\) ui"
    ):
        OnnxEmbedder(means(kind, shape))


def test_metadata_and_graph_must_agree(tmp_path: Path) -> None:
    (tmp_path / "a.onnx").write_bytes(means(TensorProto.FLOAT, PLANES, {"input": "uint8-nhwc"}))
    with pytest.raises(
        EmbedderError, match=r"a\.onnx: its metadata says input = uint8-nhwc, but its input is x tensor"
    ):
        load_embedder(tmp_path / "a.onnx")
    (tmp_path / "b.onnx").write_bytes(means(TensorProto.UINT8, PIXELS, {"color_order": "BGR"}))
    with pytest.raises(EmbedderError, match=r"b\.onnx: its metadata says color_order = BGR"):
        load_embedder(tmp_path / "b.onnx")
    assert OnnxEmbedder(means(TensorProto.UINT8, PIXELS, {"embeddings_normalized": "true"})).is_normalized
    assert not OnnxEmbedder(means(TensorProto.UINT8, PIXELS)).is_normalized


def test_other_images_where_they_are_asked_for() -> None:
    grey = ImageFormat(28, 28, 1)
    with pytest.raises(EmbedderError, match=r"needs one input \(batch, 1, 28, 28\) float"):
        OnnxEmbedder(means(TensorProto.FLOAT, PLANES), image_format=grey)


def test_a_graph_that_fails_when_it_runs_is_told() -> None:
    with pytest.raises(EmbedderError, match=r"onnxruntime cannot run it on \(3, 100, 112, 3\)"):
        OnnxEmbedder(means(TensorProto.UINT8, PIXELS))(IMAGES[:, :100])
