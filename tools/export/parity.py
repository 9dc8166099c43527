"""How closely a file follows PyTorch: the same images through both, on random pixels or on pairs of faces."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from eval.embedder import Embedder, OnnxEmbedder
from eval.pair_metrics import PairResult, evaluate_pairs
from eval.pairs import PairSet
from tools.export.variant import TOLERANCE, DisagreementError, ExportError, require_cosine
from utils.images import ImageFormat

CHECKED_BATCHES = (1, 3, 32)


@dataclass(frozen=True)
class Agreement:
    """Two embeddings of each of N images.

    Attributes:
        images: N.
        difference: largest absolute difference of the embeddings as they come out.
        largest: largest absolute value that PyTorch gives.
        unit_difference: largest absolute difference of x / ||x||.
        worst_cosine: smallest cosine between the two embeddings of one image; NaN where one is not finite or zero.
        mean_cosine: the mean of those.
    """

    images: int
    difference: float
    largest: float
    unit_difference: float
    worst_cosine: float
    mean_cosine: float

    def to_dict(self) -> dict[str, Any]:
        """The attributes."""
        return dict(self.__dict__)


def agreement(expected: NDArray[Any], got: NDArray[Any], *, is_normalized: bool) -> Agreement:
    """Compares two (N, D) arrays row by row, in float64.

    Args:
        expected: PyTorch's embeddings.
        got: the file's.
        is_normalized: the file gives x / ||x||, which `difference` then compares with as well.
    """
    expected, got = expected.astype(np.float64), got.astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        units = [rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (expected, got)]
        cosines = (units[0] * units[1]).sum(axis=1)
        reference = units[0] if is_normalized else expected
        return Agreement(
            len(expected),
            float(np.abs(got - reference).max()),
            float(np.abs(reference).max()),
            float(np.abs(units[0] - units[1]).max()),
            float(cosines.min()),
            float(cosines.mean()),
        )


def random_images(count: int, image_format: ImageFormat, seed: int = 0) -> Tensor:
    """uint8 (count, H, W, C), every value as likely as the next: unlike faces, but every path of the net sees them."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, *image_format.shape), dtype=torch.uint8, generator=generator)


def on_random_images(
    expected: Embedder, got: Embedder, image_format: ImageFormat, *, is_normalized: bool
) -> dict[int, Agreement]:
    """Agreement for each of CHECKED_BATCHES, so that a batch that became a constant in the graph shows.

    Raises:
        ExportError: embeddings of another shape.
    """
    found: dict[int, Agreement] = {}
    for batch in CHECKED_BATCHES:
        images = random_images(batch, image_format, seed=batch)
        pair = expected(images).cpu().numpy(), got(images).numpy()
        if pair[0].shape != pair[1].shape:
            raise ExportError(f"batch {batch} came back as {pair[1].shape}, not {pair[0].shape}")
        found[batch] = agreement(*pair, is_normalized=is_normalized)
    return found


def require_agreement(found: Mapping[int, Agreement], where: str, allowed: float, *, is_exact: bool) -> None:
    """Refuses a file by what came of the random images.

    Args:
        found: of each batch.
        where: the file, for the error.
        allowed: smallest cosine.
        is_exact: float32: every value within TOLERANCE of the largest one.

    Raises:
        DisagreementError: the first batch that differs by more, or is not finite.
    """
    for batch, result in found.items():
        if is_exact and not result.difference <= TOLERANCE * result.largest:
            raise DisagreementError(
                f"{where} was not written: at batch {batch} onnxruntime differs from PyTorch by "
                f"{result.difference:.3e} where the largest value is {result.largest:.3e}; allowed is {TOLERANCE} of "
                "it. Not finite: the weights overflow float32"
            )
        require_cosine(result.worst_cosine, allowed, f"{where} was not written: random images, batch {batch}")


@dataclass(frozen=True)
class PairParity:
    """A file and PyTorch on one set of pairs.

    Attributes:
        name: of the set.
        data_sha256: of the set.
        flip: mirrored images were embedded too; scores add the two embeddings, as each model gives them.
        agreement: over all distinct images, and their mirror images with `flip`.
        expected: PyTorch's scores, protocol "insightface".
        got: the file's.
    """

    name: str
    data_sha256: str
    flip: bool
    agreement: Agreement
    expected: PairResult
    got: PairResult

    def to_dict(self) -> dict[str, Any]:
        """Everything but the scores of single pairs."""
        far = {f"{key:g}": (self.expected.tar_at_far[key], self.got.tar_at_far[key]) for key in self.got.tar_at_far}
        return {
            "data_sha256": self.data_sha256,
            "pairs": len(self.expected.scores),
            "flip": self.flip,
            **self.agreement.to_dict(),
            "accuracy": {"pytorch": self.expected.accuracy, "file": self.got.accuracy, "change": self.change},
            "auc": {"pytorch": self.expected.auc, "file": self.got.auc},
            "tar_at_far": {key: {"pytorch": pair[0], "file": pair[1]} for key, pair in far.items()},
        }

    @property
    def change(self) -> float:
        """The file's accuracy minus PyTorch's."""
        return self.got.accuracy - self.expected.accuracy

    def words(self) -> str:
        """Two lines for people."""
        found = self.agreement
        return (
            f"{self.name}: {found.images} images{' and mirror images' if self.flip else ''}, unit embeddings differ by "
            f"at most {found.unit_difference:.1e}, cosine worst {found.worst_cosine:.6f} mean {found.mean_cosine:.6f}\n"
            f"{self.name}: accuracy {self.expected.accuracy:.4%} PyTorch, {self.got.accuracy:.4%} file, change "
            f"{100 * self.change:+.4f} points of {len(self.expected.scores)} pairs"
        )


def on_pairs(
    expected: Embedder,
    candidates: Mapping[str, OnnxEmbedder],
    pair_set: PairSet,
    *,
    batch_size: int = 32,
    flip: bool = True,
) -> dict[str, PairParity]:
    """Embeds every distinct image of a set of pairs with PyTorch and with files, decoded once for all, and scores.

    Args:
        expected: PyTorch's embedder.
        candidates: files by name.
        pair_set: see `eval.pairs.load_pairs`.
        batch_size: images at a time.
        flip: as `eval.verification --flip`.
    """
    every = pair_set.first_index if len(pair_set.first_index) else np.arange(len(pair_set.images))
    distinct, places = np.unique(every, return_inverse=True)
    embedders: list[Embedder] = [expected, *candidates.values()]
    collected: list[list[NDArray[Any]]] = [[] for _ in embedders]
    starts = range(0, len(distinct), batch_size)
    for start in tqdm(starts, desc=pair_set.name, unit="batch", leave=False, disable=None, file=sys.stderr):
        images = [pair_set.images[int(index)] for index in distinct[start : start + batch_size]]
        pixels = torch.from_numpy(np.stack(images))
        views = [pixels, pixels.flip(2)] if flip else [pixels]
        for embedder, parts in zip(embedders, collected, strict=True):
            parts.append(np.stack([embedder(view).cpu().numpy() for view in views]))
    reference, *others = (np.concatenate(parts, axis=1) for parts in collected)  # (views, images, D) each

    def score(embeddings: NDArray[Any]) -> PairResult:
        return evaluate_pairs(embeddings.sum(axis=0)[places], pair_set.is_same, num_folds=pair_set.num_folds)

    wanted = score(reference)
    found: dict[str, PairParity] = {}
    for (name, file), embeddings in zip(candidates.items(), others, strict=True):
        rows = [array.reshape(-1, array.shape[-1]) for array in (reference, embeddings)]
        close = agreement(rows[0], rows[1], is_normalized=file.is_normalized)
        found[name] = PairParity(pair_set.name, pair_set.data_sha256, flip, close, wanted, score(embeddings))
    return found


def evenly_spaced(images: Sequence[NDArray[np.uint8]], count: int) -> list[int]:
    """`count` indices from the first image to the last; all of them where there are fewer."""
    number = min(count, len(images))
    return [index * len(images) // number for index in range(number)]
