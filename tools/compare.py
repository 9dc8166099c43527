"""Command line: two face images -> their cosine, and whether they show one person at a measured operating point."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from backbones import WeightsError
from eval.embedder import EmbedderError, find_weights, load_embedder
from eval.embedding import EmbeddingError
from eval.image_set import ImageSetError, read_image_file
from tools.alignment.aligner import AlignOptions, MissError, face_in_file, make_aligner, read_photograph
from tools.alignment.detector import DetectorError
from tools.alignment.landmarks import Landmarks, read_landmarks
from tools.alignment.options import add_align_options, add_model_options, align_options
from tools.measured_threshold import (
    MeasuredThreshold,
    ThresholdError,
    find_operating_point,
    how_to_measure,
    read_results,
    results_beside,
)
from utils.command_line import DONE, FOUND, Outcome, command_parser, run_command
from utils.errors import DataError
from utils.files import sha256_of
from utils.images import FACE, ImageError, decode_image

_EXAMPLES = (
    "python -m tools.compare a.jpg b.jpg --model work_dirs/quickstart",
    "python -m tools.compare a.jpg b.jpg --model work_dirs/quickstart --far 1e-3 --target lfw",
    "python -m tools.compare me.jpg you.jpg --model model.onnx --threshold 0.32 --align --detector yunet.onnx",
)
_DEFAULT_FAR = 1e-3


def compare(options: argparse.Namespace) -> Outcome:
    """Embeds both images and judges their cosine.

    Raises:
        DataError: an image, a model or options that cannot be used. A missing operating point is no error.
    """
    weights = find_weights(options.model, options.checkpoint)
    weights_sha256 = sha256_of(weights)
    point, why = _operating_point(options, weights_sha256)
    flip = options.flip if options.flip is not None else (point.flip if point and point.flip is not None else True)
    faces, scores, notes = _read_pair(options)
    device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    embedder = load_embedder(weights, network=options.network, device=device, precision=options.precision)
    pixels = torch.from_numpy(np.stack(faces))
    embeddings = embedder(pixels)
    if flip:
        embeddings = embeddings + embedder(pixels.flip(2))
    cosine = _cosine(embeddings.float().cpu().numpy())
    threshold = options.threshold if options.threshold is not None else (point.threshold if point else None)
    facts: dict[str, Any] = {
        "images": [options.first, options.second],
        "cosine": cosine,
        "is_same": None if threshold is None else cosine >= threshold,
        "threshold": threshold,
        "far": point.far if point else None,
        "measured_on": point.target if point else None,
        "flip": flip,
        "measured_with_flip": point.flip if point else None,
        "weights_sha256": weights_sha256,
        "detector_scores": scores,
        "notes": notes,
        "no_verdict_because": why if threshold is None else None,
    }
    lines = [f"cosine {cosine:.4f}", *_verdict(options, cosine, threshold, point, flip, why), *notes]
    asked = options.far is not None or options.target is not None or options.results is not None
    return Outcome("\n".join(lines), facts, FOUND if asked and threshold is None else DONE)


def _operating_point(options: argparse.Namespace, weights_sha256: str) -> tuple[MeasuredThreshold | None, str]:
    """The measured point, or None and why there is none."""
    if options.threshold is not None:
        return None, ""
    path = options.results or results_beside(Path(options.model))
    far = _DEFAULT_FAR if options.far is None else options.far
    try:
        results = read_results(path)
        return find_operating_point(results, path, far=far, weights_sha256=weights_sha256, target=options.target), ""
    except ThresholdError as error:
        return None, str(error)


def _verdict(
    options: argparse.Namespace,
    cosine: float,
    threshold: float | None,
    point: MeasuredThreshold | None,
    flip: bool,
    why: str,
) -> list[str]:
    if threshold is None:
        return [f"no verdict: {why}", how_to_measure(Path(options.model)), "or give --threshold COSINE"]
    side = "the same person" if cosine >= threshold else "different people"
    reached = "reaches" if cosine >= threshold else "is below"
    if point is None:
        return [f"{side}: {reached} the threshold {threshold:.4f} that was given"]
    count = "" if point.num_different is None else f" ({point.num_different} pairs of different people)"
    lines = [f"{side}: {reached} {threshold:.4f}, the threshold at FAR {point.far:g} on {point.target}{count}"]
    for name, measured, here in (("flip", point.flip, flip), ("precision", point.precision, options.precision)):
        if measured is None:
            lines.append(f"note: the measurement does not say its {name}; here it is {_word(here)}")
        elif measured != here:
            lines.append(
                f"warning: measured with {name} {_word(measured)}, compared with {name} {_word(here)}: the threshold "
                "does not carry over exactly"
            )
    return lines


def _word(value: bool | str) -> str:
    return value if isinstance(value, str) else ("on" if value else "off")


def _read_pair(options: argparse.Namespace) -> tuple[list[NDArray[np.uint8]], list[float], list[str]]:
    """Both faces, the detector's scores, and what is to be said about them."""
    chosen: AlignOptions | None = None
    landmarks: Landmarks | None = None
    if options.align:
        chosen = align_options(options)
        landmarks = read_landmarks(options.landmarks) if options.landmarks else None
    elif options.detector or options.landmarks:
        raise DetectorError("--detector and --landmarks are for --align; without it images must be aligned already")
    aligner = make_aligner(chosen, options.detector) if chosen is not None else None
    faces, scores, notes = [], [], []
    for path in (options.first, options.second):
        if aligner is None:
            faces.append(_aligned_image(path))
            scores.append(math.nan)
            continue
        try:
            face = None if landmarks is None else face_in_file(landmarks, str(path))
            found = aligner.align(read_photograph(path), face)
        except MissError as miss:
            raise miss.within(str(path)) from None
        faces.append(found.image)
        scores.append(found.face.score)
        if found.num_faces > 1:
            notes.append(f"note: {path} shows {found.num_faces} faces; the one compared is the {options.face}")
    return faces, scores, notes


def _aligned_image(path: Path) -> NDArray[np.uint8]:
    data = read_image_file(path)
    try:
        image: NDArray[np.uint8] = decode_image(data)
    except ImageError as error:
        raise error.within(str(path)) from None
    if image.shape != FACE.shape:
        raise ImageSetError(
            f"{path}: {image.shape[0]}x{image.shape[1]} (height x width); models take aligned faces of 112x112: add "
            "--align --detector MODEL.onnx for photographs"
        )
    return image


def _cosine(embeddings: NDArray[np.float32]) -> float:
    first, second = embeddings.astype(np.float64)
    lengths = float(np.linalg.norm(first) * np.linalg.norm(second))
    if not np.isfinite(embeddings).all() or lengths == 0:
        raise EmbeddingError("an embedding is zero or holds NaN: the model's weights are damaged, or it has diverged")
    return float(first @ second) / lengths


def _parser() -> argparse.ArgumentParser:
    parser = command_parser("python -m tools.compare", __doc__.partition(": ")[2], _EXAMPLES)
    parser.add_argument("first", type=Path, metavar="A", help="a face, 112x112; any photograph with --align")
    parser.add_argument("second", type=Path, metavar="B", help="the other one")
    parser.add_argument("--model", required=True, help="run folder, model.pt, backbone.pth or model.onnx")
    point = parser.add_mutually_exclusive_group()
    point.add_argument("--threshold", type=_cosine_value, help="cosine from which two faces are the same person")
    point.add_argument("--far", type=_rate, help=f"false accept rate of the threshold (default {_DEFAULT_FAR:g})")
    parser.add_argument("--results", type=Path, help="results.json of eval.verification (default: the run's own)")
    parser.add_argument("--target", help="set of results.json that the threshold is from (default: the largest)")
    parser.add_argument("--align", action="store_true", help="A and B are photographs: align them first")
    add_align_options(parser)
    add_model_options(parser)
    parser.set_defaults(flip=None)
    return parser


def _cosine_value(text: str) -> float:
    return _within(text, -1, 1, "cosine: give a number in -1 .. 1")


def _rate(text: str) -> float:
    return _within(text, 1e-12, 1, "rate: give a number between 0 and 1, such as 1e-3")


def _within(text: str, low: float, high: float, what: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not low <= value <= high:
        raise argparse.ArgumentTypeError(f"{text!r} is no {what}")
    return value


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0, 1 where a verdict was asked for and none can be given, 2 where nothing could be done."""
    options = _parser().parse_args(arguments)
    return run_command(options, lambda: compare(options), (DataError, EmbedderError, WeightsError, OSError))


if __name__ == "__main__":
    sys.exit(main())
