"""Backbone -> ONNX graph, and what may be put before and behind it; values are rounded and checked elsewhere."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from backbones import BackboneInfo
from tools.export.variant import FLOAT16, INPUT, OUTPUT, PIXELS, ExportError, Variant
from utils.images import FACE

_SMALLEST_NORM = 1e-12  # a zero vector stays zero, as in torch's F.normalize


def to_onnx(backbone: nn.Module, info: BackboneInfo, opset: int) -> onnx.ModelProto:
    """Trace a net into an ONNX model, float32 (batch, C, H, W) -> (batch, D), whose batch is a symbolic dimension."""
    parameter = next(backbone.parameters())
    example = torch.zeros(2, info.in_channels, *info.image_size, device=parameter.device)
    try:
        with quiet_exporter():
            program = torch.onnx.export(
                backbone, (example,), dynamo=True, verbose=False, opset_version=opset,
                input_names=[INPUT], output_names=[OUTPUT], dynamic_shapes=({0: torch.export.Dim("batch")},),
            )  # fmt: skip
    except Exception as error:  # the exporter's errors share no narrower base
        raise ExportError(f"{info.name}: torch.onnx.export failed: {error}") from error
    if program is None:
        raise ExportError(f"{info.name}: torch.onnx.export returned no program")
    model: onnx.ModelProto = program.model_proto
    for value, shape in ((model.graph.input[0], "batch of the input"), (model.graph.output[0], "batch of the output")):
        if not value.type.tensor_type.shape.dim[0].dim_param:
            raise ExportError(f"{info.name}: the {shape} became a constant in the graph; it must stay dynamic")
    return model


def dress(model: onnx.ModelProto, info: BackboneInfo, variant: Variant) -> None:
    """Puts pixel input and normalisation around a graph, in place.

    They stay outside whatever was done to the graph's precision before: a sum of squares overflows in float16 from a
    norm of 256 on, and (pixel - mean) / std is to be the very float32 that `utils.images.to_model_input` makes.
    """
    if variant.input == PIXELS:
        _take_pixels(model.graph, info)
    if variant.is_normalized:
        _normalize(model.graph, is_half=variant.input == FLOAT16)


def _take_pixels(graph: onnx.GraphProto, info: BackboneInfo) -> None:
    """uint8 (batch, H, W, C): planes, float32, (pixel - mean) / std. Turned while it is small, a byte a value."""
    inner = f"{INPUT}_normalised"
    _rename(graph, INPUT, inner)
    _add_constant(graph, "pixel_mean", np.array(FACE.mean, np.float32))
    _add_constant(graph, "pixel_std", np.array(FACE.std, np.float32))
    nodes = [
        helper.make_node("Transpose", [INPUT], ["pixel_planes"], "pixels_transpose", perm=[0, 3, 1, 2]),
        helper.make_node("Cast", ["pixel_planes"], ["pixel_values"], "pixels_cast", to=TensorProto.FLOAT),
        helper.make_node("Sub", ["pixel_values", "pixel_mean"], ["pixels_centred"], "pixels_subtract_mean"),
        helper.make_node("Div", ["pixels_centred", "pixel_std"], [inner], "pixels_divide_by_std"),
    ]
    _replace_nodes(graph, [*nodes, *graph.node])
    batch = graph.input[0].type.tensor_type.shape.dim[0].dim_param
    shape = [batch, *info.image_size, info.in_channels]
    graph.input[0].CopyFrom(helper.make_tensor_value_info(INPUT, TensorProto.UINT8, shape))


def _normalize(graph: onnx.GraphProto, *, is_half: bool) -> None:
    """x / max(||x||, 1e-12), in float32 whatever the output's type is."""
    raw = f"{OUTPUT}_raw"
    _rename(graph, OUTPUT, raw)
    _add_constant(graph, "smallest_norm", np.array(_SMALLEST_NORM, np.float32))
    _add_constant(graph, "embedding_axis", np.array([1], np.int64))
    wide, unit = (f"{OUTPUT}_wide", f"{OUTPUT}_unit") if is_half else (raw, OUTPUT)
    nodes = [
        helper.make_node("ReduceL2", [wide, "embedding_axis"], ["embedding_norms"], "embedding_norm", keepdims=1),
        helper.make_node("Max", ["embedding_norms", "smallest_norm"], ["divisors"], "embedding_norm_at_least"),
        helper.make_node("Div", [wide, "divisors"], [unit], "embedding_divide_by_norm"),
    ]
    if is_half:
        first = helper.make_node("Cast", [raw], [wide], "embedding_widen", to=TensorProto.FLOAT)
        last = helper.make_node("Cast", [unit], [OUTPUT], "embedding_narrow", to=TensorProto.FLOAT16)
        nodes = [first, *nodes, last]
    _replace_nodes(graph, [*graph.node, *nodes])


def _rename(graph: onnx.GraphProto, old: str, new: str) -> None:
    """A value's name in all nodes; the graph's own inputs and outputs keep theirs."""
    for node in graph.node:
        for names in (node.input, node.output):
            for place, name in enumerate(names):
                if name == old:
                    names[place] = new


def _add_constant(graph: onnx.GraphProto, name: str, value: np.ndarray) -> None:
    graph.initializer.append(numpy_helper.from_array(value, name))


def _replace_nodes(graph: onnx.GraphProto, nodes: list[onnx.NodeProto]) -> None:
    """Nodes must stand in the order in which they run."""
    kept = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(kept)


@contextmanager
def quiet_exporter() -> Iterator[None]:
    """Hide the exporter's remarks about packages that are not installed and about torch's own deprecations."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
