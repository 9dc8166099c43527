"""insightface verification files (.bin): their layout, reading and writing; no pair lists, no decoding."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eval.safe_pickle import PairError, PickledArray, load_pickle
from utils.files import whole_file


def read_bin(path: Path, content: bytes) -> tuple[list[bytes | memoryview], NDArray[np.bool_]]:
    """The encoded images and the flags of a `.bin` file.

    The file is read by `load_pickle`, which can build nothing but lists, byte strings, numpy arrays and bools. Images
    may be byte strings or uint8 arrays, flags a list of bools or an array.

    Args:
        path: named in errors only.
        content: the whole file.

    Returns:
        2N encoded images (JPEG or PNG) and is_same (N,).

    Raises:
        PairError: a refused global or opcode (named), damage, or a layout other than (bins, issame_list).
    """
    images, is_same = _check_layout(path, load_pickle(path, content))
    if sum(len(image) for image in {id(image): image for image in images}.values()) > len(content):
        raise PairError(f"{path}: its images overlap: together they are longer than the file")
    return images, is_same


def write_bin(path: str | Path, images: Sequence[bytes], is_same: Sequence[bool] | NDArray[np.bool_]) -> None:
    """Write a `.bin` that this package and insightface's `load_bin` read; atomic: a crash leaves the old file or none.

    Args:
        path: the file to write; its folder must exist.
        images: 2N encoded images; images 2i and 2i + 1 are pair i.
        is_same: N flags.

    Raises:
        PairError: the numbers do not fit.
    """
    flags = [bool(flag) for flag in is_same]
    if len(images) != 2 * len(flags) or not flags:
        raise PairError(
            f"{path}: {len(flags)} flags need {2 * len(flags)} images, and at least one pair; got {len(images)}"
        )
    target = Path(path)
    with whole_file(target) as stream:
        # protocol 4: the images' bytes as they are, and readable by every Python 3 since 3.4
        pickle.dump(([bytes(image) for image in images], flags), stream, protocol=4)


def _check_layout(path: Path, loaded: Any) -> tuple[list[bytes | memoryview], NDArray[np.bool_]]:
    if not isinstance(loaded, (tuple, list)) or len(loaded) != 2:
        raise PairError(f"{path}: expected a pair (bins, issame_list), got {_describe(loaded)}")
    bins, flags = (part.value if isinstance(part, PickledArray) else part for part in loaded)
    listed = isinstance(flags, (list, tuple)) or (isinstance(flags, np.ndarray) and flags.ndim == 1)
    if not isinstance(bins, (list, tuple)) or not listed:
        raise PairError(
            f"{path}: expected (list of images, list of flags), got ({_describe(bins)}, {_describe(flags)})"
        )
    if len(bins) != 2 * len(flags) or len(bins) == 0:
        raise PairError(
            f"{path}: {len(flags)} flags need {2 * len(flags)} images, and at least one pair; got {len(bins)}"
        )
    bad_flags = [i for i, flag in enumerate(flags) if not isinstance(flag, (int, np.generic)) or flag not in (0, 1)]
    if bad_flags:
        raise PairError(f"{path}: flag {bad_flags[0]} is not True or False but {_describe(flags[bad_flags[0]])}")
    images: dict[int, bytes | memoryview] = {}  # one for each object of the file, however often it is named
    for i, item in enumerate(bins):
        if id(item) not in images:
            images[id(item)] = _image_bytes(path, i, item)
    return [images[id(item)] for item in bins], np.asarray(flags, dtype=bool)


def _image_bytes(path: Path, index: int, item: Any) -> bytes | memoryview:
    """The image's bytes without a copy: a hostile file may name one long array a million times."""
    if isinstance(item, bytes):
        return item
    if isinstance(item, bytearray):
        return memoryview(item)
    if isinstance(item, PickledArray) and item.value.dtype.itemsize == 1 and item.value.size in item.value.shape:
        # (n,), or (n, 1) as in sets made with old OpenCV; either way the bytes lie in a row
        return item.value.reshape(-1).view(np.uint8).data
    raise PairError(f"{path}: image {index} is not a byte string or a flat uint8 array but {_describe(item)}")


def _describe(item: Any) -> str:
    if isinstance(item, PickledArray):
        item = item.value
    if isinstance(item, np.ndarray):
        return f"a {item.dtype} array of shape {item.shape}"
    return f"a {type(item).__name__}" + (f" of {len(item)}" if isinstance(item, (list, tuple)) else "")
