"""CIFAR-10 and CIFAR-100, in their binary and their Python distribution. No other format."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from sources.arrays import ArraySource, find_file, split_location
from sources.base import SourceError
from utils.images import ImageFormat
from utils.numpy_pickle import PickledArray, load_arrays
from utils.pickle_grammar import PickleError

# Mean and standard deviation over all channels of the training pixels, in pixel units.
CIFAR10 = ImageFormat(32, 32, 3, mean=120.7, std=64.2)
CIFAR100 = ImageFormat(32, 32, 3, mean=121.9, std=68.4)
_PIXELS = 3 * 32 * 32


def open_cifar10(rest: str) -> ArraySource:
    """Opens `DIR` or `DIR:test`; DIR holds the batches, or the folder of the archive.

    Raises:
        SourceError: a batch is missing or damaged.
    """
    folder, test = split_location("cifar10", rest)
    folder = _inside(folder, "cifar-10-batches-bin", "cifar-10-batches-py")
    stems = ["test_batch"] if test else [f"data_batch_{number}" for number in range(1, 6)]
    advice = "Unpack cifar-10-binary.tar.gz or cifar-10-python.tar.gz there"
    parts = []
    for stem in stems:
        path = find_file("cifar10", folder, [stem + ".bin", stem], advice)
        parts.append(_read_binary(path, 1) if path.suffix == ".bin" else _read_pickle(path, b"labels"))
    return _source("cifar10", folder, parts, 10, CIFAR10)


def open_cifar100(rest: str) -> ArraySource:
    """Opens `DIR` or `DIR:test` with the 100 fine labels.

    Raises:
        SourceError: the file is missing or damaged.
    """
    folder, test = split_location("cifar100", rest)
    folder = _inside(folder, "cifar-100-binary", "cifar-100-python")
    stem = "test" if test else "train"
    advice = "Unpack cifar-100-binary.tar.gz or cifar-100-python.tar.gz there"
    path = find_file("cifar100", folder, [stem + ".bin", stem], advice)
    part = _read_binary(path, 2) if path.suffix == ".bin" else _read_pickle(path, b"fine_labels")
    return _source("cifar100", folder, [part], 100, CIFAR100)


def _source(
    kind: str, folder: Path, parts: list[tuple[np.ndarray, np.ndarray]], num_classes: int, image_format: ImageFormat
) -> ArraySource:
    planes = np.concatenate([pixels for pixels, _ in parts]).reshape(-1, 3, 32, 32)
    labels = np.concatenate([labels for _, labels in parts])
    images = np.ascontiguousarray(planes.transpose(0, 2, 3, 1))
    return ArraySource(kind, folder, images, labels, num_classes, image_format)


def _inside(folder: Path, *names: str) -> Path:
    """The archive's own folder where `folder` holds it."""
    return next((folder / name for name in names if (folder / name).is_dir()), folder)


def _read_binary(path: Path, label_bytes: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of labels (the fine one last) and 3072 pixels, plane by plane."""
    data = np.fromfile(path, dtype=np.uint8)
    row = label_bytes + _PIXELS
    if not len(data) or len(data) % row:
        raise SourceError(f"{path}: {len(data)} bytes are no multiple of {row} (one image): the file is not whole")
    rows = data.reshape(-1, row)
    return rows[:, label_bytes:], rows[:, label_bytes - 1]


def _read_pickle(path: Path, label_key: bytes) -> tuple[np.ndarray, np.ndarray]:
    try:
        content = load_arrays(path.read_bytes(), "a CIFAR batch", dicts=True)
    except PickleError as error:
        raise SourceError(f"{path}: this is no CIFAR batch: {error}; fetch it again") from None
    if not isinstance(content, dict):
        raise SourceError(f"{path}: this is no CIFAR batch but a {type(content).__name__}; fetch it again")
    pixels, labels = content.get(b"data"), content.get(label_key)
    if not isinstance(pixels, PickledArray) or not isinstance(labels, (list, PickledArray)):
        raise SourceError(f"{path}: this is no CIFAR batch: it needs data and {label_key.decode()}; fetch it again")
    numbers = labels.value if isinstance(labels, PickledArray) else _whole_numbers(path, labels)
    if pixels.value.dtype != np.uint8 or pixels.value.shape != (numbers.size, _PIXELS):
        raise SourceError(f"{path}: expected uint8 (images, {_PIXELS}) with a label each; fetch it again")
    return pixels.value, numbers.reshape(-1)


def _whole_numbers(path: Path, labels: list[Any]) -> np.ndarray:
    if not all(type(label) is int and 0 <= label < _PIXELS for label in labels):
        raise SourceError(f"{path}: this is no CIFAR batch: a label in it is no class; fetch it again")
    return np.array(labels, dtype=np.int64)
