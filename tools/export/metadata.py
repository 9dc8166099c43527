"""What a file says of itself: how to feed it, what it gives, where it came from; and reading that back."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx

from backbones import BackboneInfo
from eval import model_metadata as entry
from tools.export.variant import FLOAT16, INPUT, OUTPUT, PIXELS, ExportError, Variant
from utils.files import sha256_of
from utils.images import FACE
from utils.safetensors_files import SUFFIX, read_safetensors, read_safetensors_metadata

ROOT = Path(__file__).resolve().parents[2]
_LARGEST_JSON = 16 << 20  # bytes; a run.json has ten thousand
_FED_WITH = {
    PIXELS: "NHWC uint8, pixels as they are: the graph computes (pixel - mean) / std",
    FLOAT16: "NCHW float16, normalised as (pixel - mean) / std",
}


def graph_metadata(info: BackboneInfo, variant: Variant, precision_note: str | None = None) -> dict[str, str]:
    """What a user of an ONNX file must know to feed it, as ``metadata_props``.

    Args:
        info: of the net.
        variant: what the file is.
        precision_note: how it was rounded, where that needs words.
    """
    return {
        "input_name": INPUT,
        "output_name": OUTPUT,
        entry.INPUT: variant.input,
        "layout": _FED_WITH.get(variant.input, "NCHW float32, normalised as (pixel - mean) / std"),
        **net_metadata(info),
        entry.NORMALIZED: entry.TRUE if variant.is_normalized else entry.FALSE,
        "precision": variant.precision,
        **({"quantization": precision_note} if precision_note else {}),
        "opset": str(variant.opset),
    }


def net_metadata(info: BackboneInfo) -> dict[str, str]:
    """Pixels in, embeddings out, and which code wrote the file."""
    entries = {
        entry.COLOR_ORDER: color_order(info),
        entry.MEAN: str(FACE.mean),
        entry.STD: str(FACE.std),
        entry.IMAGE_SIZE: f"{info.image_size[0]}x{info.image_size[1]}",
        entry.IN_CHANNELS: str(info.in_channels),
        entry.NETWORK: info.name,
        entry.EMBEDDING_SIZE: str(info.embedding_size),
    }
    written_by = {"marginface_version": code_version(), "marginface_commit": code_commit()}
    return {**entries, **{key: value for key, value in written_by.items() if value}}


def origin(weights: Path) -> dict[str, str]:
    """The weights and the run that made them, as far as the files beside them tell.

    `training_data_sha256` is the run's own fingerprint of its training data (`content_sha256` in run.json: a hash of a
    sample of it), `training_commit` the code that trained.

    Raises:
        ExportError: a run.json or config.json that no run wrote.
    """
    found = {"weights": weights.name, "weights_sha256": sha256_of(weights)}
    run, config = _json_beside(weights, "run.json"), _json_beside(weights, "config.json")
    fingerprint = run.get("fingerprint")
    data = fingerprint.get("data") if isinstance(fingerprint, dict) else None
    if isinstance(data, dict):
        found["training_data"] = f"{data.get('kind')}, {data.get('images')} images, {data.get('classes')} classes"
        if isinstance(data.get("content_sha256"), str):
            found["training_data_sha256"] = data["content_sha256"]
    for key, value in (("training_commit", run.get("commit")), ("head", config.get("head"))):
        if isinstance(value, str):
            found[key] = value
    return found


def describe(path: Path) -> dict[str, Any]:
    """Size, hash, metadata, inputs and outputs of an ONNX or .safetensors file, as JSON-able values.

    Raises:
        ExportError: another file, or one that cannot be read. SafetensorsError: a damaged one.
    """
    if not path.is_file():
        raise ExportError(f"{path}: no such file; --describe takes an .onnx or {SUFFIX} file")
    facts: dict[str, Any] = {"file": str(path), "bytes": path.stat().st_size, "sha256": sha256_of(path)}
    if path.suffix == SUFFIX:
        tensors = read_safetensors(path)
        facts["metadata"] = read_safetensors_metadata(path)
        return {**facts, "tensors": len(tensors), "values": sum(tensor.numel() for tensor in tensors.values())}
    if path.suffix != ".onnx":
        raise ExportError(f"{path}: --describe takes an .onnx or {SUFFIX} file; weights of torch.save say nothing")
    try:
        model = onnx.load(str(path), load_external_data=False)
    except Exception as error:  # protobuf's classes differ from version to version
        raise ExportError(f"{path}: no ONNX file, damaged or cut short ({error})") from error
    if not model.graph.output:
        raise ExportError(f"{path}: no ONNX file, or cut short: its graph has no output")
    facts["metadata"] = {_text(item.key): _text(item.value) for item in model.metadata_props}
    facts["opsets"] = {_text(item.domain) or "ai.onnx": item.version for item in model.opset_import}
    weights = {item.name for item in model.graph.initializer}
    facts["inputs"] = [_value(item) for item in model.graph.input if item.name not in weights]
    facts["outputs"] = [_value(item) for item in model.graph.output]
    return facts


def words(facts: Mapping[str, Any]) -> str:
    """`describe` for people: a line per fact."""
    lines = [f"{facts['file']}: {facts['bytes'] / 1e6:.1f} MB, sha256 {facts['sha256']}"]
    for kind in ("inputs", "outputs"):
        lines += [f"{kind[:-1]:<22}{item['name']} {item['type']} {item['shape']}" for item in facts.get(kind, [])]
    if "tensors" in facts:
        lines.append(f"{'tensors':<22}{facts['tensors']}, {facts['values']:,} values")
    lines += [f"{f'opset of {domain}':<22}{version}" for domain, version in facts.get("opsets", {}).items()]
    lines += [f"{key:<22}{value}" for key, value in facts["metadata"].items()]
    return "\n".join(lines if facts["metadata"] else [*lines, "no metadata"])


def color_order(info: BackboneInfo) -> str:
    """RGB for three channels, GRAY for one."""
    return "RGB" if info.in_channels == 3 else "GRAY" if info.in_channels == 1 else f"{info.in_channels} channels"


def code_version() -> str | None:
    """The version in pyproject.toml; None where that file did not come along."""
    project = ROOT / "pyproject.toml"
    text = project.read_text(encoding="utf-8") if project.is_file() else ""
    match = re.search(r'^version = "([^"]+)"', text, re.MULTILINE)
    return match[1] if match else None


def code_commit() -> str | None:
    """The commit of this code, with "-dirty" where it was changed since; None outside a git clone."""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None


def _value(value: onnx.ValueInfoProto) -> dict[str, Any]:
    tensor = value.type.tensor_type
    known = onnx.TensorProto.DataType.values()
    kind = onnx.TensorProto.DataType.Name(tensor.elem_type).lower() if tensor.elem_type in known else "unknown"
    shape = [_text(dim.dim_param) or dim.dim_value for dim in tensor.shape.dim]
    return {"name": _text(value.name), "type": kind, "shape": shape}


def _text(value: str | bytes) -> str:
    """Protobuf hands out text that is no UTF-8 as bytes."""
    return value if isinstance(value, str) else value.decode("utf-8", "replace")


def _json_beside(weights: Path, name: str) -> dict[str, Any]:
    path = weights.with_name(name)
    if not path.is_file():
        return {}
    try:
        if path.stat().st_size > _LARGEST_JSON:
            raise ValueError(f"it has {path.stat().st_size} bytes")
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ExportError(f"{path}: not the JSON that a run writes: {error}") from error
    return found if isinstance(found, dict) else {}
