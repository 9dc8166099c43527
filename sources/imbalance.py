"""A source of which the classes keep unequal numbers of images, as papers on long tails train on. Reads no files."""

from __future__ import annotations

from typing import Literal

import numpy as np

from sources.base import Source, SourceError
from sources.substitutes import KnownClasses
from utils.class_index import ClassIndex
from utils.images import ImageFormat
from utils.permutation import derive_keys, keyed_hash

Imbalance = Literal["none", "long_tailed", "step"]
_DRAW = 6  # key stream of the seed; order, augmentation, samplers and substitutes have others
_SLACK = 1e-9  # 5000 / 100 images must not become 49 by rounding


def imbalanced_counts(counts: np.ndarray, kind: Imbalance, ratio: float) -> np.ndarray:
    """How many images each class keeps; class i of C had n_i.

    - "none": n_i.
    - "long_tailed": n_i * ratio^(-i / (C - 1)); Y. Cui et al., "Class-balanced loss based on effective number of
      samples", CVPR 2019, and K. Cao et al., "Learning imbalanced datasets with label-distribution-aware margin loss"
      (LDAM-DRW), NeurIPS 2019, both as in their authors' code.
    - "step": n_i for the first half of the classes (the larger one where C is odd), n_i / ratio for the others; M. Buda
      et al., "A systematic study of the class imbalance problem in convolutional neural networks", Neural Networks 106,
      2018, and Cao et al.

    All are rounded down, as in those codes, but a class that has images keeps one. On balanced sets, such as CIFAR,
    these are the papers' numbers; where a set is uneven already, each class shrinks from its own size.

    Args:
        counts: images per class, (C,).
        kind: see above.
        ratio: largest over smallest class, at least 1.

    Returns:
        int64 (C,).

    Raises:
        ValueError: another kind, or a ratio below 1 or not finite.
    """
    if not 1 <= ratio < np.inf:
        raise ValueError(f"imbalance_ratio = {ratio}: largest over smallest class, a finite number of at least 1")
    place = np.arange(len(counts))
    if kind == "none":
        share = np.ones(len(counts))
    elif kind == "long_tailed":
        share = ratio ** (-place / max(1, len(counts) - 1))
    elif kind == "step":
        share = np.where(place < (len(counts) + 1) // 2, 1.0, 1 / ratio)
    else:
        raise ValueError(f"imbalance {kind!r} is unknown; allowed: none, long_tailed, step")
    kept = np.floor(counts * share + _SLACK).astype(np.int64)
    return np.maximum(kept, counts > 0)


def imbalanced(source: Source, kind: Imbalance, ratio: float, seed: int, bad_records: str = "stop") -> Source:
    """The source with fewer images of some classes; the images stay where they are.

    Which images a class keeps depends on (seed, class, place in the class) alone, and a larger ratio keeps a part of
    what a smaller one keeps.

    Args:
        source: any.
        kind, ratio: see imbalanced_counts; "none" gives the source itself.
        seed: >= 0.
        bad_records: with "skip", an image whose label cannot be read is in no class and left out.

    Raises:
        DataError: with "stop", the classes of some images are not known.
        ValueError: see imbalanced_counts.
    """
    if kind == "none":
        return source
    return ImbalancedSource(source, kind, ratio, seed, KnownClasses(source, bad_records).class_index())


class ImbalancedSource:
    """Some images of a source, in the source's order, under numbers of their own.

    Attributes:
        kept: numbers of the images in the source, rising, int64 (N,).
    """

    def __init__(self, source: Source, kind: Imbalance, ratio: float, seed: int, index: ClassIndex) -> None:
        """Draws the images; see imbalanced.

        Raises:
            SourceError: nothing is left.
        """
        self._source, self._kind, self._ratio, self._seed = source, kind, ratio, seed
        self._counts = imbalanced_counts(index.counts, kind, ratio)
        parts = [self._draw(index, label, int(count)) for label, count in enumerate(self._counts.tolist()) if count]
        if not parts:
            raise SourceError(f"{source.describe()['path']}: no class has an image to keep with imbalance = {kind!r}")
        kept = np.concatenate(parts)
        order = np.argsort(kept)
        self.kept = kept[order]
        self._labels = np.repeat(np.arange(len(self._counts)), self._counts)[order]

    def _draw(self, index: ClassIndex, label: int, count: int) -> np.ndarray:
        """The `count` images of a class whose hashes are lowest."""
        places = np.arange(index.counts[label], dtype=np.int64)
        if count < len(places):
            hashes = keyed_hash(places.astype(np.uint64), derive_keys(1, self._seed, _DRAW, label)[0])
            places = np.argsort(hashes)[:count]
        return index.image(np.full(len(places), label), places)

    @property
    def image_format(self) -> ImageFormat:
        """The source's."""
        return self._source.image_format

    @property
    def num_classes(self) -> int:
        """The source's: no class is lost."""
        return self._source.num_classes

    def __getattr__(self, name: str) -> object:
        """`names` of the classes where the source has them; nothing that counts the source's images is passed on."""
        if name == "names":
            return self._source.names  # type: ignore[attr-defined]
        raise AttributeError(name)

    def __len__(self) -> int:
        return len(self.kept)

    def read(self, index: int) -> tuple[np.ndarray, int]:
        """Image and label, as the source reads them.

        Raises:
            DataError: what the source raises.
        """
        return self._source.read(int(self.kept[index]))

    def class_counts(self) -> np.ndarray:
        """Images per class, (num_classes,) int64."""
        return self._counts.copy()

    def class_index(self) -> ClassIndex:
        """Which images belong to each class, under their new numbers."""
        return ClassIndex.from_labels(self._labels, self.num_classes)

    def describe(self) -> dict[str, object]:
        """What the source says, with the images that are left, the kind of imbalance, its ratio and seed."""
        return {
            **self._source.describe(),
            "images": len(self),
            "images_before": len(self._source),
            "imbalance": self._kind,
            "imbalance_ratio": self._ratio,
            "imbalance_seed": self._seed,
        }
