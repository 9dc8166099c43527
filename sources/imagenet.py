"""Downsampled ImageNet (32x32, 64x64) in its published batches, read where they lie on disk. No other format."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from sources.arrays import find_file, split_location
from sources.base import SourceError
from utils.class_index import ClassIndex
from utils.images import ImageFormat
from utils.numpy_pickle import PickledArray, load_arrays
from utils.pickle_grammar import PickleError

_CLASSES, _BLOCK = 1000, 1024
_TRIES = 64  # places that begin as the first image does
_TRAIN = tuple(f"train_data_batch_{number}" for number in range(1, 11))


def open_imagenet32(rest: str) -> ImagenetSource:
    """Opens `DIR` (1,281,167 images) or `DIR:test` (val_data, 50,000), 32x32; labels 0 .. 999 are the files' 1 .. 1000.

    P. Chrabaszcz, I. Loshchilov and F. Hutter, "A downsampled variant of ImageNet as an alternative to the CIFAR
    datasets", arXiv:1707.08819, 2017. See ImagenetSource for the memory it takes.

    Raises:
        SourceError: a batch is missing, damaged, or of another size.
    """
    return _open("imagenet32", rest, 32)


def open_imagenet64(rest: str) -> ImagenetSource:
    """The same in 64x64: four times the bytes.

    Raises:
        SourceError: a batch is missing, damaged, or of another size.
    """
    return _open("imagenet64", rest, 64)


class _Batch:
    """The pixels of one file, uint8 (n, 3 * size * size), plane by plane; each process maps it anew."""

    def __init__(self, path: Path, offset: int, rows: int, width: int) -> None:
        self._place = (path, offset, rows, width)
        self._mapped: np.ndarray | None = None

    def __getstate__(self) -> tuple[Path, int, int, int]:
        return self._place  # a mapped array would be sent whole

    def __setstate__(self, place: tuple[Path, int, int, int]) -> None:
        self._place, self._mapped = place, None

    def pixels(self) -> np.ndarray:
        if self._mapped is None:
            path, offset, rows, width = self._place
            try:
                self._mapped = np.memmap(path, np.uint8, "r", offset, (rows, width))
            except (OSError, ValueError) as error:
                raise SourceError(f"{path}: cannot be read any more: {error}") from None
        return self._mapped


class ImagenetSource:
    """Images that stay in the files of their batches.

    The files are mapped, not loaded: ranks and readers of one machine share what the system keeps of them, 3.9 GB for
    32x32 and 15.8 GB for 64x64 if there is room, and less, more slowly, if not; labels take 10 MB a process. When it
    opens, one batch at a time is copied (0.4 and 1.6 GB) to be checked. The files must not change meanwhile.

    Attributes:
        image_format: see Source; pixels become numbers as faces do, unless `normalization` says otherwise.
        num_classes: 1000.
    """

    num_classes = _CLASSES

    def __init__(self, kind: str, path: Path, files: list[Path], size: int) -> None:
        """Reads labels and finds the pixels of all files.

        Raises:
            SourceError: one of them is damaged or of another size.
        """
        self.kind, self.path, self.image_format = kind, path, ImageFormat(size, size, 3)
        found = [_find_pixels(file, size) for file in files]
        self._batches = [batch for batch, _ in found]
        self._labels = np.concatenate([labels for _, labels in found])
        self._ends = np.cumsum([len(labels) for _, labels in found])

    def __len__(self) -> int:
        return len(self._labels)

    def read(self, index: int) -> tuple[np.ndarray, int]:
        """Image and label.

        Raises:
            SourceError: the file has gone.
        """
        batch = int(np.searchsorted(self._ends, index, side="right"))
        row = index - (int(self._ends[batch - 1]) if batch else 0)
        planes = self._batches[batch].pixels()[row].reshape(3, *self.image_format.shape[:2])
        return np.ascontiguousarray(planes.transpose(1, 2, 0)), int(self._labels[index])

    def blocks(self) -> Iterator[np.ndarray]:
        """All images in their order, uint8 (n, H, W, 3) each time: views, for who reads all of them at once."""
        for batch in self._batches:
            pixels = batch.pixels()
            for start in range(0, len(pixels), _BLOCK):
                rows = pixels[start : start + _BLOCK]
                yield rows.reshape(len(rows), 3, *self.image_format.shape[:2]).transpose(0, 2, 3, 1)

    def class_counts(self) -> np.ndarray:
        """Images per class, (1000,) int64."""
        return np.bincount(self._labels, minlength=_CLASSES).astype(np.int64)

    def class_index(self) -> ClassIndex:
        """Which images belong to each class."""
        return ClassIndex.from_labels(self._labels, _CLASSES)

    def describe(self) -> dict[str, object]:
        """Kind, path, images, classes."""
        return {"kind": self.kind, "path": str(self.path), "images": len(self), "classes": _CLASSES}


def _open(kind: str, rest: str, size: int) -> ImagenetSource:
    folder, test = split_location(kind, rest)
    advice = f"Unpack the {size}x{size} archives of downsampled ImageNet there, all ten training batches and val_data"
    names = ("val_data",) if test else _TRAIN
    return ImagenetSource(kind, folder, [find_file(kind, folder, [name], advice) for name in names], size)


def _find_pixels(path: Path, size: int) -> tuple[_Batch, np.ndarray]:
    """Where a file's pixels are, and its labels from 0, int64 (n,)."""
    try:
        with path.open("rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        # not closed here: an error's traceback may still look at it; it goes with its last reader
        pixels, labels = _read_batch(path, memoryview(mapped), 3 * size * size)
        offset = _offset_of(mapped, pixels)
    except (OSError, ValueError) as error:  # an empty file cannot be mapped
        if isinstance(error, SourceError):
            raise
        raise SourceError(f"{path}: no batch of downsampled ImageNet: {error}; fetch it again") from None
    if offset is None:
        raise SourceError(
            f"{path}: its pixels do not lie in one piece (a pickle of protocol 2?): fetch the published file"
        )
    return _Batch(path, offset, *pixels.shape), labels


def _read_batch(path: Path, content: memoryview, width: int) -> tuple[np.ndarray, np.ndarray]:
    try:
        values = load_arrays(content, "a batch of downsampled ImageNet", dicts=True, floats=True)
    except PickleError as error:
        raise SourceError(f"{path}: no batch of downsampled ImageNet: {error}; fetch it again") from None
    data, given = (_entry(values, name) for name in ("data", "labels"))
    if not isinstance(data, PickledArray) or not isinstance(given, (list, PickledArray)):
        raise SourceError(f"{path}: no batch of downsampled ImageNet: it needs data and labels; fetch it again")
    pixels = data.value
    labels = given.value if isinstance(given, PickledArray) else _whole_numbers(path, given)
    if pixels.dtype != np.uint8 or pixels.ndim != 2 or pixels.shape != (labels.size, width) or not labels.size:
        raise SourceError(
            f"{path}: data are {pixels.dtype} {pixels.shape} with {labels.size} labels, expected uint8 (images, "
            f"{width}) with a label each: is this the set of that size?"
        )
    if labels.dtype.kind not in "iu" or not 1 <= int(labels.min()) <= int(labels.max()) <= _CLASSES:
        raise SourceError(f"{path}: labels must be whole numbers of 1 .. {_CLASSES}; fetch it again")
    return pixels, labels.reshape(-1).astype(np.int64) - 1


def _entry(values: Any, name: str) -> Any:
    """An entry of the file's dict, whose keys are text, or bytes where Python 2 wrote them."""
    return values.get(name, values.get(name.encode())) if isinstance(values, dict) else None


def _whole_numbers(path: Path, labels: list[Any]) -> np.ndarray:
    if not all(type(label) is int and 1 <= label <= _CLASSES for label in labels):
        raise SourceError(f"{path}: labels must be whole numbers of 1 .. {_CLASSES}; fetch it again")
    return np.array(labels, dtype=np.int64)


def _offset_of(mapped: mmap.mmap, pixels: np.ndarray) -> int | None:
    """Where the very bytes of the array lie in the file; None where they do not, or not row after row."""
    if not pixels.flags.c_contiguous:
        return None
    first, whole = pixels[0].tobytes(), pixels.reshape(-1)
    offset = mapped.find(first)
    for _ in range(_TRIES):
        if offset < 0 or offset + len(whole) > len(mapped):
            return None
        there = np.frombuffer(mapped, np.uint8, len(whole), offset)
        if np.array_equal(there, whole):
            return offset
        offset = mapped.find(first, offset + 1)
    return None
