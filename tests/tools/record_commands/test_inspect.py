"""`inspect`'s colours and pictures: what they say of faces, swapped faces, grey ones and drawings."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.data import SHARED, needs_lfw
from tests.records import make_record_set
from tests.tools.record_commands.runs import facts, run
from tools.record_commands.colours import ColourCheck
from utils.images import decode_image, encode_jpeg
from utils.record_set import write_record_set

SKIN = np.array([200, 150, 120])


def faces(count: int, tone: np.ndarray = SKIN) -> list[np.ndarray]:
    """Patches of skin with some noise, around them anything."""
    rng = np.random.default_rng(1)
    images = rng.integers(0, 256, (count, 16, 16, 3))
    images[:, 4:12, 4:12] = np.clip(tone + rng.normal(0, 20, (count, 8, 8, 3)), 0, 255)
    return list(images.astype(np.uint8))


def verdict(images: list[np.ndarray]) -> str:
    check = ColourCheck()
    for key, image in enumerate(images):
        check.add(key, image)
    return check.verdict


def test_verdicts() -> None:
    grey = [np.repeat(image[..., :1], 3, axis=2) for image in faces(100)]
    assert verdict(faces(50)) == "rgb"
    assert verdict([image[..., ::-1] for image in faces(50)]) == "swapped"
    assert verdict(faces(50) + [image[..., ::-1] for image in faces(50)]) == "mixed"
    assert verdict(grey) == "grey"
    assert verdict(grey + faces(30)) == "rgb"
    assert verdict(faces(19)) == verdict([]) == verdict(grey[:19]) == "unknown"
    for tone in ([250, 220, 200], [90, 60, 45], [60, 40, 32]):  # light and dark
        assert verdict(faces(50, np.array(tone))) == "rgb"


@needs_lfw
def test_real_faces_are_told_from_swapped_ones() -> None:
    files = sorted((SHARED / "lfw" / "images").glob("*/*.jpg"))[::60]
    images = [decode_image(path.read_bytes()) for path in files]
    assert len(images) > 100
    assert verdict(images) == "rgb"
    assert verdict([image[..., ::-1] for image in images]) == "swapped"


def test_swapped_images_are_named_in_the_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = faces(59)
    items = [(encode_jpeg(image), f"{number}.jpg") for number, image in enumerate([*good, good[0][..., ::-1].copy()])]
    write_record_set(tmp_path, [30, 30], items, (16, 16))
    colours = facts(capsys, "inspect", tmp_path)["colours"]
    assert colours == {
        "verdict": "rgb", "coloured": 60, "grey": 0, "redder_than_blue": 59, "bluer_than_red_keys": [60],
    }  # fmt: skip
    swapped = [(encode_jpeg(image[..., ::-1].copy()), "x.jpg") for image in good]
    write_record_set(tmp_path, [30, 29], swapped, (16, 16))
    assert run("inspect", tmp_path) == 0
    assert "RED AND BLUE LOOK SWAPPED" in capsys.readouterr().out


def test_the_contact_sheet_shows_the_images_and_damage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    colours = [(250, 10, 10), (10, 250, 10), (10, 10, 250)]
    items = [(encode_jpeg(np.full((112, 112, 3), colour, np.uint8)), "x") for colour in colours]
    (tmp_path / "set").mkdir()
    write_record_set(tmp_path / "set", [2, 1], items, (112, 112))
    found = facts(capsys, "inspect", tmp_path / "set", "--contact-sheet", tmp_path / "sheet.png")
    assert found["pictures"] == [str(tmp_path / "sheet.png")]
    sheet = cv2.cvtColor(cv2.imread(str(tmp_path / "sheet.png")), cv2.COLOR_BGR2RGB)
    assert sheet.shape == (2 * 114 + 2, 8 * 114 + 2, 3)
    for row, column, colour in ((0, 0, colours[0]), (0, 1, colours[1]), (1, 0, colours[2])):
        assert np.abs(sheet[row * 114 + 60, column * 114 + 60].astype(int) - colour).max() < 4


@pytest.mark.parametrize("counts", [[3, 5, 5, 1], [60] * 3 + [1] * 9 + [500]])
def test_the_histogram_is_a_picture(counts: list[int], tmp_path: Path) -> None:
    from tools.record_commands.set_pictures import draw_histogram

    name = "a.png" if counts[0] == 3 else "a.svg"
    draw_histogram(np.array(counts), tmp_path / name)
    assert (tmp_path / name).read_bytes()[:5] in (b"\x89PNG\r", b"<?xml")


def test_pictures_are_refused_before_the_work(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_record_set(tmp_path / "set", [1])
    assert run("inspect", tmp_path / "set", "--histogram", tmp_path / "a.jpg") == 2
    assert "pictures are written as .png or .svg" in capsys.readouterr().err
    assert run("inspect", tmp_path / "set", "--contact-sheet", tmp_path / "no" / "a.png") == 2
    assert "no such folder; make it first" in capsys.readouterr().err
