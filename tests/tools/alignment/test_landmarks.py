"""Files of landmarks: every format that is promised, every line that is none, and back again."""

from __future__ import annotations

import math
import os

import numpy as np
import pytest

from tools.alignment.detector import Face
from tools.alignment.landmarks import face_of, read_landmarks, require_order, write_landmarks
from tools.alignment.template import ARCFACE_TEMPLATE, LandmarkError

NUMBERS = [str(value) for value in range(1, 11)]
CELEBA = "lefteye_x lefteye_y righteye_x righteye_y nose_x nose_y leftmouth_x leftmouth_y rightmouth_x rightmouth_y"


def written(path, text: str):
    path.write_text(text, encoding="utf-8")
    return read_landmarks(path)


def test_what_is_written_is_read(tmp_path):
    odd = ['Ann/a, "b".jpg', "x\ny.png", " spaced .jpg", os.fsdecode(b"latin \xe4.jpg"), "ä/日.jpg"]
    faces = {name: face_of([*np.linspace(-5, 700.1234, 10), 1, 2, 3, 4, 0.5 + i / 100]) for i, name in enumerate(odd)}
    faces["none"] = Face(ARCFACE_TEMPLATE, (math.nan,) * 4, math.nan)
    write_landmarks(tmp_path / "a.csv", faces.items())
    got = read_landmarks(tmp_path / "a.csv")
    assert list(got.names()) == list(faces)
    for name, face in faces.items():
        np.testing.assert_allclose(got.get(name).points, face.points, atol=1e-4)
        np.testing.assert_equal(got.get(name).box, face.box)
        np.testing.assert_equal(got.get(name).score, face.score)
    assert got.get("other") is None


@pytest.mark.parametrize(
    "text",
    [
        "a b.jpg " + " ".join(NUMBERS) + "\n",
        "a b.jpg\t" + "\t".join(NUMBERS) + "\r\n\n",
        f"1\n{CELEBA}\na b.jpg  {'  '.join(NUMBERS)}\n",
        f"image_id,{CELEBA.replace(' ', ',')}\na b.jpg,{','.join(NUMBERS)}\n",
        "score,path,x1,y1,x2,y2,x3,y3,x4,y4,x5,y5\n.5,a b.jpg," + ",".join(NUMBERS) + "\n",
        "\ufeffa b.jpg " + " ".join(NUMBERS),
    ],
)
def test_formats(tmp_path, text):
    got = written(tmp_path / "a", text)
    assert list(got.names()) == ["a b.jpg"]
    assert got.get("a b.jpg").points.reshape(-1).tolist() == list(range(1, 11))
    assert math.isnan(got.get("a b.jpg").box[0])


def test_a_score_behind_the_points_is_none_of_them(tmp_path):
    numbers = " ".join(NUMBERS)
    got = written(tmp_path / "a", f"1.jpg {numbers} 0.25\na b.jpg {numbers} 1\nAnn 2 {numbers}\nc.jpg {numbers}\n")
    assert list(got.names()) == ["1.jpg", "a b.jpg", "Ann 2", "c.jpg"]
    for name, score in (("1.jpg", 0.25), ("a b.jpg", 1.0), ("Ann 2", math.nan), ("c.jpg", math.nan)):
        face = got.get(name)
        assert face.points.reshape(-1).tolist() == list(range(1, 11))
        np.testing.assert_equal(face.score, score)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no landmarks in it"),
        ("path,x1,y1\na,1,2\n", "its header lacks x2, y2"),
        (",".join(["x"] * 11) + "\n", "its header lacks"),
        ("a 1 2 3\n", "expected `path x1 y1 .. x5 y5`, got 'a 1 2 3"),
        ("a " + " ".join(["1"] * 9) + " nan\n", "'nan' is no coordinate"),
        ("a " + " ".join(["1"] * 9) + " 1e9\n", "'1e9' is no coordinate"),
        ("a " + " ".join(NUMBERS) + "\nb 1 2 3", r"after line 1\]"),
        ("a " + " ".join(NUMBERS) + "\na " + " ".join(NUMBERS), "'a' is named twice"),
        ("path,x1,y1,x2,y2,x3,y3,x4,y4,x5,y5\na,1\n", "a row of 2 fields under a header of 11"),
        ('path,x1,y1,x2,y2,x3,y3,x4,y4,x5,y5\n"a', "no CSV"),
        ("path,x1,y1,x2,y2,x3,y3,x4,y4,x5,y5\n ," + ",".join(NUMBERS), "no name of an image"),
    ],
)
def test_lines_that_are_none(tmp_path, text, words):
    with pytest.raises(LandmarkError, match=words):
        written(tmp_path / "a", text)
    with pytest.raises(LandmarkError, match="no such file; landmarks are a CSV"):
        read_landmarks(tmp_path / "b")


def test_a_file_with_left_and_right_swapped_is_refused(tmp_path):
    face = Face(ARCFACE_TEMPLATE, (math.nan,) * 4, math.nan)
    swapped = Face(ARCFACE_TEMPLATE[[1, 0, 2, 4, 3]], (math.nan,) * 4, math.nan)
    write_landmarks(tmp_path / "a.csv", [("a", swapped), ("b", swapped), ("c", face)])
    landmarks = read_landmarks(tmp_path / "a.csv")
    with pytest.raises(LandmarkError, match="left and right are swapped in 2 of 3 faces"):
        require_order(landmarks, ["a", "b", "c", "d"])
    require_order(landmarks, ["a", "c"])
