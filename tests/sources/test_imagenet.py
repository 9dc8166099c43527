"""Downsampled ImageNet from batches that these tests write as the published ones are."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sources import SourceError, open_source
from sources.imagenet import ImagenetSource
from sources.normalization import measured_format

RNG = np.random.default_rng(6)
PIXELS = RNG.integers(0, 256, (30, 3, 32, 32), dtype=np.uint8)
LABELS = RNG.integers(1, 1001, 30)
LABELS[:2] = 1, 1000


def batch(part: slice, protocol: int, **entries: Any) -> bytes:
    rows = PIXELS[part].reshape(len(PIXELS[part]), -1)
    content = {"data": rows, "labels": LABELS[part].tolist(), "mean": rows.mean(0), **entries}
    return pickle.dumps(content, protocol=protocol)


def write_all(folder: Path, protocol: int = 3) -> None:
    for number in range(10):
        part = slice(3 * number, 3 * number + 3)
        (folder / f"train_data_batch_{number + 1}").write_bytes(batch(part, protocol))
    (folder / "val_data").write_bytes(batch(slice(4, 9), protocol))


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_batches_in_their_order(protocol: int, tmp_path: Path) -> None:
    write_all(tmp_path, protocol)
    source = pickle.loads(pickle.dumps(open_source(f"imagenet32:{tmp_path}")))
    assert (len(source), source.num_classes, source.image_format.shape) == (30, 1000, (32, 32, 3))
    for index in range(30):
        image, label = source.read(index)
        assert label == LABELS[index] - 1
        assert np.array_equal(image, PIXELS[index].transpose(1, 2, 0))
        assert image.flags.c_contiguous
    assert np.array_equal(source.class_counts(), np.bincount(LABELS - 1, minlength=1000))
    test = open_source(f"imagenet32:{tmp_path}:test")
    assert [test.read(index)[1] for index in range(5)] == (LABELS[4:9] - 1).tolist()


def test_blocks_are_the_images(tmp_path: Path) -> None:
    write_all(tmp_path)
    source = open_source(f"imagenet32:{tmp_path}")
    assert isinstance(source, ImagenetSource)
    assert np.array_equal(np.concatenate(list(source.blocks())), PIXELS.transpose(0, 2, 3, 1))
    mean = np.frombuffer(measured_format(source).mean_image, "<f4").reshape(32, 32, 3)
    assert np.array_equal(mean, PIXELS.mean(0).transpose(1, 2, 0).astype(np.float32))


def test_pixels_stay_in_the_files(tmp_path: Path) -> None:
    write_all(tmp_path)
    source = open_source(f"imagenet32:{tmp_path}")
    assert len(pickle.dumps(source)) < 30 * 3072 / 4
    path = tmp_path / "train_data_batch_1"
    content = bytearray(path.read_bytes())
    place = content.find(PIXELS[2].tobytes())
    content[place] ^= 255
    path.write_bytes(content)
    assert open_source(f"imagenet32:{tmp_path}").read(2)[0][0, 0, 0] == PIXELS[2, 0, 0, 0] ^ 255
    path.unlink()
    copy = pickle.loads(pickle.dumps(source))
    with pytest.raises(SourceError, match="train_data_batch_1: cannot be read any more"):
        copy.read(0)


def test_images_that_begin_alike_are_told_apart(tmp_path: Path) -> None:
    rows = np.zeros((3, 3072), dtype=np.uint8)
    rows[2, -1] = 9
    content = batch(slice(0, 3), 4, another=bytes(5 * 3072), data=rows)
    (tmp_path / "val_data").write_bytes(content)
    source = open_source(f"imagenet32:{tmp_path}:test")
    assert source.read(2)[0][31, 31].tolist() == [0, 0, 9]


def test_sixty_four(tmp_path: Path) -> None:
    rows = RNG.integers(0, 256, (2, 3 * 64 * 64), dtype=np.uint8)
    (tmp_path / "val_data").write_bytes(pickle.dumps({"data": rows, "labels": [7, 8]}))
    source = open_source(f"imagenet64:{tmp_path}:test")
    assert np.array_equal(source.read(1)[0], rows[1].reshape(3, 64, 64).transpose(1, 2, 0))
    with pytest.raises(SourceError, match=r"data are uint8 \(2, 12288\) with 2 labels.*\(images, 3072\).*that size"):
        open_source(f"imagenet32:{tmp_path}:test")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no batch of downsampled ImageNet"),
        (b"no pickle", "no batch of downsampled ImageNet"),
        (pickle.dumps([1]), "it needs data and labels"),
        (batch(slice(0, 2), 4)[:-4000], "no batch of downsampled ImageNet: damaged pickle"),
        (batch(slice(0, 2), 4, labels=[0, 1]), r"whole numbers of 1 \.\. 1000"),
        (batch(slice(0, 2), 4, labels=[1, 1001]), r"whole numbers of 1 \.\. 1000"),
        (batch(slice(0, 2), 4, labels=np.array([1.0, 2.0])), r"whole numbers of 1 \.\. 1000"),
        (batch(slice(0, 2), 4, labels=[1]), "with 1 labels"),
        (batch(slice(0, 2), 4, labels=[], data=np.zeros((0, 3072), np.uint8)), "with 0 labels"),
        (batch(slice(0, 2), 4, data=np.zeros((2, 3072), np.float32)), "data are float32"),
        (batch(slice(0, 2), 2), "do not lie in one piece"),
        (batch(slice(0, 2), 4, data=np.asfortranarray(PIXELS[:2].reshape(2, -1))), "do not lie in one piece"),
        (pickle.dumps({"data": Path("x"), "labels": [1]}), "asks for 'pathlib"),
    ],
)
def test_files_that_hold_something_else(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "val_data").write_bytes(content)
    with pytest.raises(SourceError, match=f"val_data: .*{message}"):
        open_source(f"imagenet32:{tmp_path}:test")


def test_a_missing_batch_is_named(tmp_path: Path) -> None:
    write_all(tmp_path)
    (tmp_path / "train_data_batch_7").unlink()
    with pytest.raises(SourceError, match=r"looked for train_data_batch_7, .* all ten training batches"):
        open_source(f"imagenet32:{tmp_path}")
