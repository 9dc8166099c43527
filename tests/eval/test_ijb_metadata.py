"""IJB's lists: what is read from them, and every way in which they can be wrong."""

from __future__ import annotations

import numpy as np
import pytest

from eval.ijb_metadata import IjbError, find_ijb, read_ijb_images, read_ijb_pairs, read_ijb_templates
from tests.eval.ijb import write_ijb


def test_a_set_is_found_and_read(tmp_path):
    made = write_ijb(tmp_path)
    for place in (tmp_path, tmp_path / "meta"):
        files = find_ijb(place)
        assert files.name == "ijbc"
    images = read_ijb_images(files.media, files.landmarks)
    assert images.names == made.names
    assert images.templates.tolist() == made.templates.tolist()
    assert images.media.tolist() == made.media.tolist()
    assert images.landmarks.shape == (len(made.names), 5, 2)
    assert images.landmarks[0].tolist() == [[46.0, 62.0], [88.0, 60.0], [68.0, 78.0], [52.0, 100.0], [86.0, 98.0]]
    np.testing.assert_allclose(images.detector_scores, made.scores, atol=1e-3)
    pairs = read_ijb_pairs(files.pairs)
    assert (pairs.first.tolist(), pairs.second.tolist()) == (made.first.tolist(), made.second.tolist())
    assert pairs.is_same.tolist() == made.is_same.tolist()
    gallery = read_ijb_templates(files.galleries[0])
    assert gallery.templates.tolist() == [10, 20, 30]
    assert gallery.subjects.tolist() == [1, 2, 3]


def test_ijbb_calls_its_galleries_otherwise_and_protocols_may_be_absent(tmp_path):
    write_ijb(tmp_path, name="ijbb", letter="S")
    files = find_ijb(tmp_path)
    assert [path.name for path in files.galleries] == ["ijbb_1N_gallery_S1.csv", "ijbb_1N_gallery_S2.csv"]
    files.galleries[1].unlink()
    files.pairs.unlink()
    assert (find_ijb(tmp_path).galleries, find_ijb(tmp_path).pairs) == (None, None)
    files.landmarks.unlink()
    with pytest.raises(IjbError, match=r"ijbb_name_5pts_score.txt: no such file"):
        find_ijb(tmp_path)


def test_no_set_or_two(tmp_path):
    with pytest.raises(IjbError, match=r"0 files \*_face_tid_mid.txt; give the folder"):
        find_ijb(tmp_path)
    with pytest.raises(IjbError, match="no such folder"):
        find_ijb(tmp_path / "no")
    for name in ("a", "b"):
        (tmp_path / f"{name}_face_tid_mid.txt").touch()
    with pytest.raises(IjbError, match="2 files"):
        find_ijb(tmp_path)


POINTS = " ".join(["1.5"] * 11)


@pytest.mark.parametrize(
    ("media", "landmarks", "words"),
    [
        ("1.jpg 1\n", "", r"tid.txt: line 1: expected `image template media`, got '1.jpg 1'"),
        ("1.jpg 1 -2\n", "", "line 1: expected `image template media`"),
        ("1.jpg 1 99999999999\n", "", "line 1: expected `image template media`"),
        ("1.jpg 1 2\n\n2.jpg 1 x\n", "", "line 3: expected `image template media`"),
        ("1.jpg 1 2\n", "", r"has 0 lines, tid.txt 1: they must be of the same images"),
        ("", "", "has 0 lines, tid.txt 0"),
        ("1.jpg 1 2\n", f"1.jpg {POINTS}\n2.jpg {POINTS}\n", "has 2 lines, tid.txt 1"),
        ("1.jpg 1 2\n", f"7.jpg {POINTS}\n", "line 1 is of image '7.jpg', and tid.txt has '1.jpg' there"),
        ("1.jpg 1 2\n", "1.jpg 1 2 3\n", "line 1: expected `image x1 y1 ... x5 y5 score`"),
        ("1.jpg 1 2\n", f"1.jpg {POINTS[:-3]}abc\n", "line 1: expected `image x1 y1"),
        ("1.jpg 1 2\n", f"1.jpg {POINTS[:-3]}nan\n", "the numbers of image '1.jpg' are not finite"),
        ("1.jpg 1 2\n", f"1.jpg {POINTS[:-3]}-1\n", "or its score is < 0"),
    ],
)
def test_lists_of_images_that_are_wrong(tmp_path, media, landmarks, words):
    (tmp_path / "tid.txt").write_text(media)
    (tmp_path / "points.txt").write_text(landmarks)
    with pytest.raises(IjbError, match=words):
        read_ijb_images(tmp_path / "tid.txt", tmp_path / "points.txt")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "the list of pairs is empty"),
        ("1 2\n", "expected `template template label` on every line: .* 2 were found"),
        ("1 2 1\n1 2 3 0\n", "4 were found at row 2"),
        ("1 2 7\n", "pair 1 has label 7; allowed are 1"),
        ("1 2 1\n1 x 1\n", "expected `template template label`"),
        ("1 99999999999 1\n", "expected `template template label`"),
        ("1 2 0.5\n", "expected `template template label`"),
    ],
)
def test_lists_of_pairs_that_are_wrong(tmp_path, text, words):
    (tmp_path / "pairs.txt").write_text(text)
    with pytest.raises(IjbError, match=words):
        read_ijb_pairs(tmp_path / "pairs.txt")


def test_one_pair_is_a_list(tmp_path):
    (tmp_path / "pairs.txt").write_text("5 6 1\n")
    assert read_ijb_pairs(tmp_path / "pairs.txt").is_same.tolist() == [True]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "has no row below its header"),
        ("TEMPLATE_ID,SUBJECT_ID\n", "has no row below its header"),
        ("TEMPLATE_ID,SUBJECT_ID\n1\n", "line 2: expected `TEMPLATE_ID,SUBJECT_ID,...`"),
        ("TEMPLATE_ID,SUBJECT_ID\n1,2,img/1.jpg\n\n1,3,img/2.jpg\n", "line 4: template 1 is of subject 2 above and of"),
        ("a,b\n1,²\n", "line 2: expected"),
    ],
)
def test_lists_of_templates_that_are_wrong(tmp_path, text, words):
    (tmp_path / "gallery.csv").write_text(text)
    with pytest.raises(IjbError, match=words):
        read_ijb_templates(tmp_path / "gallery.csv")


def test_files_that_are_no_text(tmp_path):
    (tmp_path / "x").write_bytes(b"\xff\xfe\x00\n1 2 3\n")
    for read in (read_ijb_pairs, read_ijb_templates, lambda path: read_ijb_images(path, path)):
        with pytest.raises(IjbError, match="x: "):
            read(tmp_path / "x")
        with pytest.raises(IjbError, match="gone"):
            read(tmp_path / "gone")
