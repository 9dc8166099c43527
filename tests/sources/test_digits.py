"""scikit-learn's digits as a source: the split, the pixels, and that neither changes unnoticed."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from sklearn.datasets import load_digits

from sources import SourceError, open_source
from sources.digits import DIGITS


def pixels(location: str) -> tuple[np.ndarray, np.ndarray]:
    source = open_source(location)
    images, labels = zip(*(source.read(index) for index in range(len(source))), strict=True)
    return np.stack(images), np.array(labels)


def test_the_last_fifth_of_each_digit_is_for_testing() -> None:
    train, test = open_source("digits"), open_source("digits:test")
    assert (len(train), len(test)) == (1442, 355)
    whole = np.bincount(load_digits().target)
    assert np.array_equal(test.class_counts(), whole // 5)
    assert np.array_equal(train.class_counts() + test.class_counts(), whole)
    assert train.image_format == test.image_format == DIGITS


def test_pixels_and_order_are_pinned() -> None:
    images, labels = pixels("digits:train")
    assert hashlib.sha256(images.tobytes() + labels.tobytes()).hexdigest().startswith("220d96d017f50a86")
    images, labels = pixels("digits:test")
    assert hashlib.sha256(images.tobytes() + labels.tobytes()).hexdigest().startswith("8ebe5ae32f841a79")


def test_levels_are_spread_and_grown() -> None:
    image, label = open_source("digits").read(0)
    assert (image.dtype, image.shape, label) == (np.uint8, (28, 28, 1), 0)
    expected = np.floor(load_digits().images[0] * 255 / 16 + 0.5)
    assert np.array_equal(image[2:-2:3, 2:-2:3, 0], expected)
    assert np.array_equal(image[4:-2:3, 4:-2:3, 0], expected)
    assert not image[:2].any()
    assert not image[-2:].any()
    assert not image[:, :2].any()
    assert not image[:, -2:].any()


def test_the_constants_are_those_of_the_training_pixels() -> None:
    images, _ = pixels("digits")
    assert abs(images.mean() - DIGITS.mean) < 0.01
    assert abs(images.std() - DIGITS.std) < 0.01


def test_no_folder_is_wanted() -> None:
    with pytest.raises(SourceError, match="digits:/data/digits: give digits, digits:train or digits:test"):
        open_source("digits:/data/digits")
