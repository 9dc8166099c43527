"""Fills the black borders that aligning leaves where a crop reaches past its photograph. One image in, one out."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

DARK = 20  # of 255: JPEG rings around a black border, so it is not exactly 0
_EDGE_SHARE = 8  # a border covers at least 1/8 of a side; a dark collar or hair at the rim seldom is one straight piece


def fill_borders(image: NDArray[np.uint8], level: int = DARK) -> NDArray[np.uint8]:
    """Continues the photograph smoothly into its black border, so that a net cannot learn the border's shape.

    A border is a 4-connected dark region that touches the image's rim over at least an eighth of a side. It is
    filled by push-pull interpolation: the valid pixels are averaged into ever smaller images, and every hole takes
    the value of the finest level that has one.

    Args:
        image: uint8 (H, W, 3).
        level: largest channel value, 0 .. 255, that counts as dark.

    Returns:
        uint8 (H, W, 3); the image itself where it has no border.
    """
    border = _border_mask(image, level)
    if not border.any() or border.all():
        return image
    valid = (~border).astype(np.float32)
    levels = [(image * valid[..., None], valid)]
    while min(levels[-1][1].shape) > 2:
        size = tuple(-(-side // 2) for side in levels[-1][1].shape[::-1])
        levels.append((_shrunk(levels[-1][0], size), _shrunk(levels[-1][1], size)))
    filled = np.broadcast_to(image[~border].mean(axis=0), levels[-1][0].shape)
    for colors, weights in reversed(levels):
        height, width = weights.shape
        coarse = cv2.resize(filled.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
        filled = colors + coarse * (1 - weights[..., None])
    result = image.copy()
    result[border] = filled[border].round().clip(0, 255)
    return result


def _border_mask(image: NDArray[np.uint8], level: int) -> NDArray[np.bool_]:
    """(H, W), True on borders and on the pixel beside them, which JPEG has darkened."""
    dark = (image.max(axis=2) < level).astype(np.uint8)
    count, regions = cv2.connectedComponents(dark, connectivity=4)
    rim = np.concatenate([regions[0], regions[-1], regions[:, 0], regions[:, -1]])
    is_border = np.bincount(rim, minlength=count) >= max(1, min(dark.shape) // _EDGE_SHARE)
    is_border[0] = False  # region 0 is all that is not dark
    mask = is_border[regions].astype(np.uint8)
    return cv2.dilate(mask, np.ones((3, 3), np.uint8)).astype(bool)


def _shrunk(values: NDArray[np.float32], size: tuple[int, ...]) -> NDArray[np.float32]:
    return cv2.resize(values, size, interpolation=cv2.INTER_AREA)
