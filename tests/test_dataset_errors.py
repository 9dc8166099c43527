"""Errors while reading: they reach the main process as themselves, with and without workers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dataset import EpochOrder, build_loader, open_source
from sources import Source, SourceError
from sources.synthetic import SyntheticSource
from tests.records import make_record_set
from tests.test_dataset import stream
from utils.bad_records import ReaderError
from utils.images import ImageFormat
from utils.recordio import RecordError, RecordReader


def damaged_set(folder: Path, key: int) -> Source:
    make_record_set(folder, [6, 6])
    with RecordReader(folder / "train.rec") as reader:
        offset = reader.offset(key)
    data = bytearray((folder / "train.rec").read_bytes())
    data[offset] ^= 0xFF
    (folder / "train.rec").write_bytes(data)
    return open_source(str(folder))


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_damaged_record_reaches_the_main_process_as_itself(num_workers: int, tmp_path: Path) -> None:
    source = damaged_set(tmp_path, key=8)
    with pytest.raises(RecordError, match="no record begins here") as caught:
        stream(source, batch_size=3, last_batch=4, num_workers=num_workers)
    assert caught.value.key == 8
    assert caught.value.path == str(tmp_path / "train.rec")
    text = str(caught.value)
    assert "record 8, byte " in text
    assert f"image 7 of {tmp_path / 'train.rec'}" in text
    assert "of epoch 0" in text


@pytest.mark.parametrize("num_workers", [0, 1])
def test_batches_before_the_damage_are_delivered(num_workers: int, tmp_path: Path) -> None:
    source = damaged_set(tmp_path, key=8)
    position = EpochOrder(12, 7).indices(0, 0, 12).tolist().index(7)
    loader = iter(
        build_loader(
            source, seed=7, batch_size=1, rank=0, world_size=1, first_batch=0, last_batch=12, num_workers=num_workers
        )
    )
    for _ in range(position):
        next(loader)
    with pytest.raises(RecordError, match=f"batch {position} of epoch 0"):
        next(loader)


def test_an_image_that_does_not_decode_names_its_record(tmp_path: Path) -> None:
    make_record_set(tmp_path, [3, 3])
    with RecordReader(tmp_path / "train.rec") as reader:
        start = reader.offset(2) + 32
    data = bytearray((tmp_path / "train.rec").read_bytes())
    data[start : start + 2] = b"\0\0"
    (tmp_path / "train.rec").write_bytes(data)
    message = rf"record 2, byte {start - 32}: these .* not a whole image.*image 1 of .*batch 0 of epoch 0"
    with pytest.raises(RecordError, match=message):
        stream(open_source(str(tmp_path)), num_workers=1, last_batch=1)


class _Broken(SyntheticSource):
    def read(self, index: int) -> tuple[np.ndarray, int]:
        raise RuntimeError("a bug in the reader")


def test_other_errors_in_workers_arrive_with_their_text() -> None:
    with pytest.raises(ReaderError, match="a bug in the reader"):
        stream(_Broken(3, 9, ImageFormat(2, 2, 3)), num_workers=1)


class _WrongShape(SyntheticSource):
    def read(self, index: int) -> tuple[np.ndarray, int]:
        return np.zeros((3, 3, 3), dtype=np.uint8), 0


def test_a_source_that_breaks_its_promise_is_named() -> None:
    with pytest.raises(SourceError, match=r"has shape \(3, 3, 3\), the source promises \(2, 2, 3\) \[image \d+ of"):
        stream(_WrongShape(3, 9, ImageFormat(2, 2, 3)))
