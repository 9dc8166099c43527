"""Black alignment borders are filled from what is beside them; everything else stays as it was."""

from __future__ import annotations

import numpy as np

from tools.borders import fill_borders


def photograph() -> np.ndarray:
    rows, columns = np.mgrid[0:112, 0:112]
    return np.stack([60 + rows, 80 + columns, np.full_like(rows, 120)], axis=2).astype(np.uint8)


def test_a_border_takes_the_colours_beside_it_and_the_rest_is_untouched() -> None:
    whole = photograph()
    image = whole.copy()
    image[:, :20] = 0
    image[90:, :] = 3
    filled = fill_borders(image)
    assert filled.min() > 40
    assert np.abs(filled[10:80, 14].astype(int) - whole[10:80, 21]).max() < 25  # near the photograph: its colours
    assert np.abs(np.diff(filled.astype(int), axis=1)).max() < 25  # smooth, also across the seam
    np.testing.assert_array_equal(filled[:89, 21:], whole[:89, 21:])


def test_a_slanted_border_from_a_rotated_crop_is_filled() -> None:
    image = photograph()
    rows, columns = np.mgrid[0:112, 0:112]
    image[rows + columns < 40] = 0
    assert fill_borders(image)[0, 0].min() > 40


def test_dark_hair_inside_and_thin_dark_pieces_at_the_rim_are_no_border() -> None:
    image = photograph()
    image[30:60, 30:60] = 0  # inside
    image[0:30, 50:58] = 0  # touches the rim over 8 of 112 pixels
    assert fill_borders(image) is image


def test_a_black_image_stays_black() -> None:
    image = np.zeros((112, 112, 3), np.uint8)
    assert fill_borders(image) is image
