"""A folder with one sub-folder of images per identity as training data. Nothing here writes or packs."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np

from sources.base import SourceError
from utils.class_index import ClassIndex
from utils.errors import DataError
from utils.images import ImageFormat, decode_image

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")


def list_identities(folder: Path) -> tuple[list[str], list[list[str]], list[str]]:
    """What an image folder holds.

    Returns:
        identity names, sorted (their positions are the labels); image file names of each, sorted; and the entries that
        are neither identity folders nor images, which nobody reads.

    Raises:
        SourceError: no sub-folder, or one without images.
    """
    names: list[str] = []
    files: list[list[str]] = []
    ignored: list[str] = []
    for entry in sorted(os.scandir(folder), key=lambda item: item.name):
        if not entry.is_dir():
            ignored.append(entry.name)
            continue
        if entry.name.startswith("."):
            continue
        images = []
        for item in sorted(os.scandir(entry.path), key=lambda item: item.name):
            # links are followed, as data sets are often linked; a pipe named x.jpg would be read for ever
            if item.name.lower().endswith(IMAGE_SUFFIXES) and item.is_file():
                images.append(item.name)
            else:
                ignored.append(f"{entry.name}/{item.name}")
        if not images:
            raise SourceError(
                f"{entry.path}: no image in this identity folder ({', '.join(IMAGE_SUFFIXES)} count; sub-folders of "
                "identities are not searched): remove it, or put images in"
            )
        names.append(entry.name)
        files.append(images)
    if not names:
        raise SourceError(f"{folder}: no sub-folders; expected one folder of images per identity")
    return names, files, ignored


def read_image_file(path: Path, image_format: ImageFormat | None = None) -> np.ndarray:
    """Decodes a file; whatever is wrong with it is told with its path.

    Args:
        path: of the image.
        image_format: the size it must have; None takes any, and gives RGB.

    Raises:
        ImageError: damage, or another size.
        SourceError: it cannot be read, or has gone.
    """
    try:
        return decode_image(path.read_bytes(), image_format)
    except DataError as error:
        raise error.within(str(path)) from None
    except OSError as error:
        raise SourceError(f"{path}: cannot be read: {error.strerror or error}") from None


class FolderSource:
    """Images in identity folders; the label is the position of the identity's name in sorted order.

    Attributes:
        image_format: size of the first image, which all must share; 3 channels.
        num_classes: number of identity folders.
        names: identity names by label.
    """

    def __init__(self, path: str | Path) -> None:
        """Lists the folder and reads its first image.

        Raises:
            SourceError: see list_identities.
            ImageError: the first image does not decode.
        """
        self.path = Path(path)
        self.names, files, self._ignored = list_identities(self.path)
        self.num_classes = len(self.names)
        self._counts = np.array([len(images) for images in files], dtype=np.int64)
        self._labels = np.repeat(np.arange(self.num_classes), self._counts)
        # One array instead of millions of strings: forked workers share it without copying.
        self._files = np.array([os.fsencode(name) for images in files for name in images])
        first = self._decode(0, None)
        self.image_format = ImageFormat(first.shape[0], first.shape[1], 3)

    def _decode(self, index: int, image_format: ImageFormat | None) -> np.ndarray:
        folder = self.path / self.names[self._labels[index]]
        return read_image_file(folder / os.fsdecode(self._files[index].item()), image_format)

    def __len__(self) -> int:
        return len(self._files)

    def read(self, index: int) -> tuple[np.ndarray, int]:
        """Image and label.

        Raises:
            ImageError: damage or another size; names the file.
            SourceError: the file has gone.
        """
        return self._decode(index, self.image_format), int(self._labels[index])

    def class_counts(self) -> np.ndarray:
        """Images per class, (num_classes,) int64."""
        return self._counts.copy()

    def class_index(self) -> ClassIndex:
        """Which images belong to each class: they are numbered folder after folder."""
        return ClassIndex.grouped(self._counts)

    def describe(self) -> dict[str, object]:
        """Kind, path, images, classes, entries that are not read, and the SHA-256 of all relative file names."""
        listing = hashlib.sha256()
        for name, label in zip(self._files.tolist(), self._labels.tolist(), strict=True):
            listing.update(os.fsencode(self.names[label]) + b"/" + name + b"\n")
        return {
            "kind": "folder",
            "path": str(self.path),
            "images": len(self),
            "classes": self.num_classes,
            "ignored": len(self._ignored),
            "names_sha256": listing.hexdigest(),
        }
