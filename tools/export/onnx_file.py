"""One variant from backbone to a checked ONNX file: the order of the steps, and that nothing unchecked is written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import nn

from backbones import backbone_info
from eval.embedder import EmbedderError, ModuleEmbedder, OnnxEmbedder, evaluating
from tools.export.graph import dress, to_onnx
from tools.export.metadata import graph_metadata
from tools.export.parity import Agreement, on_random_images, require_agreement
from tools.export.precision import convert
from tools.export.variant import FP32, INT8, WORST_COSINES, ExportError, Variant, image_format
from utils.files import whole_file
from utils.images import to_model_input

_LARGEST = (1 << 31) - (1 << 20)  # bytes that one protobuf message can hold


def export(
    backbone: nn.Module,
    out: Path,
    variant: Variant | None = None,
    *,
    extra_metadata: Mapping[str, str] | None = None,
) -> dict[int, Agreement]:
    """Write ``backbone`` to ``out``, once onnxruntime has been seen to agree with it on random images.

    By default the graph takes float32 (batch, channels, height, width), already normalised: the layout that
    arcface_torch's ONNX files take, so that pipelines made for those keep working. The file holds its weights and
    appears under its name only after the check.

    Args:
        backbone: what ``build_backbone`` returned; exported in eval mode, its mode is restored.
        out: the file to write; its folder is made.
        variant: what the file is to be.
        extra_metadata: more entries for ``metadata_props``.

    Returns:
        For each checked batch size, how closely the file follows PyTorch.

    Raises:
        ExportError: the exporter failed. DisagreementError: the outputs differ by more than the variant may.
    """
    chosen = variant or Variant()
    content = build(backbone, chosen, extra_metadata=extra_metadata)
    found = check(backbone, content, chosen, str(out))
    write(out, content)
    return found


def build(
    backbone: nn.Module,
    variant: Variant,
    *,
    calibration: Sequence[NDArray[np.uint8]] | None = None,
    calibration_note: str = "",
    extra_metadata: Mapping[str, str] | None = None,
) -> bytes:
    """The bytes of an ONNX file, not checked yet.

    Args:
        backbone: on any device; its mode is restored.
        variant: what the file is to be.
        calibration: uint8 (B, H, W, C) batches, for a static int8 file.
        calibration_note: which images those are, for the metadata.
        extra_metadata: more entries.
    """
    info = backbone_info(backbone)
    with evaluating(backbone):
        model = to_onnx(backbone, info, variant.opset)
    batches = None
    if calibration is not None:
        wanted = image_format(info)
        batches = [to_model_input(torch.from_numpy(batch), wanted).numpy() for batch in calibration]
    model = convert(model, variant, batches)
    dress(model, info, variant)
    note = None
    if variant.precision == INT8:
        note = "dynamic" if calibration is None else f"static, {calibration_note}".rstrip(", ")
    onnx.helper.set_model_props(model, {**graph_metadata(info, variant, note), **(extra_metadata or {})})
    if model.ByteSize() > _LARGEST:
        raise ExportError(f"{info.name}: {model.ByteSize() / 1e9:.1f} GB do not fit into one ONNX file of 2 GB")
    content: bytes = model.SerializeToString()
    try:
        onnx.checker.check_model(content)
    except Exception as error:  # the checker's class is of its C++ part
        raise ExportError(f"{info.name}: the graph is no valid ONNX: {error}") from error
    return content


def check(
    backbone: nn.Module, content: bytes, variant: Variant, where: str, *, min_cosine: float | None = None
) -> dict[int, Agreement]:
    """Runs the very bytes that are to be written beside the net, on random images.

    Args:
        backbone: the net.
        content: of `build`.
        variant: which tolerance applies.
        where: the file, for the error.
        min_cosine: instead of the precision's own.

    Raises:
        ExportError: onnxruntime cannot run them. DisagreementError: see `require_agreement`.
    """
    wanted = image_format(backbone_info(backbone))
    with in_turn(backbone) as expected:
        try:
            got = OnnxEmbedder(content, image_format=wanted)
            found = on_random_images(expected, got, wanted, is_normalized=variant.is_normalized)
        except EmbedderError as error:
            raise ExportError(f"{where} was not written: {error}") from error
    allowed = WORST_COSINES[variant.precision] if min_cosine is None else min_cosine
    require_agreement(found, where, allowed, is_exact=variant.precision == FP32)
    return found


def write(out: Path, content: bytes) -> None:
    """The file, whole or not at all; its folder is made."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(out) as stream:
        stream.write(content)


@contextmanager
def in_turn(backbone: nn.Module) -> Iterator[ModuleEmbedder]:
    """The net as an embedder of images of its own size, in eval mode inside."""
    device = next(backbone.parameters()).device
    with evaluating(backbone):
        yield ModuleEmbedder(backbone, device, image_format=image_format(backbone_info(backbone)))
