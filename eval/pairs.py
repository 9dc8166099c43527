"""Sets of image pairs: `.bin` files and pair lists -> images on demand and is_same; no models, no scores."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eval.bin_files import read_bin, write_bin
from eval.pair_lists import parse_pair_list
from eval.safe_pickle import PairError
from utils.images import FACE, ImageError, decode_image

__all__ = ["PairError", "PairSet", "list_targets", "load_bin", "load_pair_list", "load_pairs", "write_bin"]

MAX_FOLDS = 10


@dataclass(frozen=True)
class PairSet:
    """N pairs of faces; images 2i and 2i + 1 are pair i.

    Attributes:
        name: for tables and file names.
        images: 2N items, uint8 (112, 112, 3) RGB each, decoded when asked for.
        is_same: (N,) bool.
        num_folds: contiguous blocks of pairs; 10, or N where there are fewer pairs.
        data_sha256: of the `.bin` file, or of the pair list followed by the images' files in the list's order.
        first_index: (2N,) int64, for each image the index of the first equal one, so that each is embedded once:
            LFW's 12,000 images are 7,701 files. Empty: none repeats.
        names: 2N texts, what people call each image: its file below the folder of images, or `image 17` (counted from
            0) in a `.bin`. Empty: nothing is known.
    """

    name: str
    images: Sequence[NDArray[np.uint8]]
    is_same: NDArray[np.bool_]
    num_folds: int
    data_sha256: str
    first_index: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    names: Sequence[str] = ()

    def __post_init__(self) -> None:
        if len(self.images) != 2 * len(self.is_same):
            raise PairError(f"{self.name}: {len(self.is_same)} pairs need twice as many images; got {len(self.images)}")
        if len(self.names) not in (0, len(self.images)):
            raise PairError(f"{self.name}: {len(self.images)} images need as many names or none; got {len(self.names)}")


def load_pairs(target: str, data_dir: str | Path) -> PairSet:
    """Open a set of pairs by name or by file.

    Args:
        target: `NAME` for `data_dir/NAME.bin`, or for the folder `data_dir/NAME` with `images/` and `pairs.txt`;
            `FILE.bin`; or `IMAGES_DIR:PAIRS.txt`. Files may be absolute, relative to `data_dir`, or relative to the
            working directory.
        data_dir: where named sets lie.

    Raises:
        PairError: nothing of that name (the text lists what there is), or a damaged set.
    """
    folder = Path(data_dir)
    if ":" in target:
        images, pair_list = target.split(":", 1)
        return load_pair_list(_resolve(images, folder, target), _resolve(pair_list, folder, target))
    if target.endswith(".bin"):
        return load_bin(_resolve(target, folder, target))
    if (folder / f"{target}.bin").is_file():
        return load_bin(folder / f"{target}.bin")
    if (folder / target / "pairs.txt").is_file():
        return load_pair_list(folder / target / "images", folder / target / "pairs.txt", name=target)
    raise PairError(_not_found(target, folder))


def load_bin(path: str | Path) -> PairSet:
    """Open an insightface verification file; the encoded images stay in memory, pixels are made on demand.

    Raises:
        PairError: see `eval.bin_files.read_bin`.
    """
    path = Path(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise PairError(f"{path}: cannot be read: {error.strerror}") from error
    encoded, is_same = read_bin(path, content)
    digest = hashlib.sha256(content).hexdigest()
    # One image named a million times is hashed once: the work stays proportional to the file.
    digests = {id(data): hashlib.sha256(data).digest() for data in {id(data): data for data in encoded}.values()}
    first_index = _first_indices(digests[id(data)] for data in encoded)
    names, num_folds = _Numbered(len(encoded)), min(MAX_FOLDS, len(is_same))
    return PairSet(path.stem, _BinImages(path, encoded), is_same, num_folds, digest, first_index, names)


def load_pair_list(images_dir: str | Path, list_path: str | Path, *, name: str | None = None) -> PairSet:
    """Open a list of pairs over a folder of images, `images_dir/Name/Name_0001.jpg`.

    Two formats, told apart by the first line. LFW: a header of folds and pairs per kind (`10 300`), then one line per
    pair, `name i j` for the same identity or `name i other j`; per fold first the same ones, then the different ones.
    SLLFW: two lines per pair, each `Name/Name_0001.jpg`; a pair is "same" where both lines name one folder.

    Raises:
        PairError: a line that does not parse, a wrong number of lines, a missing image, a name that leads out of the
            folder (links in the folder are followed: data sets are often linked); each with the list's line.
    """
    images_dir, list_path = Path(images_dir), Path(list_path)
    entries, num_folds = parse_pair_list(list_path, MAX_FOLDS)
    files = [_ListedImage(images_dir / file, number) for _, pair in entries for number, file in pair]
    is_same = np.array([same for same, _ in entries], dtype=bool)
    images = _FileImages(list_path, files)
    label = name or (images_dir.parent.name if list_path.stem == "pairs" else list_path.stem)
    first_index = _first_indices(entry.file for entry in files)
    names = [file for _, pair in entries for _, file in pair]
    return PairSet(label, images, is_same, num_folds, images.sha256(), first_index, names)


def list_targets(data_dir: str | Path) -> list[str]:
    """What `load_pairs` finds in a folder, as it would be typed: names of `.bin` files, folders, and further lists."""
    folder = Path(data_dir)
    found = {path.stem for path in folder.glob("*.bin")}
    for pair_list in folder.glob("*/pairs*.txt"):
        home = pair_list.parent
        found.add(home.name if pair_list.name == "pairs.txt" else f"{home.name}/images:{home.name}/{pair_list.name}")
    return sorted(found)


def _not_found(target: str, folder: Path) -> str:
    if not folder.is_dir():
        return f"{target}: there is no folder {folder}; name the one that holds your sets (val_dir=, or here --data)"
    there = list_targets(folder)
    return (
        f"{target}: neither {target}.bin nor {target}/pairs.txt is in {folder}. "
        f"There: {', '.join(there) if there else 'no verification set at all'}. "
        "A file can be named as FILE.bin, an image folder and a list as IMAGES_DIR:PAIRS.txt"
    )


def _resolve(name: str, folder: Path, target: str) -> Path:
    for candidate in (folder / name, Path(name)):  # an absolute name replaces the folder
        if candidate.exists():
            return candidate
    raise PairError(f"{name} does not exist, nor in {folder}. {_not_found(target, folder)}")


def _first_indices(keys: Iterable[Hashable]) -> NDArray[np.int64]:
    """For each key the index of its first occurrence."""
    seen: dict[Hashable, int] = {}
    return np.array([seen.setdefault(key, index) for index, key in enumerate(keys)], dtype=np.int64)


class _Numbered(Sequence[str]):
    """`image 0`, `image 1`, ...: made when asked for, since a small file can name one image a million times."""

    def __init__(self, count: int) -> None:
        self._indices = range(count)

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: Any) -> Any:
        chosen = self._indices[index]
        return [f"image {i}" for i in chosen] if isinstance(chosen, range) else f"image {chosen}"


class _BinImages(Sequence[NDArray[np.uint8]]):
    def __init__(self, path: Path, encoded: list[bytes | memoryview]) -> None:
        self._path, self._encoded = path, encoded

    def __len__(self) -> int:
        return len(self._encoded)

    def __getitem__(self, index: Any) -> Any:
        try:
            return decode_image(self._encoded[index], FACE)
        except ImageError as error:
            raise PairError(f"{self._path}: image {index} (pair {index // 2}): {error}") from error


@dataclass(frozen=True)
class _ListedImage:
    file: Path
    line: int


class _FileImages(Sequence[NDArray[np.uint8]]):
    def __init__(self, list_path: Path, files: list[_ListedImage]) -> None:
        self._list_path, self._files = list_path, files

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: Any) -> Any:
        entry = self._files[index]
        try:
            return decode_image(self._read(entry), FACE)
        except ImageError as error:
            raise PairError(f"{entry.file} ({self._list_path}: line {entry.line}): {error}") from error

    def _read(self, entry: _ListedImage) -> bytes:
        try:
            if entry.file.exists() and not entry.file.is_file():  # a pipe would never end
                raise PairError(f"{self._list_path}: line {entry.line}: {entry.file} is no file")
            return entry.file.read_bytes()
        except OSError as error:
            raise PairError(
                f"{self._list_path}: line {entry.line}: the image {entry.file} cannot be read: {error.strerror}"
            ) from error

    def sha256(self) -> str:
        digest = hashlib.sha256(self._list_path.read_bytes())
        for entry in self._files:
            digest.update(self._read(entry))
        return digest.hexdigest()
