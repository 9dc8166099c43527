"""Small nets with statistics as of trained ones, traced once for all tests, and hand-made graphs. No tests here."""

from __future__ import annotations

from functools import cache

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from backbones import backbone_info, build_backbone
from tools.export.graph import to_onnx

IMAGES = torch.randint(0, 256, (6, 112, 112, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(3))


def settled(name: str, in_channels: int = 3) -> nn.Module:
    """A net whose running statistics, scales and shifts are unlike their initial values: folding errors show."""
    torch.manual_seed(0)
    net = build_backbone(name, embedding_size=16, in_channels=in_channels)
    norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d)]
    for module in norms:
        module.momentum = 1.0
        nn.init.uniform_(module.weight, 0.5, 1.5)
        nn.init.normal_(module.bias, 0.0, 0.3)
    edge = 28 if name == "digits" else 112
    with torch.no_grad():
        net(torch.rand(16, in_channels, edge, edge) * 2 - 1)
        for module in norms:
            if isinstance(module, nn.BatchNorm1d):
                # images of noise differ little: divided by that, rounding anywhere would be all that is left
                module.running_var += module.running_mean**2  # type: ignore[operator]
                module.running_mean *= 0.5  # type: ignore[operator]
    return net


@cache
def _traced() -> tuple[nn.Module, bytes]:
    net = settled("tiny").eval()
    return net, to_onnx(net, backbone_info(net), 20).SerializeToString()


def tiny() -> nn.Module:
    """The net that `traced` is of; in eval mode, not to be changed."""
    return _traced()[0]


def traced(*_: object) -> onnx.ModelProto:
    """Its graph, a new copy each time: tracing takes seconds, and stands in for `to_onnx`."""
    return onnx.ModelProto.FromString(_traced()[1])


def mean_graph(scale: float) -> onnx.ModelProto:
    """(batch, 3, 112, 112) float32 -> (batch, 3): the mean of each channel times `scale`."""
    images = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 3, 112, 112])
    embeddings = helper.make_tensor_value_info("embeddings", TensorProto.FLOAT, ["batch", 3])
    nodes = [
        helper.make_node("GlobalAveragePool", ["images"], ["means"]),
        helper.make_node("Flatten", ["means"], ["flat"]),
        helper.make_node("Mul", ["flat", "scale"], ["embeddings"]),
    ]
    constant = numpy_helper.from_array(np.array(scale, np.float32), "scale")
    graph = helper.make_graph(nodes, "means", [images], [embeddings], [constant])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
