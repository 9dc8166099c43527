"""Where galleries and probes come from: saved embeddings, or images through a model, and the options. No scores."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backbones import WeightsError
from eval.embedder import CHECKPOINTS, Embedder, EmbedderError, find_weights, load_embedder
from eval.embedding import embed_images
from eval.embedding_set import SUFFIXES, EmbeddingSet, EmbeddingSetError, load_embedding_set, save_embedding_set
from eval.image_set import ImageSet, open_image_set
from utils.command_line import Outcome, run_command
from utils.distributed import RankError, Ranks, start_ranks, stop_ranks
from utils.errors import DataError
from utils.files import sha256_of
from utils.images import FACE, stretched
from utils.memory import prefer_huge_pages

EXPECTED = (DataError, EmbedderError, RankError, WeightsError)
MODEL_SIZE = FACE.shape[:2]  # load_embedder takes no model for other images


def run_gallery_command(
    parser: argparse.ArgumentParser,
    work: Callable[[argparse.Namespace], Outcome | None],
    arguments: Sequence[str] | None,
) -> int:
    """Parses the arguments, does the work with what was typed as `options.command`, and returns the exit status."""
    options = parser.parse_args(arguments)
    options.command = shlex.join([*parser.prog.split(), *(sys.argv[1:] if arguments is None else arguments)])
    return run_command(options, lambda: work(options), EXPECTED)


def add_search_options(parser: argparse.ArgumentParser, ranks: tuple[int, ...]) -> None:
    """What commands that search a gallery have in common: ranks of the rates, images of other sizes, the model."""
    parser.add_argument("--ranks", type=numbers(int), default=ranks, help="k of the rank rates, comma-separated")
    parser.add_argument("--resize", action="store_true", help="stretch images of another size than the model's 112x112")
    add_model_options(parser)


def add_model_options(parser: argparse.ArgumentParser, *, flip: bool = True) -> None:
    """The options that name a model and say how it is run, as `eval.verification` has them; `flip` is a default."""
    group = parser.add_argument_group("model, where images are to be embedded")
    group.add_argument("--model", help="run folder, model.pt, backbone.pth or model.onnx")
    group.add_argument("--network", help="backbone name, where the weights do not tell")
    group.add_argument("--checkpoint", choices=CHECKPOINTS, default="best", help="which one of a run folder")
    group.add_argument(
        "--flip", action=argparse.BooleanOptionalAction, default=flip, help="add the mirrored image's embedding"
    )
    group.add_argument("--batch-size", type=int, default=64, help="images per forward pass on each rank")
    group.add_argument("--device", choices=("cpu", "cuda"), help="default: cuda where there is one")
    group.add_argument("--precision", choices=("fp32", "bf16", "fp16"), default="fp32")


def numbers(kind: Callable[[str], Any]) -> Callable[[str], tuple[Any, ...]]:
    """For argparse: a comma-separated list of numbers of one kind."""

    def parse(text: str) -> tuple[Any, ...]:
        try:
            return tuple(sorted({kind(word) for word in text.split(",") if word.strip()}))
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is no list of numbers such as 1,5,10 or 0.01,0.1") from None

    return parse


@contextmanager
def ranks_of(options: argparse.Namespace) -> Iterator[Ranks]:
    """The process group of this command, ended with the block; without torchrun a group of one."""
    prefer_huge_pages()
    ranks = start_ranks(options.device)
    try:
        yield ranks
    finally:
        stop_ranks()


def open_location(location: str, options: argparse.Namespace, *, resize: bool = False) -> EmbeddingSet | ImageSet:
    """Reads saved embeddings, or lists images without decoding one.

    Args:
        location: .npz or .parquet, or whatever `open_image_set` takes.
        options: with `model`.
        resize: images of another size than the model's are stretched to it.

    Raises:
        DataError: nothing there, or images and no --model.
    """
    path = Path(location).expanduser()
    if path.suffix in SUFFIXES and not path.is_dir():
        return load_embedding_set(path)
    images = open_image_set(path, image_format=None if resize else FACE)
    if not options.model:
        raise EmbeddingSetError(
            f"{location}: these are images: give --model to embed them, or embeddings that `python -m tools.embed` "
            f"saved ({' or '.join(SUFFIXES)})"
        )
    if not resize:
        return images
    return ImageSet(
        images.name, _Stretched(images.images), images.names, images.labels, images.identities, images.sources
    )


@dataclass(frozen=True)
class Model:
    """A loaded model, and what is told of it beside every number."""

    embedder: Embedder
    about: dict[str, Any]


def load_model(options: argparse.Namespace, ranks: Ranks) -> Model:
    """The model that the options name, on this rank's device.

    Raises:
        EmbedderError, backbones.WeightsError: see `load_embedder`.
    """
    weights = find_weights(options.model, options.checkpoint)
    embedder = load_embedder(weights, network=options.network, device=ranks.device, precision=options.precision)
    about = {
        "weights": str(weights),
        "weights_sha256": sha256_of(weights),
        "flip": options.flip,
        "precision": options.precision,
    }
    return Model(embedder, about)


def embed_sets(
    opened: Sequence[EmbeddingSet | ImageSet], options: argparse.Namespace, ranks: Ranks
) -> list[EmbeddingSet]:
    """Embeds those that are images; collective where there are any. The model is loaded once, and only if needed.

    Raises:
        DataError, EmbedderError: an image that cannot be read, a model that cannot be loaded.
    """
    model: Model | None = None
    sets: list[EmbeddingSet] = []
    for item in opened:
        if isinstance(item, EmbeddingSet):
            sets.append(item)
            continue
        model = model or load_model(options, ranks)
        sets.append(embed_image_set(model, item, options, ranks))
    return sets


def save_embeddings(path: str, embedding_set: EmbeddingSet, command: str) -> None:
    """Writes embeddings for another time, with the command that made them."""
    about = {**embedding_set.about, "command": command}
    saved = EmbeddingSet(
        embedding_set.embeddings,
        embedding_set.names,
        embedding_set.labels,
        embedding_set.identities,
        embedding_set.detector_scores,
        about,
    )
    save_embedding_set(path, saved)


def require_savable(path: str | None) -> None:
    """Refuses, before the long work, a file that could not be written after it.

    Raises:
        EmbeddingSetError: another suffix, or no such folder.
    """
    if path is None:
        return
    if Path(path).suffix not in SUFFIXES:
        raise EmbeddingSetError(f"{path}: embeddings are kept in {' or '.join(SUFFIXES)}; got {Path(path).suffix!r}")
    if not Path(path).absolute().parent.is_dir():
        raise EmbeddingSetError(f"{path}: there is no folder {Path(path).absolute().parent}; make it first")


class _Stretched(Sequence[NDArray[np.uint8]]):
    """Images brought to the model's size when asked for."""

    def __init__(self, images: Sequence[NDArray[np.uint8]]) -> None:
        self._images = images

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: Any) -> Any:
        return stretched(self._images[index], (MODEL_SIZE[0], MODEL_SIZE[1]))


def embed_image_set(model: Model, images: ImageSet, options: argparse.Namespace, ranks: Ranks) -> EmbeddingSet:
    """Embeddings of images with their names and identities; collective.

    Raises:
        DataError: an image that cannot be read.
    """
    progress = images.name if ranks.is_main and sys.stderr.isatty() else None
    embeddings = embed_images(
        model.embedder, images.images, batch_size=options.batch_size, flip=options.flip, progress=progress
    )
    return EmbeddingSet(
        embeddings,
        np.asarray(images.names[:], dtype=np.str_),
        images.labels,
        np.asarray(images.identities, dtype=np.str_),
        np.full(len(embeddings), np.nan, dtype=np.float32),
        model.about,
    )
