"""The records of a set in a random order, at disk speed and in constant memory. Which records are images is told."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from utils.permutation import derive_keys, permutation_rounds, permute
from utils.record_framing import (
    LENGTH_BITS,
    MAGIC,
    MAX_LENGTH,
    PART_PREFIX,
    RecordError,
    RecordHeader,
    frame,
    join_parts,
    pack_record,
    unpack_header,
    walk_parts,
)

_BLOCK = 4 << 20  # bytes read or written at once; larger ones are given back and cleared by the system each time


@dataclass(frozen=True)
class RecordPlan:
    """Which records are to be written, where they are now, and in which place they will be.

    Attributes:
        path: the .rec file.
        offsets: where each record begins, int64 (R,), rising; the first is 0, each ends where the next begins.
        sizes: bytes of each in the file, int64 (R,).
        places: the place of each in the new file, int64 (R,), a permutation of 0 .. written - 1; -1 for those left out.
        keys: the key each will have, int64 (R,).
        scalar_labels: write the first label alone where a record has a vector of them.
    """

    path: Path
    offsets: np.ndarray
    sizes: np.ndarray
    places: np.ndarray
    keys: np.ndarray
    scalar_labels: bool


def random_places(count: int, seed: int) -> np.ndarray:
    """A permutation of 0 .. count - 1, int64: the same for the same seed, on any machine."""
    keys = derive_keys(permutation_rounds(), seed, count)
    places = np.empty(count, dtype=np.int64)
    for start in range(0, count, 1 << 16):  # so that no helper array is as long as the set
        stop = min(start + (1 << 16), count)
        places[start:stop] = permute(np.arange(start, stop), count, keys)
    return places


def write_shuffled(
    plan: RecordPlan, target: int, memory: int, progress: Callable[[int], object] = lambda _: None
) -> tuple[np.ndarray, int]:
    """Writes the records of a plan into an open file.

    A set that fits into `memory` is read from one end to the other and written once. A larger one takes two passes,
    both of long reads and writes: the first deals the records out to regions of the target, each as large as the
    records that belong there and no larger than `memory`; the second reads each region, brings it into order and
    writes it back. So a disk that is slow at seeking is as fast as at copying twice, and nothing but the target is
    needed.

    Args:
        plan: see RecordPlan.
        target: file descriptor, open for reading and writing, empty.
        memory: bytes to keep records in.
        progress: told of the bytes that each step has read.

    Returns:
        Where the record in each place begins, int64 (written,), and the bytes written.

    Raises:
        RecordError: a record that is damaged or does not end where the next begins.
    """
    kept = plan.places >= 0
    written = int(kept.sum())
    regions = max(1, -(-int(plan.sizes[kept].sum()) // memory))
    region = np.where(kept, plan.places * regions // max(1, written), regions).astype(np.int32)
    lengths = np.bincount(region, weights=plan.sizes, minlength=regions + 1).astype(np.int64)
    begins = np.cumsum(lengths) - lengths
    by_region = np.argsort(region, kind="stable").astype(np.uint32)  # rows of region 0 in file order, then of region 1
    rows_begin = np.searchsorted(region[by_region], np.arange(regions + 1))
    if regions == 1:
        whole = bytearray(int(lengths[0]))
        _deal(plan, region, begins, lambda data, offset: _put(whole, data, offset), progress)
    else:
        _deal(plan, region, begins, lambda data, offset: _write_at(target, data, offset), progress)
    found, end = np.empty(written, dtype=np.int64), 0
    for number in range(regions):
        rows = by_region[rows_begin[number] : rows_begin[number + 1]]
        data = whole if regions == 1 else _read_at(target, int(begins[number]), int(lengths[number]))
        end = _write_ordered(plan, rows, data, target, end, int(begins[number] + lengths[number]), found)
        if regions > 1:
            progress(len(data))
    os.ftruncate(target, end)
    return found, end


def _deal(
    plan: RecordPlan,
    region: np.ndarray,
    begins: np.ndarray,
    put: Callable[[bytes, int], None],
    progress: Callable[[int], object],
) -> None:
    """Copies each record behind those that its region holds already."""
    ends = plan.offsets + plan.sizes
    cursors = begins.copy()
    nowhere = len(begins) - 1
    with plan.path.open("rb", buffering=0) as source:
        row = 0
        while row < len(ends):
            base = int(plan.offsets[row])
            stop = max(row + 1, int(np.searchsorted(ends, base + _BLOCK, side="right")))
            data = _read_at(source.fileno(), base, int(ends[stop - 1]) - base)
            starts = plan.offsets[row:stop] - base
            _require_sound(plan, data, row, starts)
            pieces = memoryview(data)
            order = np.argsort(region[row:stop], kind="stable")
            chosen = region[row:stop][order]
            edges = np.flatnonzero(np.diff(chosen)) + 1
            for group in np.split(order, edges):
                place = int(region[row + group[0]])
                if place == nowhere:
                    continue
                spans = zip(starts[group].tolist(), (starts[group] + plan.sizes[row + group]).tolist(), strict=True)
                joined = b"".join([pieces[begin:end] for begin, end in spans])
                put(joined, int(cursors[place]))
                cursors[place] += len(joined)
            progress(len(data))
            row = stop


def _require_sound(plan: RecordPlan, data: bytearray, row: int, starts: np.ndarray) -> None:
    """Every record of a block begins at its place and ends where the next begins."""
    words = np.frombuffer(data, dtype="<u4")
    places = starts // 4
    lengths = words[places + 1]  # with the continuation flag, which is 0 in a record of one part
    sizes = plan.sizes[row : row + len(starts)]
    simple = (words[places] == MAGIC) & (lengths >> LENGTH_BITS == 0)
    simple &= ((lengths.astype(np.int64) & MAX_LENGTH) + 3) // 4 * 4 + PART_PREFIX.size == sizes
    for number in np.flatnonzero(~simple).tolist():
        offset = int(plan.offsets[row + number])
        block = memoryview(data)[int(starts[number]) : int(starts[number] + sizes[number])]
        end = 0
        for _, start, length in walk_parts(block, 0, str(plan.path), None):
            end = start + (length + 3) // 4 * 4
        if end != len(block):
            reason = (
                f"the record ends at byte {offset + end}, the next one of the index begins at {offset + len(block)}"
            )
            raise RecordError(plan.path, None, offset, f"{reason}; `verify` tells what is wrong with the set")


def _write_ordered(
    plan: RecordPlan, rows: np.ndarray, data: bytearray, target: int, begin: int, limit: int, found: np.ndarray
) -> int:
    """Writes a region's records in the order of their places, from `begin` on; returns the byte behind them."""
    sizes = plan.sizes[rows]
    starts = np.cumsum(sizes) - sizes
    changed = _set_ids(plan, rows, data, starts)
    order = np.argsort(plan.places[rows])
    pieces = memoryview(data)
    chunk: list[bytes | memoryview] = []
    places = plan.places[rows[order]].tolist()
    begins, ends = starts[order].tolist(), (starts + sizes)[order].tolist()
    offset, chunk_begin = begin, begin
    for place, number, start, end in zip(places, order.tolist(), begins, ends, strict=True):
        piece = changed[number] if number in changed else pieces[start:end]
        found[place] = offset
        chunk.append(piece)
        offset += len(piece)
        if offset > limit:  # a key whose bytes are the magic: the record grew, and would run into the next region
            raise RecordError(plan.path, int(plan.keys[rows[number]]), start, "a record with this key cannot be moved")
        if offset - chunk_begin >= _BLOCK:
            _write_at(target, b"".join(chunk), chunk_begin)
            chunk, chunk_begin = [], offset
    _write_at(target, b"".join(chunk), chunk_begin)
    return offset


def _set_ids(plan: RecordPlan, rows: np.ndarray, data: bytearray, starts: np.ndarray) -> dict[int, bytes]:
    """Gives each record its key as id, so that a lost index can be rebuilt; in place where the header is plain.

    Returns:
        The records that had to be made anew, by number.
    """
    words = np.frombuffer(data, dtype="<u4")
    places = starts // 4
    keys = plan.keys[rows].astype(np.uint64)
    low, high = (keys & np.uint64(0xFFFFFFFF)).astype("<u4"), (keys >> np.uint64(32)).astype("<u4")
    prefix = words[places + 1]
    plain = ((prefix & MAX_LENGTH) >= 24) & (prefix >> LENGTH_BITS <= 1) & (low != MAGIC) & (high != MAGIC)
    if plan.scalar_labels:
        plain &= words[np.minimum(places + 2, len(words) - 1)] == 0
    words[places[plain] + 4], words[places[plain] + 5] = low[plain], high[plain]
    changed = {}
    for number in np.flatnonzero(~plain).tolist():
        row = int(rows[number])
        body, _ = join_parts(memoryview(data), int(starts[number]), str(plan.path), None)
        try:
            header, payload_start = unpack_header(body)
        except ValueError as error:
            raise RecordError(plan.path, None, int(plan.offsets[row]), str(error)) from None
        label = header.first_label if plan.scalar_labels else header.label
        flag = 0 if plan.scalar_labels else header.flag
        new = RecordHeader(flag, label, int(plan.keys[row]), header.id2)
        changed[number] = b"".join(frame(pack_record(new, bytes(body[payload_start:]))))
    return changed


def _put(whole: bytearray, data: bytes, offset: int) -> None:
    whole[offset : offset + len(data)] = data


def _write_at(file: int, data: bytes, offset: int) -> None:
    rest = memoryview(data)
    while len(rest):
        count = os.pwrite(file, rest, offset)
        rest, offset = rest[count:], offset + count


def _read_at(file: int, offset: int, count: int) -> bytearray:
    data = bytearray(count)
    view, done = memoryview(data), 0
    while done < count:
        got = os.preadv(file, [view[done:]], offset + done)
        if got == 0:
            raise RecordError(f"descriptor {file}", None, offset + done, "the file became shorter while it was read")
        done += got
    return data
