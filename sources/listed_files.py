"""What all sources share that read one image file per sample: names, labels, counts, and the size in a location."""

from __future__ import annotations

import hashlib
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sources.base import SourceError
from utils.class_index import ClassIndex
from utils.images import ImageFormat

_SIZE = re.compile(r"(\d{1,4})x(\d{1,4})")


class ListedFiles(ABC):
    """Image files below a folder, each with its label; how a file becomes an image is the subclass's `read`.

    Attributes:
        kind: the word before the location's colon.
        path: the folder.
        image_format: see Source.
        num_classes: see Source.
    """

    def __init__(
        self,
        kind: str,
        path: Path,
        files: Sequence[str],
        labels: np.ndarray,
        num_classes: int,
        image_format: ImageFormat,
    ) -> None:
        """Takes file names below `path` and int64 labels (N,); reads nothing."""
        self.kind, self.path = kind, path
        self.num_classes, self.image_format = num_classes, image_format
        self._labels = labels
        # One array instead of a list of texts: forked workers share it without copying.
        self._files = np.array([os.fsencode(name) for name in files])

    def __len__(self) -> int:
        return len(self._files)

    @abstractmethod
    def read(self, index: int) -> tuple[np.ndarray, int]:
        """Image and label.

        Raises:
            ImageError: damage, or a size that the subclass refuses; names the file.
            SourceError: the file has gone.
        """

    def path_and_label(self, index: int) -> tuple[Path, int]:
        """Where a sample lies, and its label."""
        return self.path / os.fsdecode(self._files[index].item()), int(self._labels[index])

    def class_counts(self) -> np.ndarray:
        """Images per class, (num_classes,) int64."""
        return np.bincount(self._labels, minlength=self.num_classes).astype(np.int64)

    def class_index(self) -> ClassIndex:
        """Which images belong to each class."""
        return ClassIndex.from_labels(self._labels, self.num_classes)

    def describe(self) -> dict[str, object]:
        """Kind, path, images, classes, and the SHA-256 of all file names."""
        listing = hashlib.sha256(b"".join(name + b"\n" for name in self._files.tolist()))
        return {
            "kind": self.kind,
            "path": str(self.path),
            "images": len(self),
            "classes": self.num_classes,
            "names_sha256": listing.hexdigest(),
        }


def split_size(kind: str, rest: str) -> tuple[str, tuple[int, int] | None]:
    """The location without its `:HEIGHTxWIDTH`, and (height, width), or None where it names no size.

    Raises:
        SourceError: a size without pixels.
    """
    text, separator, tail = rest.rpartition(":")
    found = _SIZE.fullmatch(tail) if separator else None
    if found is None:
        return rest, None
    height, width = int(found[1]), int(found[2])
    if min(height, width) < 1:
        raise SourceError(f"{kind}:{rest}: images of {height}x{width} pixels have no pixels")
    return text, (height, width)
