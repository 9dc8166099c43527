"""RecordIO against files that MXNet wrote, and against every kind of damage."""

from __future__ import annotations

import json
import multiprocessing
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.data import SHARED, needs_golden
from tests.records import image_record, make_record_set, write_set
from utils.record_framing import MAGIC_BYTES, frame
from utils.record_layout import exact_boundary
from utils.recordio import RecordError, RecordHeader, RecordReader, pack_record

GOLDEN = SHARED / "golden"
INSIGHTFACE = GOLDEN / "insightface_layout" / "train.rec"
IM2REC = GOLDEN / "im2rec_plain" / "train.rec"
CASES = {  # what each of MXNet's awkward files holds; M is the magic
    "adjacent": b"AAAAMMC",
    "aligned_mid": b"AAAAAAAAMBBBBBBBB",
    "empty": b"",
    "end": b"AAAAAAAAM",
    "end_unal": b"AAAAAM",
    "len1": b"x",
    "len2": b"xy",
    "len3": b"xyz",
    "len4": b"wxyz",
    "no_magic": b"AAAAAAAAAA",
    "only": b"M",
    "start": b"MBBBBB",
    "two": b"AAAAMBBBBMCCC",
    "unaligned": b"AAAAAAMBBBBBB",
}


@needs_golden
def test_insightface_set_reads_as_its_writer_recorded() -> None:
    expected = json.loads((INSIGHTFACE.parent / "expected.json").read_text())
    with RecordReader(INSIGHTFACE) as reader:
        assert (reader.layout, len(reader), reader.num_classes) == ("insightface", expected["records"], 24)
        assert reader.image_keys.tolist() == list(range(1, expected["images"] + 1))
        assert [reader.label(int(key)) for key in reader.image_keys] == expected["labels"]
        assert reader.labels(reader.image_keys).tolist() == expected["labels"]
        assert reader.class_counts().tolist() == np.bincount(expected["labels"]).tolist()
        flags = {reader.sample(int(key))[0].flag for key in reader.image_keys}
        assert flags == {0, 2}, "the set holds scalar and vector labels"
        for key in reader.image_keys:
            payload = reader.sample(int(key))[1]
            assert payload[:2] == b"\xff\xd8"
            assert payload[-2:] == b"\xff\xd9"


@needs_golden
def test_im2rec_set_reads_in_the_order_of_its_keys() -> None:
    with RecordReader(IM2REC) as reader:
        assert (reader.layout, len(reader), reader.num_classes) == ("im2rec", 8, 2)
        assert reader.image_keys.tolist() == list(range(8))
        listed = dict(line.split("\t")[:2] for line in (IM2REC.parent / "train.lst").read_text().splitlines())
        assert {str(key): str(reader.label(key)) for key in range(8)} == listed
        assert reader.class_counts().tolist() == [4, 4]


@needs_golden
@pytest.mark.parametrize("rec", [INSIGHTFACE, IM2REC], ids=["insightface", "im2rec"])
def test_offsets_without_index_equal_the_index(rec: Path, tmp_path: Path) -> None:
    (tmp_path / "train.rec").write_bytes(rec.read_bytes())
    with RecordReader(rec) as indexed, RecordReader(tmp_path / "train.rec") as scanned:
        assert scanned.index_path is None
        assert {int(key): scanned.offset(int(key)) for key in scanned.keys} == {
            int(key): indexed.offset(int(key)) for key in indexed.keys
        }
        assert scanned.layout == indexed.layout


@needs_golden
@pytest.mark.parametrize("rec", [INSIGHTFACE, IM2REC], ids=["insightface", "im2rec"])
def test_rewriting_gives_the_same_bytes(rec: Path, tmp_path: Path) -> None:
    with RecordReader(rec) as reader:
        copy = write_set(tmp_path, {int(key): reader.read(int(key)) for key in reader.keys})
    assert copy.read_bytes() == rec.read_bytes()
    assert copy.with_suffix(".idx").read_bytes() == rec.with_suffix(".idx").read_bytes()


@needs_golden
def test_packing_the_parts_again_gives_the_same_record() -> None:
    with RecordReader(INSIGHTFACE) as reader:
        for key in reader.keys.tolist():
            header, payload = reader.sample(key)
            assert pack_record(header, bytes(payload)) == reader.read(key)


@needs_golden
@pytest.mark.parametrize("name", sorted(CASES))
def test_payloads_that_hold_the_magic(name: str, tmp_path: Path) -> None:
    path = GOLDEN / "mxnet_cases" / f"case_{name}.rec"
    expected = CASES[name].replace(b"M", MAGIC_BYTES)
    with RecordReader(path) as reader:
        assert reader.keys.tolist() == [0, 1]
        assert (reader.read(0), reader.read(1)) == (expected, b"TAIL")
    assert write_set(tmp_path, {0: expected, 1: b"TAIL"}).read_bytes() == path.read_bytes()


@settings(max_examples=150, deadline=None)
@given(st.lists(st.sampled_from([b"A", b"BCDE", MAGIC_BYTES, b"\0\0\0", MAGIC_BYTES[:2]]), max_size=9).map(b"".join))
def test_any_payload_survives_the_round_trip(tmp_path_factory: pytest.TempPathFactory, payload: bytes) -> None:
    folder = tmp_path_factory.mktemp("set")
    rec = write_set(folder, {5: payload, 9: image_record(1.0, 9), 7: b"TAIL"})
    with RecordReader(rec) as reader:
        assert reader.read(5) == payload
        assert reader.read(7) == b"TAIL"
        offsets = [reader.offset(key) for key in (5, 9, 7)]
    rec.with_suffix(".idx").unlink()
    with RecordReader(rec) as reader:
        assert [reader.offset(int(key)) for key in reader.keys] == offsets


def test_every_part_but_the_last_is_free_of_aligned_magic() -> None:
    payload = (b"AAAA" + MAGIC_BYTES) * 3 + b"B"
    assert b"".join(frame(payload)).count(MAGIC_BYTES) == 4  # one for each of four parts


def test_a_single_part_is_a_view_of_the_file_and_survives_close(tmp_path: Path) -> None:
    rec = write_set(tmp_path, {0: image_record(0.0, 0, b"payload!")})
    reader = RecordReader(rec)
    payload = reader.sample(0)[1]
    assert payload.readonly
    assert payload.obj.__class__ is not bytes, "the payload was copied out of the file"
    reader.close()
    assert bytes(payload) == b"payload!"
    assert reader.label(0) == 0, "a closed reader opens again on demand"


def test_labels_at_once_equal_labels_one_by_one(tmp_path: Path) -> None:
    cut = struct.unpack("<Q", MAGIC_BYTES + b"\0\0\0\0")[0]  # an id that cuts the header itself into two parts
    records = {
        3: image_record(2.0, 3),
        1: image_record(np.array([4.0, 9.0], dtype=np.float32), 1),
        8: pack_record(RecordHeader(0, 1.0, cut), b"x"),
        2: image_record(0.0, 2, b""),
    }
    with RecordReader(write_set(tmp_path, records)) as reader:
        assert reader.image_keys.tolist() == [1, 2, 3, 8]
        assert reader.labels(reader.image_keys).tolist() == [4, 0, 2, 1]
        assert [reader.label(int(key)) for key in reader.image_keys] == [4, 0, 2, 1]
        assert reader.num_classes == 5
        assert reader.class_counts().tolist() == [1, 1, 1, 0, 1]


def test_class_counts_come_from_identity_records_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_record_set(tmp_path, [3, 1, 5])
    with RecordReader(tmp_path / "train.rec") as reader:
        asked: list[int] = []
        labels = reader.labels
        monkeypatch.setattr(reader, "labels", lambda keys: asked.extend(np.asarray(keys).tolist()) or labels(keys))
        assert reader.class_counts().tolist() == [3, 1, 5]
    assert sorted(asked) == [1, 3, 4, 4, 5, 9], "only the edges of each identity's span are compared"


def test_class_counts_fall_back_on_labels_where_identity_records_lie(tmp_path: Path) -> None:
    spans = {4: (1, 3), 5: (3, 4)}
    records = {0: pack_record(RecordHeader(2, np.array([4, 6], dtype=np.float32), 0), b"")}
    records |= {key: image_record(label, key) for key, label in ((1, 0.0), (2, 1.0), (3, 1.0))}
    for key, span in spans.items():
        records[key] = pack_record(RecordHeader(2, np.array(span, dtype=np.float32), key), b"")
    with RecordReader(write_set(tmp_path, records)) as reader:
        assert reader.class_counts().tolist() == [1, 2]


@pytest.mark.parametrize("error", [-2, -1, 0, 1, 2])
def test_a_set_whose_header_is_rounded_reads_whole(error: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("utils.record_layout._EXACT", 8)  # as if float32 were exact up to 8 only
    make_record_set(tmp_path, [9, 4, 7])
    with RecordReader(tmp_path / "train.rec") as reader:
        records = {key: reader.read(key) for key in reader.keys.tolist()}
    records[0] = pack_record(RecordHeader(2, np.array([21 + error, 24 + error // 2], dtype=np.float32), 0), b"")
    write_set(tmp_path, records)
    with RecordReader(tmp_path / "train.rec") as reader:
        assert reader.image_keys.tolist() == list(range(1, 21))
        assert reader.num_classes == 3
        assert reader.class_counts().tolist() == [9, 4, 7]


def test_a_rounded_set_header_is_corrected_from_the_records() -> None:
    true_first = (1 << 24) + 3
    rounded = int(np.float32(true_first))
    assert rounded != true_first
    assert exact_boundary(lambda key: key >= true_first, rounded) == true_first


def _labels_in_child(reader: RecordReader) -> list[int]:
    return [reader.label(int(key)) for key in reader.image_keys]


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_readers_work_in_worker_processes(method: str, tmp_path: Path) -> None:
    make_record_set(tmp_path, [4, 2, 3])
    reader = RecordReader(tmp_path / "train.rec")
    here = _labels_in_child(reader)
    with multiprocessing.get_context(method).Pool(1) as pool:
        assert pool.map(_labels_in_child, [reader] * 2) == [here] * 2
    assert here == [0] * 4 + [1] * 2 + [2] * 3


def test_a_pickled_reader_refuses_a_changed_file(tmp_path: Path) -> None:
    make_record_set(tmp_path, [2, 2])
    carried = pickle.dumps(RecordReader(tmp_path / "train.rec"))
    with (tmp_path / "train.rec").open("ab") as file:
        file.write(b"\0" * 8)
    with pytest.raises(RecordError, match="when it was first opened"):
        pickle.loads(carried).read(1)


def test_errors_survive_pickling_with_their_context() -> None:
    error = RecordError("a/train.rec", 7, 96, "damaged").within("image 6").within("batch 2")
    copy = pickle.loads(pickle.dumps(error))
    assert (copy.path, copy.key, copy.offset, copy.reason) == ("a/train.rec", 7, 96, "damaged")
    assert str(copy) == "a/train.rec, record 7, byte 96: damaged [image 6; batch 2]"
