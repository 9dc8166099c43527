"""Training data that fits in memory as arrays: the small classification sets. Reads no files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from sources.base import SourceError
from utils.class_index import ClassIndex
from utils.images import ImageFormat

_BLOCK = 1024  # images


class ArraySource:
    """Images and labels as two arrays; forked workers share them.

    Attributes:
        image_format: see Source.
        num_classes: see Source.
    """

    def __init__(
        self, kind: str, path: Path, images: np.ndarray, labels: np.ndarray, num_classes: int, image_format: ImageFormat
    ) -> None:
        """Takes uint8 images (N, H, W, C) and integer labels (N,).

        Raises:
            SourceError: no images, unequal numbers, another shape than the format's, or a label out of range.
        """
        if len(images) != len(labels) or not len(images):
            raise SourceError(f"{kind} in {path}: {len(images)} images and {len(labels)} labels; both files whole?")
        if images.dtype != np.uint8 or images.shape[1:] != image_format.shape:
            raise SourceError(
                f"{kind} in {path}: images are {images.dtype} {images.shape[1:]}, expected uint8 {image_format.shape}"
            )
        labels = labels.astype(np.int64)
        wrong = np.flatnonzero((labels < 0) | (labels >= num_classes))
        if len(wrong):
            raise SourceError(
                f"{kind} in {path}: image {wrong[0]} has label {labels[wrong[0]]}, allowed are 0 .. {num_classes - 1}"
            )
        self.kind, self.path, self.image_format, self.num_classes = kind, path, image_format, num_classes
        self._images, self._labels = images, labels

    def __len__(self) -> int:
        return len(self._labels)

    def read(self, index: int) -> tuple[np.ndarray, int]:
        """A view of the image, and its label."""
        return self._images[index], int(self._labels[index])

    def blocks(self) -> Iterator[np.ndarray]:
        """All images in their order, uint8 (n, H, W, C) each time: views, for who reads all of them at once."""
        for start in range(0, len(self), _BLOCK):
            yield self._images[start : start + _BLOCK]

    def class_counts(self) -> np.ndarray:
        """Images per class, (num_classes,) int64."""
        return np.bincount(self._labels, minlength=self.num_classes).astype(np.int64)

    def class_index(self) -> ClassIndex:
        """Which images belong to each class."""
        return ClassIndex.from_labels(self._labels, self.num_classes)

    def describe(self) -> dict[str, object]:
        """Kind, path, images, classes."""
        return {"kind": self.kind, "path": str(self.path), "images": len(self), "classes": self.num_classes}


def split_location(kind: str, rest: str) -> tuple[Path, bool]:
    """Takes `DIR` or `DIR:test` apart into (folder, wants the test half); SourceError where the folder is missing."""
    text, separator, split = rest.rpartition(":")
    if separator and split in ("train", "test"):
        folder, test = Path(text).expanduser(), split == "test"
    else:
        folder, test = Path(rest).expanduser(), False
    if not rest or not folder.is_dir():
        raise SourceError(f"{kind}:{rest}: there is no folder {str(folder)!r}; give {kind}:DIR or {kind}:DIR:test")
    return folder, test


def unpacked_limit(packed_bytes: int) -> int:
    """How many bytes that many compressed ones may become: 64 times as many, at least 64 MiB.

    The published sets grow less than sevenfold; a bomb grows a thousandfold.
    """
    return max(1 << 26, 64 * packed_bytes)


def find_file(kind: str, folder: Path, candidates: list[str], advice: str) -> Path:
    """The first of the candidate names that exists in `folder`; SourceError with what is there otherwise."""
    for name in candidates:
        if (folder / name).is_file():
            return folder / name
    present = ", ".join(sorted(entry.name for entry in folder.iterdir())[:8]) or "nothing"
    raise SourceError(f"{kind} in {folder}: looked for {' or '.join(candidates)}, found {present}. {advice}")
