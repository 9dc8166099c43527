"""float32 graph -> float16 or int8, by the converters that onnxruntime brings; what it costs is measured elsewhere."""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from tools.export.variant import FLOAT16, FP16, INPUT, INT8, ExportError, Variant

# What has an int8 kernel on CPUs. A lone batch norm has none: quantised, it would only be rounded and turned back.
_STATIC_OPS = ["Conv", "Gemm", "MatMul", "Add", "Relu"]


def convert(
    model: onnx.ModelProto, variant: Variant, calibration: Sequence[NDArray[np.float32]] | None
) -> onnx.ModelProto:
    """The graph in a variant's precision; its input and output stay float32 unless the variant says otherwise.

    Args:
        model: float32 (batch, C, H, W) -> (batch, D).
        variant: fp32 is returned as it is.
        calibration: batches of normalised images, for int8: static where they are given, dynamic without.

    Raises:
        ExportError: the converter failed.
    """
    try:
        with _quiet():
            if variant.precision == FP16:
                return _to_half(model, keep_types=variant.input != FLOAT16)
            if variant.precision == INT8:
                return _to_int8_dynamic(model) if calibration is None else _to_int8_static(model, calibration)
    except Exception as error:  # the converters raise nearly anything
        raise ExportError(f"--precision {variant.precision}: onnxruntime's converter failed: {error!r}") from error
    return model


def _to_half(model: onnx.ModelProto, *, keep_types: bool) -> onnx.ModelProto:
    from onnxruntime.transformers.float16 import convert_float_to_float16

    copy = onnx.ModelProto.FromString(model.SerializeToString())  # the converter works in place
    half: onnx.ModelProto = convert_float_to_float16(copy, keep_io_types=keep_types)
    sort_nodes(half.graph)
    return half


def sort_nodes(graph: onnx.GraphProto) -> None:
    """Puts nodes behind those that they need, as the format asks for; the float16 converter appends its casts."""
    waiting = [onnx.NodeProto.FromString(node.SerializeToString()) for node in graph.node]
    made = {name for node in waiting for name in node.output}
    known = {item.name for item in (*graph.input, *graph.initializer)}
    del graph.node[:]
    while waiting:
        ready = [node for node in waiting if all(name in known or name not in made for name in node.input)]
        if not ready:
            raise ExportError(f"the graph's nodes wait for each other: {', '.join(node.name for node in waiting[:5])}")
        known.update(name for node in ready for name in node.output)
        waiting = [node for node in waiting if not set(node.output) <= known]
        graph.node.extend(ready)


def _to_int8_dynamic(model: onnx.ModelProto) -> onnx.ModelProto:
    """Weights rounded once, activations in every run. Unsigned weights: convolutions of signed ones run three times
    slower than float32 in onnxruntime on x86, unsigned ones about as fast (docs/onnx.md)."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    def quantize(source: str, target: str) -> None:
        quantize_dynamic(source, target, weight_type=QuantType.QUInt8, per_channel=True)

    return _through_files(model, quantize)


def _to_int8_static(model: onnx.ModelProto, calibration: Sequence[NDArray[np.float32]]) -> onnx.ModelProto:
    """Ranges of activations taken once, from real images.

    Weights use 7 bits (reduce_range): without VNNI, x86 adds pairs of uint8 x int8 products in 16 bits, which overflow
    with 8; the worst cosine on faces fell from .9995 to .925 with them.
    """
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Batches(CalibrationDataReader):
        def __init__(self) -> None:
            self._batches = iter(calibration)

        def get_next(self) -> dict[str, Any] | None:
            batch = next(self._batches, None)
            return None if batch is None else {INPUT: batch}

    def quantize(source: str, target: str) -> None:
        quantize_static(
            source, target, Batches(), quant_format=QuantFormat.QDQ, op_types_to_quantize=_STATIC_OPS,
            activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8, per_channel=True, reduce_range=True,
        )  # fmt: skip

    return _through_files(model, quantize)


def _through_files(model: onnx.ModelProto, quantize: Callable[[str, str], None]) -> onnx.ModelProto:
    """The quantisers read and write files."""
    with tempfile.TemporaryDirectory(prefix="marginface-export-") as folder:
        source, target = Path(folder, "source.onnx"), Path(folder, "target.onnx")
        onnx.save(model, str(source))
        quantize(str(source), str(target))
        return onnx.load(str(target))


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide advice to run a preprocessing whose work the exporter has done already; it goes to the root logger."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        root.setLevel(level)
