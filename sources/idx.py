"""MNIST and its kin in the idx format (magic, dimensions, bytes), plain or gzipped. No other format."""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path

import numpy as np

from sources.arrays import ArraySource, find_file, split_location, unpacked_limit
from sources.base import SourceError
from utils.images import ImageFormat

# Mean and standard deviation of the training pixels, in pixel units.
MNIST = ImageFormat(28, 28, 1, mean=33.32, std=78.57)
_UINT8 = 8  # the idx code of unsigned bytes


def open_mnist(rest: str) -> ArraySource:
    """Opens `DIR` or `DIR:test` with the four files of MNIST (or Fashion-MNIST: the same names and shapes).

    Raises:
        SourceError: a file is missing, damaged, or of another shape.
    """
    folder, test = split_location("mnist", rest)
    prefix = "t10k" if test else "train"
    advice = "Put the idx files there under their published names (train-images-idx3-ubyte.gz, ...)"
    arrays = []
    for what, dimensions in (("images", 3), ("labels", 1)):
        name = f"{prefix}-{what}-idx{dimensions}-ubyte"
        dotted = f"{prefix}-{what}.idx{dimensions}-ubyte"
        path = find_file("mnist", folder, [name, name + ".gz", dotted, dotted + ".gz"], advice)
        arrays.append(read_idx(path, dimensions))
    images, labels = arrays
    return ArraySource("mnist", folder, images[..., np.newaxis], labels, 10, MNIST)


def read_idx(path: Path, dimensions: int) -> np.ndarray:
    """Reads one idx file of unsigned bytes.

    Returns:
        uint8 array with `dimensions` axes.

    Raises:
        SourceError: another type, another number of axes, or fewer or more bytes than the header announces.
    """
    start = 4 + 4 * dimensions
    size = path.stat().st_size
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
            header = file.read(start)
            if len(header) < start or header[:2] != b"\0\0" or header[2] != _UINT8 or header[3] != dimensions:
                raise SourceError(
                    f"{path}: an idx file of bytes with {dimensions} dimensions begins with 00 00 08 "
                    f"{dimensions:02x}, this one with {header[:4].hex(' ') or 'nothing'}"
                )
            shape = tuple(int(size) for size in np.frombuffer(header, dtype=">u4", offset=4))
            expected = math.prod(shape)
            limit = unpacked_limit(size) if path.suffix == ".gz" else size
            if max(expected, *shape) > limit:  # read() takes the memory before it looks for the bytes
                raise SourceError(
                    f"{path}: the header announces {expected} bytes {shape}, the file has {size} and may hold at most "
                    f"{limit}: it is damaged, or cut short; fetch the file again"
                )
            body = file.read(expected + 1)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise SourceError(f"{path}: the gzip data is damaged or ends early ({error}); fetch the file again") from None
    if len(body) != expected:
        found = "more" if len(body) > expected else f"only {len(body)}"
        raise SourceError(f"{path}: the header announces {expected} bytes {shape}, {found} came; fetch the file again")
    return np.frombuffer(body, dtype=np.uint8).reshape(shape)
