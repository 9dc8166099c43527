"""Which records are images and how many classes they have, for the two layouts in use. Nothing here reads pixels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from utils.class_index import ClassIndex
from utils.record_framing import RecordError, unpack_header

if TYPE_CHECKING:
    from utils.recordio import RecordReader

INSIGHTFACE, IM2REC = "insightface", "im2rec"
_EXACT = 1 << 24  # the set header is float32: whole numbers beyond this one are rounded
_MAX_PROPERTY = 1024  # bytes; a property file has about twenty
_MAX_SIDE = 1 << 14  # pixels


@dataclass
class SetLayout:
    """What find_layout learned about one record set.

    Attributes:
        name: "insightface" or "im2rec".
        image_keys: int64 keys of the images.
        image_size: (height, width) from the property file, or None.
        num_classes_from: where the number of classes came from, for error messages.
        identity_keys: range of the identity records' keys; empty for im2rec.
    """

    name: str
    image_keys: np.ndarray
    image_size: tuple[int, int] | None
    num_classes_from: str
    identity_keys: range
    known_classes: int | None

    def num_classes(self, reader: RecordReader) -> int:
        """The number of classes; without property or set header, the largest label counts, found once on demand."""
        if self.known_classes is None:
            labels = reader.labels(self.image_keys)
            broken = np.flatnonzero(~((labels >= 0) & (labels < _EXACT) & (labels == np.floor(labels))))
            if len(broken):
                key = int(self.image_keys[broken[0]])
                raise RecordError(
                    reader.path,
                    key,
                    reader.offset(key),
                    f"label {labels[broken[0]]:g} is no class number: labels are whole numbers from 0",
                )
            self.known_classes = int(labels.max()) + 1 if len(labels) else 0
        return self.known_classes

    def class_counts(self, reader: RecordReader) -> np.ndarray:
        """Images per class, int64 (num_classes,); raises RecordError where a label is no class."""
        counts = self._counts_from_identities(reader)
        if counts is not None:
            return counts
        return np.bincount(self._labels(reader), minlength=self.num_classes(reader))

    def class_index(self, reader: RecordReader) -> ClassIndex:
        """Which images belong to each class; raises RecordError where a label is no class."""
        counts = self._counts_from_identities(reader)
        if counts is not None:
            return ClassIndex.grouped(counts)
        return ClassIndex.from_labels(self._labels(reader), self.num_classes(reader))

    def _labels(self, reader: RecordReader) -> np.ndarray:
        """Every image's label, int64 (images,), each from its own header."""
        num_classes = self.num_classes(reader)
        labels = reader.labels(self.image_keys)
        broken = np.flatnonzero(~((labels >= 0) & (labels < num_classes) & (labels == np.floor(labels))))
        if len(broken):
            reader.label(int(self.image_keys[broken[0]]))  # raises with the full story
        return labels.astype(np.int64)

    def _counts_from_identities(self, reader: RecordReader) -> np.ndarray | None:
        """Counts from the identity records, one header each; None where they are missing or do not fit the images."""
        if not self.identity_keys or self.identity_keys.stop >= _EXACT:
            return None
        try:
            headers = [reader.sample(key)[0] for key in self.identity_keys]
        except KeyError:
            return None
        if any(header.flag != 2 for header in headers):
            return None
        edges = np.array([header.label for header in headers], dtype=np.float64)
        if not bool((np.abs(edges) <= _EXACT).all()):  # false for NaN
            return None
        spans = edges.astype(np.int64)
        starts, ends = spans[:, 0], spans[:, 1]
        covers = starts[0] == 1 and ends[-1] == self.identity_keys.start and bool((starts[1:] == ends[:-1]).all())
        counts = ends - starts
        if not covers or bool((counts < 0).any()) or len(counts) != self.num_classes(reader):
            return None
        inhabited = np.flatnonzero(counts)
        for edge in (starts, ends - 1):  # the first and last image of each span must bear the identity's label
            if not np.array_equal(reader.labels(edge[inhabited]), inhabited.astype(np.float32)):
                return None
        return counts


def find_layout(reader: RecordReader) -> SetLayout:
    """Tells the layouts apart: insightface sets begin with a record 0 of two labels and no payload.

    Raises:
        RecordError: a set header or property file that contradicts the index or each other.
    """
    property_path = reader.path.parent / "property"
    stated = read_property(property_path) if property_path.is_file() else None
    size = None if stated is None else stated[1:]
    header = _set_header(reader)
    if header is None:
        keys = np.sort(reader.keys)
        if stated is not None:
            return SetLayout(IM2REC, keys, size, f"as {property_path} says", range(0), stated[0])
        return SetLayout(IM2REC, keys, None, "from the largest label", range(0), None)

    first, end = header
    if max(first - 1, end - first) > len(reader.keys):  # refuse it before arrays of that size are made
        raise RecordError(
            reader.path,
            0,
            reader.offset(0),
            f"the set header announces {first - 1} images and {end - first} "
            f"identities, the index has {len(reader.keys)} records: the header is damaged or the .idx incomplete",
        )
    if end > _EXACT:
        first = exact_boundary(lambda key: _is_identity(reader, key), first)
        last_key = int(reader.keys.max()) + 1
        end = last_key if abs(last_key - end) <= 4 else end
    image_keys = np.arange(1, first, dtype=np.int64)
    try:
        reader.rows(image_keys)
    except KeyError as error:
        raise RecordError(
            reader.path,
            0,
            reader.offset(0),
            f"the set header announces images with keys 1 .. {first - 1}, but "
            f"{error.args[0]}: the .idx is incomplete; delete it to have it rebuilt from the .rec",
        ) from None
    if stated is not None and stated[0] != end - first:
        if end <= _EXACT:
            raise RecordError(
                property_path,
                None,
                None,
                f"it says {stated[0]} classes, the set header in {reader.path.name} has "
                f"{end - first} identities: correct the property file (num_classes,height,width)",
            )
        end = first + stated[0]
    return SetLayout(INSIGHTFACE, image_keys, size, "as the set header says", range(first, end), end - first)


def _set_header(reader: RecordReader) -> tuple[int, int] | None:
    """(first identity key, end) of an insightface set; None where record 0 is something else."""
    try:
        body = reader.view(0)
    except KeyError:
        return None
    try:
        header, payload_start = unpack_header(body)
    except ValueError:
        return None  # plain payloads without image headers
    if header.flag != 2 or payload_start != len(body) or not isinstance(header.label, np.ndarray):
        return None
    first, end = float(header.label[0]), float(header.label[1])
    if not (1 <= first <= end < 2**53 and first == int(first) and end == int(end)):
        raise RecordError(
            reader.path,
            0,
            reader.offset(0),
            f"the set header holds ({first:g}, {end:g}); expected (first identity "
            "key, last identity key + 1) as whole numbers",
        )
    return int(first), int(end)


def _is_identity(reader: RecordReader, key: int) -> bool:
    try:
        header, payload = reader.sample(key)
    except KeyError:
        return False
    return header.flag == 2 and len(payload) == 0


def exact_boundary(is_identity: Callable[[int], bool], rounded: int, reach: int = 4) -> int:
    """The first identity key within `reach` of what float32 left of it; sets beyond 16.7 million images need this."""
    for key in range(rounded - reach, rounded + reach + 1):
        if is_identity(key):
            return key
    return rounded


def read_property(path: Path) -> tuple[int, int, int]:
    """(num_classes, height, width) of a property file; RecordError where it holds anything else."""
    with path.open("rb") as file:
        text = file.read(_MAX_PROPERTY + 1).decode("utf-8", "replace").strip()
    fields = [field.strip() for field in text.split(",")]
    sound = len(fields) == 3 and all(field.isascii() and field.isdigit() and len(field) <= 9 for field in fields)
    num_classes, height, width = (int(field) for field in fields) if sound else (0, 0, 0)
    # Labels are float32, whole up to 2 ** 24; a side beyond 2 ** 14 is no face but a batch that fills the memory.
    if not (0 < num_classes <= _EXACT and 0 < height <= _MAX_SIDE and 0 < width <= _MAX_SIDE):
        raise RecordError(
            path,
            None,
            None,
            f"it holds {text[:60]!r}, expected num_classes,height,width, like 85742,112,112; at most {_EXACT} classes "
            f"and {_MAX_SIDE} pixels a side",
        )
    return num_classes, height, width
