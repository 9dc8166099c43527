"""Market-1501 and DukeMTMC-reID: file names, labels, sizes."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from sources import SourceError, open_source
from sources.reid import find_reid_folder, parse_reid_name
from tests.records import picture
from utils.images import ImageError, encode_jpeg

TRAIN = "bounding_box_train"


def write(folder: Path, names: list[str], height: int = 128, width: int = 64) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(names):
        (folder / name).write_bytes(encode_jpeg(picture(number, height, width)))
    return folder


MARKET = ["0007_c3s1_000001_01.jpg", "0002_c1s1_000451_03.jpg", "0002_c2s1_000551_01.jpg", "1500_c6s3_086542_02.jpg"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("0002_c1s1_000451_03.jpg", (2, 1)),
        ("-1_c3s2_001_00.jpg", (-1, 3)),
        ("0000_c6s1_1.jpg", (0, 6)),
        ("0005_c2_f0046985.jpg", (5, 2)),
        ("query/0005_c8_f0046985.jpg", (5, 8)),
    ],
)
def test_names(name: str, expected: tuple[int, int]) -> None:
    assert parse_reid_name(name) == expected


@pytest.mark.parametrize(
    "name", ["", "x_c1s1.jpg", "-2_c1s1.jpg", "0002.jpg", "0002_cXs1.jpg", "²_c1.jpg", "1" * 12 + "_c1"]
)
def test_names_of_something_else(name: str) -> None:
    with pytest.raises(SourceError, match="does not begin with an identity and a camera"):
        parse_reid_name(name)


def test_training_images_get_dense_labels(tmp_path: Path) -> None:
    junk = ["-1_c1s1_1_1.jpg", "0000_c1s1_1_1.jpg"]
    write(tmp_path / "Market-1501-v15.09.15" / TRAIN, [*MARKET, *junk])
    (tmp_path / "Market-1501-v15.09.15" / TRAIN / "Thumbs.db").touch()
    source = open_source(f"market1501:{tmp_path}")
    assert (len(source), source.num_classes) == (4, 3)
    assert source.identities.tolist() == [2, 7, 1500]
    assert source.image_format.shape == (128, 64, 3)
    assert [source.read(index)[1] for index in range(4)] == [0, 0, 1, 2]  # in the order of the names
    assert np.abs(source.read(2)[0].astype(int) - picture(0, 128, 64)).mean() < 4
    assert source.class_counts().tolist() == [2, 1, 1]
    assert source.class_index().image(np.array([0, 2]), np.array([1, 0])).tolist() == [1, 3]
    told = source.describe()
    assert (told["kind"], told["images"], told["classes"], told["ignored"]) == ("market1501", 4, 3, 2)
    copy = pickle.loads(pickle.dumps(source))
    assert np.array_equal(copy.read(3)[0], source.read(3)[0])


def test_sizes(tmp_path: Path) -> None:
    write(tmp_path / TRAIN, MARKET[:2], 100, 60)
    with pytest.raises(ImageError, match=r"100x60.*128x64.*0002_c1s1_000451_03.jpg"):
        open_source(f"market1501:{tmp_path}").read(0)
    assert open_source(f"dukemtmc:{tmp_path}").read(0)[0].shape == (128, 64, 3)  # Duke's crops differ in size
    for kind in ("market1501", "dukemtmc"):
        source = open_source(f"{kind}:{tmp_path}:112x112")
        assert source.image_format.shape == (112, 112, 3)
        assert source.read(1)[0].shape == (112, 112, 3)
        # the whole image is there, not its middle
        assert np.abs(source.read(1)[0][0, 0].astype(int) - picture(0, 100, 60)[0, 0]).max() < 12


@pytest.mark.parametrize(
    ("location", "message"),
    [
        ("market1501:", "give market1501:DIR or market1501:DIR:HEIGHTxWIDTH"),
        ("market1501:/no/where", "there is no folder '/no/where'"),
        ("market1501:{0}", "looked for bounding_box_train, query and bounding_box_test, found empty, junk"),
        ("dukemtmc:{0}/empty", "bounding_box_train: no .jpg in it"),
        ("dukemtmc:{0}/junk", "all 1 images are junk or distractors"),
        ("dukemtmc:{0}/junk:0x64", "have no pixels"),
    ],
)
def test_locations_that_open_nothing(tmp_path: Path, location: str, message: str) -> None:
    (tmp_path / "empty" / TRAIN).mkdir(parents=True)
    write(tmp_path / "junk" / TRAIN, ["0000_c1_1.jpg"])
    with pytest.raises(SourceError, match=message):
        open_source(location.format(tmp_path))


def test_only_query_and_gallery_are_no_training_set(tmp_path: Path) -> None:
    write(tmp_path / "query", MARKET[:1])
    assert find_reid_folder("market1501", tmp_path) == tmp_path
    with pytest.raises(SourceError, match="holds no bounding_box_train: unpack the whole archive there"):
        open_source(f"market1501:{tmp_path}")


def test_a_name_that_does_not_parse_and_a_vanished_file(tmp_path: Path) -> None:
    write(tmp_path / TRAIN, MARKET)
    source = open_source(f"market1501:{tmp_path}")
    (tmp_path / TRAIN / MARKET[1]).unlink()
    with pytest.raises(SourceError, match=r"0002_c1s1_000451_03.jpg: cannot be read: No such file"):
        source.read(0)
    write(tmp_path / TRAIN, ["portrait.jpg"])
    with pytest.raises(SourceError, match=r"'portrait\.jpg' does not begin with"):
        open_source(f"market1501:{tmp_path}")
