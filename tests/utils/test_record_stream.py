"""Streams of records: in any order what random access gives, in blocks of any size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.records import make_record_set, write_set
from tests.utils.test_record_shuffle import awkward_records
from utils import record_stream
from utils.record_stream import RecordStream, image_labels, record_ends
from utils.recordio import RecordError, RecordHeader, RecordReader, RecordWriter, pack_record


@pytest.mark.parametrize("block", [1, 300, 1 << 20])
@pytest.mark.parametrize("order", ["file", "reversed", "random", "some"])
def test_a_stream_reads_what_the_reader_reads(
    block: int, order: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(record_stream, "_BLOCK", block)
    monkeypatch.setattr(record_stream, "_PLANNED", 17)
    rec = write_set(tmp_path, awkward_records(80))
    keys = np.arange(80)
    chosen = {
        "file": keys,
        "reversed": keys[::-1],
        "random": np.random.default_rng(1).permutation(80),
        "some": keys[::3],
    }
    with RecordReader(rec) as reader, RecordStream(reader) as stream:
        found = [(key, bytes(body)) for key, body in stream.bodies(chosen[order])]
        assert found == [(key, reader.read(key)) for key in chosen[order].tolist()]
        samples = [(key, header.id, bytes(payload)) for key, header, payload in stream.samples(chosen[order])]
        assert samples == [(key, reader.sample(key)[0].id, bytes(reader.sample(key)[1])) for key, _, _ in samples]


def test_damage_is_told_with_its_byte_in_the_file(tmp_path: Path) -> None:
    rec = write_set(tmp_path, dict.fromkeys(range(5), b"x" * 40))
    with RecordReader(rec) as reader:
        offset = reader.offset(3)
    data = bytearray(rec.read_bytes())
    data[offset] ^= 1
    rec.write_bytes(data)
    with RecordReader(rec) as reader, RecordStream(reader) as stream:
        with pytest.raises(RecordError, match="no record begins here") as caught:
            list(stream.bodies(np.arange(5)))
        assert (caught.value.key, caught.value.offset) == (3, offset)
        with pytest.raises(KeyError, match="no record has key 9"):
            list(stream.bodies(np.array([1, 9])))


def test_ends_are_where_the_next_record_begins(tmp_path: Path) -> None:
    rec = write_set(tmp_path, {5: b"a" * 10, 2: b"b" * 20, 9: b"c"})
    with RecordReader(rec) as reader:
        assert record_ends(reader).tolist() == [reader.end(key) for key in reader.keys.tolist()]


def test_labels_come_from_identity_records_or_headers(tmp_path: Path) -> None:
    make_record_set(tmp_path / "faces", [2, 0, 3])
    with RecordReader(tmp_path / "faces" / "train.rec") as reader:
        assert image_labels(reader).tolist() == [0, 0, 2, 2, 2]
    rec = tmp_path / "plain.rec"
    with RecordWriter(rec, tmp_path / "plain.idx") as writer:
        for key, label in enumerate([3, 1, 2, 1]):
            writer.write(key, pack_record(RecordHeader(0, float(label), key), b"x"))
    with RecordReader(rec) as reader:
        assert image_labels(reader).tolist() == [3, 1, 2, 1]
    (tmp_path / "property").write_text("3,16,16")
    with RecordReader(rec) as reader, pytest.raises(RecordError, match="label 3 is not a whole number in 0"):
        image_labels(reader)
