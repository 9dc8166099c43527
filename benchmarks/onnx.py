"""ONNX variants beside PyTorch: how closely each follows it on pairs of faces, and images per second on a CPU.

Usage: python -m benchmarks.onnx [--model RUN_DIR --data data --targets lfw --calibrate data/faces_small] [--threads N]

All variants are built from the same weights. Fidelity: every distinct image of the pairs and its mirror image through
PyTorch and each file, the smallest cosine between the two embeddings of one image, accuracy by `eval.verification`'s
rules. Speed: from uint8 pixels to embeddings on the same threads, contestants in turns within a round, the ratio to
PyTorch's speed in the same round. Without --model the net `small` with random weights is timed, and nothing compared.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import nn

from backbones import backbone_info, build_backbone
from benchmarks.measure import RESULTS, save, surroundings, table
from eval.embedder import Embedder, OnnxEmbedder, find_weights, load_module
from eval.image_set import open_image_set
from eval.pairs import load_pairs
from tools.export.onnx_file import build, check, in_turn
from tools.export.parity import PairParity, evenly_spaced, on_pairs, random_images
from tools.export.throughput import BASELINE, BATCHES, Speed, compare_speeds
from tools.export.variant import FP16, INT8, PIXELS, Variant
from utils.images import FACE

PLAIN = "fp32"
VARIANTS = {
    PLAIN: Variant(),
    "fp32, uint8 input": Variant(PIXELS),
    "fp32, uint8 input, length 1": Variant(PIXELS, is_normalized=True),
    "fp16": Variant(precision=FP16),
    "int8 dynamic": Variant(precision=INT8),
    "int8 static": Variant(precision=INT8),
}
STATIC = "int8 static"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the tables, write the JSON."""
    options = parse(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    context = surroundings()
    backbone = network(options)
    contents = variants(backbone, options)
    backbone.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # as load_embedder does
    info, count = backbone_info(backbone), sum(value.numel() for value in backbone.parameters())
    context |= {"threads": torch.get_num_threads(), "onnxruntime": onnxruntime.__version__, "network": info.name}
    context |= {"bytes": {name: len(content) for name, content in contents.items()}}
    about = f"`{info.name}`, {count / 1e6:.1f} million parameters, {info.embedding_size} dimensions"
    about += f"; onnxruntime {onnxruntime.__version__}, PyTorch {torch.__version__}, threads: {torch.get_num_threads()}"
    with in_turn(backbone) as pytorch:
        files = {name: OnnxEmbedder(content) for name, content in contents.items()}
        tables, details = [], {}
        for target in options.targets.split(",") if options.targets else ():
            pairs = load_pairs(target, options.data)
            found = on_pairs(pytorch, files, pairs)
            tables.append(fidelity(found, contents))
            details[pairs.name] = {name: one.to_dict() for name, one in found.items()}
        if tables:
            markdown = "\n\n".join([*tables, f"{about}."])
            path = save(
                "onnx_fidelity", "ONNX files: fidelity", markdown, {**context, "pairs": details}, options.results
            )
            print(f"{markdown}\nwrote {path}", flush=True)
        embedders: dict[str, Embedder] = {BASELINE: pytorch, **files}
        images = random_images(max(BATCHES), FACE)
        speeds = compare_speeds(embedders, images, rounds=options.rounds, seconds=options.seconds)
    markdown = f"{speed_table(speeds)}\n\n{about}; {options.rounds} rounds, a turn {options.seconds} s or longer."
    context |= {"speeds": [speed.to_dict() for speed in speeds], "rounds": options.rounds}
    print(f"{markdown}\nwrote {save('onnx', 'ONNX files: speed', markdown, context, options.results)}")
    return 0


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.onnx", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, help="run folder or weights file (default: random weights)")
    parser.add_argument("--data", default="data", help="folder of the sets of pairs (default: %(default)s)")
    parser.add_argument("--targets", help="comma-separated sets of pairs; only with --model")
    parser.add_argument("--calibrate", type=Path, help="faces for the static int8 file (default: random images)")
    parser.add_argument("--rounds", type=int, default=7, help="(default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=0.3, help="of a turn, at least (default: %(default)s)")
    parser.add_argument("--threads", type=int, help="CPU threads of all (default: torch's)")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder for the JSON")
    options = parser.parse_args(arguments)
    if options.targets and not options.model:
        parser.error("--targets compares a trained model: name it with --model")
    return options


def network(options: argparse.Namespace) -> nn.Module:
    """The trained model, or `small` with random weights, in eval mode."""
    if options.model:
        return load_module(find_weights(options.model))
    torch.manual_seed(0)
    return build_backbone("small", embedding_size=256).eval()


def variants(backbone: nn.Module, options: argparse.Namespace) -> dict[str, bytes]:
    """All files; how closely each follows PyTorch is for the table to say, but a wrong graph ends here."""
    batches = calibration(options.calibrate)
    contents = {}
    for name, variant in VARIANTS.items():
        content = build(backbone, variant, calibration=batches if name == STATIC else None)
        check(backbone, content, variant, name, min_cosine=0.9)
        contents[name] = content
    return contents


def calibration(location: Path | None) -> list[NDArray[np.uint8]]:
    """256 faces in batches of 32; random images where there are none."""
    if location is None:
        return [random_images(32, FACE, seed).numpy() for seed in range(2)]
    images = open_image_set(location).images
    chosen = [images[index] for index in evenly_spaced(images, 256)]
    return [np.stack(chosen[start : start + 32]) for start in range(0, len(chosen), 32)]


def fidelity(found: Mapping[str, PairParity], contents: Mapping[str, bytes]) -> str:
    """One row per file."""
    first = next(iter(found.values()))
    rows = [
        [
            name,
            f"{len(contents[name]) / 1e6:.1f}",
            f"{one.agreement.unit_difference:.1e}",
            f"{one.agreement.worst_cosine:.6f}",
            f"{one.agreement.mean_cosine:.6f}",
            f"{one.got.accuracy:.2%}",
            f"{100 * one.change:+.2f}",
        ]
        for name, one in found.items()
    ]
    images = f"{first.agreement.images:,} images, mirror images included"
    headings = ["file", "MB", "largest difference", "worst cosine", "mean cosine", "accuracy", "change, points"]
    return (
        f"{first.name}, {images}, of unit embeddings; accuracy of {len(first.expected.scores):,} pairs, PyTorch "
        f"{first.expected.accuracy:.2%}:\n\n{table(headings, rows)}"
    )


def speed_table(speeds: Sequence[Speed]) -> str:
    """One row per contestant, two columns per batch size."""
    batches = sorted({speed.batch for speed in speeds})
    by_name: dict[str, dict[int, Speed]] = {}
    for speed in speeds:
        by_name.setdefault(speed.name, {})[speed.batch] = speed
    headings = ["images/s (ratio to PyTorch in the same round)", *(f"batch {batch}" for batch in batches)]
    rows = [
        [name, *(f"{own[batch].images_per_second:.0f} ({own[batch].ratio:.2f})" for batch in batches)]
        for name, own in by_name.items()
    ]
    return table(headings, rows)


if __name__ == "__main__":
    sys.exit(main())
