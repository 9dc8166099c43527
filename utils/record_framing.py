"""RecordIO on the byte level: parts, magic, headers and the error that names the byte. No files are opened here."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np

from utils.errors import DataError

MAGIC = 0xCED7230A
MAGIC_BYTES = struct.pack("<I", MAGIC)
PART_PREFIX = struct.Struct("<II")  # magic, cflag << 29 | length
HEADER = struct.Struct("<IfQQ")  # flag, label, id, id2
LENGTH_BITS = 29
MAX_LENGTH = (1 << LENGTH_BITS) - 1
WHOLE, FIRST, MIDDLE, LAST = range(4)

Buffer: TypeAlias = "bytes | memoryview"


class RecordError(DataError):
    """A damaged or contradictory record file.

    Attributes:
        path: the .rec, .idx or property file at fault.
        key: the record's key, None where the fault is not one record's.
        offset: byte in that file, None where there is no one byte.
        reason: what is wrong, and what to do where we know it.
    """

    def __init__(self, path: str | Path, key: int | None, offset: int | None, reason: str) -> None:
        super().__init__(str(path), key, offset, reason)
        self.path, self.key, self.offset, self.reason = str(path), key, offset, reason

    def message(self) -> str:
        """Path, record and byte (as far as known), then the reason."""
        record = "" if self.key is None else f", record {self.key}"
        byte = "" if self.offset is None else f", byte {self.offset}"
        return f"{self.path}{record}{byte}: {self.reason}"


@dataclass(frozen=True)
class RecordHeader:
    """The 24 bytes in front of an image, and the label vector behind them.

    Attributes:
        flag: number of float32 labels that follow; 0 where `label` is the scalar in the header itself.
        label: the scalar, or float32 (flag,).
        id: usually the record's key.
        id2: unused by every writer known to us; kept.
    """

    flag: int
    label: float | np.ndarray
    id: int
    id2: int = 0

    @property
    def first_label(self) -> float:
        """The label that counts for training: the scalar, or the first of the vector."""
        return float(self.label[0]) if isinstance(self.label, np.ndarray) else self.label


def pack_record(header: RecordHeader, payload: bytes) -> bytes:
    """Header and payload as one record body, byte for byte as MXNet's recordio.pack.

    A vector label sets the flag to its length and the scalar field to 0; the header's own flag counts only for scalars.

    Raises:
        ValueError: where a field does not fit its place in the header.
    """
    labels, flag, scalar = b"", header.flag, 0.0
    if isinstance(header.label, np.ndarray):
        vector = np.asarray(header.label, dtype="<f4").reshape(-1)
        labels, flag = vector.tobytes(), vector.size
    else:
        scalar = float(header.label)
        if flag != 0:
            raise ValueError(f"record header: flag {flag} announces a label vector, the label is the scalar {scalar}")
    try:
        return HEADER.pack(flag, scalar, header.id, header.id2) + labels + payload
    except (struct.error, OverflowError) as error:
        raise ValueError(f"record header {header}: {error}; flag is uint32, id and id2 are uint64") from None


def unpack_header(body: Buffer) -> tuple[RecordHeader, int]:
    """Reads the header of a record body; returns it and where the payload begins.

    Raises:
        ValueError: where the body is too short for the header or for the labels it announces.
    """
    if len(body) < HEADER.size:
        raise ValueError(f"the record has {len(body)} bytes, an image record's header alone has {HEADER.size}")
    flag, scalar, record_id, id2 = HEADER.unpack_from(body)
    if flag == 0:
        return RecordHeader(0, scalar, record_id, id2), HEADER.size
    payload_start = HEADER.size + 4 * flag
    if payload_start > len(body):
        raise ValueError(f"the header announces {flag} labels, the record's {len(body)} bytes have no room for them")
    vector = np.frombuffer(body, dtype="<f4", count=flag, offset=HEADER.size)
    return RecordHeader(flag, vector, record_id, id2), payload_start


def padded(length: int) -> int:
    """A part's length in the file: payload bytes rounded up to 4."""
    return (length + 3) & ~3


def part_lengths(body: bytes) -> list[tuple[int, int]]:
    """Where `body` is cut, as (start, length) of each part.

    Every magic at a multiple of 4 inside the body would look like a record's start to a scanning reader, so it is left
    out: the part before it ends there and the next begins behind it.
    """
    parts, start = [], 0
    found = body.find(MAGIC_BYTES)
    while found >= 0:
        if found % 4:
            found = body.find(MAGIC_BYTES, found + 1)
            continue
        parts.append((start, found - start))
        start = found + 4
        found = body.find(MAGIC_BYTES, start)
    parts.append((start, len(body) - start))
    return parts


def frame(body: bytes) -> Iterator[bytes]:
    """The chunks to write for one record, in order: prefix, bytes and padding of each part."""
    parts = part_lengths(body)
    for number, (start, length) in enumerate(parts):
        cflag = FIRST if number == 0 else LAST if number == len(parts) - 1 else MIDDLE
        cflag = cflag if len(parts) > 1 else WHOLE
        yield PART_PREFIX.pack(MAGIC, cflag << LENGTH_BITS | length)
        yield body[start : start + length] if len(parts) > 1 else body
        yield b"\0" * (padded(length) - length)


def walk_parts(data: Buffer, offset: int, path: str, key: int | None) -> Iterator[tuple[int, int, int]]:
    """Yields (cflag, first payload byte, length) of each part of the record at `offset`.

    Raises:
        RecordError: truncated, not at a record, a length beyond the file, or parts in an impossible order. Every part
            moves on by at least 8 bytes, so a damaged file ends in an error, never in a loop.
    """
    size, first = len(data), True
    while True:
        if offset + PART_PREFIX.size > size:
            raise RecordError(
                path, key, offset, f"the file ends ({size} bytes) where a record part should begin: it is truncated"
            )
        magic, word = PART_PREFIX.unpack_from(data, offset)
        cflag, length = word >> LENGTH_BITS, word & MAX_LENGTH
        if magic != MAGIC:
            raise RecordError(
                path,
                key,
                offset,
                f"no record begins here: found 0x{magic:08x}, a record begins with 0x{MAGIC:08x}; "
                "the .idx belongs to another .rec, or the file is damaged",
            )
        if cflag not in ((WHOLE, FIRST) if first else (MIDDLE, LAST)):
            allowed = "0 (whole) or 1 (first)" if first else "2 (middle) or 3 (last)"
            raise RecordError(path, key, offset, f"continuation flag {cflag} where {allowed} must stand")
        start = offset + PART_PREFIX.size
        if start + padded(length) > size:
            raise RecordError(
                path,
                key,
                offset,
                f"the part claims {length} bytes, the file has {size - start} left: "
                "it is truncated, or the length is damaged",
            )
        yield cflag, start, length
        if cflag in (WHOLE, LAST):
            return
        first, offset = False, start + padded(length)


def join_parts(data: memoryview, offset: int, path: str, key: int | None) -> tuple[memoryview, int]:
    """The record at `offset`, and the byte behind it; a view of the file where the record is one part.

    Raises:
        RecordError: as walk_parts.
    """
    if offset + PART_PREFIX.size <= len(data):  # the usual record is one sound part: no generator for it
        magic, length = PART_PREFIX.unpack_from(data, offset)
        start = offset + PART_PREFIX.size
        if magic == MAGIC and length <= MAX_LENGTH and start + padded(length) <= len(data):
            return data[start : start + length], start + padded(length)
    pieces: list[Buffer] = []
    start = length = 0
    for _, start, length in walk_parts(data, offset, path, key):
        if pieces:
            pieces.append(MAGIC_BYTES)
        pieces.append(data[start : start + length])
    return memoryview(b"".join(pieces)), start + padded(length)
