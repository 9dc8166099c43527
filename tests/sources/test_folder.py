"""Identity folders as a source."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from sources import SourceError
from sources.folder import FolderSource
from tests.data import SHARED, needs_faces
from tests.records import make_image_folder, picture
from utils.images import ImageError, encode_jpeg


def test_labels_follow_the_sorted_names(tmp_path: Path) -> None:
    make_image_folder(tmp_path, [2, 1, 3])
    (tmp_path / "person_00").rename(tmp_path / "zoe")
    (tmp_path / "note.txt").write_text("not an identity")
    (tmp_path / "zoe" / "note.txt").write_text("not an image")
    (tmp_path / ".cache").mkdir()
    source = FolderSource(tmp_path)
    assert source.names == ["person_01", "person_02", "zoe"]
    assert source.class_counts().tolist() == [1, 3, 2]
    assert [source.read(index)[1] for index in range(6)] == [0, 1, 1, 1, 2, 2]
    assert np.abs(source.read(4)[0].astype(int) - picture(0)).mean() < 3
    assert source.describe()["ignored"] == 2
    copy = pickle.loads(pickle.dumps(source))
    assert np.array_equal(copy.read(3)[0], source.read(3)[0])


def test_names_in_other_scripts(tmp_path: Path) -> None:
    make_image_folder(tmp_path, [1, 1])
    (tmp_path / "person_00" / "000.jpg").rename(tmp_path / "person_00" / "изображение é.JPG")
    assert FolderSource(tmp_path).read(0)[1] == 0


def test_the_hash_follows_the_names(tmp_path: Path) -> None:
    first = FolderSource(make_image_folder(tmp_path / "a", [2, 2])).describe()["names_sha256"]
    second = FolderSource(make_image_folder(tmp_path / "b", [2, 2])).describe()["names_sha256"]
    third = FolderSource(make_image_folder(tmp_path / "c", [2, 3])).describe()["names_sha256"]
    assert first == second != third


def test_an_identity_without_images_is_named(tmp_path: Path) -> None:
    make_image_folder(tmp_path, [1, 1])
    (tmp_path / "person_00" / "000.jpg").unlink()
    with pytest.raises(SourceError, match=r"person_00: no image in this identity folder"):
        FolderSource(tmp_path)


def test_no_identity_folders(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no sub-folders"):
        FolderSource(tmp_path)


def test_damage_another_size_and_a_vanished_file_name_the_file(tmp_path: Path) -> None:
    make_image_folder(tmp_path, [4])
    inside = tmp_path / "person_00"
    source = FolderSource(tmp_path)
    (inside / "001.jpg").write_bytes((inside / "001.jpg").read_bytes()[:100])
    (inside / "002.jpg").write_bytes(encode_jpeg(picture(1, 20, 20)))
    (inside / "003.jpg").unlink()
    with pytest.raises(ImageError, match=r"ends early.*person_00/001.jpg"):
        source.read(1)
    with pytest.raises(ImageError, match=r"20x20.*16x16.*person_00/002.jpg"):
        source.read(2)
    with pytest.raises(SourceError, match=r"person_00/003.jpg: cannot be read: No such file"):
        source.read(3)


@needs_faces
def test_real_faces() -> None:
    source = FolderSource(SHARED / "faces_train")
    assert (len(source), source.num_classes, source.image_format.shape) == (19191, 394, (112, 112, 3))
    assert source.class_counts().sum() == 19191
