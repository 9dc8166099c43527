"""scikit-learn's bundled handwritten digits as images of MNIST's size; nothing is downloaded. No other set."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np

from sources.arrays import ArraySource
from sources.base import SourceError
from utils.images import ImageFormat

# Mean and standard deviation of the training pixels after enlarging, in pixel units.
DIGITS = ImageFormat(28, 28, 1, mean=57.21, std=88.94)
_WHITEST, _SCALE, _BORDER, _TEST_SHARE = 16, 3, 2, 5


def open_digits(rest: str) -> ArraySource:
    """Opens "" or "train" (1442 images), or "test" (355): 8x8 digits, grown to 28x28 so that nets for MNIST take them.

    The set is a copy of the test part of E. Alpaydin and C. Kaynak's Optical Recognition of Handwritten Digits (UCI,
    1998). Of each digit the last fifth (rounded down) in scikit-learn's order is the test half, so both have the same
    shares of the classes. Grey levels 0 .. 16 become 0 .. 255, each pixel a square of 3x3, the rim 2 black pixels wide.

    Raises:
        SourceError: another word, or a scikit-learn that does not hold the 1797 digits.
    """
    if rest not in ("", "train", "test"):
        raise SourceError(f"digits:{rest}: give digits, digits:train or digits:test; they have no folder")
    images, labels = _load()
    counts = np.bincount(labels, minlength=10)
    places = np.empty(len(labels), dtype=np.int64)  # of each image among those of its class
    for digit, count in enumerate(counts.tolist()):
        places[labels == digit] = np.arange(count)
    is_test = places >= (counts - counts // _TEST_SHARE)[labels]
    wanted = is_test if rest == "test" else ~is_test
    return ArraySource("digits", Path("digits"), images[wanted], labels[wanted], 10, DIGITS)


@cache
def _load() -> tuple[np.ndarray, np.ndarray]:
    """All images, uint8 (1797, 28, 28, 1), and labels (1797,), in scikit-learn's order."""
    from sklearn.datasets import load_digits

    content = load_digits()
    levels, labels = np.asarray(content.images), np.asarray(content.target, dtype=np.int64)
    if levels.shape != (1797, 8, 8) or levels.min() < 0 or levels.max() > _WHITEST:
        raise SourceError(
            f"digits: scikit-learn's load_digits gave {levels.shape} with values {levels.min():g} .. {levels.max():g}, "
            f"expected (1797, 8, 8) with 0 .. {_WHITEST}: install scikit-learn anew"
        )
    pixels = ((levels.astype(np.int64) * 255 + _WHITEST // 2) // _WHITEST).astype(np.uint8)
    grown = pixels.repeat(_SCALE, axis=1).repeat(_SCALE, axis=2)
    return np.pad(grown, ((0, 0), (_BORDER, _BORDER), (_BORDER, _BORDER)))[..., np.newaxis], labels
