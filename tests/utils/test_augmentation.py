"""Flips and crops, draw by draw."""

from __future__ import annotations

import numpy as np
import pytest

from utils.augmentation import place_augmented


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("augmentation", "draw", "mirrored"), [("none", 1, False), ("flip", 1, True), ("flip", 2, False)]
)
def test_the_lowest_bit_mirrors(augmentation: str, draw: int, mirrored: bool, channels: int) -> None:
    image = np.random.default_rng(0).integers(0, 256, (5, 7, channels), dtype=np.uint8)
    out = np.zeros_like(image)
    place_augmented(image, out, draw, augmentation)
    assert np.array_equal(out, image[:, ::-1] if mirrored else image)


@pytest.mark.parametrize(("augmentation", "border"), [("pad_crop_flip", "constant"), ("shift_flip", "edge")])
@pytest.mark.parametrize("channels", [1, 3])
def test_shifts_reach_all_81_places_with_the_right_border(augmentation: str, border: str, channels: int) -> None:
    image = np.arange(1, 1 + 10 * 12, dtype=np.uint8).reshape(10, 12, 1).repeat(channels, axis=2)
    padded = np.pad(image, ((4, 4), (4, 4), (0, 0)), mode=border)
    crops = {padded[top : top + 10, left : left + 12].tobytes(): (top, left) for top in range(9) for left in range(9)}
    seen = set()
    for draw in np.random.default_rng(0).integers(0, 2**63, 1500).tolist():
        out = np.empty_like(image)
        place_augmented(image, out, draw, augmentation)
        seen.add(crops[(out[:, ::-1] if draw & 1 else out).tobytes()])
    assert len(seen) == 81
