"""Record sets as a source: sizes, labels, and what damage is called."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from sources import SourceError, open_source
from sources import test_location as find_test_half
from sources.records import RecordSource
from tests.data import SHARED, needs_golden
from tests.records import make_record_set, picture
from utils.images import encode_jpeg
from utils.recordio import RecordError, RecordHeader, RecordWriter, pack_record


def test_images_labels_and_counts(tmp_path: Path) -> None:
    source = RecordSource(make_record_set(tmp_path, [3, 0, 2], height=12, width=10) / "train.rec")
    assert (len(source), source.num_classes, source.image_format.shape) == (5, 3, (12, 10, 3))
    assert source.class_counts().tolist() == [3, 0, 2]
    for index, label in enumerate([0, 0, 0, 2, 2]):
        image, found = source.read(index)
        assert found == label
        assert np.abs(image.astype(int) - picture(index, 12, 10)).mean() < 3


def test_without_property_the_first_image_tells_the_size(tmp_path: Path) -> None:
    make_record_set(tmp_path, [2, 2], height=12, width=10)
    (tmp_path / "property").unlink()
    source = RecordSource(tmp_path / "train.rec")
    assert (source.num_classes, source.image_format.shape) == (2, (12, 10, 3))


def test_a_copy_by_pickle_reads_the_same(tmp_path: Path) -> None:
    source = RecordSource(make_record_set(tmp_path, [2, 2]) / "train.rec")
    copy = pickle.loads(pickle.dumps(source))
    for index in range(4):
        assert np.array_equal(copy.read(index)[0], source.read(index)[0])
    assert copy.describe() == source.describe()


def test_the_hash_follows_the_index(tmp_path: Path) -> None:
    first = RecordSource(make_record_set(tmp_path / "a", [2, 2]) / "train.rec").describe()
    second = RecordSource(make_record_set(tmp_path / "b", [2, 2]) / "train.rec").describe()
    third = RecordSource(make_record_set(tmp_path / "c", [2, 3]) / "train.rec").describe()
    assert first["idx_sha256"] == second["idx_sha256"] != third["idx_sha256"]
    (tmp_path / "a" / "train.idx").unlink()
    assert RecordSource(tmp_path / "a" / "train.rec").describe()["idx_sha256"] is None


def test_an_image_of_another_size_names_its_record(tmp_path: Path) -> None:
    with RecordWriter(tmp_path / "train.rec", tmp_path / "train.idx") as writer:
        for key, size in ((1, 16), (2, 20)):
            writer.write(key, pack_record(RecordHeader(0, 0.0, key), encode_jpeg(picture(key, size, size))))
    source = RecordSource(tmp_path / "train.rec")
    with pytest.raises(RecordError, match=r"train.rec, record 2, byte \d+: the image is 20x20 .* images are 16x16"):
        source.read(1)


def test_a_label_out_of_range_stops_the_reader(tmp_path: Path) -> None:
    with RecordWriter(tmp_path / "train.rec", tmp_path / "train.idx") as writer:
        for key in (1, 2):
            writer.write(key, pack_record(RecordHeader(0, float(4 * key), key), encode_jpeg(picture(key))))
    (tmp_path / "property").write_text("5,16,16")
    source = RecordSource(tmp_path / "train.rec")
    assert source.read(0)[1] == 4
    with pytest.raises(RecordError, match=r"record 2, .*label 8 is not a whole number in 0 .. 4 .*property says"):
        source.read(1)


def test_a_set_without_images(tmp_path: Path) -> None:
    RecordWriter(tmp_path / "train.rec", tmp_path / "train.idx").close()
    (tmp_path / "train.idx").unlink()
    with pytest.raises(SourceError, match="holds no images"):
        RecordSource(tmp_path / "train.rec")


@needs_golden
def test_sets_written_by_mxnet() -> None:
    source = open_source(str(SHARED / "golden" / "insightface_layout"))
    assert (len(source), source.num_classes, source.image_format.shape) == (144, 24, (112, 112, 3))
    assert [source.read(index)[1] for index in range(144)] == [label for label in range(24) for _ in range(6)]
    assert len(open_source(str(SHARED / "golden" / "im2rec_plain"))) == 8


@pytest.mark.parametrize("name", ["test", "val"])
def test_the_test_half_of_a_record_set_is_a_file_beside_it(name: str, tmp_path: Path) -> None:
    folder = make_record_set(tmp_path / "set", [4, 3, 2], 32, 32)
    assert find_test_half(str(folder)) is None
    with pytest.raises(SourceError, match=r"set:test: looked for test\.rec or val\.rec, found .*train\.rec"):
        open_source(f"{folder}:test")
    other = make_record_set(tmp_path / "other", [1, 2, 1], 32, 32)
    for suffix in (".rec", ".idx"):
        (other / f"train{suffix}").rename(folder / f"{name}{suffix}")
    location = find_test_half(str(folder))
    assert location == f"{folder}:test"
    train, test = open_source(str(folder)), open_source(location)
    assert train.class_counts().tolist() == [4, 3, 2]
    assert test.class_counts().tolist() == [1, 2, 1]
    assert test.num_classes == train.num_classes
    assert test.read(0)[0].shape == (32, 32, 3)
    assert find_test_half(location) is None
