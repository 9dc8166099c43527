"""The options that align, embed and compare share, and how they are told. No pixels here."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any

from eval.embedder import CHECKPOINTS
from tools.alignment.aligner import CHOICES, AlignOptions
from tools.alignment.detector import DETECT_SIZE, MIN_SCORE, DetectorError
from utils.files import sha256_of


def add_align_options(parser: argparse.ArgumentParser) -> None:
    """Adds where points come from and which face counts."""
    points = parser.add_mutually_exclusive_group()
    points.add_argument("--detector", type=Path, help="YuNet model (.onnx) that finds the faces")
    points.add_argument("--landmarks", type=Path, help="file of five points per image: landmarks.csv, CelebA's lists")
    parser.add_argument("--face", choices=CHOICES, default="largest", help="of several faces; only: none is taken")
    parser.add_argument("--min-size", type=_pixels, default=0, help="smallest side of a face's box in pixels")
    parser.add_argument(
        "--min-score", type=_score, default=MIN_SCORE, help=f"detector's confidence (default {MIN_SCORE})"
    )
    parser.add_argument(
        "--detect-size", type=_side, default=DETECT_SIZE, help=f"longest side searched, pixels (default {DETECT_SIZE})"
    )
    parser.add_argument(
        "--fill-borders", action="store_true", help="continue the photograph beyond its edge, not black"
    )
    parser.add_argument(
        "--refine", action=argparse.BooleanOptionalAction, default=True, help="find the points again in an upright crop"
    )


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Adds how a model embeds, as eval.verification has it."""
    parser.add_argument(
        "--flip", action=argparse.BooleanOptionalAction, default=True, help="add the mirrored image's embedding"
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), help="default: cuda where there is one")
    parser.add_argument("--precision", choices=("fp32", "bf16", "fp16"), default="fp32")
    parser.add_argument("--network", help="backbone name, where the weights do not tell")
    parser.add_argument("--checkpoint", choices=CHECKPOINTS, default="best", help="which one of a run folder")


def positive(text: str) -> int:
    """A whole number of 1 or more, for argparse."""
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of 1 or more")
    return int(text)


def align_options(options: argparse.Namespace) -> AlignOptions:
    """The options as one value.

    Raises:
        DetectorError: neither a detector nor landmarks are given.
    """
    if options.detector is None and options.landmarks is None:
        raise DetectorError("aligning needs points: give --detector MODEL.onnx (YuNet) or --landmarks FILE")
    return AlignOptions(
        options.face, options.min_size, options.min_score, options.detect_size, options.fill_borders, options.refine
    )


def align_settings(options: argparse.Namespace, chosen: AlignOptions) -> dict[str, Any]:
    """What aligned pixels depend on, JSON-able: the options and hashes of the detector or the landmarks.

    Raises:
        DetectorError: there is no such file.
    """
    hashes = {}
    for name in ("detector", "landmarks"):
        path = getattr(options, name)
        if path is not None and not path.is_file():
            raise DetectorError(f"{path}: no such file for --{name}")
        hashes[f"{name}_sha256"] = None if path is None else sha256_of(path)
    return {**asdict(chosen), **hashes}


def shown(text: str) -> str:
    """A file's name as text that can be printed, whatever bytes it has."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _pixels(text: str) -> int:
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is no size: give pixels as a whole number")
    return int(text)


def _side(text: str) -> int:
    if not text.isdigit() or not 32 <= int(text) <= 8192:
        raise argparse.ArgumentTypeError(f"{text!r} is no size to search at: give pixels in 32 .. 8192")
    return int(text)


def _score(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no confidence: give a number in 0 .. 1")
    return value
