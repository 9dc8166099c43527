"""Class folders with halves and CUB's lists, from small pictures that these tests write."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from sources import SourceError, open_source
from sources import test_location as find_test_half
from sources.image_files import middle
from tests.records import make_image_folder, picture
from utils.images import ImageError, encode_image, encode_jpeg


def write_halves(folder: Path, half: str = "test") -> Path:
    make_image_folder(folder / "train", [2, 1, 3], 20, 30)
    make_image_folder(folder / half, [1, 0, 2], 30, 20)
    (folder / half / "person_01").rmdir()
    return folder


@pytest.mark.parametrize("half", ["test", "val"])
def test_halves_share_the_labels_of_train(half: str, tmp_path: Path) -> None:
    write_halves(tmp_path, half)
    train, test = open_source(f"folder:{tmp_path}"), open_source(f"folder:{tmp_path}:test")
    assert train.image_format.shape == test.image_format.shape == (112, 112, 3)
    assert (train.num_classes, test.num_classes) == (3, 3)
    assert train.class_counts().tolist() == [2, 1, 3]
    assert test.class_counts().tolist() == [1, 0, 2]
    assert [test.read(index)[1] for index in range(3)] == [0, 2, 2]
    assert train.names == ["person_00", "person_01", "person_02"]  # type: ignore[attr-defined]
    assert train.read(0)[0].shape == (112, 112, 3)


def test_test_wins_over_val_and_a_size_can_be_named(tmp_path: Path) -> None:
    write_halves(tmp_path)
    make_image_folder(tmp_path / "val", [5])
    source = pickle.loads(pickle.dumps(open_source(f"folder:{tmp_path}:test:16x24")))
    assert len(source) == 3
    assert source.read(1)[0].shape == (16, 24, 3)
    assert open_source(f"folder:{tmp_path}:train:16x24").image_format.shape == (16, 24, 3)


def test_a_class_that_train_does_not_know_is_refused(tmp_path: Path) -> None:
    write_halves(tmp_path)
    (tmp_path / "test" / "person_02").rename(tmp_path / "test" / "zoe")
    with pytest.raises(SourceError, match=r"zoe: .*train has no class 'zoe'.*\(1 of 2 test classes are unknown\)"):
        open_source(f"folder:{tmp_path}:test")


def test_folders_that_are_missing(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="holds no train; it needs train and test"):
        open_source(f"folder:{tmp_path}")
    make_image_folder(tmp_path / "train", [1])
    with pytest.raises(SourceError, match="holds neither test nor val"):
        open_source(f"folder:{tmp_path}:test")
    with pytest.raises(SourceError, match=r"there is no folder '.*nowhere'; give folder:DIR or folder:DIR:test"):
        open_source(f"folder:{tmp_path}/nowhere:test:16x16")
    with pytest.raises(SourceError, match="images of 0x16 pixels have no pixels"):
        open_source(f"folder:{tmp_path}:0x16")


def test_damage_and_a_vanished_file_name_the_file(tmp_path: Path) -> None:
    make_image_folder(tmp_path / "train", [2])
    source = open_source(f"folder:{tmp_path}")
    first, second = sorted((tmp_path / "train" / "person_00").iterdir())
    first.write_bytes(first.read_bytes()[:99])
    second.unlink()
    with pytest.raises(ImageError, match=r"ends early.*person_00/000\.jpg"):
        source.read(0)
    with pytest.raises(SourceError, match=r"person_00/001\.jpg: cannot be read"):
        source.read(1)


@pytest.mark.parametrize("shape", [(40, 80), (80, 40), (23, 91), (10, 10), (7, 13), (16, 24)])
@pytest.mark.parametrize("size", [(16, 24), (20, 20), (33, 9)])
def test_the_middle_is_cut_out_and_nothing_stretched(shape: tuple[int, int], size: tuple[int, int]) -> None:
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    ramp = np.stack([rows * 255 / shape[0], columns * 255 / shape[1], np.zeros(shape)], axis=2).astype(np.uint8)
    found = middle(ramp, size)
    assert found.shape == (*size, 3)
    scale = max(size[0] / shape[0], size[1] / shape[1])
    for axis in (0, 1):
        centre, span = found[size[0] // 2, size[1] // 2, axis], np.ptp(found[..., axis].astype(int))
        assert abs(float(centre) - 127.5) < 255 / min(size) + 255 / min(shape)
        assert abs(span - 255 * size[axis] / (shape[axis] * scale)) < 3 * 255 / min(*size, *shape)


def test_an_image_of_that_size_is_left_alone() -> None:
    image = picture(1, 16, 24)
    assert middle(image, (16, 24)) is image


def write_cub(folder: Path, **lists: str) -> Path:
    home = folder / "CUB_200_2011"
    names = ["001.Albatross/a.jpg", "001.Albatross/b.png", "002.Auklet/c.jpg", "002.Auklet/d.jpg", "002.Auklet/e.jpg"]
    for number, name in enumerate(names):
        (home / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        content = picture(number, 18, 25)
        encoded = encode_image(content, "png") if name.endswith("png") else encode_jpeg(content)
        (home / "images" / name).write_bytes(encoded)
    written = {
        "images": "".join(f"{number} {name}\n" for number, name in enumerate(names, 1)),
        "image_class_labels": "1 1\n2 1\n3 2\n4 2\n5 2\n",
        "train_test_split": "1 0\n2 1\n3 1\n4 0\n5 1\n",
        **lists,
    }
    for name, text in written.items():
        (home / f"{name}.txt").write_text(text)
    return folder


def test_cub_follows_its_lists(tmp_path: Path) -> None:
    write_cub(tmp_path)
    train, test = open_source(f"cub200:{tmp_path}:18x25"), open_source(f"cub200:{tmp_path}/CUB_200_2011:test")
    assert [train.read(index)[1] for index in range(3)] == [0, 1, 1]
    assert [test.read(index)[1] for index in range(2)] == [0, 1]
    assert train.names == ["001.Albatross", "002.Auklet"]  # type: ignore[attr-defined]
    assert np.array_equal(train.read(0)[0], picture(1, 18, 25))
    assert test.image_format.shape == (112, 112, 3)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("images", "1 a.jpg\nb.jpg\n", r"images\.txt, line 2: 'b\.jpg' is not an image's own number and a value"),
        ("images", "1 a.jpg\n1 b.jpg\n", "line 2: '1 b.jpg' is not"),
        ("images", "", "images.txt: it is empty"),
        ("images", "1 ../a\n2 b\n3 c\n4 d\n5 e\n", r"image 1 is '\.\./a', outside of the set's own folder"),
        ("images", "1 /a\n2 b\n3 c\n4 d\n5 e\n", "image 1 is '/a', outside"),
        ("image_class_labels", "1 1\n2 1\n3 2\n4 2\n", r"image_class_labels\.txt: image 5 is in it or in images\.txt"),
        ("image_class_labels", "1 1\n2 1\n3 3\n4 3\n5 3\n", r"2 classes with numbers 1 \.\. 3; they must be 1, 2"),
        ("image_class_labels", "1 0\n2 1\n3 1\n4 1\n5 1\n", r"numbers 0 \.\. 1; they must be"),
        ("image_class_labels", "1 1\n2 1\n3 two\n4 2\n5 2\n", "image 3 has 'two', which is no whole number"),
        ("train_test_split", "1 0\n2 1\n3 1\n4 2\n5 1\n", "each image has 1"),
        ("train_test_split", "1 0\n2 0\n3 0\n4 0\n5 0\n", "no image is for training"),
    ],
)
def test_lists_that_are_wrong(name: str, text: str, message: str, tmp_path: Path) -> None:
    write_cub(tmp_path, **{name: text})
    with pytest.raises(SourceError, match=message):
        open_source(f"cub200:{tmp_path}")


def test_a_missing_list(tmp_path: Path) -> None:
    write_cub(tmp_path)
    (tmp_path / "CUB_200_2011" / "train_test_split.txt").unlink()
    with pytest.raises(SourceError, match=r"train_test_split\.txt: cannot be read: .*; unpack CUB_200_2011\.tgz"):
        open_source(f"cub200:{tmp_path}")


@pytest.mark.parametrize(
    ("location", "expected"),
    [
        ("folder:DIR", "folder:DIR:test"),
        ("folder:DIR:64x32", "folder:DIR:test:64x32"),
        ("cub200:DIR:train:224x224", "cub200:DIR:test:224x224"),
        ("cub200:DIR:test:224x224", None),
        ("imagenet32:DIR", "imagenet32:DIR:test"),
        ("market1501:DIR:64x32", None),
    ],
)
def test_test_halves_keep_their_size(location: str, expected: str | None) -> None:
    assert find_test_half(location) == expected
