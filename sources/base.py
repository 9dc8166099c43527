"""What a source of training data is, and the error it raises. No file format lives here."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from utils.class_index import ClassIndex
from utils.errors import DataError
from utils.images import ImageFormat


class SourceError(DataError):
    """A data set that is missing, unreadable or contradicts itself; the text says where, what, and what to do."""


class Source(Protocol):
    """An indexed set of labelled images; picklable, and safe to read in forked or spawned worker processes.

    Attributes:
        image_format: size, channels and normalisation constants that all its images share.
        num_classes: labels are in [0, num_classes).
    """

    @property
    def image_format(self) -> ImageFormat: ...

    @property
    def num_classes(self) -> int: ...

    def __len__(self) -> int: ...

    def read(self, index: int) -> tuple[np.ndarray, int]:
        """The image, uint8 (H, W, C) in RGB order, and the label of `index` in [0, len)."""
        ...

    def class_counts(self) -> np.ndarray:
        """Images per class, (num_classes,) int64."""
        ...

    def class_index(self) -> ClassIndex:
        """Which images belong to each class; asked for only where the sampler looks at classes, and kept by nobody."""
        ...

    def describe(self) -> dict[str, object]:
        """What config.json and the log say of the data: kind, path, images, classes, and a hash where it is cheap."""
        ...
