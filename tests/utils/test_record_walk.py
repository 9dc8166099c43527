"""Walking a damaged .rec: every record that is sound is found, and every other byte is accounted for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.records import write_set
from tests.utils.test_record_shuffle import awkward_records
from utils import record_walk
from utils.record_framing import MAGIC_BYTES
from utils.record_walk import walk_file
from utils.recordio import RecordReader


def sound(path: Path) -> dict[int, bytes]:
    """What the walk finds; asserts that its stretches cover the file without a gap."""
    found, offset = {}, 0
    for stretch in walk_file(path):
        assert stretch.offset == offset < stretch.end
        assert (stretch.body is None) == bool(stretch.reason)
        offset = stretch.end
        if stretch.body is not None:
            found[stretch.offset] = bytes(stretch.body)
    assert offset == path.stat().st_size
    return found


@pytest.fixture
def written(tmp_path: Path) -> tuple[Path, dict[int, bytes], list[int]]:
    """A file, its records by offset, and where each ends."""
    rec = write_set(tmp_path, awkward_records(12))
    with RecordReader(rec) as reader:
        records = {reader.offset(key): reader.read(key) for key in reader.keys.tolist()}
        return rec, records, [reader.end(key) for key in reader.keys.tolist()]


def test_a_sound_file(written: tuple, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record_walk, "_RELEASED", 256)
    rec, records, _ = written
    assert sound(rec) == records


def test_one_damaged_word_costs_one_record(written: tuple) -> None:
    rec, records, ends = written
    data = rec.read_bytes()
    offsets = np.array(list(records))
    for place in range(0, len(data), 4):
        for word in (b"\0\0\0\0", b"\xff\xff\xff\xff", MAGIC_BYTES, b"\x10\0\0\0"):
            if data[place : place + 4] == word:
                continue
            rec.write_bytes(data[:place] + word + data[place + 4 :])
            hit = int(np.searchsorted(offsets, place, side="right")) - 1
            found = sound(rec)
            others = {offset: body for offset, body in records.items() if offset != offsets[hit]}
            behind = ends[hit] if hit + 1 < len(offsets) else None
            missing = [offset for offset, body in others.items() if found.get(offset) != body]
            # a length that ends at the next record's end swallows nothing: the magic inside betrays it
            assert missing == [], f"word {word.hex()} at {place} of {behind}"


def test_a_file_cut_short_and_one_with_rubbish_around(written: tuple) -> None:
    rec, records, ends = written
    data = rec.read_bytes()
    rec.write_bytes(data[: ends[-1] - 5])
    assert sound(rec) == {offset: body for offset, body in records.items() if offset < ends[-2]}
    rec.write_bytes(b"rubbish!" * 4 + data + MAGIC_BYTES)
    assert sound(rec) == {offset + 32: body for offset, body in records.items()}
    rec.write_bytes(b"")
    assert sound(rec) == {}
