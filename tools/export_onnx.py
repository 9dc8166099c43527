"""Command line: backbone weights -> a checked file for other programs. The work is done in tools/export/.

Usage: python -m tools.export_onnx RUN_DIR [--input uint8-nhwc] [--normalize] [--precision fp16|int8] [--out FILE]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from backbones import WeightsError, backbone_info
from eval.embedder import CHECKPOINTS, EmbedderError, OnnxEmbedder, find_weights, load_module
from eval.image_set import open_image_set
from eval.pairs import PairSet, load_pairs
from eval.run_format import require_face_pixels
from tools.export import words
from tools.export.metadata import describe, origin
from tools.export.metadata import words as described
from tools.export.onnx_file import build, check, in_turn, write
from tools.export.parity import PairParity, evenly_spaced, on_pairs, random_images
from tools.export.safetensors_file import export_safetensors
from tools.export.throughput import BASELINE, BATCHES, Speed, compare_speeds
from tools.export.variant import (
    DEFAULT_OPSET,
    FLOAT32,
    FP32,
    INPUTS,
    INT8,
    OPSETS,
    PRECISIONS,
    WORST_COSINES,
    DisagreementError,
    ExportError,
    Variant,
    image_format,
    require_cosine,
)
from utils.command_line import FOUND, Outcome, command_parser, run_command, say
from utils.errors import DataError
from utils.images import FACE

ONNX, SAFETENSORS = "onnx", "safetensors"
_EXPECTED = (DataError, EmbedderError, WeightsError, OSError)
_EXAMPLES = (
    "python -m tools.export_onnx work_dirs/mine",
    "python -m tools.export_onnx work_dirs/mine --input uint8-nhwc --normalize --data data --targets lfw",
    "python -m tools.export_onnx work_dirs/mine --precision int8 --calibrate data/faces_small --throughput",
    "python -m tools.export_onnx work_dirs/mine --format safetensors",
    "python -m tools.export_onnx --describe work_dirs/mine/model.onnx",
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Export, check, print; returns 0, 1 where the file did not agree with PyTorch, 2 where nothing could be done."""
    options = _parser().parse_args(arguments)

    def work() -> Outcome:
        if options.describe is not None:
            facts = describe(options.describe)
            return Outcome(described(facts), facts)
        try:
            return _export(options)
        except DisagreementError as error:
            print(f"error: {error}", file=sys.stderr, flush=True)
            return Outcome("", {"error": str(error)}, FOUND)

    return run_command(options, work, _EXPECTED)


def _parser() -> argparse.ArgumentParser:
    parser = command_parser(
        "python -m tools.export_onnx",
        "Write a backbone as one ONNX file with a dynamic batch, or as .safetensors, checked against PyTorch.",
        _EXAMPLES,
    )
    add = parser.add_argument
    add("model", type=Path, nargs="?", help="a run folder, or a weights file (model.pt, backbone.pth, .safetensors)")
    add("--out", type=Path, metavar="FILE", help="default: model.onnx beside the weights; variants carry their names")
    add("--checkpoint", choices=CHECKPOINTS, default="best", help="of a run folder (default: best)")
    add("--network", help="backbone name, where neither config.json nor the weights tell it")
    add("--format", choices=(ONNX, SAFETENSORS), default=ONNX, help="what is written (default: %(default)s)")
    add("--describe", type=Path, metavar="FILE", help="print what an .onnx or .safetensors file says of itself")
    graph = parser.add_argument_group("the graph").add_argument
    graph("--input", choices=INPUTS, default=FLOAT32, help="normalised planes, or pixels (default: %(default)s)")
    graph("--normalize", action="store_true", help="end with x / ||x||: embeddings of length 1")
    graph("--precision", choices=PRECISIONS, default=FP32, help="default: %(default)s")
    graph("--calibrate", type=Path, metavar="IMAGES", help="faces for a static int8 file (folder, list or .rec)")
    graph("--calibration-images", type=int, default=256, metavar="N", help="of them, evenly spaced (default: 256)")
    graph(
        "--opset", type=int, default=DEFAULT_OPSET, choices=OPSETS, metavar="N",
        help=f"ONNX operator set, {OPSETS[0]} to {OPSETS[-1]} (default: %(default)s)",
    )  # fmt: skip
    checks = parser.add_argument_group("checks").add_argument
    checks("--data", metavar="DIR", help="folder of the sets that --targets names, as in eval.verification")
    checks("--targets", metavar="NAMES", help="comma-separated sets of pairs: parity and change of accuracy on them")
    checks("--flip", action=argparse.BooleanOptionalAction, default=True, help="embed mirrored images too (default)")
    bars = ", ".join(f"{name} {bar}" for name, bar in WORST_COSINES.items())
    checks("--min-cosine", type=float, metavar="X", help=f"worst cosine that passes (default: {bars})")
    checks("--throughput", action="store_true", help="images per second beside PyTorch")
    checks("--threads", type=int, metavar="N", help="CPU threads of both (default: PyTorch's)")
    return parser


def _export(options: argparse.Namespace) -> Outcome:
    _require_sense(options)
    if options.threads:
        torch.set_num_threads(options.threads)
    weights = find_weights(options.model, options.checkpoint)
    if weights.suffix == ".onnx":
        raise ExportError(f"{weights}: is an ONNX file already; give the weights it came from")
    # everything is opened before the long work begins
    pair_sets = [load_pairs(name, options.data or ".") for name in _names(options)]
    require_face_pixels(weights)
    backbone = load_module(weights, network=options.network)
    out = options.out or weights.with_name(_default_name(options, weights))
    if out.suffix != f".{options.format}":
        raise ExportError(f"--out {out}: the file's name must end with .{options.format}, which is how readers know it")
    if out.is_dir() or out.resolve() == weights.resolve():
        raise ExportError(f"--out {out}: is {'a folder' if out.is_dir() else 'the weights'}; name a file to write")
    say(options, f"{weights} -> {out}")
    if options.format == SAFETENSORS:
        tensors = export_safetensors(backbone, out, extra_metadata=origin(weights))
        return Outcome(f"{tensors} tensors, {out.stat().st_size / 1e6:.1f} MB, read back bit for bit", describe(out))
    return _export_onnx(options, weights, backbone, out, pair_sets)


def _export_onnx(
    options: argparse.Namespace, weights: Path, backbone: nn.Module, out: Path, pair_sets: Sequence[PairSet]
) -> Outcome:
    """Build, check on random images and on pairs, write, measure."""
    info = backbone_info(backbone)
    variant = Variant(options.input, options.normalize, options.precision, options.opset)
    allowed = WORST_COSINES[variant.precision] if options.min_cosine is None else options.min_cosine
    if (pair_sets or options.calibrate) and image_format(info) != FACE:
        raise ExportError(f"network {info.name!r} takes other images than faces: leave out --targets and --calibrate")
    batches, note = _calibration(options)
    content = build(backbone, variant, calibration=batches, calibration_note=note, extra_metadata=origin(weights))
    say(options, words.feeding(info, variant, len(content)))
    found = check(backbone, content, variant, str(out), min_cosine=allowed)
    backbone.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # as load_embedder does
    parities: list[PairParity] = []
    speeds: list[Speed] = []
    with in_turn(backbone) as expected:
        got = OnnxEmbedder(content, image_format=image_format(info))
        for pair_set in pair_sets:
            parity = on_pairs(expected, {out.name: got}, pair_set, flip=options.flip)[out.name]
            require_cosine(parity.agreement.worst_cosine, allowed, f"{out} was not written: {pair_set.name}")
            parities.append(parity)
        write(out, content)
        if options.throughput:
            images = random_images(max(BATCHES), image_format(info))
            speeds = compare_speeds({BASELINE: expected, "onnxruntime": got}, images)
    facts = {
        **describe(out),
        "min_cosine": allowed,
        "random_images": {batch: one.to_dict() for batch, one in found.items()},
        "pairs": {parity.name: parity.to_dict() for parity in parities},
        "threads": torch.get_num_threads(),
        "throughput": [speed.to_dict() for speed in speeds],
    }
    return Outcome(words.outcome(variant, found, parities, speeds, allowed), facts)


def _calibration(options: argparse.Namespace) -> tuple[list[NDArray[np.uint8]] | None, str]:
    """Batches of faces and what they are called; None where none are asked for."""
    if options.calibrate is None:
        return None, ""
    found = open_image_set(options.calibrate)
    chosen = evenly_spaced(found.images, options.calibration_images)
    images = [found.images[index] for index in chosen]
    batches = [np.stack(images[start : start + 32]) for start in range(0, len(images), 32)]
    return batches, f"calibrated on {len(images)} images of {found.name}"


def _names(options: argparse.Namespace) -> list[str]:
    return [name.strip() for name in (options.targets or "").split(",") if name.strip()]


def _default_name(options: argparse.Namespace, weights: Path) -> str:
    """The plain file is model.onnx beside a run's weights; variants carry what they are in their name."""
    stem = "model" if options.model.is_dir() else weights.stem
    if options.format == SAFETENSORS:
        return f"{stem}.{SAFETENSORS}"
    parts = [stem]
    parts += [] if options.input == FLOAT32 else [options.input.split("-")[0]]
    parts += ["unit"] if options.normalize else []
    parts += [] if options.precision == FP32 else [options.precision]
    parts += ["static"] if options.calibrate else []
    return "_".join(parts) + ".onnx"


def _require_sense(options: argparse.Namespace) -> None:
    """Options that would be ignored, or that lack another, are refused."""
    if options.model is None:
        raise ExportError("nothing to export: give a run folder or a weights file, or --describe FILE")
    if options.format == SAFETENSORS:
        changed = {
            "--input": options.input != FLOAT32,
            "--normalize": options.normalize,
            "--precision": options.precision != FP32,
            "--opset": options.opset != DEFAULT_OPSET,
            "--calibrate": options.calibrate,
            "--targets": options.targets,
            "--min-cosine": options.min_cosine is not None,
            "--throughput": options.throughput,
        }
        given = [name for name, is_given in changed.items() if is_given]
        if given:
            raise ExportError(f"--format {SAFETENSORS} holds weights and no graph: {', '.join(given)} cannot apply")
    if options.calibrate and options.precision != INT8:
        raise ExportError(f"--calibrate is for --precision {INT8}; this one is {options.precision}")
    if options.data and not _names(options):
        raise ExportError("--data names the folder of sets: add --targets lfw, or IMAGES_DIR:PAIRS.txt")
    if options.calibration_images < 1 or (options.threads is not None and options.threads < 1):
        raise ExportError("--calibration-images and --threads must be at least 1")
    if options.min_cosine is not None and not -1 <= options.min_cosine <= 1:
        raise ExportError(f"--min-cosine is {options.min_cosine}, a cosine lies in -1 .. 1")


if __name__ == "__main__":
    sys.exit(main())
