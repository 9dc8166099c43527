"""Pair sets from .bin files and pair lists: what is read, in which order, and how each fault is named."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from eval.pairs import PairError, PairSet, list_targets, load_pairs, write_bin
from tests.eval.faces import face, jpeg_pairs, write_lfw_images
from utils.images import decode_image, encode_jpeg


@pytest.fixture
def data_dir(tmp_path):
    """small.bin, and a folder `faces` with images and an LFW list of 2 folds x (2 same + 2 different)."""
    images, flags = jpeg_pairs(12)
    write_bin(tmp_path / "small.bin", images, flags)
    write_lfw_images(tmp_path / "faces" / "images", {"Ann_Lee": 3, "Bob": 3, "Cyd": 2})
    lines = ["2\t2"]
    for first, second in ((1, 2), (2, 3)):
        lines += [f"Ann_Lee\t{first}\t{second}", f"Bob\t{first}\t{second}"]
        lines += [f"Ann_Lee\t{first}\tBob\t{second}", f"Bob\t{second}\tCyd\t{first}"]
    (tmp_path / "faces" / "pairs.txt").write_text("\n".join(lines) + "\n")
    return tmp_path


def test_bin_by_name_and_by_file(data_dir):
    images, flags = jpeg_pairs(12)
    for target, folder in (("small", data_dir), ("small.bin", data_dir), (str(data_dir / "small.bin"), "elsewhere")):
        pairs = load_pairs(target, folder)
        assert pairs.name == "small"
        assert pairs.is_same.tolist() == flags
        assert pairs.num_folds == 10
        assert pairs.data_sha256 == hashlib.sha256((data_dir / "small.bin").read_bytes()).hexdigest()
        for index in (0, 5, 23):
            np.testing.assert_array_equal(pairs.images[index], decode_image(images[index]))


def test_every_image_has_a_name_for_people(data_dir):
    small, faces = load_pairs("small", data_dir), load_pairs("faces", data_dir)
    assert (len(small.names), small.names[17], list(small.names[22:])) == (24, "image 17", ["image 22", "image 23"])
    assert list(faces.names[-2:]) == ["Bob/Bob_0003.jpg", "Cyd/Cyd_0002.jpg"]
    with pytest.raises(PairError, match="short: 2 names are needed, or none; got 1"):
        PairSet("short", [faces.images[0], faces.images[1]], faces.is_same[:1], 1, "", names=["one"])


def test_a_list_in_the_working_directory_is_called_after_it(data_dir, monkeypatch):
    monkeypatch.chdir(data_dir / "faces")
    assert load_pairs("images:pairs.txt", ".").name == "faces"
    assert load_pairs("faces/images:faces/pairs.txt", data_dir).name == "faces"


def test_fewer_pairs_than_ten_make_fewer_folds(tmp_path):
    write_bin(tmp_path / "few.bin", *jpeg_pairs(4))
    assert load_pairs("few", tmp_path).num_folds == 4


def test_lfw_list(data_dir):
    pairs = load_pairs("faces", data_dir)
    assert pairs.name == "faces"
    assert pairs.num_folds == 2
    assert pairs.is_same.tolist() == [True, True, False, False] * 2
    folder = data_dir / "faces" / "images"
    wanted = ["Ann_Lee 1", "Ann_Lee 2", "Bob 1", "Bob 2", "Ann_Lee 1", "Bob 2", "Bob 2", "Cyd 1"]
    digest = hashlib.sha256((data_dir / "faces" / "pairs.txt").read_bytes())
    for index, image in enumerate(wanted):
        name, shot = image.split()
        content = (folder / name / f"{name}_000{shot}.jpg").read_bytes()
        digest.update(content)
        np.testing.assert_array_equal(pairs.images[index], decode_image(content))
    assert len(pairs.images) == 16
    assert pairs.data_sha256 != digest.hexdigest()  # there are more images than these
    for name, shot in (("Ann_Lee", 2), ("Ann_Lee", 3), ("Bob", 2), ("Bob", 3)):
        digest.update((folder / name / f"{name}_000{shot}.jpg").read_bytes())
    for name, shot in (("Ann_Lee", 2), ("Bob", 3), ("Bob", 3), ("Cyd", 2)):
        digest.update((folder / name / f"{name}_000{shot}.jpg").read_bytes())
    assert pairs.data_sha256 == digest.hexdigest()


def test_sllfw_list(data_dir):
    (data_dir / "faces" / "pairs_hard.txt").write_text(
        "Ann_Lee/Ann_Lee_0001.jpg\nAnn_Lee/Ann_Lee_0003.jpg\nBob/Bob_0001.jpg\r\nCyd/Cyd_0002.jpg\n\n"
    )
    pairs = load_pairs("faces/images:faces/pairs_hard.txt", data_dir)
    assert pairs.name == "pairs_hard"
    assert pairs.is_same.tolist() == [True, False]
    assert pairs.num_folds == 2
    content = (data_dir / "faces/images/Cyd/Cyd_0002.jpg").read_bytes()
    np.testing.assert_array_equal(pairs.images[3], decode_image(content))
    assert list_targets(data_dir) == ["faces", "faces/images:faces/pairs_hard.txt", "small"]


def test_a_missing_set_lists_what_is_there(data_dir, tmp_path):
    with pytest.raises(PairError, match=r"cfp_fp: neither cfp_fp.bin nor cfp_fp/pairs.txt is in .*There: faces, small"):
        load_pairs("cfp_fp", data_dir)
    with pytest.raises(PairError, match=r"no folder .*nowhere"):
        load_pairs("lfw", tmp_path / "nowhere")
    with pytest.raises(PairError, match=r"other.bin does not exist.*There: faces, small"):
        load_pairs("other.bin", data_dir)
    (tmp_path / "empty").mkdir()
    with pytest.raises(PairError, match="There: no verification set at all"):
        load_pairs("lfw", tmp_path / "empty")


def test_a_missing_image_is_named_with_its_line(data_dir):
    (data_dir / "faces" / "images" / "Cyd" / "Cyd_0001.jpg").unlink()
    with pytest.raises(PairError, match=r"pairs\.txt: line 5: the image .*Cyd_0001\.jpg cannot be read: No such file"):
        load_pairs("faces", data_dir)


def test_a_damaged_image_is_named_with_its_line(data_dir):
    (data_dir / "faces" / "images" / "Cyd" / "Cyd_0001.jpg").write_bytes(b"\xff\xd8 no face")
    pairs = load_pairs("faces", data_dir)  # decoding waits until the image is asked for
    with pytest.raises(PairError, match=r"Cyd_0001\.jpg \(.*pairs\.txt: line 5\)"):
        pairs.images[7]


def test_an_image_of_another_size_is_named(tmp_path):
    images, flags = jpeg_pairs(2)
    images[3] = encode_jpeg(face(1)[:100])
    write_bin(tmp_path / "odd.bin", images, flags)
    with pytest.raises(PairError, match=r"odd\.bin: image 3 \(pair 1\): the image is 100x112"):
        load_pairs("odd", tmp_path).images[3]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the pair list is empty"),
        ("2 2\nAnn_Lee 1 2\n", r"line 1: the header '2 2' announces 8 pairs .*the list holds 1"),
        ("1 1\nAnn_Lee 1 2\nAnn_Lee 1 2\n", r"line 3: expected `name i other j` .*got 'Ann_Lee 1 2'"),
        ("1 1\nAnn_Lee 1 Bob 2\nAnn_Lee 1 Bob 2\n", r"line 2: expected `name i j` .*got 'Ann_Lee 1 Bob 2'"),
        ("1 1\nAnn_Lee 1 two\nAnn_Lee 1 Bob 2\n", "line 2: expected `name i j`"),
        ("Bob/Bob_0001.jpg\nBob/Bob_0002.jpg\nBob/Bob_0003.jpg\n", "line 3: 3 lines do not make pairs of two"),
        ("Bob/Bob_0001.jpg\nBob 2\n", "line 2: expected `Name/Name_0001.jpg`"),
    ],
)
def test_lines_that_do_not_parse_are_named(data_dir, text, message):
    (data_dir / "faces" / "pairs.txt").write_text(text)
    with pytest.raises(PairError, match=message):
        load_pairs("faces", data_dir)


def test_a_single_number_is_a_header_of_one_fold(data_dir):
    (data_dir / "faces" / "pairs.txt").write_text("1\nBob 1 2\nBob 1 Cyd 2\n")
    pairs = load_pairs("faces", data_dir)
    assert (pairs.num_folds, pairs.is_same.tolist()) == (1, [True, False])
