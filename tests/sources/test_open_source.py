"""Locations and the errors that answer wrong ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from sources import SourceError, open_source
from sources import test_location as find_test_half
from tests.records import make_image_folder, make_record_set


def test_each_kind_of_folder_opens(tmp_path: Path) -> None:
    make_record_set(tmp_path / "records", [2, 3])
    make_image_folder(tmp_path / "folder", [2, 3])
    locations = [str(tmp_path / name) for name in ("records", "records/train.rec", "folder")] + ["synthetic:3:9"]
    kinds = [open_source(location).describe()["kind"] for location in locations]
    assert kinds == ["records", "records", "folder", "synthetic"]


def test_a_folder_of_records_wins_over_its_sub_folders(tmp_path: Path) -> None:
    make_record_set(tmp_path, [2, 3])
    make_image_folder(tmp_path / "sub", [1])
    assert open_source(str(tmp_path)).describe()["kind"] == "records"


def test_a_missing_folder_lists_its_neighbours_and_the_choices(tmp_path: Path) -> None:
    (tmp_path / "ms1m").mkdir()
    with pytest.raises(SourceError, match=r"ms1n: there is no such folder; .* holds ms1m/\. What to do: .*synthetic"):
        open_source(str(tmp_path / "ms1n"))
    with pytest.raises(SourceError, match="does not exist either"):
        open_source(str(tmp_path / "no" / "where"))


@pytest.mark.parametrize(
    ("location", "message"),
    [
        ("", "the location is empty.*train.rec"),
        ("mnist:", "mnist:: there is no folder ''?"),
        ("cifar10:/no/where", "cifar10:/no/where: there is no folder '/no/where'"),
        ("synthetic:5", "give synthetic or synthetic:CLASSES:IMAGES"),
        ("synthetic:0:5", "0 classes and 5 images; both must be at least 1"),
    ],
)
def test_locations_that_open_nothing(location: str, message: str) -> None:
    with pytest.raises(SourceError, match=message):
        open_source(location)


def test_a_folder_with_neither_records_nor_identities(tmp_path: Path) -> None:
    (tmp_path / "readme.txt").write_text("nothing")
    with pytest.raises(SourceError, match=r"looked for train\.rec or identity folders, found readme\.txt"):
        open_source(str(tmp_path))
    with pytest.raises(SourceError, match=r"neither a \.rec nor a folder"):
        open_source(str(tmp_path / "readme.txt"))


@pytest.mark.parametrize(
    ("location", "expected"),
    [
        ("mnist:data/mnist", "mnist:data/mnist:test"),
        ("cifar10:DIR", "cifar10:DIR:test"),
        ("cifar100:DIR:train", "cifar100:DIR:test"),
        ("svhn:C:/data", "svhn:C:/data:test"),
        ("svhn:data/train", "svhn:data/train:test"),
        ("digits", "digits:test"),
        ("digits:train", "digits:test"),
        ("synthetic", "synthetic:test"),
        ("synthetic:7:48", "synthetic:7:48:test"),
        ("digits:test", None),
        ("mnist:DIR:test", None),
        ("market1501:DIR", None),
        ("mnist", None),
        ("some/folder", None),
        ("", None),
    ],
)
def test_where_the_test_half_is(location: str, expected: str | None) -> None:
    assert find_test_half(location) == expected


def test_the_test_half_of_noise_has_the_same_classes_and_other_pixels() -> None:
    train, test = open_source("synthetic:3:7"), open_source("synthetic:3:7:test")
    assert (len(test), test.class_counts().tolist()) == (7, [3, 2, 2])
    assert [test.read(index)[1] for index in range(7)] == [train.read(index)[1] for index in range(7)]
    assert not any((train.read(index)[0] == test.read(index)[0]).mean() > 0.1 for index in range(7))
    assert open_source("synthetic:test").num_classes == 10_000
