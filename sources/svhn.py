"""SVHN's cropped digits from their .mat files. No other format."""

from __future__ import annotations

import numpy as np

from sources.arrays import ArraySource, find_file, split_location
from sources.base import SourceError
from sources.mat_file import read_mat
from utils.images import ImageFormat

# Mean and standard deviation over all channels of the training pixels, in pixel units.
SVHN = ImageFormat(32, 32, 3, mean=115.1, std=50.6)


def open_svhn(rest: str) -> ArraySource:
    """Opens `DIR` or `DIR:test` with train_32x32.mat or test_32x32.mat; their label 10 is the digit 0.

    Raises:
        SourceError: the file is missing, damaged, or holds other arrays.
    """
    folder, test = split_location("svhn", rest)
    name = "test_32x32.mat" if test else "train_32x32.mat"
    path = find_file("svhn", folder, [name], "Put the cropped-digits file of the SVHN site there")
    content = read_mat(path, ("X", "y"))
    images, labels = content["X"], content["y"].reshape(-1)
    if images.ndim != 4:
        raise SourceError(f"{path}: X has shape {images.shape}, expected (32, 32, 3, images)")
    pixels = np.ascontiguousarray(images.transpose(3, 0, 1, 2))
    digits = np.where(labels == 10, 0, labels.astype(np.int64))
    return ArraySource("svhn", folder, pixels, digits, 10, SVHN)
