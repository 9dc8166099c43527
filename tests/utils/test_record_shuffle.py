"""Records in a random order: nothing lost, nothing changed, whatever memory there is."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from tests.records import write_set
from utils import record_shuffle
from utils.record_framing import MAGIC_BYTES, RecordError, RecordHeader, pack_record
from utils.record_shuffle import RecordPlan, random_places, write_shuffled
from utils.record_stream import record_ends
from utils.recordio import RecordReader


def awkward_records(count: int, seed: int = 0) -> dict[int, bytes]:
    """Records with magics at aligned places, empty ones, vectors of labels, and ids that are not their keys."""
    rng = np.random.default_rng(seed)
    records = {}
    for key in range(count):
        payload = rng.bytes(int(rng.integers(0, 90)))
        if key % 3 == 0:
            payload = payload[: len(payload) // 4 * 4] + MAGIC_BYTES * int(rng.integers(1, 3)) + payload
        label = np.arange(1 + key % 4, dtype=np.float32) if key % 5 == 0 else float(key % 7)
        record_id = int.from_bytes(MAGIC_BYTES, "little") if key % 11 == 0 else key + 1000
        records[key] = pack_record(RecordHeader(0, label, record_id), payload)
    return records


def plan_of(reader: RecordReader, seed: int, *, scalar: bool = False, left_out: int = 0) -> RecordPlan:
    ends, offsets = record_ends(reader), reader.offsets(reader.keys)
    places = np.full(len(reader), -1)
    places[left_out:] = random_places(len(reader) - left_out, seed)
    return RecordPlan(reader.path, offsets, ends - offsets, places, reader.keys, scalar)


def shuffled(plan: RecordPlan, path: Path, memory: int) -> tuple[np.ndarray, bytes]:
    with path.open("w+b") as stream:
        offsets, written = write_shuffled(plan, stream.fileno(), memory)
        assert written == os.fstat(stream.fileno()).st_size
    return offsets, path.read_bytes()


@pytest.mark.parametrize("block", [64, 1 << 20])
@pytest.mark.parametrize("scalar", [False, True])
def test_every_record_arrives_whatever_the_memory(
    block: int, scalar: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(record_shuffle, "_BLOCK", block)
    rec = write_set(tmp_path, awkward_records(150))
    with RecordReader(rec) as reader:
        plan = plan_of(reader, 3, scalar=scalar, left_out=2)
        offsets, data = shuffled(plan, tmp_path / "new.rec", 1 << 30)
        for memory in (200, 1000, 5000):
            again, same = shuffled(plan, tmp_path / "again.rec", memory)
            assert same == data
            assert again.tolist() == offsets.tolist()
        lines = zip(plan.keys[plan.places >= 0], offsets[plan.places[plan.places >= 0]], strict=True)
        (tmp_path / "new.idx").write_text("".join(f"{key}\t{offset}\n" for key, offset in lines))
        with RecordReader(tmp_path / "new.rec") as new:
            assert sorted(new.keys.tolist()) == list(range(2, 150))
            assert new.offsets(new.keys).tolist() != sorted(new.offsets(new.keys).tolist())
            for key in new.keys.tolist():
                header, payload = new.sample(key)
                old, old_payload = reader.sample(key)
                assert bytes(payload) == bytes(old_payload)
                assert (header.id, header.id2, header.first_label) == (key, old.id2, old.first_label)
                assert header.flag == (0 if scalar else old.flag)
                assert np.array_equal(header.label, old.first_label if scalar else old.label)
        with RecordReader(tmp_path / "new.rec", tmp_path / "new.idx") as told:
            (tmp_path / "new.idx").unlink()
            with RecordReader(tmp_path / "new.rec") as rebuilt:  # the ids are the keys: a lost index can be rebuilt
                order = np.argsort(rebuilt.keys)
                assert rebuilt.keys[order].tolist() == sorted(told.keys.tolist())
                assert rebuilt.offsets(told.keys).tolist() == told.offsets(told.keys).tolist()


def test_the_order_is_a_permutation_and_the_seed_decides() -> None:
    places = random_places(70_000, 5)
    assert np.array_equal(np.sort(places), np.arange(70_000))
    assert np.array_equal(places, random_places(70_000, 5))
    assert (places == random_places(70_000, 6)).mean() < 0.01
    assert abs(np.corrcoef(places, np.arange(70_000))[0, 1]) < 0.02


def test_bytes_between_records_are_refused(tmp_path: Path) -> None:
    rec = write_set(tmp_path, {0: b"a" * 40, 1: b"b" * 30, 2: b"c" * 30})
    lines = rec.with_suffix(".idx").read_text().splitlines(keepends=True)
    rec.with_suffix(".idx").write_text(lines[0] + lines[2])
    with RecordReader(rec) as reader, pytest.raises(RecordError, match="the next one of the index begins at 88"):
        shuffled(plan_of(reader, 0), tmp_path / "new.rec", 1 << 20)
