"""Where records are: reading and writing .idx, and rebuilding it from the .rec alone. No labels, no images."""

from __future__ import annotations

from array import array
from pathlib import Path
from typing import BinaryIO

import numpy as np

from utils.record_framing import HEADER, PART_PREFIX, RecordError, padded, unpack_header, walk_parts

_BLOCK = 1 << 24  # bytes of .idx parsed at once: 17 million lines never exist as Python objects
_WRITTEN = 1 << 16  # lines written at once
_TAB, _NEWLINE = 9, 10
_MAX_DIGITS = 18  # of an int64


def read_index(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Reads `key<TAB>offset` lines.

    Returns:
        keys (R,) and offsets (R,), int64, in the order of the file.

    Raises:
        RecordError: on a malformed line or a key given twice, with the line's number.
    """
    tables: list[np.ndarray] = []
    line_number = 1
    with path.open("rb") as file:
        rest = b""
        while block := file.read(_BLOCK):
            block = rest + block
            cut = block.rfind(b"\n") + 1
            rest = block[cut:]
            if len(rest) > 64:  # no line is that long: refuse it before it grows to the size of the file
                raise _malformed(path, line_number + block.count(b"\n"), rest)
            if cut:
                tables.append(_parse_lines(block[:cut], path, line_number))
                line_number += len(tables[-1])
        if rest:
            tables.append(_parse_lines(rest + b"\n", path, line_number))
    if not tables:
        raise RecordError(path, None, None, "the index is empty; delete it to have the offsets rebuilt from the .rec")
    table = np.concatenate(tables)
    keys, offsets = np.ascontiguousarray(table[:, 0]), np.ascontiguousarray(table[:, 1])
    _refuse_duplicates(keys, path)
    return keys, offsets


def _parse_lines(block: bytes, path: Path, first_line: int) -> np.ndarray:
    """Whole lines -> (lines, 2) int64; everything is checked on the bytes, so the numbers cannot surprise."""
    if b"\r" in block:
        block = block.replace(b"\r\n", b"\n")
    codes = np.frombuffer(block, dtype=np.uint8)
    separators = np.flatnonzero((codes == _TAB) | (codes == _NEWLINE))
    is_digit = (codes >= ord("0")) & (codes <= ord("9"))
    digits = np.diff(separators, prepend=-1) - 1
    well_formed = (
        len(separators) % 2 == 0
        and bool((codes[separators[0::2]] == _TAB).all())
        and bool((codes[separators[1::2]] == _NEWLINE).all())
        and int(is_digit.sum()) + len(separators) == len(codes)
        and bool(((digits >= 1) & (digits <= _MAX_DIGITS)).all())
    )
    if not well_formed:
        for number, line in enumerate(block.split(b"\n")):
            fields = line.split(b"\t")
            if len(fields) != 2 or not all(field.isdigit() and len(field) <= _MAX_DIGITS for field in fields):
                raise _malformed(path, first_line + number, line)
    return np.fromstring(block.decode("ascii"), dtype=np.int64, sep=" ").reshape(-1, 2)


def _malformed(path: Path, line_number: int, line: bytes) -> RecordError:
    shown = line[:60].decode("utf-8", "replace")
    return RecordError(
        path,
        None,
        None,
        f"line {line_number} is {shown!r}, expected 'key<TAB>offset' with two whole numbers; "
        "delete the .idx to have the offsets rebuilt from the .rec",
    )


def _refuse_duplicates(keys: np.ndarray, path: Path) -> None:
    if bool((np.diff(keys) > 0).all()):
        return
    order = np.argsort(keys, kind="stable")
    repeated = np.flatnonzero(np.diff(keys[order]) == 0)
    if len(repeated):
        first, second = order[repeated[0]], order[repeated[0] + 1]
        raise RecordError(
            path,
            int(keys[first]),
            None,
            f"the key stands on line {first + 1} and again on line {second + 1}; each record needs a key of its own",
        )


def require_offsets_inside(offsets: np.ndarray, keys: np.ndarray, size: int, index_path: Path, rec: Path) -> None:
    """Raises RecordError where an offset is no place for a record in a .rec of `size` bytes."""
    wrong = np.flatnonzero((offsets % 4 != 0) | (offsets + PART_PREFIX.size > size))
    if len(wrong):
        key, offset = int(keys[wrong[0]]), int(offsets[wrong[0]])
        problem = "is no multiple of 4" if offset % 4 else f"lies beyond the .rec, which has {size} bytes"
        reason = f"line {wrong[0] + 1} of {index_path} points here, which {problem}"
        raise RecordError(rec, key, offset, f"{reason}: the .idx is another .rec's, or the .rec is truncated")


def write_index(stream: BinaryIO, keys: np.ndarray, offsets: np.ndarray) -> None:
    """Writes `key<TAB>offset` lines, int64 (R,) each, in the order given."""
    for start in range(0, len(keys), _WRITTEN):
        stop = start + _WRITTEN
        pairs = zip(keys[start:stop].tolist(), offsets[start:stop].tolist(), strict=True)
        stream.write(b"".join([b"%d\t%d\n" % pair for pair in pairs]))


def choose_keys(ids: np.ndarray | None, count: int) -> np.ndarray:
    """Keys for records whose index is lost, int64 (count,): their ids where they differ, else 0, 1, ..."""
    if ids is None or len(np.unique(ids)) != count:
        return np.arange(count, dtype=np.int64)
    return ids


def scan_records(data: memoryview, path: str) -> tuple[np.ndarray, np.ndarray]:
    """Finds every record by walking the file from its first byte; the time is that of touching each record once.

    Keys are the records' own ids where every record has a header and all ids differ, as MXNet's tools write them;
    otherwise records are numbered from 0 in file order.

    Returns:
        keys (R,) and offsets (R,), int64, in file order.

    Raises:
        RecordError: at the first damaged byte.
    """
    offsets, ids = array("q"), array("q")
    offset = start = length = 0
    have_ids = True
    while offset < len(data):
        first_start, first_length = -1, 0
        for _, start, length in walk_parts(data, offset, path, len(offsets)):
            if first_start < 0:
                first_start, first_length = start, length
        if have_ids:
            record_id = header_id(data[first_start : first_start + first_length])
            have_ids = record_id is not None
            ids.append(-1 if record_id is None else record_id)
        offsets.append(offset)
        offset = start + padded(length)
    found = np.array(offsets, dtype=np.int64)
    return choose_keys(np.array(ids, dtype=np.int64) if have_ids else None, len(found)), found


def header_id(first_part: memoryview) -> int | None:
    """The id in a record's header; None where the bytes cannot be a header (or are cut by a magic inside it)."""
    if len(first_part) < HEADER.size:
        return None
    try:
        header, _ = unpack_header(first_part)
    except ValueError:
        return None
    return header.id if header.id < 1 << 62 else None
