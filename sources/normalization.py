"""Which constants turn a source's pixels into numbers; measured where a paper asks for it. Normalises no image."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Literal

import numpy as np

from sources.base import Source, SourceError
from utils.class_index import ClassIndex
from utils.errors import DataError
from utils.images import ImageFormat

Normalization = Literal["source", "unit", "symmetric", "mean_image"]
_CONSTANTS = {"unit": (0.0, 255.0), "symmetric": (127.5, 127.5)}  # mean and std
_BLOCK = 256  # images


def normalized(source: Source, how: Normalization, bad_records: str = "stop") -> Source:
    """The source with other constants in its image format; images, labels and order stay as they are.

    - "source": its own constants; the source itself.
    - "unit": pixel / 255.
    - "symmetric": (pixel - 127.5) / 127.5.
    - "mean_image": (pixel - mean) / std, the mean for each row, column and channel over all images of the source, the
      std one number, of what is left when the mean image is subtracted. Subtracting a mean image is what W. Liu et al.,
      "Large-margin softmax loss for convolutional neural networks", ICML 2016, do on CIFAR in their published code;
      there nothing is divided. All images are read once, in this process.

    Test data of a run takes the constants of its training data: `with_format(test, training.image_format)`.

    Args:
        source: training data.
        how: see above.
        bad_records: with "skip", an image that cannot be read is left out of the mean.

    Raises:
        DataError: "mean_image" of images that cannot be read, or that are all the same.
        ValueError: another `how`.
    """
    if how == "source":
        return source
    if how == "mean_image":
        return NormalizedSource(source, measured_format(source, bad_records), how)
    if how not in _CONSTANTS:
        raise ValueError(f"normalization {how!r} is unknown; allowed: source, {', '.join(_CONSTANTS)}, mean_image")
    mean, std = _CONSTANTS[how]
    return NormalizedSource(source, replace(source.image_format, mean=mean, std=std, mean_image=b""), how)


def with_format(source: Source, image_format: ImageFormat, how: str = "") -> Source:
    """The source with the constants of another one: of the training data, for the test data of a run.

    Raises:
        SourceError: images of another size or number of channels.
    """
    if source.image_format == image_format:
        return source
    if source.image_format.shape != image_format.shape:
        raise SourceError(
            f"{source.describe()['path']}: images of {_size(source.image_format)}, and the training images are "
            f"{_size(image_format)}: give test data of the same size"
        )
    return NormalizedSource(source, image_format, how)


def measured_format(source: Source, bad_records: str = "stop") -> ImageFormat:
    """The source's format with its mean image, and the std of what is left; the same bits in whatever order.

    Sums of whole numbers are exact, so every rank that reads the same images finds the same constants.

    Raises:
        DataError: see normalized.
    """
    shape = source.image_format.shape
    total, squares, count = np.zeros(shape, dtype=np.uint64), 0, 0
    for block in _blocks(source, bad_records):
        total += block.sum(axis=0, dtype=np.uint64)
        wide = block.astype(np.uint16)
        squares += int((wide * wide).sum(dtype=np.uint64))  # 255 * 255 still fits
        count += len(block)
    path = source.describe()["path"]
    if not count:
        raise SourceError(f"{path}: no image can be read, so there is no mean image: use normalization=source")
    mean = total / count
    variance = squares / (count * mean.size) - float((mean * mean).mean())
    if variance < 1e-9:
        raise SourceError(
            f"{path}: all {count} images are the same, so nothing is left of them without their mean: use "
            "normalization=source"
        )
    return replace(
        source.image_format, mean=float(mean.mean()), std=math.sqrt(variance), mean_image=mean.astype("<f4").tobytes()
    )


def _blocks(source: Source, bad_records: str) -> Iterator[np.ndarray]:
    """All images, uint8 (n, H, W, C) each time; a source that has them in arrays hands out parts of those."""
    blocks = getattr(source, "blocks", None)
    if blocks is not None:
        yield from blocks()
        return
    images: list[np.ndarray] = []
    for index in range(len(source)):
        try:
            images.append(source.read(index)[0])
        except DataError as error:
            if bad_records != "skip":
                raise error.within(f"image {index} of {source.describe()['path']}, read for the mean image") from None
        if len(images) == _BLOCK:
            yield np.stack(images)
            images = []
    if images:
        yield np.stack(images)


class NormalizedSource:
    """A source with another image format; everything else is the source's own.

    Attributes:
        image_format: the source's size and channels, other constants.
    """

    def __init__(self, source: Source, image_format: ImageFormat, how: str) -> None:
        self._source, self.image_format, self._how = source, image_format, how

    @property
    def num_classes(self) -> int:
        """The source's."""
        return self._source.num_classes

    def __getattr__(self, name: str) -> Any:
        """What only some sources have: names, reader, known_labels, blocks."""
        if name == "_source":  # a copy in the making
            raise AttributeError(name)
        return getattr(self._source, name)

    def __len__(self) -> int:
        return len(self._source)

    def read(self, index: int) -> tuple[np.ndarray, int]:
        """Image and label, as the source reads them.

        Raises:
            DataError: what the source raises.
        """
        return self._source.read(index)

    def class_counts(self) -> np.ndarray:
        """The source's."""
        return self._source.class_counts()

    def class_index(self) -> ClassIndex:
        """The source's."""
        return self._source.class_index()

    def describe(self) -> dict[str, object]:
        """What the source says, how pixels are normalised, and the hash of the mean image where there is one."""
        mean_image = self.image_format.mean_image
        return {
            **self._source.describe(),
            **({"normalization": self._how} if self._how else {}),
            **({"mean_image_sha256": hashlib.sha256(mean_image).hexdigest()} if mean_image else {}),
        }


def _size(image_format: ImageFormat) -> str:
    return " x ".join(map(str, image_format.shape))
