"""Which images belong to which class: every kind of source tells the same as its labels do."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sources import Source, open_source
from sources.arrays import ArraySource
from sources.synthetic import SyntheticSource
from tests.records import image_record, make_image_folder, make_record_set, write_set
from utils.class_index import ClassIndex
from utils.images import ImageFormat
from utils.recordio import RecordError, RecordReader

TINY = ImageFormat(2, 2, 1)


def listed(index: ClassIndex) -> list[list[int]]:
    """All images of each class."""
    return [
        index.image(np.full(count, label), np.arange(count)).tolist()
        for label, count in enumerate(index.counts.tolist())
    ]


def by_reading(source: Source) -> list[list[int]]:
    found: list[list[int]] = [[] for _ in range(source.num_classes)]
    for image in range(len(source)):
        found[source.read(image)[1]].append(image)
    return found


def arrays(labels: list[int]) -> ArraySource:
    images = np.zeros((len(labels), 2, 2, 1), np.uint8)
    return ArraySource("arrays", Path(), images, np.array(labels), 4, TINY)


@pytest.mark.parametrize("kind", ["records", "folder", "arrays", "sorted arrays", "synthetic"])
def test_the_index_agrees_with_the_labels(kind: str, tmp_path: Path) -> None:
    if kind == "records":
        source = open_source(str(make_record_set(tmp_path, [3, 0, 2, 1])))
    elif kind == "folder":
        source = open_source(str(make_image_folder(tmp_path, [3, 1, 2])))
    elif kind == "synthetic":
        source = SyntheticSource(4, 10, TINY)
    else:
        source = arrays([0, 0, 1, 3, 3] if kind.startswith("sorted") else [3, 0, 1, 0, 3, 3])
    index = source.class_index()
    assert listed(index) == by_reading(source)
    assert index.counts.tolist() == source.class_counts().tolist()
    assert (index.images is not None) == (kind == "arrays"), "a list of images only where no rule gives their numbers"


def test_records_without_identities_are_listed_by_their_headers(tmp_path: Path) -> None:
    labels = [2, 0, 2, 1, 0, 4]
    rec = write_set(tmp_path, {key: image_record(float(label), key) for key, label in enumerate(labels)})
    index = RecordReader(rec).class_index()
    assert listed(index) == [[1, 4], [3], [0, 2], [], [5]]
    assert index.images is not None
    assert index.images.dtype == np.int32


def test_identity_records_spare_the_headers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = RecordReader(make_record_set(tmp_path, [3, 1, 5]) / "train.rec")
    read: list[int] = []
    labels = RecordReader.labels
    monkeypatch.setattr(RecordReader, "labels", lambda self, keys: (read.append(len(keys)), labels(self, keys))[1])
    assert listed(reader.class_index()) == [[0, 1, 2], [3], [4, 5, 6, 7, 8]]
    assert read == [3, 3], "the first and the last image of each identity"


def test_a_label_that_is_no_class_is_refused(tmp_path: Path) -> None:
    rec = write_set(tmp_path, {key: image_record(label, key) for key, label in enumerate([0.0, 1.5, 1.0])})
    with pytest.raises(RecordError, match=r"label 1\.5"):
        RecordReader(rec).class_index()
