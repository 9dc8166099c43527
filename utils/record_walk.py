"""A .rec file from its first byte to its last, damage included: no index is needed, none is believed."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from utils.record_framing import MAGIC_BYTES, RecordError, join_parts, walk_parts

_RELEASED = 64 << 20  # bytes after which pages of the map are given back


@dataclass(frozen=True)
class Stretch:
    """A record, or bytes that are none.

    Attributes:
        offset: its first byte.
        end: the byte behind it.
        body: the record's bytes, valid until the next stretch is asked for; None where the bytes are no sound record.
        reason: what is wrong, where body is None.
    """

    offset: int
    end: int
    body: memoryview | None
    reason: str = ""


def walk_file(path: Path) -> Iterator[Stretch]:
    """Yields every record in file order, and what lies between them.

    Behind damage the walk goes on at the next place where a sound record begins. A magic inside a record (writers cut
    records there, so there is none) shows that its length is damaged: the record is given up, those inside are found.
    Memory stays constant: pages that were passed are given back.
    """
    size = path.stat().st_size
    if size == 0:
        return
    with path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    data = memoryview(mapped)
    offset = released = 0
    while offset < size:
        try:
            end = _sound_end(mapped, data, offset, str(path))
        except RecordError as error:
            end = _next_sound(mapped, data, offset + 4, str(path))
            yield Stretch(offset, end, None, error.reason)
        else:
            yield Stretch(offset, end, join_parts(data, offset, str(path), None)[0])
        offset = end
        if offset - released > _RELEASED and hasattr(mmap, "MADV_DONTNEED"):
            page = offset // mmap.PAGESIZE * mmap.PAGESIZE
            mapped.madvise(mmap.MADV_DONTNEED, released, page - released)
            released = page


def _sound_end(mapped: mmap.mmap, data: memoryview, offset: int, path: str) -> int:
    """The byte behind the record at `offset`; RecordError where there is none or it cannot be what was written."""
    end = offset
    for _, start, length in walk_parts(data, offset, path, None):
        end = start + (length + 3 & ~3)
        inside = _next_magic(mapped, start, start + length)
        if inside < start + length:
            reason = f"its length of {length} bytes is wrong: another record part begins inside, at byte {inside}"
            raise RecordError(path, None, offset, reason)
    return end


def _next_magic(mapped: mmap.mmap, begin: int, end: int) -> int:
    """The first place in begin .. end - 1 that is a multiple of 4 and holds the magic; `end` where there is none."""
    found = mapped.find(MAGIC_BYTES, begin, end)
    while found >= 0 and found % 4:
        found = mapped.find(MAGIC_BYTES, found + 1, end)
    return end if found < 0 else found


def _next_sound(mapped: mmap.mmap, data: memoryview, begin: int, path: str) -> int:
    """Where the next sound record begins, or the file's end."""
    size = len(data)
    place = _next_magic(mapped, begin, size)
    while place < size:
        try:
            _sound_end(mapped, data, place, path)
        except RecordError:
            place = _next_magic(mapped, place + 4, size)
        else:
            return place
    return size
