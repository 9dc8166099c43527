"""A source with bad records in it: what takes an image's place, which classes remain. No batches and no order."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import TypeVar

import numpy as np

from sources.base import Source, SourceError
from utils.bad_records import BadImage
from utils.class_index import ClassIndex
from utils.errors import DataError
from utils.permutation import derive_keys

POLICIES = ("stop", "skip")
MAX_TRIES = 256  # with half of a set bad, they all fail once in 10**77 times
_Answer = TypeVar("_Answer")
_SUBSTITUTE = 5  # key stream of the seed; order, augmentation and samplers have others


def substitutes(index: int, num_images: int, seed: int, epoch: int) -> Iterator[int]:
    """Images to try in place of `index`, one after the other: a function of the arguments alone.

    So every rank, number of workers and resumed run puts the same image there. The walk begins anywhere and moves by a
    step that shares no divisor with the size: it shows no image twice, reaches all of a small set, and leaves a damaged
    stretch of a file at once.

    Args:
        index: the image to replace; never among the results.
        num_images: of the set.
        seed, epoch: another walk for each.
    """
    start, step = derive_keys(2, seed, epoch, _SUBSTITUTE, index).tolist()
    step %= num_images
    while math.gcd(step, num_images) != 1:
        step = (step + 1) % num_images
    image = start % num_images
    for _ in range(min(num_images, MAX_TRIES)):
        if image != index:
            yield image
        image = (image + step) % num_images


def require_policy(bad_records: str) -> bool:
    """Whether `bad_records` is "skip"; ValueError where it is no policy."""
    if bad_records not in POLICIES:
        raise ValueError(f"bad_records {bad_records!r} is unknown; allowed: {', '.join(POLICIES)}")
    return bad_records == "skip"


class KnownClasses:
    """The classes of a source; with "skip", images whose label cannot be read are in none of them."""

    def __init__(self, source: Source, bad_records: str) -> None:
        """Takes the source and "stop" or "skip"; ValueError for another policy."""
        self._source, self._skips = source, require_policy(bad_records)

    def __len__(self) -> int:
        return len(self._source)

    def class_index(self) -> ClassIndex:
        """Which images belong to each class; with "stop", a DataError where that is not known of all."""
        num_classes = self._source.num_classes
        return self._or_from_labels(
            self._source.class_index, lambda labels: ClassIndex.from_labels(labels, num_classes)
        )

    def class_counts(self) -> np.ndarray:
        """Images per class, (num_classes,) int64; with "stop", a DataError where that is not known of all."""
        num_classes = self._source.num_classes
        return self._or_from_labels(
            self._source.class_counts,
            lambda labels: np.bincount(labels[labels >= 0], minlength=num_classes).astype(np.int64),
        )

    def _or_from_labels(self, ask: Callable[[], _Answer], count: Callable[[np.ndarray], _Answer]) -> _Answer:
        """What the source says, or where it cannot, what follows from the labels that can be read."""
        try:
            return ask()
        except DataError:
            labels = self._known_labels()
            if labels is None:
                raise
            return count(labels)

    def _known_labels(self) -> np.ndarray | None:
        known = getattr(self._source, "known_labels", None)  # other sources know all labels from the start
        return known() if self._skips and known is not None else None


class ImageReader:
    """Reads images of a source by one of two policies: a bad image is an error, or another stands in for it."""

    def __init__(self, source: Source, seed: int, bad_records: str) -> None:
        """Takes the source, the seed of the substitutes, and "stop" or "skip".

        Raises:
            ValueError: another policy.
        """
        self._source, self._seed, self._skips = source, seed, require_policy(bad_records)
        self._shape = source.image_format.shape

    def read(self, index: int, epoch: int, bad: list[BadImage]) -> tuple[np.ndarray, int]:
        """Image and label of `index`, or with "skip" of what stands in for it; bad images met are added to `bad`.

        Raises:
            DataError: the image is bad ("stop"), or MAX_TRIES others (all of a smaller set) are bad too.
        """
        try:
            image, label = self._source.read(index)
            if image.shape != self._shape:
                raise SourceError(f"the image has shape {image.shape}, the source promises {self._shape}")
            return image, label
        except DataError as error:
            if not self._skips:
                raise error.within(f"image {index} of {self._path}") from None
            first = BadImage.from_error(index, error, self._path)
        bad.append(first)
        tries = 0
        for other in substitutes(index, len(self._source), self._seed, epoch):
            try:
                image, label = self._source.read(other)
                if image.shape == self._shape:
                    return image, label
                raise SourceError(f"the image has shape {image.shape}, the source promises {self._shape}")
            except DataError as error:
                bad.append(BadImage.from_error(other, error, self._path))
                tries += 1
        raise SourceError(
            f"{first}. None of the {tries} images tried in its place can be read either, the last of them {bad[-1]}. "
            "Is the set readable at all?"
        )

    @cached_property
    def _path(self) -> str:
        return str(self._source.describe()["path"])  # may hash an index: only where something is wrong
