"""Which images belong to which class. No image, no order."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class ClassIndex:
    """Where a class's images are, without a list of them where their numbers follow a rule.

    Image ``k`` of class ``c`` has the number ``n = first[c] + k * stride``, or ``images[n]`` where ``images`` is given.

    Attributes:
        counts: images per class, int64 (C,).
        first: int64 (C,).
        stride: 1, or C where the classes take turns.
        images: image numbers class after class, int32 (N,) (int64 beyond 2**31 images), for sets in any other order.
            Forked processes share it.
    """

    counts: np.ndarray
    first: np.ndarray
    stride: int = 1
    images: np.ndarray | None = None

    @classmethod
    def grouped(cls, counts: np.ndarray) -> ClassIndex:
        """The index of a set that holds class after class."""
        counts = counts.astype(np.int64)
        return cls(counts, np.cumsum(counts) - counts)

    @classmethod
    def from_labels(cls, labels: np.ndarray, num_classes: int) -> ClassIndex:
        """The index of a set in any order; labels (N,) are whole numbers below num_classes.

        An image with a negative label is in no class.
        """
        unknown = int((labels < 0).sum())
        grouped = cls.grouped(np.bincount(labels[labels >= 0] if unknown else labels, minlength=num_classes))
        if not unknown and bool((labels[1:] >= labels[:-1]).all()):
            return grouped
        by_class = np.argsort(labels, kind="stable")[unknown:]
        small = len(labels) <= np.iinfo(np.int32).max
        return cls(grouped.counts, grouped.first, images=by_class.astype(np.int32 if small else np.int64))

    def image(self, classes: np.ndarray, places: np.ndarray) -> np.ndarray:
        """Numbers of the images at ``places`` (each below its class's count) of ``classes``, int64 of that length."""
        numbers = self.first[classes] + places * self.stride
        return numbers if self.images is None else self.images[numbers].astype(np.int64)
