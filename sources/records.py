"""Record sets (.rec/.idx) as training data. Framing and layouts belong to utils/recordio.py."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from functools import cached_property
from pathlib import Path

import numpy as np

from sources.base import SourceError
from utils.class_index import ClassIndex
from utils.errors import DataError
from utils.images import ImageFormat, decode_image
from utils.recordio import RecordError, RecordHeader, RecordReader

_PROBED = 64  # records that tell whether headers repeat the keys
_BLOCK = 4096  # labels read at once


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
            RecordError: damage, a label out of range, another record than the index promises, or a payload that does
                not decode to the set's format.
        """
        key = int(self._keys[index])
        header, payload = self.reader.sample(key)
        if header.id != key and self._headers_repeat_keys:
            self._refuse_other_record(key, header)
        label = self.reader.checked_label(key, header)
        try:
            return decode_image(payload, self.image_format), label
        except DataError as error:
            raise RecordError(self.path, key, self.reader.offset(key), str(error)) from None

    @cached_property
    def _headers_repeat_keys(self) -> bool:
        """Whether the ids in the headers are the keys, as MXNet's tools write them; asked at the first other one.

        One in eight decides: with half of a set damaged, more than that are still right, and ids of another kind agree
        with the keys by chance only.
        """
        places = np.linspace(0, len(self._keys) - 1, min(_PROBED, len(self._keys))).astype(np.int64)
        return sum(self._id_of(key) == key for key in self._keys[places].tolist()) * 8 >= len(places)

    def _id_of(self, key: int) -> int | None:
        try:
            return self.reader.sample(key)[0].id
        except (DataError, KeyError):
            return None

    def _refuse_other_record(self, key: int, header: RecordHeader) -> None:
        """Raises where `key` must be another record; sets joined from several have some ids twice, which is fine."""
        own, offset = header.id, self.reader.offset(key)
        has_own_place = own < 1 << 62 and self._id_of(own) == own and self.reader.offset(own) != offset
        if not has_own_place:
            raise RecordError(
                self.path, key, offset,
                f"the record here calls itself record {own}: the .idx has lines swapped, or the header is damaged; "
                "delete the .idx to have it rebuilt from the .rec",
            )  # fmt: skip

    def known_labels(self) -> np.ndarray:
        """Labels of all images, int64 (N,); -1 where the record is damaged or the label is no class."""
        labels = np.full(len(self), -1.0)
        for start in range(0, len(self), _BLOCK):
            keys = self._keys[start : start + _BLOCK]
            try:
                labels[start : start + len(keys)] = self.reader.labels(keys)
            except DataError:
                for place, key in enumerate(keys.tolist(), start):
                    with suppress(DataError):
                        labels[place] = self.reader.label(key)
        known = (labels >= 0) & (labels < self.num_classes) & (labels == np.floor(labels))
        return np.where(known, labels, -1).astype(np.int64)

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
