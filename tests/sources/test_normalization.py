"""Constants of a source and of its test half, and what a mean image does to pixels."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from sources import SourceError, open_source
from sources.arrays import ArraySource
from sources.base import Source
from sources.imbalance import imbalanced
from sources.normalization import measured_format, normalized, with_format
from sources.synthetic import SyntheticSource
from utils.images import ImageError, ImageFormat, _mean_on, to_model_input

FORMAT = ImageFormat(4, 5, 3, mean=99.0, std=7.0)
PIXELS = np.random.default_rng(8).integers(0, 256, (1500, 4, 5, 3), dtype=np.uint8)  # more than one block


def source_of(pixels: np.ndarray) -> ArraySource:
    return ArraySource("random", Path("random"), pixels, np.arange(len(pixels)) % 4, 4, FORMAT)


def numbers(source: Source, index: int) -> torch.Tensor:
    return to_model_input(torch.from_numpy(source.read(index)[0].copy())[None], source.image_format)[0]


@pytest.mark.parametrize(
    ("how", "mean", "std"), [("unit", 0.0, 255.0), ("symmetric", 127.5, 127.5), ("source", 99.0, 7.0)]
)
def test_constants(how: str, mean: float, std: float) -> None:
    source = normalized(source_of(PIXELS), how)  # type: ignore[arg-type]
    expected = (PIXELS[3].transpose(2, 0, 1).astype(np.float32) - np.float32(mean)) / np.float32(std)
    assert np.array_equal(numbers(source, 3).numpy(), expected)


def test_source_changes_nothing_and_another_word_is_refused() -> None:
    whole = source_of(PIXELS)
    assert normalized(whole, "source") is whole
    with pytest.raises(ValueError, match="'mean' is unknown; allowed: source, unit, symmetric, mean_image"):
        normalized(whole, "mean")  # type: ignore[arg-type]


def test_the_mean_image_leaves_zero_mean_everywhere_and_unit_variance() -> None:
    source = normalized(source_of(PIXELS), "mean_image")
    values = to_model_input(torch.from_numpy(PIXELS), source.image_format).double()
    assert values.mean(0).abs().max() < 1e-6
    assert abs(float((values**2).mean()) - 1) < 1e-6
    exact = PIXELS.astype(np.float64).mean(0)
    found = np.frombuffer(source.image_format.mean_image, "<f4").reshape(4, 5, 3)
    assert np.array_equal(found, exact.astype(np.float32))


def test_order_and_the_way_of_reading_do_not_change_a_bit() -> None:
    whole = source_of(PIXELS)
    one_by_one = imbalanced(whole, "step", 1.0, 3)  # reads image by image
    assert measured_format(whole) == measured_format(source_of(PIXELS[::-1])) == measured_format(one_by_one)


def test_the_layout_in_memory_is_kept_and_the_values_are_the_same() -> None:
    image_format = measured_format(source_of(PIXELS))
    images = torch.from_numpy(PIXELS[:6])
    plain, last = (to_model_input(images, image_format, channels_last=flag) for flag in (False, True))
    assert torch.equal(plain, last)
    assert last.is_contiguous(memory_format=torch.channels_last)


def test_a_mean_image_first_used_in_inference_mode_can_be_trained_with() -> None:
    image_format = measured_format(source_of(PIXELS[:7]))
    with torch.inference_mode():
        to_model_input(torch.from_numpy(PIXELS[:2]), image_format)
    weight = torch.ones(1, requires_grad=True)
    (to_model_input(torch.from_numpy(PIXELS[:2]), image_format) * weight).sum().backward()
    assert weight.grad is not None


def test_the_mean_on_a_device_is_no_view_of_the_formats_bytes() -> None:
    pixels = np.arange(24, dtype=np.uint8).reshape(2, 3, 4, 1)  # one channel: its planes lie as the image does
    image_format = measured_format(ArraySource("grey", Path("grey"), pixels, np.arange(2), 2, ImageFormat(3, 4, 1)))
    before = bytes(bytearray(image_format.mean_image))
    _mean_on(image_format, torch.device("cpu")).zero_()
    _mean_on.cache_clear()
    assert image_format.mean_image == before


def test_formats_can_be_hashed_compared_and_sent_to_workers() -> None:
    image_format = measured_format(source_of(PIXELS))
    copy = pickle.loads(pickle.dumps(image_format))
    assert copy == image_format
    assert hash(copy) == hash(image_format)
    assert replace(copy, mean_image=b"") != image_format
    assert "mean_image" not in repr(image_format)
    source = normalized(source_of(PIXELS), "mean_image")
    assert pickle.loads(pickle.dumps(source)).image_format == source.image_format


def test_a_mean_image_of_another_size_is_refused() -> None:
    with pytest.raises(ImageError, match=r"a mean image of \(4, 5, 3\) has 240 bytes \(float32\), this one 12"):
        replace(FORMAT, mean_image=bytes(12))
    with pytest.raises(ImageError, match=r"images are \(5, 4, 3\), the mean image is \(4, 5, 3\)"):
        to_model_input(torch.zeros(1, 5, 4, 3, dtype=torch.uint8), measured_format(source_of(PIXELS)))


def test_test_data_take_the_constants_of_the_training_data() -> None:
    training = normalized(open_source("digits"), "mean_image")
    test = with_format(open_source("digits:test"), training.image_format)
    assert test.image_format == training.image_format
    assert len(test) == 355
    assert "mean_image_sha256" in test.describe()
    with pytest.raises(SourceError, match="images of 112 x 112 x 3, and the training images are 28 x 28 x 1"):
        with_format(SyntheticSource(2, 4), training.image_format)


def test_everything_else_is_the_sources_own() -> None:
    whole = source_of(PIXELS)
    whole.names = list("abcd")  # type: ignore[attr-defined]
    source = normalized(whole, "unit")
    assert np.array_equal(source.class_counts(), whole.class_counts())
    assert np.array_equal(source.class_index().counts, whole.class_index().counts)
    assert source.describe() == {**whole.describe(), "normalization": "unit"}
    assert source.names == list("abcd")  # type: ignore[attr-defined]
    assert not hasattr(source, "reader")


def test_images_that_cannot_be_read() -> None:
    class Damaged(SyntheticSource):
        def read(self, index: int) -> tuple[np.ndarray, int]:
            if index == 5:
                raise SourceError("image 5 is gone")
            return super().read(index)

    source = Damaged(2, 8, ImageFormat(3, 3, 1))
    with pytest.raises(SourceError, match=r"image 5 is gone \[image 5 of synthetic, read for the mean image\]"):
        normalized(source, "mean_image")
    kept = np.stack([source.read(index)[0] for index in range(8) if index != 5])
    found = normalized(source, "mean_image", "skip").image_format
    assert np.array_equal(np.frombuffer(found.mean_image, "<f4"), kept.mean(0).astype(np.float32).reshape(-1))


def test_images_that_are_all_the_same_have_nothing_left() -> None:
    with pytest.raises(SourceError, match="all 9 images are the same"):
        normalized(source_of(np.full((9, 4, 5, 3), 77, np.uint8)), "mean_image")
