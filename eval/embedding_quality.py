"""`python -m eval.embedding_quality`: figures of saved embeddings, or of images and a model. Formulas are next door."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from eval.embedder import OnnxEmbedder
from eval.embedding_geometry import (
    alignment,
    angle_statistics,
    cosine_to_own_mean,
    effective_dimension,
    norm_correlations,
    normalised,
    uniformity,
)
from eval.embedding_set import SUFFIXES, UNKNOWN, EmbeddingSet, load_embedding_set
from eval.gallery_inputs import EXPECTED, add_model_options, embed_image_set, load_model, ranks_of
from eval.image_set import ImageSet, open_image_set
from eval.pair_metrics import VerificationError
from utils.command_line import Outcome, command_parser, run_command, say, to_json
from utils.distributed import Ranks
from utils.errors import DataError
from utils.files import write_text_whole

# of the mean norm: a spread that is rounding (float16 included); between images of one network it is 0.05 and more
_ALIKE = 1e-3


class QualityError(DataError):
    """Embeddings or options from which no figures can be had."""


def quality_figures(embedding_set: EmbeddingSet, sharpness: NDArray[Any] | None = None) -> dict[str, Any]:
    """All figures of a set: norms and what they go with, angles, dimension, alignment and uniformity.

    Angles and alignment are over embeddings of known identity, all else over all.

    Args:
        embedding_set: N embeddings, as the network gave them: norms tell quality.
        sharpness: (N,) variance of the Laplacian of each image, NaN where unknown; None: of none.

    Raises:
        VerificationError: embeddings that are not finite, or 0 throughout.
    """
    unit = normalised(embedding_set.embeddings)
    norms = np.linalg.norm(embedding_set.embeddings.astype(np.float64), axis=1)
    known = embedding_set.labels != UNKNOWN
    numbers = np.unique(embedding_set.labels[known], return_inverse=True)[1].astype(np.int64)
    to_mean = np.full(len(unit), np.nan)
    to_mean[known] = cosine_to_own_mean(unit[known], numbers)
    others = {"detector_score": embedding_set.detector_scores, "cosine_to_own_mean": to_mean}
    if sharpness is not None:
        others["sharpness"] = sharpness
    return {
        "num_embeddings": len(unit),
        "num_identities": len(np.unique(numbers)),
        "num_without_identity": int((~known).sum()),
        "norm": {
            "mean": float(norms.mean()),
            "std": float(norms.std()),
            **{f"p{p}": float(np.percentile(norms, p)) for p in (5, 50, 95)},
        },
        "norm_correlations": norm_correlations(np.ones(len(norms)) if _alike(norms) else norms, others),
        "angles": angle_statistics(unit[known], numbers),
        "effective_dimension": effective_dimension(unit),
        "alignment": alignment(unit[known], numbers),
        "uniformity": uniformity(unit),
    }


def _alike(norms: NDArray[np.float64]) -> bool:
    """Whether all norms are one number but for rounding: then ranking them ranks rounding errors."""
    return bool(norms.std() <= _ALIKE * norms.mean())


def laplacian_variance(image: NDArray[np.uint8]) -> float:
    """Sharpness of a uint8 (H, W, 3) RGB image: the variance of its grey values' Laplacian; low is blurred."""
    return float(cv2.Laplacian(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.CV_64F).var())


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = command_parser(
        "python -m eval.embedding_quality",
        "Figures of embeddings: norms against image quality, angles within and between identities, dimension.",
        [
            "python -m eval.embedding_quality embeddings.npz --out quality",
            "python -m eval.embedding_quality embeddings.npz --images data/faces --json",
            "python -m eval.embedding_quality data/faces --model work_dirs/mine --out quality",
        ],
    )
    parser.add_argument("source", help="embeddings (.npz, .parquet); or images (folder, list, .rec), with --model")
    parser.add_argument("--images", help="of saved embeddings: the images they came from, for sharpness")
    parser.add_argument("--out", help="folder for embedding_quality.json and plots; none: figures are only printed")
    add_model_options(parser, flip=False)
    options = parser.parse_args(arguments)
    return run_command(options, lambda: _run(options), (*EXPECTED, VerificationError))


def _run(options: argparse.Namespace) -> Outcome | None:
    saved = Path(options.source).suffix in SUFFIXES
    if saved == bool(options.model):
        raise QualityError(
            f"{options.source}: saved embeddings need no --model" if saved else f"{options.source}: images need --model"
        )
    if options.images and not saved:
        raise QualityError("--images is for saved embeddings; here the source itself is images")
    images = open_image_set(options.images if saved else options.source) if options.images or not saved else None
    with ranks_of(options) as ranks:
        embedding_set = (
            load_embedding_set(options.source) if images is None or saved else _embed(options, images, ranks)
        )
        if not ranks.is_main:
            return None
    if len(embedding_set) < 2:
        raise QualityError(f"{options.source}: {len(embedding_set)} embeddings; at least 2 are needed")
    sharpness = None if images is None else _sharpness(options, images, embedding_set)
    figures = {"source": str(options.source), "about": embedding_set.about, **quality_figures(embedding_set, sharpness)}
    if options.out:
        _write(Path(options.out), figures, embedding_set, sharpness)
        say(options, f"written: {Path(options.out) / 'embedding_quality.json'} and plots beside it")
    return Outcome(_words(figures), figures)


def _embed(options: argparse.Namespace, images: ImageSet, ranks: Ranks) -> EmbeddingSet:
    model = load_model(options, ranks)
    if isinstance(model.embedder, OnnxEmbedder) and model.embedder.is_normalized:
        raise QualityError(
            f"{model.about['weights']}: its embeddings already have length 1, so their norms tell nothing; give the "
            "run folder or the weights it was exported from, or export it without --normalize"
        )
    return embed_image_set(model, images, options, ranks)


def _sharpness(options: argparse.Namespace, images: ImageSet, embedding_set: EmbeddingSet) -> NDArray[Any]:
    places = {name: place for place, name in enumerate(images.names)}
    wanted = [places.get(str(name)) for name in embedding_set.names]
    if all(place is None for place in wanted):
        raise QualityError(
            f"{options.images}: none of its images has a name of {options.source}; names are such as "
            f"{str(embedding_set.names[0])!r} there and {images.names[0]!r} here"
        )
    values = np.full(len(wanted), np.nan)
    for row, place in enumerate(tqdm(wanted, desc="sharpness", unit="image", leave=False, disable=None)):
        if place is not None:
            values[row] = laplacian_variance(images.images[place])
    return values


def _write(out: Path, figures: dict[str, Any], embedding_set: EmbeddingSet, sharpness: NDArray[Any] | None) -> None:
    from eval.quality_plots import plot_angles, plot_norms, plot_spectrum  # matplotlib costs a second to import

    out.mkdir(parents=True, exist_ok=True)
    unit, known = normalised(embedding_set.embeddings), embedding_set.labels != UNKNOWN
    to_mean = np.full(len(unit), np.nan)
    numbers = np.unique(embedding_set.labels[known], return_inverse=True)[1].astype(np.int64)
    to_mean[known] = cosine_to_own_mean(unit[known], numbers)
    others = {"cosine_to_own_mean": to_mean, "detector_score": embedding_set.detector_scores}
    plot_norms(
        out / "norms.png",
        np.linalg.norm(embedding_set.embeddings, axis=1),
        others if sharpness is None else {**others, "sharpness": sharpness},
    )
    plot_angles(out / "angles.png", np.degrees(np.arccos(to_mean)), figures["angles"])
    dimension = figures["effective_dimension"]
    markers = {name: dimension[name] for name in ("participation_ratio", "entropy_dimension")}
    plot_spectrum(out / "spectrum.png", dimension["eigenvalues"], markers)
    write_text_whole(json.dumps(json.loads(to_json(figures)), indent=2) + "\n", out / "embedding_quality.json")


def _words(figures: dict[str, Any]) -> str:
    norm, dimension = figures["norm"], figures["effective_dimension"]
    lines = [
        f"{figures['num_embeddings']} embeddings of {figures['num_identities']} identities"
        + (f", {figures['num_without_identity']} of nobody known" if figures["num_without_identity"] else ""),
        f"norm {norm['mean']:.2f} +- {norm['std']:.2f}, 5 % below {norm['p5']:.2f}, 5 % above {norm['p95']:.2f}",
    ]
    if norm["std"] <= _ALIKE * norm["mean"]:
        lines.append("  all norms are alike (normalised before they were saved?): they tell nothing here")
    for name, found in figures["norm_correlations"].items():
        value = "n/a" if found["spearman"] is None else f"{found['spearman']:+.3f}"
        lines.append(
            f"  rank correlation with {name.replace('_', ' ')}: {value} ({found['num_embeddings']} embeddings)"
        )
    for kind, label in (
        ("intra", "to the mean of the identity's other images"),
        ("inter", "between identities' means"),
        ("nearest_other", "to the nearest other identity's mean"),
    ):
        found = figures["angles"][kind]
        text = (
            "n/a"
            if found is None
            else f"{found['mean']:.1f} (5 % {found['p5']:.1f}, half {found['p50']:.1f}, "
            f"95 % {found['p95']:.1f}; {found['count']:,})"
        )
        lines.append(f"degrees {label}: {text}")
    ratio, entropy = dimension["participation_ratio"], dimension["entropy_dimension"]
    lines.append(
        f"effective dimension of {dimension['dimension']}: participation ratio {_number(ratio)}, "
        f"entropy {_number(entropy)}"
    )
    uniform = figures["uniformity"]
    lines.append(
        f"alignment {_number(figures['alignment'])}, uniformity {_number(uniform['value'])} "
        f"({uniform['num_embeddings']} embeddings)"
    )
    return "\n".join(lines)


def _number(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.3f}"


if __name__ == "__main__":
    sys.exit(main())
