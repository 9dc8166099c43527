"""Images from folders, lists, record sets and single files, with names and identities."""

from __future__ import annotations

import os

import numpy as np
import pytest

from eval.image_set import ImageSetError, open_image_set
from tests.eval.faces import face
from utils.errors import DataError
from utils.images import ImageError, encode_jpeg
from utils.record_set import write_record_set


def write(path, identity=0, shot=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode_jpeg(face(identity, shot)))
    return path


def who(images):
    return [images.identities[label] if label >= 0 else None for label in images.labels]


def test_a_folder_of_identities(tmp_path):
    for name in ("Bob/2.jpg", "Ann/1.jpg", "Ann/0.PNG", "team/Cid/0.jpg", "loose.jpg", ".hidden/x.jpg"):
        write(tmp_path / name, identity=len(name))
    (tmp_path / "Ann" / "notes.txt").write_text("no image")
    images = open_image_set(tmp_path)
    assert list(images.names) == ["loose.jpg", "Ann/0.PNG", "Ann/1.jpg", "Bob/2.jpg", "team/Cid/0.jpg"]
    assert who(images) == [None, "Ann", "Ann", "Bob", "team/Cid"]
    assert images.images[3].shape == (112, 112, 3)
    assert images.name == tmp_path.name


def test_lists(tmp_path):
    write(tmp_path / "a" / "1.jpg")
    outside = write(tmp_path / "elsewhere" / "2.jpg", 1)
    (tmp_path / "some.txt").write_text(f"a/1.jpg\tAnn\n\n{outside}\n")
    images = open_image_set(tmp_path / "some.txt")
    assert who(images) == ["Ann", None]
    assert np.abs(images.images[1].astype(int) - face(1)).mean() < 5
    (tmp_path / "some.lst").write_text("7\t3.0\ta/1.jpg\n")
    assert who(open_image_set(tmp_path / "some.lst")) == ["3.0"]


def test_records_and_single_files(tmp_path):
    payloads = [(encode_jpeg(face(identity, shot)), "x") for identity in (0, 1) for shot in (0, 1)]
    write_record_set(tmp_path, [2, 2], payloads, (112, 112))
    for location in (tmp_path, tmp_path / "train.rec"):
        images = open_image_set(location)
        assert who(images) == ["0", "0", "1", "1"]
        assert list(images.names) == ["record 1", "record 2", "record 3", "record 4"]
        assert images.names[1:3] == ["record 2", "record 3"]
        assert images.name == tmp_path.name
    alone = open_image_set(write(tmp_path / "alone.jpg"))
    assert (list(alone.names), who(alone)) == (["alone.jpg"], [None])


def test_the_hash_follows_bytes_names_and_identities(tmp_path):
    write(tmp_path / "a" / "x" / "1.jpg")
    write(tmp_path / "b" / "x" / "1.jpg")
    first = open_image_set(tmp_path / "a").sha256()
    assert open_image_set(tmp_path / "b").sha256() == first
    write(tmp_path / "b" / "x" / "1.jpg", shot=1)
    assert open_image_set(tmp_path / "b").sha256() != first
    (tmp_path / "b" / "x").rename(tmp_path / "b" / "y")
    write(tmp_path / "b" / "y" / "1.jpg")
    assert open_image_set(tmp_path / "b").sha256() != first
    write_record_set(tmp_path, [1], [(encode_jpeg(face(0)), "x")], (112, 112))
    before = open_image_set(tmp_path).sha256()
    write_record_set(tmp_path, [1], [(encode_jpeg(face(1)), "x")], (112, 112))
    assert open_image_set(tmp_path).sha256() != before


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("no", None, "no such file or folder; give a folder of images"),
        ("a.txt", "", "the list is empty"),
        ("a.txt", "x.jpg\ta\tb\n", "line 1: expected `path` or `path<TAB>identity`"),
        ("a.lst", "1\tx.jpg\n", "line 1: expected `key<TAB>label<TAB>path`"),
        ("a.lst", "1\tnan\tx.jpg\n", "line 1: expected"),
        ("a.pdf", "x", "neither an image"),
    ],
)
def test_what_is_no_set_of_images(tmp_path, name, content, words):
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(ImageSetError, match=words):
        open_image_set(tmp_path / name)


def test_images_that_cannot_be_used_name_their_file(tmp_path):
    (tmp_path / "small.jpg").write_bytes(encode_jpeg(face(0)[:50]))
    with pytest.raises(ImageError, match=r"small\.jpg"):
        open_image_set(tmp_path).images[0]
    assert open_image_set(tmp_path, image_format=None).images[0].shape == (50, 112, 3)
    (tmp_path / "list.txt").write_text("gone.jpg\n")
    with pytest.raises(DataError, match=r"gone\.jpg: cannot be read"):
        open_image_set(tmp_path / "list.txt").images[0]
    (tmp_path / "empty").mkdir()
    with pytest.raises(ImageSetError, match="no image in it"):
        open_image_set(tmp_path / "empty")


def test_pipes_and_devices_do_not_hang(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "list.txt").write_text("pipe.jpg\n/dev/zero\n")
    images = open_image_set(tmp_path / "list.txt")
    for index in (0, 1):
        with pytest.raises(ImageSetError, match="is no ordinary file"):
            images.images[index]
    with pytest.raises(ImageSetError, match="is no ordinary file"):
        images.sha256()
    with pytest.raises(ImageSetError, match="no image in it"):
        open_image_set(tmp_path)  # a pipe in a folder is no image


def test_a_link_to_a_folder_above_is_walked_once(tmp_path):
    write(tmp_path / "a" / "1.jpg")
    (tmp_path / "a" / "up").symlink_to(tmp_path, target_is_directory=True)
    write(tmp_path / "elsewhere" / "2.jpg")
    (tmp_path / "b").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    names = list(open_image_set(tmp_path).names)
    assert "a/1.jpg" in names
    assert len(names) == 2


def test_files_larger_than_any_image_are_not_read(tmp_path):
    with (tmp_path / "a.jpg").open("wb") as stream:
        stream.truncate(1 << 40)  # sparse: no byte is on the disk
    with pytest.raises(ImageSetError, match="1099511627776 bytes; up to 536870912 are read"):
        open_image_set(tmp_path).images[0]
