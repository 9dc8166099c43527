"""What looking at a sample of data and verification sets finds, and how the sample is drawn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dataset import open_source
from eval.pairs import PairError, PairSet
from tests.records import make_record_set, picture
from training.resources import as_size
from training.samples import look_at_images, look_at_pairs, look_for_overlap, spread
from utils.config import Config
from utils.images import encode_jpeg
from utils.record_set import write_record_set


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(make_record_set(tmp_path_factory.mktemp("data") / "set", [3, 4], 112, 112))


def write_images(folder: Path, images: list[bytes]) -> str:
    folder.mkdir()
    write_record_set(folder, [len(images)], [(data, "x.jpg") for data in images], (112, 112))
    return str(folder)


def test_unreadable_grey_and_blank_images(tmp_path: Path) -> None:
    grey = np.repeat(np.random.default_rng(0).integers(0, 256, (14, 14, 1), dtype=np.uint8), 3, 2).repeat(8, 0)
    images = [encode_jpeg(picture(seed, 112, 112)) for seed in range(4)] + [encode_jpeg(grey.repeat(8, 1))]
    images += [encode_jpeg(np.full((112, 112, 3), 7, np.uint8)), b"no image", b""]
    rec = write_images(tmp_path / "set", images)
    (*_, found), (problem,) = look_at_images(open_source(rec), Config(rec=rec))
    assert problem.startswith("rec: 2 of 8 images cannot be read: image 6: ")
    assert "bad_records=skip" in problem
    assert found.endswith("2 unreadable, 2 grey, 1 of one colour (images 5)")
    assert look_at_images(open_source(rec), Config(rec=rec, bad_records="skip"))[1] == []
    _, (problem,) = look_at_images(open_source(rec), Config(rec=rec, bad_records="skip", max_bad_records=1))
    assert "2 of 8 images cannot be read, about 2 of all, and max_bad_records = 1" in problem


def test_images_of_one_colour_and_an_older_index(tmp_path: Path) -> None:
    rec = write_images(tmp_path / "set", [encode_jpeg(np.full((112, 112, 3), 7, np.uint8))] * 3)
    index = tmp_path / "set" / "train.idx"
    index.write_text("".join(index.read_text().splitlines(keepends=True)[:-1]))
    with (tmp_path / "set" / "train.rec").open("ab") as file:
        file.write(bytes(1000))
    look = look_at_images(open_source(rec), Config(rec=rec))
    assert look[1] == ["rec: 3 of 3 images are of one colour, image 0 for example"]
    assert "bytes beyond the last record of its index" in look[0][0]


def test_verification_images_that_are_training_images(data: str) -> None:
    source = open_source(data)
    shown = [source.read(index)[0] for index in (2, 5)]
    fresh = [picture(seed, 112, 112) for seed in range(100, 104)]
    pairs = PairSet("leaked", [*fresh, *shown], np.array([True, False, True]), 3, "")
    (line,) = look_for_overlap(source, [pairs])
    assert line == (
        "2 of 6 images of leaked are among 7 of 7 training images, compared by pixels (image 4 for example)"
    )
    (line,) = look_for_overlap(source, [PairSet("clean", fresh, np.array([True, False]), 2, "")])
    assert line.startswith("no image of clean is among 7 of 7")


def test_a_verification_set_that_cannot_be_read() -> None:
    class Broken:
        def __len__(self) -> int:
            return 4

        def __getitem__(self, index: int) -> np.ndarray:
            if index == 3:
                raise PairError("no image")
            return picture(index)

    finding, problems = look_at_pairs(PairSet("lfw", Broken(), np.array([True, False]), 2, ""))  # type: ignore[arg-type]
    assert finding == "lfw: 1 same and 1 different pairs, 4 images, 4 read"
    assert problems == ["val_targets: lfw: 1 of 4 images cannot be read: image 3: no image"]


@pytest.mark.parametrize("total", [1, 2, 255, 256, 257, 1000, 10**8])
def test_a_sample_is_spread_over_everything(total: int) -> None:
    chosen = spread(total, 256)
    assert len(set(chosen)) == len(chosen) == min(total, 256)
    assert (min(chosen), max(chosen)) == (0, total - 1)
    assert np.diff(chosen, prepend=0).max() <= 2 * -(-total // 256)


@pytest.mark.parametrize(("size", "text"), [(0, "0 bytes"), (999, "999 bytes"), (1500, "1.5 kB"), (2.5e15, "2500 TB")])
def test_sizes_in_words(size: float, text: str) -> None:
    assert as_size(size) == text
