"""Every variant against the net itself: values, norms, types, and what the quantisers did to the graph."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, numpy_helper

from backbones import BackboneInfo
from eval.embedder import ModuleEmbedder, OnnxEmbedder, load_embedder
from eval.embedding import embed_images
from tests.tools.export.nets import IMAGES, mean_graph, tiny, traced
from tools.export import onnx_file
from tools.export.graph import dress
from tools.export.onnx_file import build, check
from tools.export.precision import convert
from tools.export.variant import (
    FLOAT16,
    FLOAT32,
    FP16,
    FP32,
    INT8,
    PIXELS,
    WORST_COSINES,
    DisagreementError,
    ExportError,
    Variant,
)  # fmt: skip

CALIBRATION = [IMAGES.numpy(), IMAGES.flip(2).numpy()]
# input, normalised, precision, static
VARIANTS = [
    (FLOAT32, False, FP32, False), (FLOAT32, True, FP32, False), (PIXELS, False, FP32, False),
    (PIXELS, True, FP32, False), (FLOAT32, False, FP16, False), (FLOAT16, False, FP16, False),
    (FLOAT16, True, FP16, False), (PIXELS, True, FP16, False), (FLOAT32, False, INT8, False),
    (PIXELS, True, INT8, False), (FLOAT32, False, INT8, True), (PIXELS, True, INT8, True),
]  # fmt: skip


@pytest.fixture(autouse=True)
def _traced_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_file, "to_onnx", traced)


def content(variant: Variant, *, is_static: bool = False) -> bytes:
    return build(tiny(), variant, calibration=CALIBRATION if is_static else None, calibration_note="noise")


def units(embeddings: torch.Tensor) -> torch.Tensor:
    return embeddings / embeddings.norm(dim=1, keepdim=True)


@pytest.mark.parametrize(("given", "is_normalized", "precision", "is_static"), VARIANTS)
def test_a_file_embeds_as_the_net_does(
    given: str, is_normalized: bool, precision: str, is_static: bool, tmp_path: Path
) -> None:
    variant = Variant(given, is_normalized, precision)
    file = tmp_path / "model.onnx"
    file.write_bytes(content(variant, is_static=is_static))
    onnx.checker.check_model(onnx.load(str(file)), full_check=True)
    embedder = load_embedder(file)
    assert isinstance(embedder, OnnxEmbedder)
    assert embedder.is_normalized is is_normalized
    expected, got = ModuleEmbedder(tiny())(IMAGES), embedder(IMAGES)
    assert got.dtype == torch.float32
    cosines = (units(expected) * units(got)).sum(dim=1)
    assert cosines.min() > WORST_COSINES[precision]
    if is_normalized:
        torch.testing.assert_close(got.norm(dim=1), torch.ones(6), atol=1e-3 if given == FLOAT16 else 1e-6, rtol=0)
    else:
        torch.testing.assert_close(got, expected, atol=float(expected.abs().max()) * 0.1, rtol=0)
    if precision == FP32:
        torch.testing.assert_close(got, units(expected) if is_normalized else expected, atol=1e-4, rtol=0)
    # one image gives what it gives in a batch; int8 with ranges of the batch at hand does not promise that
    if precision != INT8 or is_static:
        torch.testing.assert_close(embedder(IMAGES[:1]), got[:1], atol=1e-5 if precision == FP32 else 2e-2, rtol=0)


@pytest.mark.parametrize(("given", "types"), [
    (FLOAT32, (TensorProto.FLOAT, TensorProto.FLOAT)), (PIXELS, (TensorProto.UINT8, TensorProto.FLOAT)),
    (FLOAT16, (TensorProto.FLOAT16, TensorProto.FLOAT16)),
])  # fmt: skip
def test_types_of_a_half_precision_file(given: str, types: tuple[int, int]) -> None:
    model = onnx.ModelProto.FromString(content(Variant(given, True, FP16)))
    ends = model.graph.input[0], model.graph.output[0]
    assert tuple(end.type.tensor_type.elem_type for end in ends) == types
    weights = [item for item in model.graph.initializer if len(item.dims) > 1]
    assert weights
    assert {item.data_type for item in weights} == {TensorProto.FLOAT16}


def test_pixels_become_the_very_floats_of_training(tmp_path: Path) -> None:
    """Bit for bit: the same graph behind both inputs, so that any difference would be of the pixels."""
    images = torch.arange(256, dtype=torch.uint8).repeat(147).reshape(1, 112, 112, 3)
    float_file, pixel_file = content(Variant()), content(Variant(PIXELS))
    assert torch.equal(OnnxEmbedder(float_file)(images), OnnxEmbedder(pixel_file)(images))


def run(model: onnx.ModelProto, images: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    output: np.ndarray = session.run(None, {"images": images})[0]
    return output


def test_long_embeddings_do_not_overflow_and_zeros_stay_zeros() -> None:
    """Channel means 1, -1 and 0 times 3,000: their squares are 9 million, float16 ends at 65,504."""
    images = np.zeros((2, 3, 112, 112), np.float32)
    images[0, 0], images[0, 1] = 1, -1
    info = BackboneInfo("means", 3, 3, (112, 112))
    for variant in (Variant(FLOAT32, True, FP16), Variant(FLOAT16, True, FP16)):
        model = convert(mean_graph(3000.0), variant, None)
        dress(model, info, variant)
        got = run(model, images.astype(np.float16) if variant.input == FLOAT16 else images)
        np.testing.assert_allclose(got, [[0.5**0.5, -(0.5**0.5), 0], [0, 0, 0]], atol=1e-3)


def test_static_int8_weights_leave_a_bit_free() -> None:
    """8-bit ones overflow sixteen-bit sums of pairs on x86 without VNNI: |w| <= 64 of 127."""
    model = onnx.ModelProto.FromString(content(Variant(precision=INT8), is_static=True))
    weights = [numpy_helper.to_array(item) for item in model.graph.initializer if item.data_type == TensorProto.INT8]
    kernels = [weight for weight in weights if weight.ndim > 1]
    assert len(kernels) >= 9
    assert max(int(np.abs(kernel.astype(int)).max()) for kernel in kernels) == 64
    assert {"QuantizeLinear", "DequantizeLinear"} <= {node.op_type for node in model.graph.node}
    assert next(item.value for item in model.metadata_props if item.key == "quantization") == "static, noise"


def test_dynamic_int8_reaches_the_convolutions() -> None:
    model = onnx.ModelProto.FromString(content(Variant(precision=INT8)))
    names = [node.op_type for node in model.graph.node]
    assert names.count("ConvInteger") >= 9
    assert not {"Conv", "Gemm"} & set(names)
    kernels = [item for item in model.graph.initializer if len(item.dims) == 4]
    assert {item.data_type for item in kernels} == {TensorProto.UINT8}
    assert next(item.value for item in model.metadata_props if item.key == "quantization") == "dynamic"


def test_a_normalising_file_adds_unit_vectors_when_mirrored(tmp_path: Path) -> None:
    """Not insightface's sum, which weighs the two images by their norms."""
    (tmp_path / "unit.onnx").write_bytes(content(Variant(PIXELS, True)))
    images = list(IMAGES.numpy())
    sums = [
        embed_images(embedder, images) for embedder in (load_embedder(tmp_path / "unit.onnx"), ModuleEmbedder(tiny()))
    ]
    net = ModuleEmbedder(tiny())
    wanted = units(net(IMAGES)) + units(net(IMAGES.flip(2)))
    torch.testing.assert_close(torch.from_numpy(sums[0]), wanted, atol=1e-4, rtol=0)
    assert (units(torch.from_numpy(sums[1])) - units(wanted)).abs().max() > 1e-4


def test_what_does_not_follow_the_net_is_refused() -> None:
    model = onnx.ModelProto.FromString(content(Variant(precision=INT8), is_static=True))
    scales = [item for item in model.graph.initializer if item.name.endswith("_scale") and item.dims]
    scales[0].CopyFrom(numpy_helper.from_array(numpy_helper.to_array(scales[0]) * np.float32(3), scales[0].name))
    broken = model.SerializeToString()
    with pytest.raises(
        DisagreementError, match=r"model\.onnx was not written: random images, batch 1: the worst cosine"
    ):
        check(tiny(), broken, Variant(precision=INT8), "model.onnx")
    assert check(tiny(), broken, Variant(precision=INT8), "model.onnx", min_cosine=-1.0)
    with pytest.raises(ExportError, match="onnxruntime cannot load it"):
        check(tiny(), b"nothing", Variant(), "model.onnx")


def test_half_planes_need_half_precision() -> None:
    with pytest.raises(ExportError, match="--input float16-nchw is for --precision fp16; this one is int8"):
        Variant(FLOAT16, precision=INT8)


def test_a_converter_that_fails_is_an_export_error() -> None:
    with pytest.raises(ExportError, match="--precision int8: onnxruntime's converter failed"):
        convert(onnx.ModelProto(), Variant(precision=INT8), None)
