"""What an export has to say to people: how to feed the file, how closely it follows PyTorch, how fast it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnxruntime
import torch

from backbones import BackboneInfo
from tools.export.metadata import color_order
from tools.export.parity import Agreement, PairParity
from tools.export.throughput import Speed
from tools.export.throughput import words as speed_words
from tools.export.variant import FLOAT16, FP32, INPUT, OUTPUT, PIXELS, TOLERANCE, Variant
from utils.images import FACE


def feeding(info: BackboneInfo, variant: Variant, size: int) -> str:
    """Network, size in bytes, input and output of a file."""
    height, width = info.image_size
    planes, order = f"(batch, {info.in_channels}, {height}, {width})", color_order(info)
    if variant.input == PIXELS:
        given = f"(batch, {height}, {width}, {info.in_channels}) uint8, pixels as they are, {order}"
    else:
        kind = "float16" if variant.input == FLOAT16 else "float32"
        given = f"{planes} {kind}, (pixel - {FACE.mean}) / {FACE.std}, {order}"
    length = ", of length 1" if variant.is_normalized else ""
    return (
        f"{info.name}: {variant.precision}, opset {variant.opset}, {size / 1e6:.1f} MB\ninput {INPUT!r} {given}\n"
        f"output {OUTPUT!r} (batch, {info.embedding_size}){length}"
    )


def outcome(
    variant: Variant,
    found: Mapping[int, Agreement],
    parities: Sequence[PairParity],
    speeds: Sequence[Speed],
    allowed: float,
) -> str:
    """The checks that the file has passed, then its speed where it was measured."""
    lines = []
    for batch, one in found.items():
        if variant.precision == FP32:
            part = one.difference / one.largest if one.largest else 0.0
            lines.append(
                f"batch {batch:3}: max abs difference {one.difference:.2e}, of the largest value {one.largest:.2e}: "
                f"{part:.1e}"
            )
        else:
            lines.append(f"batch {batch:3}: worst cosine {one.worst_cosine:.6f}, mean {one.mean_cosine:.6f}")
    lines += [parity.words() for parity in parities]
    exact = f"tolerance {TOLERANCE}, " if variant.precision == FP32 else ""
    on = "random images" + "".join(f", {parity.name}" for parity in parities)
    lines.append(
        f"onnxruntime {onnxruntime.__version__} agrees with PyTorch {torch.__version__} on {on} "
        f"({exact}cosine at least {allowed})"
    )
    if not parities:
        lines.append("no faces were looked at: --data DIR --targets lfw compares on pairs, and the accuracy")
    if speeds:
        lines.append(speed_words(speeds, torch.get_num_threads()))
    return "\n".join(lines)
