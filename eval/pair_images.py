"""Images of pairs, decoded when asked for: from a `.bin` in memory, or from files that a list names. No formats."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eval.pair_formats.pair_list import ListedImage, PairList
from eval.safe_pickle import PairError
from utils.images import FACE, ImageError, decode_image


def first_indices(keys: Iterable[Hashable]) -> NDArray[np.int64]:
    """For each key the index of its first occurrence."""
    seen: dict[Hashable, int] = {}
    return np.array([seen.setdefault(key, index) for index, key in enumerate(keys)], dtype=np.int64)


def identity_labels(images: Sequence[ListedImage]) -> NDArray[np.int64]:
    """A number for each image's identity, -1 where the list does not tell; empty where it never tells."""
    known = {identity: place for place, identity in enumerate(sorted({image.identity for image in images} - {""}))}
    if not known:
        return np.empty(0, np.int64)
    return np.array([known.get(image.identity, -1) for image in images], dtype=np.int64)


class Numbered(Sequence[str]):
    """`image 0`, `image 1`, ...: made when asked for, since a small file can name one image a million times."""

    def __init__(self, count: int) -> None:
        self._indices = range(count)

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: Any) -> Any:
        chosen = self._indices[index]
        return [f"image {i}" for i in chosen] if isinstance(chosen, range) else f"image {chosen}"


class BinImages(Sequence[NDArray[np.uint8]]):
    """Encoded images in memory."""

    def __init__(self, path: Path, encoded: list[bytes | memoryview]) -> None:
        self._path, self._encoded = path, encoded

    def __len__(self) -> int:
        return len(self._encoded)

    def __getitem__(self, index: Any) -> Any:
        try:
            return decode_image(self._encoded[index], FACE)
        except ImageError as error:
            raise PairError(f"{self._path}: image {index} (pair {index // 2}): {error}") from error


class ListedImages(Sequence[NDArray[np.uint8]]):
    """Files below a folder; an error names the list and its line."""

    def __init__(self, folder: Path, pair_list: PairList) -> None:
        self._folder, self._pair_list = folder, pair_list

    def __len__(self) -> int:
        return len(self._pair_list.images)

    def __getitem__(self, index: Any) -> Any:
        image = self._pair_list.images[index]
        try:
            return decode_image(self._read(image), FACE)
        except ImageError as error:
            raise PairError(f"{self._folder / image.file} ({image.where}): {error}") from error

    def _read(self, image: ListedImage) -> bytes:
        file = self._folder / image.file
        try:
            if file.exists() and not file.is_file():  # a pipe would never end
                raise PairError(f"{image.where}: {file} is no file")
            return file.read_bytes()
        except OSError as error:
            raise PairError(f"{image.where}: the image {file} cannot be read: {error.strerror}") from error

    def sha256(self) -> str:
        """SHA-256 of the lists and of every image in the order of the pairs, as often as a pair names it."""
        digest = hashlib.sha256()
        for path in self._pair_list.lists:
            digest.update(path.read_bytes())
        for image in self._pair_list.images:
            digest.update(self._read(image))
        return digest.hexdigest()
