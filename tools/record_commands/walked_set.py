"""Everything `verify` reads from a .rec file in one walk: where records are, what their headers say, which decode."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from tqdm import tqdm

from tools.record_commands.in_order import in_order
from utils.errors import DataError
from utils.images import decode_image
from utils.record_framing import RecordHeader, unpack_header
from utils.record_index import header_id
from utils.record_walk import walk_file

LISTED = 1000  # findings that are listed one by one; the others are counted
_SET_RECORD = 2  # labels of a set header or an identity record


@dataclass
class Findings:
    """What is wrong, by kind.

    Attributes:
        counts: findings of each kind.
        listed: the first ones: kind, key and byte where there are such, what.
        keys: of the records that are not fit for training.
        unreadable: those of them that are no records at all.
    """

    counts: dict[str, int] = field(default_factory=dict)
    listed: list[dict[str, object]] = field(default_factory=list)
    keys: set[int] = field(default_factory=set)
    unreadable: set[int] = field(default_factory=set)

    def add(self, kind: str, key: int | None, offset: int | None, what: str, *, unfit: bool = True) -> None:
        """Counts a finding, and keeps its text unless there are many."""
        self.counts[kind] = self.counts.get(kind, 0) + 1
        if len(self.listed) < LISTED:
            self.listed.append({"kind": kind, "key": key, "byte": offset, "what": what})
        if unfit and key is not None:
            self.keys.add(key)


@dataclass
class WalkedSet:
    """The records of a file, in file order; arrays of R.

    Attributes:
        offsets: first bytes, int64.
        ids: from the headers, int64; -1 where there is none.
        flags: number of labels in the header's vector, int64; -1 where the record has no header.
        first_labels: float32; of a set header or identity record the first of its two numbers.
        second_labels: float32; the second number of those, 0 elsewhere.
        is_empty: bool, no payload.
        heights: int32; 0 where nothing was decoded.
        widths: int32.
        failures: row -> why it does not decode.
        damaged: (first byte, byte behind, why) of stretches that are no records.
        size: of the file in bytes.
    """

    offsets: np.ndarray
    ids: np.ndarray
    flags: np.ndarray
    first_labels: np.ndarray
    second_labels: np.ndarray
    is_empty: np.ndarray
    heights: np.ndarray
    widths: np.ndarray
    failures: dict[int, str]
    damaged: list[tuple[int, int, str]]
    size: int

    def __len__(self) -> int:
        return len(self.offsets)


class _Columns:
    """Grows while the file is walked; about 40 bytes a record."""

    def __init__(self) -> None:
        self.offsets, self.ids, self.flags = array("q"), array("q"), array("q")
        self.first, self.second, self.empty = array("f"), array("f"), array("b")

    def add(self, offset: int, body: memoryview) -> memoryview:
        """Notes a record; returns its payload."""
        try:
            header, start = unpack_header(body)
        except ValueError:
            header, start = RecordHeader(0, 0.0, 0), 0
            self.flags.append(-1)
        else:
            self.flags.append(header.flag)
        vector = header.label if isinstance(header.label, np.ndarray) else np.array([header.label])
        own = header_id(body)
        self.offsets.append(offset)
        self.ids.append(-1 if own is None else own)
        self.first.append(float(vector[0]))
        self.second.append(float(vector[1]) if len(vector) > 1 else 0.0)
        self.empty.append(start == len(body))
        return body[start:]


def walk_set(path: Path, *, decode: bool, threads: int) -> WalkedSet:
    """Reads every record of a .rec file, decodes every image, and goes on behind damage."""
    columns, damaged = _Columns(), list[tuple[int, int, str]]()
    size = path.stat().st_size

    def payloads() -> Iterator[tuple[int, bytes]]:
        """Row and image of every record that is to be decoded; notes all records, and damage, on the way."""
        with tqdm(total=size, unit="B", unit_scale=True, desc="verify", disable=None) as progress:
            for stretch in walk_file(path):
                progress.update(stretch.end - stretch.offset)
                if stretch.body is None:
                    damaged.append((stretch.offset, stretch.end, stretch.reason))
                    continue
                row = len(columns.offsets)
                payload = columns.add(stretch.offset, stretch.body)
                is_set_record = columns.flags[row] == _SET_RECORD and columns.empty[row]
                if decode and not is_set_record:
                    yield row, bytes(payload)

    shapes, failures = array("i"), dict[int, str]()
    for row, height, width, reason in in_order(_decode, payloads(), threads):
        shapes.extend((row, height, width))
        if reason:
            failures[row] = reason
    count = len(columns.offsets)
    heights, widths = np.zeros(count, dtype=np.int32), np.zeros(count, dtype=np.int32)
    table = np.array(shapes, dtype=np.int32).reshape(-1, 3)
    heights[table[:, 0]], widths[table[:, 0]] = table[:, 1], table[:, 2]
    return WalkedSet(
        np.array(columns.offsets, dtype=np.int64), np.array(columns.ids, dtype=np.int64),
        np.array(columns.flags, dtype=np.int64), np.array(columns.first, dtype=np.float32),
        np.array(columns.second, dtype=np.float32), np.array(columns.empty, dtype=bool),
        heights, widths, failures, damaged, size,
    )  # fmt: skip


def _decode(item: tuple[int, bytes]) -> tuple[int, int, int, str]:
    row, payload = item
    try:
        image = decode_image(payload)
    except DataError as error:
        return row, 0, 0, str(error)
    return row, image.shape[0], image.shape[1], ""
