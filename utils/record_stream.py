"""Many records at disk speed in constant memory: reads in blocks, not through the map. Nothing is written here."""

from __future__ import annotations

import os
from collections.abc import Iterator

import numpy as np

from utils.record_framing import RecordError, RecordHeader, join_parts, unpack_header
from utils.recordio import RecordReader

_BLOCK = 8 << 20  # bytes read at once where wanted records lie side by side
_PLANNED = 1 << 15  # records whose places are looked up at once
_LABELS = 1 << 14  # records whose labels are read before the map is let go


def record_ends(reader: RecordReader) -> np.ndarray:
    """Where the next record of the index begins (for the last one: the file's end), int64 in the order of reader.keys.

    A record ends there unless bytes that belong to none lie between.
    """
    offsets = reader.offsets(reader.keys)
    borders = np.append(np.unique(offsets), reader.path.stat().st_size)
    return borders[np.searchsorted(borders, offsets, side="right")]


class RecordStream:
    """Reads the records of a set in any order. Neighbours in the file are read together.

    Memory is a block and 8 bytes a record; the system's page cache does the rest, so that a set larger than memory
    passes through. A context manager: it keeps the file open.
    """

    def __init__(self, reader: RecordReader) -> None:
        self.reader = reader
        self._ends = record_ends(reader)
        self._file = os.open(reader.path, os.O_RDONLY)

    def __enter__(self) -> RecordStream:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._file)

    def bodies(self, keys: np.ndarray) -> Iterator[tuple[int, memoryview]]:
        """Yields (key, record body) of each of `keys`, in their order; a body is valid until the next is asked for.

        Raises:
            KeyError: an unknown key.
            RecordError: damage, with the byte in the file.
        """
        for first in range(0, len(keys), _PLANNED):
            wanted = keys[first : first + _PLANNED]
            rows = self.reader.rows(wanted)
            starts, ends = self.reader.offsets(wanted), self._ends[rows]
            breaks = np.flatnonzero(starts[1:] != ends[:-1]) + 1
            for begin, stop in zip([0, *breaks.tolist()], [*breaks.tolist(), len(wanted)], strict=True):
                yield from self._run(wanted[begin:stop].tolist(), starts[begin:stop], ends[begin:stop])

    def _run(self, keys: list[int], starts: np.ndarray, ends: np.ndarray) -> Iterator[tuple[int, memoryview]]:
        """Records that lie side by side, read a block at a time."""
        done = 0
        while done < len(keys):
            base = int(starts[done])
            stop = max(done + 1, int(np.searchsorted(ends, base + _BLOCK, side="right")))
            block = memoryview(self._read(base, int(ends[stop - 1]) - base))
            for key, start in zip(keys[done:stop], (starts[done:stop] - base).tolist(), strict=True):
                try:
                    yield key, join_parts(block, start, str(self.reader.path), key)[0]
                except RecordError:
                    yield key, self.reader.view(key)  # raises with places in the file, not in the block
            done = stop

    def _read(self, offset: int, count: int) -> bytes:
        block = os.pread(self._file, count, offset)
        while len(block) < count:
            more = os.pread(self._file, count - len(block), offset + len(block))
            if not more:
                raise RecordError(
                    self.reader.path, None, offset + len(block), "the file became shorter while it was read"
                )
            block += more
        return block

    def samples(self, keys: np.ndarray) -> Iterator[tuple[int, RecordHeader, memoryview]]:
        """Yields (key, header, payload) as `bodies` yields bodies.

        Raises:
            KeyError: an unknown key.
            RecordError: damage, or a record too short for its header.
        """
        for key, body in self.bodies(keys):
            try:
                header, payload_start = unpack_header(body)
            except ValueError as error:
                raise RecordError(self.reader.path, key, self.reader.offset(key), str(error)) from None
            yield key, header, body[payload_start:]


def image_labels(reader: RecordReader) -> np.ndarray:
    """The label of each of reader.image_keys, int32 (images,), from the identity records or from every header.

    Raises:
        RecordError: damage, or a label that is no class, with its record.
    """
    if reader.layout == "insightface":
        index = reader.class_index()
        if index.images is None:
            return np.repeat(np.arange(len(index.counts), dtype=np.int32), index.counts)
    labels = np.empty(len(reader.image_keys), dtype=np.int32)
    for start in range(0, len(labels), _LABELS):
        keys = reader.image_keys[start : start + _LABELS]
        found = reader.labels(keys)
        wrong = np.flatnonzero(~((found >= 0) & (found < reader.num_classes) & (found == np.floor(found))))
        if len(wrong):
            reader.label(int(keys[wrong[0]]))  # raises with the full story
        labels[start : start + len(keys)] = found
        reader.close()  # pages of the map count as this process's memory until it goes
    return labels
