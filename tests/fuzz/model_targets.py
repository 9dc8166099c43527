"""Targets that read models for deployment: .safetensors weights and what an ONNX file says of itself. No loop here."""

from __future__ import annotations

import json
import struct
from contextlib import suppress
from pathlib import Path
from random import Random

import safetensors.torch
import torch
from onnx import TensorProto, helper, numpy_helper

from backbones.weights import WeightsError, load_weights
from eval.embedder import EmbedderError, load_module
from tests.fuzz.damage import INTERESTING
from tests.fuzz.json_damage import json_damage
from tests.fuzz.target import Target, put
from tools.export.metadata import describe, words
from tools.export.variant import ExportError
from utils.safetensors_files import SafetensorsError

_NAMES = ("tiny", "torchvision:resnet18", "r51", "")


def _safetensors_seeds(_: Path) -> list[bytes]:
    net = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 1), torch.nn.BatchNorm2d(2)).state_dict()
    odd = {
        "a": torch.zeros(0, 2, dtype=torch.bfloat16),
        "b": torch.tensor(True),
        "c": torch.arange(3, dtype=torch.uint8),
    }
    texts = [{"network": name, "embedding_size": "16", "in_channels": "3", "color_order": "RGB"} for name in _NAMES]
    return [safetensors.torch.save(net, text) for text in texts] + [safetensors.torch.save(odd, None)]


def _header_damage(data: bytes, random: Random) -> bytes:
    """Another value in the header, whose announced length then fits, or another length."""
    if len(data) < 8:
        return data
    length = min(struct.unpack_from("<Q", data)[0], len(data))
    inside, rest = data[8 : 8 + length], data[8 + length :]
    if random.random() < 0.2:
        return struct.pack("<Q", random.choice(INTERESTING) % (1 << 64)) + data[8:]
    if random.random() < 0.3:  # a size or an offset, which plain damage to JSON rarely meets
        try:
            entries = json.loads(inside)
            entry = entries[random.choice([name for name in entries if name != "__metadata__"])]
            key = random.choice(("shape", "data_offsets"))
            entry[key] = [random.choice(INTERESTING) for _ in range(random.choice((1, 2, 2, 8)))]
            entry["dtype"] = random.choice(("F32", "F64", "BOOL", "U8", "I64", "F8_E4M3", "BF16", "F4", "C64"))
            inside = json.dumps(entries).encode()
        except (ValueError, KeyError, IndexError, TypeError, RecursionError):
            inside = json_damage(inside, random)
    else:
        inside = json_damage(inside, random)
    return struct.pack("<Q", len(inside)) + inside + rest


def _read_safetensors(data: bytes, folder: Path) -> None:
    path = put(folder, "model.safetensors", data)
    load_weights(path)
    with suppress(WeightsError, EmbedderError):  # sound files of no net of ours
        load_module(path)


def _onnx_seeds(_: Path) -> list[bytes]:
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 2]) for name in ("images", "embeddings")]
    weight = numpy_helper.from_array(torch.ones(2).numpy(), "weight")
    node = helper.make_node("Mul", ["images", "weight"], ["embeddings"], "multiply")
    model = helper.make_model(helper.make_graph([node], "graph", ends[:1], ends[1:], [weight]))
    model.metadata_props.add(key="network", value="tiny")
    return [model.SerializeToString()]


def _describe(data: bytes, folder: Path) -> None:
    words(describe(put(folder, "model.onnx", data)))


MODEL_TARGETS = [
    Target("safetensors", _safetensors_seeds, _read_safetensors, (WeightsError, EmbedderError, SafetensorsError),
           mutators=(_header_damage, _header_damage)),
    Target("onnx", _onnx_seeds, _describe, (ExportError,), (b"\n", b"\x12", b"\x08\x80\x80\x80\x80\x08", b"\xff" * 10)),
]  # fmt: skip
