"""RecordIO as MXNet writes it: random access to .rec/.idx, and the names others import. Decodes no images."""

from __future__ import annotations

import mmap
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from utils.class_index import ClassIndex
from utils.record_framing import (
    FIRST,
    HEADER,
    LENGTH_BITS,
    MAGIC,
    MAX_LENGTH,
    PART_PREFIX,
    RecordError,
    RecordHeader,
    join_parts,
    pack_record,
    unpack_header,
)
from utils.record_index import read_index, require_offsets_inside, scan_records
from utils.record_layout import SetLayout, find_layout
from utils.record_writer import RecordWriter

__all__ = ["RecordError", "RecordHeader", "RecordReader", "RecordWriter", "pack_record"]


class RecordReader:
    """Random access to a record set through a memory map.

    The map is shared by forked workers and holds no file position, so any number of processes may read at once. A
    pickled reader carries the offsets and opens the file again where it is unpickled.

    Attributes:
        path: the .rec file.
        keys: int64 (R,), every record's key, in the order of the index.
        layout: "insightface" (record 0 is a set header) or "im2rec" (every record is an image).
        image_keys: int64 (images,), keys of the records that hold images.
    """

    def __init__(self, rec: str | Path, idx: str | Path | None = None) -> None:
        """Opens `rec`; offsets come from `idx`, else from the .idx beside it, else from one walk over the .rec.

        Raises:
            FileNotFoundError: no such file.
            RecordError: a malformed index, an offset outside the file, a damaged set header, or contradicting counts.
        """
        self.path = Path(rec)
        self._data = memoryview(b"")
        self._size = -1
        self._open()
        index_path = Path(idx) if idx is not None else self.path.with_suffix(".idx")
        if idx is not None or index_path.exists():
            self.index_path: Path | None = index_path
            self.keys, self._offsets = read_index(index_path)
            require_offsets_inside(self._offsets, self.keys, self._size, index_path, self.path)
        else:
            self.index_path = None
            self.keys, self._offsets = scan_records(self._data, str(self.path))
        self._prepare_lookup()
        self._layout: SetLayout = find_layout(self)

    def _open(self) -> None:
        with self.path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if self._size not in (-1, size):
                reason = f"it had {self._size} bytes when it was first opened, now {size}; start again with it"
                raise RecordError(self.path, None, None, reason)
            self._size = size
            # An empty file cannot be mapped; it reads as a set without records.
            self._data = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if size else b"")

    def _prepare_lookup(self) -> None:
        count = len(self.keys)
        self._first_key = int(self.keys[0]) if count else 0
        # Consecutive keys, the usual case, need no table: the position is a subtraction.
        self._consecutive = bool((np.diff(self.keys) == 1).all())
        self._sorted_rows = None if self._consecutive else np.argsort(self.keys)
        self._sorted_keys = None if self._sorted_rows is None else self.keys[self._sorted_rows]

    def rows(self, keys: np.ndarray | Sequence[int]) -> np.ndarray:
        """Positions of `keys` in the index, int64 of the same length.

        Raises:
            KeyError: where one of them is not in the index.
        """
        wanted = np.asarray(keys, dtype=np.int64)
        if self._sorted_rows is None or self._sorted_keys is None:
            found = wanted - self._first_key
            unknown = (found < 0) | (found >= len(self.keys))
        else:
            places = np.minimum(np.searchsorted(self._sorted_keys, wanted), len(self.keys) - 1)
            found = self._sorted_rows[places]
            unknown = self._sorted_keys[places] != wanted
        if unknown.any():
            raise KeyError(f"{self.path}: no record has key {wanted[unknown][0]}; the set has {len(self.keys)} records")
        return found

    def offset(self, key: int) -> int:
        """The byte at which the record begins; KeyError for an unknown key."""
        if self._consecutive and 0 <= key - self._first_key < len(self.keys):
            return int(self._offsets[key - self._first_key])
        return int(self._offsets[self.rows([key])[0]])

    def offsets(self, keys: np.ndarray) -> np.ndarray:
        """Where many records begin, int64 of the same length; KeyError for an unknown key."""
        return self._offsets[self.rows(keys)]

    @property
    def layout(self) -> str:
        """ "insightface" or "im2rec"."""
        return self._layout.name

    @property
    def image_keys(self) -> np.ndarray:
        """int64 keys of the image records, in the order in which sources number them."""
        return self._layout.image_keys

    @property
    def num_classes(self) -> int:
        """From the property file, the set header, or (im2rec without property) the largest label."""
        return self._layout.num_classes(self)

    @property
    def image_size(self) -> tuple[int, int] | None:
        """(height, width) as the property file says, None where there is none."""
        return self._layout.image_size

    def __len__(self) -> int:
        """The number of records, header and identity records included."""
        return len(self.keys)

    def view(self, key: int) -> memoryview:
        """The record's bytes, in place where it is one part."""
        if self._data.nbytes != self._size:
            self._reopen()
        return join_parts(self._data, self.offset(key), str(self.path), key)[0]

    def end(self, key: int) -> int:
        """The byte behind the record and its padding; RecordError where the record is damaged."""
        self._reopen()
        return join_parts(self._data, self.offset(key), str(self.path), key)[1]

    def read(self, key: int) -> bytes:
        """The record's bytes: header, labels and payload.

        Raises:
            KeyError: an unknown key.
            RecordError: damage, with the byte.
        """
        return bytes(self.view(key))

    def sample(self, key: int) -> tuple[RecordHeader, memoryview]:
        """Header and payload; the payload is a view of the mapped file unless the record has several parts.

        Raises:
            KeyError: an unknown key.
            RecordError: damage, or a record too short for its header.
        """
        body = self.view(key)
        try:
            header, payload_start = unpack_header(body)
        except ValueError as error:
            raise RecordError(self.path, key, self.offset(key), str(error)) from None
        return header, body[payload_start:]

    def label(self, key: int) -> int:
        """The label of an image record, checked against num_classes.

        Raises:
            RecordError: damage, or a label that is no class.
        """
        return self.checked_label(key, self.sample(key)[0])

    def checked_label(self, key: int, header: RecordHeader) -> int:
        """The label in `header` as an int in [0, num_classes), or RecordError."""
        value = header.first_label
        # The comparison is false for NaN, which int() could not take.
        if not (0 <= value < self.num_classes and value == int(value)):
            reason = (
                f"label {value:g} is not a whole number in 0 .. {self.num_classes - 1} (num_classes "
                f"{self.num_classes} {self._layout.num_classes_from}): correct the property file or the record"
            )
            raise RecordError(self.path, key, self.offset(key), reason)
        return int(value)

    def labels(self, keys: np.ndarray) -> np.ndarray:
        """First labels of many records at once, float32 (K,), unchecked; reads 32 bytes a record, no payload.

        Raises:
            RecordError: where a record does not begin at its offset.
        """
        self._reopen()
        offsets = self._offsets[self.rows(keys)]
        words = np.frombuffer(self._data, dtype="<u4", count=self._size // 4)
        starts = offsets // 4
        wide = starts + (PART_PREFIX.size + HEADER.size) // 4 + 1 <= len(words)  # room for header and one label
        labels = np.empty(len(starts), dtype=np.float32)
        prefix = words[np.minimum(starts + 1, len(words) - 1)]
        flags = words[np.minimum(starts + 2, len(words) - 1)]
        simple = (
            wide
            & (words[starts] == MAGIC)
            & (prefix >> LENGTH_BITS <= FIRST)
            & ((prefix & MAX_LENGTH) >= HEADER.size + 4 * (flags > 0))
        )
        places = starts + np.where(flags > 0, (PART_PREFIX.size + HEADER.size) // 4, 3)
        labels[simple] = words[places[simple]].view("<f4")
        for position in np.flatnonzero(~simple):  # cut by a magic, at the file's end, or damaged: the slow way tells
            labels[position] = self.sample(int(keys[position]))[0].first_label
        return labels

    def class_counts(self) -> np.ndarray:
        """Images per class, int64 (num_classes,); from the identity records where the set has sound ones."""
        return self._layout.class_counts(self)

    def class_index(self) -> ClassIndex:
        """Which images belong to each class; from the identity records, or else from the header of every image."""
        return self._layout.class_index(self)

    def _reopen(self) -> None:
        if self._size > 0 and self._data.nbytes == 0:
            self._open()

    def close(self) -> None:
        """Lets go of the file; views handed out before stay valid, and a later read opens it again."""
        self._data = memoryview(b"")

    def __enter__(self) -> RecordReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_data": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._data = memoryview(b"")
