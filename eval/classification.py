"""Test images -> how well prototypes classify them: what training calls, and `python -m eval.classification`."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from backbones import WeightsError, backbone_info
from eval.classification_files import FOLDER, embedded_with, read_prototypes, write_embedded, write_result
from eval.classification_metrics import ClassificationError, ClassificationResult, classify
from eval.embedder import CHECKPOINTS, EmbedderError, ModuleEmbedder, evaluating, find_weights, load_module
from eval.embedding import embed_images
from eval.report_input import ReportError, read_run
from sources import Source, SourceError, open_source, test_location
from utils.command_line import Outcome, command_parser, run_command
from utils.errors import DataError
from utils.image_format_file import read_image_format
from utils.images import ImageFormat

BATCH = 256
EXAMPLES = (
    "python -m eval.classification work_dirs/mnist_svsoftmax",
    "python -m eval.classification work_dirs/mnist_svsoftmax --data mnist:data/fashion:test --name fashion",
)


@dataclass(frozen=True)
class SourceImages(Sequence[NDArray[np.uint8]]):
    """The images of a source, or some of them, as `embed_images` wants them: read when asked for, without labels.

    Attributes:
        source: where they are.
        indices: (N,) which of them.
    """

    source: Source
    indices: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: Any) -> Any:
        return self.source.read(int(self.indices[index]))[0]


def labels_of(source: Source) -> NDArray[np.int64]:
    """The labels of all images of a source, (N,) int64, without reading an image."""
    index = source.class_index()
    classes = np.repeat(np.arange(source.num_classes), index.counts)
    places = np.concatenate([np.arange(count) for count in index.counts]) if len(classes) else classes
    labels = np.full(len(source), -1, dtype=np.int64)
    labels[index.image(classes, places)] = classes
    return labels


def embed_source(
    model: nn.Module,
    source: Source,
    *,
    image_format: ImageFormat,
    indices: NDArray[np.int64] | None = None,
    device: torch.device | str = "cpu",
    batch_size: int = BATCH,
    progress: str | None = None,
) -> tuple[Tensor, Tensor]:
    """Embeds the images of a source once each, unmirrored; collective where a process group is there.

    Args:
        model: (B, C, H, W) float -> (B, D), on `device`; put into eval mode for the time being.
        source: the images.
        image_format: how pixels become numbers: that of the training data, whatever images these are.
        indices: which images, (N,); None: all.
        device: where the images go.
        batch_size: images per forward pass on each rank.
        progress: title of a bar; None shows none.

    Returns:
        (N, D) float32 embeddings, not normalised, and their labels (N,), both on the CPU and equal on every rank.

    Raises:
        DataError: an image that cannot be read.
    """
    chosen = np.arange(len(source)) if indices is None else indices
    embedder = ModuleEmbedder(model, device, image_format=image_format)
    with evaluating(embedder.model):
        embeddings = embed_images(
            embedder, SourceImages(source, chosen), batch_size=batch_size, flip=False, progress=progress
        )
    return torch.from_numpy(embeddings), torch.from_numpy(labels_of(source)[chosen])


def classification_record(result: ClassificationResult, dataset: str, *, images: str, seconds: float) -> dict[str, Any]:
    """A `metrics.jsonl` line of kind "classification"; the caller adds kind, time, step and epoch.

    Args:
        result: the numbers.
        dataset: "test" or "train".
        images: where the images are.
        seconds: what embedding and scoring took.
    """
    return {"dataset": dataset, "images": images, **result.to_dict(by_class=False), "seconds": round(seconds, 3)}


def classification_words(result: ClassificationResult) -> str:
    """The numbers in a line for people."""
    parts = [f"top-1 {result.top1:.2%} (error {1 - result.top1:.2%}) on {result.num_images} images"]
    if result.top5 is not None:
        parts.append(f"top-5 {result.top5:.2%}")
    if abs(result.mean_class_accuracy - result.top1) > 5e-5:
        parts.append(f"mean over classes {result.mean_class_accuracy:.2%}")
    if result.class_margin is not None:
        parts.append(f"class margin {result.class_margin:.2f} degrees")
        parts.append(f"sample margin {result.sample_margin_mean:.3f} (least {result.sample_margin_min:.3f})")
    return ", ".join([*parts, f"prototype norms 1 : {result.prototype_norm_ratio:.2f}"])


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = command_parser(
        "python -m eval.classification",
        "Classify test images by the prototypes of a run with task='classification': top-1, top-5, class margin, "
        "sample margins. Writes NAME.json and NAME.npz (embeddings, labels, prototypes) into the run's folder.",
        EXAMPLES,
    )
    parser.add_argument("run_dir", type=Path, metavar="RUN_DIR", help="folder that train.py wrote")
    parser.add_argument(
        "--data", metavar="LOCATION", help="images, as `rec` in a config; default: the run's test images"
    )
    parser.add_argument("--name", default="test", help="of the files that are written; default: test")
    parser.add_argument(
        "--checkpoint", choices=CHECKPOINTS, default="last", help="weights and prototypes; default: last"
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help=f"default: RUN_DIR/{FOLDER}")
    parser.add_argument("--device", help='"cpu", "cuda"; default: the GPU where torch sees one')
    options = parser.parse_args(arguments)
    return run_command(options, lambda: _run(options), (DataError, EmbedderError, WeightsError, ReportError, OSError))


def _run(options: argparse.Namespace) -> Outcome:
    if "/" in options.name or options.name.startswith("."):
        raise ClassificationError(f"--name {options.name!r} must be a plain file name, as in --name test")
    start = time.perf_counter()
    config = read_run(options.run_dir).config
    prototypes = read_prototypes(options.run_dir, options.checkpoint)
    model = load_module(find_weights(options.run_dir, options.checkpoint))
    location = options.data or config.get("test") or test_location(str(config.get("rec", "")))
    if location is None:
        raise SourceError(f"{config.get('rec')}: has no test half; name the test images with --data LOCATION")
    source = open_source(str(location))
    info = backbone_info(model)
    if source.image_format.shape != (*info.image_size, info.in_channels):
        raise ClassificationError(
            f"{location}: images of {source.image_format.shape}, network {info.name} takes "
            f"{(*info.image_size, info.in_channels)}: name images of that size with --data LOCATION"
        )
    device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    embeddings, labels = embed_source(
        model.to(device),
        source,
        image_format=read_image_format(options.run_dir) or source.image_format,
        device=device,
        progress=options.name,
    )
    result = classify(embeddings, labels, prototypes.weight, normalize_prototypes=prototypes.is_normalized)
    seconds = time.perf_counter() - start
    folder = options.out or options.run_dir / FOLDER
    facts = {"images": str(location), "checkpoint": options.checkpoint, "seconds": round(seconds, 3)}
    write_result(folder, options.name, result, facts)
    write_embedded(folder / f"{options.name}.npz", embedded_with(embeddings, labels, prototypes))
    words = f"{options.name}: {classification_words(result)}\n{folder / options.name}.json, {options.name}.npz"
    return Outcome(words, {**facts, **result.to_dict(), "folder": folder})


if __name__ == "__main__":
    sys.exit(main())
