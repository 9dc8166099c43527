"""Record sets (.rec/.idx) as training data. Framing and layouts belong to utils/recordio.py."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from sources.base import SourceError
from utils.class_index import ClassIndex
from utils.errors import DataError
from utils.images import ImageFormat, decode_image
from utils.recordio import RecordReader


class RecordSource:
    """The images of a record set, in the order of their keys.

    Size and number of classes come from the property file or the set header; without them the first image and the
    largest label tell.

    Attributes:
        reader: the open record set.
        image_format: see Source.
        num_classes: see Source.
    """

    def __init__(self, path: str | Path) -> None:
        """Opens the .rec file at `path`.

        Raises:
            SourceError: a set without images.
            RecordError: damage or contradictions.
        """
        self.path = Path(path)
        self.reader = RecordReader(self.path)
        self._keys = self.reader.image_keys
        if not len(self._keys):
            raise SourceError(f"{self.path}: the record set holds no images; pack it again from the image folder")
        height, width = self.reader.image_size or self._first_image_size()
        self.image_format = ImageFormat(height, width, 3)
        self.num_classes = self.reader.num_classes

    def _first_image_size(self) -> tuple[int, int]:
        key = int(self._keys[0])
        try:
            image = decode_image(self.reader.sample(key)[1])
        except DataError as error:
            raise error.within(f"record {key} of {self.path}, read for the image size") from None
        return int(image.shape[0]), int(image.shape[1])

    def __len__(self) -> int:
        return len(self._keys)

    def read(self, index: int) -> tuple[np.ndarray, int]:
        """Image and label of the `index`-th image record.

        Raises:
            RecordError: damage, or a label out of range.
            ImageError: a payload that does not decode to the set's format; names the record and its byte.
        """
        key = int(self._keys[index])
        header, payload = self.reader.sample(key)
        label = self.reader.checked_label(key, header)
        try:
            return decode_image(payload, self.image_format), label
        except DataError as error:
            raise error.within(f"record {key} of {self.path}, byte {self.reader.offset(key)}") from None

    def class_counts(self) -> np.ndarray:
        """Images per class, (num_classes,) int64; from the identity records, without touching the images."""
        return self.reader.class_counts()

    def class_index(self) -> ClassIndex:
        """Which images belong to each class; from the identity records, or else from the header of every image."""
        return self.reader.class_index()

    def describe(self) -> dict[str, object]:
        """Kind, path, images, classes, layout and the SHA-256 of the .idx, which pins every record's place."""
        index = self.reader.index_path
        return {
            "kind": "records",
            "path": str(self.path),
            "images": len(self),
            "classes": self.num_classes,
            "layout": self.reader.layout,
            "bytes": self.path.stat().st_size,
            "idx_sha256": hashlib.sha256(index.read_bytes()).hexdigest() if index else None,
        }
