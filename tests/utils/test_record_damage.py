"""Damaged and contradictory record sets: every error names the file, the record and the byte or line."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from sources import open_source
from tests.records import image_record, make_record_set, write_set
from utils.errors import DataError
from utils.record_framing import MAGIC_BYTES
from utils.recordio import RecordError, RecordHeader, RecordReader, pack_record


def _damage_truncate(data: bytearray, offset: int) -> bytearray:
    return data[: offset + 20]


def _damage_magic(data: bytearray, offset: int) -> bytearray:
    data[offset] ^= 1
    return data


def _damage_cflag(data: bytearray, offset: int) -> bytearray:
    data[offset + 7] |= 2 << 5
    return data


def _damage_length(data: bytearray, offset: int) -> bytearray:
    data[offset + 6] = 0xFF
    return data


@pytest.mark.parametrize("indexed", [True, False], ids=["with idx", "without idx"])
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_damage_truncate, r"the part claims \d+ bytes, the file has \d+ left: it is truncated"),
        (_damage_magic, "no record begins here: found 0xced7230b, a record begins with 0xced7230a"),
        (_damage_cflag, r"continuation flag 2 where 0 \(whole\) or 1 \(first\) must stand"),
        (_damage_length, r"the part claims \d+ bytes, the file has \d+ left"),
    ],
)
def test_damage_names_file_record_and_byte(damage, message: str, indexed: bool, tmp_path: Path) -> None:
    rec = write_set(tmp_path, {key: image_record(0.0, key, bytes(50)) for key in range(1, 5)})
    offset = RecordReader(rec).offset(4)
    rec.write_bytes(damage(bytearray(rec.read_bytes()), offset))
    if not indexed:
        rec.with_suffix(".idx").unlink()
    with pytest.raises(RecordError, match=message) as caught:
        RecordReader(rec).read(4)
    assert caught.value.path == str(rec)
    assert caught.value.offset == offset
    assert caught.value.key == (4 if indexed else 3), "without an index the record is named by its number in the file"
    if indexed:
        assert RecordReader(rec).sample(3)[0].id == 3, "sound records of a damaged file stay readable"


def test_a_first_part_must_be_followed_by_another(tmp_path: Path) -> None:
    rec = write_set(tmp_path, {1: b"AAAA" + MAGIC_BYTES + b"BBBB", 2: b"tail"})
    data = bytearray(rec.read_bytes())
    data[12 + 7] &= 0x1F  # the second part now claims to be a whole record
    rec.write_bytes(data)
    with pytest.raises(RecordError, match=r"continuation flag 0 where 2 \(middle\) or 3 \(last\) must stand") as caught:
        RecordReader(rec).read(1)
    assert caught.value.offset == 12


def test_a_file_cut_between_parts_ends_in_an_error(tmp_path: Path) -> None:
    rec = write_set(tmp_path, {1: b"AAAA" + MAGIC_BYTES + b"BBBB"})
    rec.write_bytes(rec.read_bytes()[:12])
    with pytest.raises(RecordError, match="where a record part should begin: it is truncated"):
        RecordReader(rec).read(1)


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ("1\t0\n2\t12\n", r"record 2, byte 12: no record begins here"),
        ("1\t0\n2\t13\n", r"line 2 of .*idx points here, which is no multiple of 4"),
        ("1\t0\n2\t40000\n", r"line 2 of .*idx points here, which lies beyond the .rec, which has \d+ bytes"),
        ("1\t0\n2 8\n", r"train.idx: line 2 is '2 8', expected 'key<TAB>offset'"),
        ("1\t0\n\n2\t8\n", r"train.idx: line 2 is ''"),
        ("1\t0\n2\tx\n", r"train.idx: line 2 is '2\\tx'"),
        ("1\t0\t3\n2\n", r"train.idx: line 1 is '1\\t0\\t3'"),
        ("1\t0\n-2\t8\n", r"train.idx: line 2 is '-2\\t8'"),
        ("1\t0\n2\t99999999999999999999\n", r"line 2 is '2\\t9+'"),
        ("1\t0\n2\t8\n1\t8\n", r"record 1: the key stands on line 1 and again on line 3"),
        ("9" * 300, r"line 1 is '9{60}'"),
        ("", r"train.idx: the index is empty"),
    ],
)
def test_a_bad_index_names_the_line(index: str, message: str, tmp_path: Path) -> None:
    rec = write_set(tmp_path, {key: image_record(0.0, key, bytes(50)) for key in (1, 2)})
    rec.with_suffix(".idx").write_text(index)
    with pytest.raises(RecordError, match=message):
        RecordReader(rec).read(2)


def test_an_index_with_windows_line_ends_or_no_last_newline_reads(tmp_path: Path) -> None:
    rec = write_set(tmp_path, {key: image_record(0.0, key) for key in (1, 2)})
    index = rec.with_suffix(".idx")
    text = index.read_text()
    for variant in (text.replace("\n", "\r\n"), text.rstrip("\n")):
        index.write_bytes(variant.encode())
        assert RecordReader(rec).keys.tolist() == [1, 2]


def test_an_index_larger_than_one_block_keeps_line_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("utils.record_index._BLOCK", 64)
    rec = write_set(tmp_path, {key: image_record(0.0, key) for key in range(100)})
    with RecordReader(rec) as reader:
        assert reader.keys.tolist() == list(range(100))
        assert [reader.sample(key)[0].id for key in range(100)] == list(range(100))
    lines = rec.with_suffix(".idx").read_text().splitlines()
    lines[70] = "70 1"
    rec.with_suffix(".idx").write_text("\n".join(lines))
    with pytest.raises(RecordError, match="line 71 is '70 1'"):
        RecordReader(rec)


@pytest.mark.parametrize(
    ("label", "shown"), [(3.0, "3"), (-1.0, "-1"), (0.5, "0.5"), (float("nan"), "nan"), (1e9, "1e.09")]
)
def test_a_label_that_is_no_class_is_refused(label: float, shown: str, tmp_path: Path) -> None:
    rec = write_set(tmp_path, {1: image_record(0.0, 1), 2: image_record(label, 2)})
    (tmp_path / "property").write_text("3,16,16\n")
    with RecordReader(rec) as reader:
        assert reader.label(1) == 0
        for ask in (lambda: reader.label(2), reader.class_counts):
            with pytest.raises(RecordError, match=f"record 2, byte .*label {shown} is not a whole number in 0 .. 2"):
                ask()


def test_without_property_a_fractional_label_is_no_class_count(tmp_path: Path) -> None:
    reader = RecordReader(write_set(tmp_path, {1: image_record(0.5, 1)}))
    with pytest.raises(RecordError, match=r"record 1, .*label 0.5 is no class number"):
        _ = reader.num_classes


def test_property_and_set_header_must_agree(tmp_path: Path) -> None:
    make_record_set(tmp_path, [2, 2])
    (tmp_path / "property").write_text("5,16,16")
    with pytest.raises(RecordError, match=r"property: it says 5 classes, the set header in train.rec has 2 identities"):
        RecordReader(tmp_path / "train.rec")
    (tmp_path / "property").write_text("two,16,16")
    with pytest.raises(RecordError, match="expected num_classes,height,width"):
        RecordReader(tmp_path / "train.rec")


def test_a_set_header_that_promises_more_images_than_the_index_has(tmp_path: Path) -> None:
    make_record_set(tmp_path, [2, 2])
    index = tmp_path / "train.idx"
    lines = index.read_text().splitlines(keepends=True)
    index.write_text("".join(line for line in lines if not line.startswith("3\t")))
    with pytest.raises(RecordError, match=r"announces images with keys 1 .. 4, but .*no record has key 3"):
        RecordReader(tmp_path / "train.rec")


@pytest.mark.parametrize("labels", [(1e15, 1e15), (8, 1e15)])
def test_a_set_header_of_absurd_size_is_refused_at_once(labels: tuple[float, float], tmp_path: Path) -> None:
    header = pack_record(RecordHeader(2, np.array(labels, dtype=np.float32), 0), b"")
    rec = write_set(tmp_path, {0: header} | {key: image_record(0.0, key) for key in range(1, 9)})
    with pytest.raises(RecordError, match=r"record 0, byte 0: the set header announces .* the index has 9 records"):
        RecordReader(rec)


def test_a_record_too_short_for_its_header(tmp_path: Path) -> None:
    short_labels = struct.pack("<IfQQ", 5, 0.0, 2, 0) + b"1234"
    with RecordReader(write_set(tmp_path, {1: b"short", 2: short_labels})) as reader:
        with pytest.raises(RecordError, match="record 1, byte 0: the record has 5 bytes, an image record's header"):
            reader.sample(1)
        with pytest.raises(RecordError, match=r"record 2, .*announces 5 labels"):
            reader.sample(2)
        with pytest.raises(KeyError, match="no record has key 3; the set has 2 records"):
            reader.read(3)


@pytest.mark.parametrize("name", ["train.rec", "train.idx", "property"])
def test_random_damage_never_escapes_as_another_error(name: str, tmp_path: Path) -> None:
    make_record_set(tmp_path, [3, 2, 2])
    path = tmp_path / name
    whole = path.read_bytes()
    rng = np.random.default_rng(1)
    refused = 0
    for trial in range(120):
        data = bytearray(whole)
        if trial % 4 == 0:
            del data[int(rng.integers(len(data))) :]
        else:
            for place in rng.integers(0, len(data), 1 + trial % 5):
                data[place] = rng.integers(256)
        path.write_bytes(data)
        try:
            source = open_source(str(tmp_path))
            source.class_counts()
            for index in range(len(source)):
                source.read(index)
        except DataError:
            refused += 1
    assert refused > 20, "the damage must not go unnoticed as a rule"
