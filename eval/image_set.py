"""Images with names and identities from folders, lists, record sets or single files, decoded when asked for."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from utils.errors import DataError
from utils.images import FACE, ImageFormat, decode_image
from utils.recordio import RecordReader

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
UNKNOWN = -1
MAX_IMAGE_BYTES = 1 << 29  # of an encoded image; 100 million pixels take 300 MB in a BMP
_HELP = (
    "give a folder of images (a sub-folder per identity, or none), a list (.txt: one `path` or `path<TAB>identity` a "
    "line; .lst: `key<TAB>label<TAB>path`), a .rec file or a folder with train.rec, or one image"
)


class ImageSetError(DataError):
    """A set of images that cannot be opened or read; the text says what was found and what is allowed."""


@dataclass(frozen=True)
class ImageSet:
    """Images of faces with what is known of each.

    Attributes:
        name: for tables and file names.
        images: N items, uint8 (height, width, channels) each, decoded when asked for.
        names: N texts, where each image came from: a path below the folder, or `record KEY`.
        labels: (N,) int64, positions in `identities`; -1 where nothing says who it is.
        identities: names of the identities.
        sources: N files whose bytes are the images; empty for record sets, whose bytes are in one file.
    """

    name: str
    images: Sequence[NDArray[np.uint8]]
    names: Sequence[str]
    labels: NDArray[np.int64]
    identities: Sequence[str]
    sources: Sequence[Path] = ()

    def __post_init__(self) -> None:
        if not len(self.images) == len(self.names) == len(self.labels):
            raise ImageSetError(
                f"{self.name}: {len(self.images)} images, {len(self.names)} names, {len(self.labels)} labels"
            )

    def sha256(self) -> str:
        """SHA-256 over names, identities and the files' bytes, in order; reads everything once."""
        digest = hashlib.sha256()
        for index, name in enumerate(self.names):
            identity = self.identities[self.labels[index]] if self.labels[index] != UNKNOWN else ""
            digest.update(f"{name}\0{identity}\n".encode("utf-8", "surrogateescape"))
        for path in self.sources:
            digest.update(read_image_file(path))
        if isinstance(self.images, RecordImages):
            self.images.hash_into(digest)
        return digest.hexdigest()


def open_image_set(location: str | Path, *, image_format: ImageFormat | None = FACE) -> ImageSet:
    """Opens images by what their location is.

    Args:
        location: a folder (the path from it to an image's folder is the identity; images directly in it have none), a
            list (.txt or .lst; its paths are relative to it), a .rec file, a folder with train.rec, or one image.
        image_format: what every image must be; None takes any size.

    Raises:
        ImageSetError: nothing there, or a list that does not parse; the text says what is allowed.
        RecordError: a damaged record set.
    """
    path = Path(location).expanduser()
    if path.is_dir() and (path / "train.rec").is_file():
        path = path / "train.rec"
    if path.is_dir():
        return _open_folder(path, image_format)
    if not path.is_file():
        raise ImageSetError(f"{path}: no such file or folder; {_HELP}")
    if path.suffix == ".rec":
        return _open_records(path, image_format)
    if path.suffix in (".txt", ".lst"):
        return _open_list(path, image_format)
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return _from_files(path.stem, path.parent, [path.name], [""], image_format)
    raise ImageSetError(f"{path}: neither an image ({', '.join(IMAGE_SUFFIXES)}), a list nor a record set; {_HELP}")


def read_image_file(path: Path) -> bytes:
    """The bytes of an image file; a list may name pipes and devices, whose reading never ends.

    Raises:
        ImageSetError: no ordinary file, one that cannot be read, or one larger than any image that is decoded.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise ImageSetError(f"{path}: is no ordinary file")
        if status.st_size > MAX_IMAGE_BYTES:
            raise ImageSetError(f"{path}: {status.st_size} bytes; up to {MAX_IMAGE_BYTES} are read as one image")
        return path.read_bytes()
    except OSError as error:
        raise ImageSetError(f"{path}: cannot be read: {error.strerror or error}") from None


class FileImages(Sequence[NDArray[np.uint8]]):
    """Image files, each read and decoded when asked for."""

    def __init__(self, paths: Sequence[Path], image_format: ImageFormat | None) -> None:
        self.paths, self._format = paths, image_format

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: Any) -> Any:
        path = self.paths[index]
        data = read_image_file(path)
        try:
            return decode_image(data, self._format)
        except DataError as error:
            raise error.within(str(path)) from None


class RecordImages(Sequence[NDArray[np.uint8]]):
    """Images of a record set, in the order of their keys."""

    def __init__(self, reader: RecordReader, image_format: ImageFormat | None) -> None:
        self.reader, self._format = reader, image_format

    def __len__(self) -> int:
        return len(self.reader.image_keys)

    def __getitem__(self, index: Any) -> Any:
        key = int(self.reader.image_keys[index])
        payload = self.reader.sample(key)[1]
        try:
            return decode_image(payload, self._format)
        except DataError as error:
            raise error.within(f"{self.reader.path}, record {key}") from None

    def hash_into(self, digest: Any) -> None:
        """Adds the whole .rec file's bytes to a hash."""
        with self.reader.path.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)


class _RecordNames(Sequence[str]):
    """`record KEY` for each image, made when asked for: millions of texts would be as large as the labels ten times."""

    def __init__(self, keys: NDArray[np.int64]) -> None:
        self._keys = keys

    def __len__(self) -> int:
        return len(self._keys)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [f"record {key}" for key in self._keys[index].tolist()]
        return f"record {int(self._keys[index])}"


def _open_folder(folder: Path, image_format: ImageFormat | None) -> ImageSet:
    files: list[str] = []
    identities: list[str] = []
    walked: set[tuple[int, int]] = set()  # a link to a folder above would be followed for ever
    for home, folders, names in os.walk(folder, followlinks=True):
        status = Path(home).stat()
        if (status.st_dev, status.st_ino) in walked:
            folders.clear()
            continue
        walked.add((status.st_dev, status.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        below = Path(home).relative_to(folder)
        for name in sorted(names):
            if name.lower().endswith(IMAGE_SUFFIXES) and not name.startswith(".") and (Path(home) / name).is_file():
                files.append((below / name).as_posix())
                identities.append("" if below == Path() else below.as_posix())
    if not files:
        raise ImageSetError(f"{folder}: no image in it ({', '.join(IMAGE_SUFFIXES)} count); {_HELP}")
    return _from_files(folder.resolve().name, folder, files, identities, image_format)


def _open_list(path: Path, image_format: ImageFormat | None) -> ImageSet:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise ImageSetError(f"{path}: the list cannot be read: {error}") from None
    files: list[str] = []
    identities: list[str] = []
    for number, line in enumerate(lines, start=1):
        fields = line.rstrip("\r").split("\t")
        if not line.strip():
            continue
        if path.suffix == ".lst":
            expected, sound = "`key<TAB>label<TAB>path`", len(fields) >= 3 and _is_label(fields[1])
            file, identity = fields[-1], fields[1] if len(fields) > 1 else ""
        else:
            expected, sound = "`path` or `path<TAB>identity`", len(fields) <= 2
            file, identity = fields[0], fields[1] if len(fields) == 2 else ""
        if not sound or not file.strip() or "\0" in line:
            raise ImageSetError(f"{path}: line {number}: expected {expected}, got {line[:80]!r}")
        files.append(file)
        identities.append(identity)
    if not files:
        raise ImageSetError(f"{path}: the list is empty; {_HELP}")
    return _from_files(path.stem, path.parent, files, identities, image_format)


def _is_label(text: str) -> bool:
    try:
        return 0 <= float(text) == int(float(text))
    except (ValueError, OverflowError):
        return False


def _from_files(
    name: str, folder: Path, files: list[str], identities: list[str], image_format: ImageFormat | None
) -> ImageSet:
    known = sorted({identity for identity in identities if identity})
    places = {identity: place for place, identity in enumerate(known)}
    labels = np.array([places.get(identity, UNKNOWN) for identity in identities], dtype=np.int64)
    paths = [folder / file for file in files]  # an absolute path in a list replaces the folder
    return ImageSet(name, FileImages(paths, image_format), files, labels, known, paths)


def _open_records(path: Path, image_format: ImageFormat | None) -> ImageSet:
    reader = RecordReader(path)
    keys = reader.image_keys
    if not len(keys):
        raise ImageSetError(f"{path}: the record set holds no images; pack it again")
    labels = reader.labels(keys)
    broken = np.flatnonzero(~((labels >= 0) & (labels < reader.num_classes) & (labels == np.floor(labels))))
    if len(broken):
        reader.label(int(keys[broken[0]]))  # raises with the full story
    identities = [str(label) for label in range(reader.num_classes)]
    name = path.parent.resolve().name if path.stem == "train" else path.stem
    images = RecordImages(reader, image_format)
    return ImageSet(name, images, _RecordNames(keys), labels.astype(np.int64), identities)
