"""Random pixels as training data, for measuring speed without a disk. Nothing can be learned from it."""

from __future__ import annotations

import numpy as np

from sources.base import SourceError
from utils.class_index import ClassIndex
from utils.images import FACE, ImageFormat
from utils.permutation import keyed_hash

_CLASSES, _IMAGES = 10_000, 100_000
_KEYS = {False: np.uint64(0x5EED), True: np.uint64(0x7E57)}  # by is_test


class SyntheticSource:
    """112x112 noise; image i has label i % num_classes and the same pixels every time.

    Attributes:
        image_format: see Source.
        num_classes: see Source.
    """

    def __init__(
        self,
        num_classes: int = _CLASSES,
        num_images: int = _IMAGES,
        image_format: ImageFormat = FACE,
        *,
        is_test: bool = False,
    ) -> None:
        """Both numbers at least 1; `is_test` gives the same classes other noise.

        Raises:
            SourceError: otherwise.
        """
        if num_classes < 1 or num_images < 1:
            raise SourceError(f"synthetic data: {num_classes} classes and {num_images} images; both must be at least 1")
        self.num_classes, self.image_format, self._num_images = num_classes, image_format, num_images
        self._is_test = is_test

    def __len__(self) -> int:
        return self._num_images

    def read(self, index: int) -> tuple[np.ndarray, int]:
        """Noise that depends on the index alone, and the label."""
        height, width, channels = self.image_format.shape
        size = height * width * channels
        words = keyed_hash(np.arange(-(-size // 8), dtype=np.uint64) + np.uint64(index << 24), _KEYS[self._is_test])
        return words.view(np.uint8)[:size].reshape(height, width, channels), index % self.num_classes

    def class_counts(self) -> np.ndarray:
        """Images per class, (num_classes,) int64."""
        whole, rest = divmod(self._num_images, self.num_classes)
        return whole + (np.arange(self.num_classes) < rest).astype(np.int64)

    def class_index(self) -> ClassIndex:
        """Which images belong to each class: the classes take turns."""
        return ClassIndex(self.class_counts(), np.arange(self.num_classes, dtype=np.int64), stride=self.num_classes)

    def describe(self) -> dict[str, object]:
        """Kind, path (there is none), images, classes."""
        path = "synthetic:test" if self._is_test else "synthetic"
        return {"kind": "synthetic", "path": path, "images": len(self), "classes": self.num_classes}


def open_synthetic(rest: str) -> SyntheticSource:
    """Opens "" (10,000 classes, 100,000 images) or "CLASSES:IMAGES"; behind either, ":test" gives other noise.

    Raises:
        SourceError: anything else.
    """
    *parts, last = rest.split(":")
    is_test = last == "test"
    parts = parts if is_test else [*parts, last]
    if not any(parts):
        return SyntheticSource(is_test=is_test)
    if len(parts) != 2 or not all(part.isdecimal() and part.isascii() and len(part) < 16 for part in parts):
        raise SourceError(
            f"synthetic:{rest}: give synthetic or synthetic:CLASSES:IMAGES, like synthetic:1000:50000, and for a test "
            "half the same with :test behind it"
        )
    return SyntheticSource(int(parts[0]), int(parts[1]), is_test=is_test)
