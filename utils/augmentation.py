"""Random changes of training images, on uint8 pixels. The randomness comes from the caller: nothing here draws."""

from __future__ import annotations

import cv2
import numpy as np

AUGMENTATIONS = ("none", "flip", "pad_crop_flip", "shift_flip")
_PADDING = 4  # pixels around the image before a random crop of the original size (He et al., 2016, section 4.2)


def place_augmented(image: np.ndarray, out: np.ndarray, draw: int, augmentation: str) -> None:
    """Writes `image`, uint8 (H, W, C), augmented into `out` of the same shape.

    Args:
        draw: 64 random bits, different for each image and epoch; bit 0 flips, bits 8.. and 32.. shift the crop.
        augmentation: "none", "flip" (mirror every second image), or "pad_crop_flip" (4 black pixels around, random
            crop of the original size, then the mirror), or "shift_flip" (the same shift, but the pixels at the rim
            continue into the gap: a face net would take black rims for a feature).
    """
    flip = augmentation != "none" and bool(draw & 1)
    if augmentation in ("pad_crop_flip", "shift_flip"):
        span = 2 * _PADDING + 1
        top, left = (draw >> 8 & 0xFFFFFF) % span, (draw >> 32) % span
        border = cv2.BORDER_CONSTANT if augmentation == "pad_crop_flip" else cv2.BORDER_REPLICATE
        padded = cv2.copyMakeBorder(image, _PADDING, _PADDING, _PADDING, _PADDING, border)
        height, width = image.shape[:2]
        image = padded[top : top + height, left : left + width].reshape(image.shape)
    if not flip:
        out[...] = image
    elif image.shape[2] == 3:
        cv2.flip(image, 1, dst=out)  # 20 times as fast as numpy's negative stride over 3-byte pixels
    else:
        out[...] = image[:, ::-1]
