"""Writing record sets: complete or not there at all, each key once."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.records import write_set
from utils.recordio import RecordError, RecordHeader, RecordReader, RecordWriter, pack_record


def test_an_exception_while_writing_leaves_the_older_set(tmp_path: Path) -> None:
    rec = write_set(tmp_path, {1: b"old"})
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(TypeError), RecordWriter(rec, rec.with_suffix(".idx")) as writer:
        write_two(writer, b"new", None)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_nothing_appears_before_close(tmp_path: Path) -> None:
    writer = RecordWriter(tmp_path / "train.rec", tmp_path / "train.idx")
    writer.write(1, b"record")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["train.idx.partial", "train.rec.partial"]
    writer.close()
    writer.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["train.idx", "train.rec"]


def test_a_failure_between_the_renames_leaves_no_new_set_with_an_old_index(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rec = write_set(tmp_path, {1: b"old record"})
    writer = RecordWriter(rec, rec.with_suffix(".idx"))
    writer.write(1, b"x")
    writer.write(2, b"a longer record than the old one")
    replace = os.replace

    def fail_on_index(source, target) -> None:
        if str(target).endswith(".idx"):
            raise OSError("disk pulled")
        replace(source, target)

    monkeypatch.setattr("utils.record_writer.os.replace", fail_on_index)
    with pytest.raises(OSError, match="disk pulled"):
        writer.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["train.rec"]
    assert RecordReader(rec).read(1) == b"a longer record than the old one"


@pytest.mark.parametrize("keys", [[4, 4], [7, 3, 7], [1 << 40, 5, 1 << 40]])
def test_a_key_is_written_once(keys: list[int], tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="the key was written before") as caught:
        write_repeated(tmp_path, keys)
    assert caught.value.key == keys[-1]
    assert list(tmp_path.iterdir()) == []


def write_two(writer: RecordWriter, first: bytes, second: bytes | None) -> None:
    writer.write(1, first)
    writer.write(2, second)  # type: ignore[arg-type]


def write_repeated(folder: Path, keys: list[int]) -> None:
    with RecordWriter(folder / "train.rec", folder / "train.idx") as writer:
        for key in keys:
            writer.write(key, b"x")


def test_headers_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="flag 2 announces a label vector"):
        pack_record(RecordHeader(2, 1.0, 0), b"")
    with pytest.raises(ValueError, match="id and id2 are uint64"):
        pack_record(RecordHeader(0, 1.0, -1), b"")
