"""Pedestrian sets for re-identification, Market-1501 and DukeMTMC-reID: file names, training images. No scores."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sources.base import SourceError
from sources.folder import read_image_file
from utils.class_index import ClassIndex
from utils.images import ImageFormat, stretched

TRAIN, QUERY, GALLERY = "bounding_box_train", "query", "bounding_box_test"
JUNK_IDENTITY, DISTRACTOR_IDENTITY = -1, 0
NATIVE_SIZE = (128, 64)
_NAME = re.compile(r"(-1|\d{1,9})_c(\d{1,3})(?!\d)")
_SIZE = re.compile(r"(\d{1,4})x(\d{1,4})")


@dataclass(frozen=True)
class _Kind:
    """What tells one set from the other."""

    name: str
    home: str  # the folder in the published archive
    example: str
    resizes: bool  # crops of different sizes


_MARKET = _Kind("market1501", "Market-1501-v15.09.15", "0002_c1s1_000451_03.jpg", resizes=False)
_DUKE = _Kind("dukemtmc", "DukeMTMC-reID", "0005_c2_f0046985.jpg", resizes=True)


def parse_reid_name(name: str) -> tuple[int, int]:
    """Identity and camera from a file name, `IDENTITY_cCAMERA...`, as in `0002_c1s1_000451_03.jpg`.

    Market-1501's identity -1 is junk (neither a good nor a bad box), 0 a distractor (a false detection).

    Raises:
        SourceError: another name.
    """
    match = _NAME.match(name.rsplit("/", 1)[-1])
    if match is None:
        raise SourceError(
            f"{name[:200]!r} does not begin with an identity and a camera, as {_MARKET.example} (Market-1501) and "
            f"{_DUKE.example} (DukeMTMC-reID) do"
        )
    return int(match[1]), int(match[2])


def find_reid_folder(kind: str, folder: Path) -> Path:
    """The folder that holds query/ and bounding_box_*/: the one given, or the archive's own folder in it.

    Raises:
        SourceError: no such folder, or neither holds them.
    """
    known = {entry.name: entry for entry in (_MARKET, _DUKE)}[kind]
    if not folder.is_dir():
        raise SourceError(f"{kind}:{folder}: there is no folder {str(folder)!r}; give the one with {TRAIN}")
    for home in (folder, folder / known.home):
        if any((home / part).is_dir() for part in (TRAIN, QUERY, GALLERY)):
            return home
    present = ", ".join(sorted(entry.name for entry in folder.iterdir())[:8]) or "nothing"
    raise SourceError(f"{kind}:{folder}: looked for {TRAIN}, {QUERY} and {GALLERY}, found {present}")


def open_market1501(rest: str) -> ReidSource:
    """Opens `DIR` or `DIR:HEIGHTxWIDTH`, the training images of Market-1501.

    Raises:
        SourceError: see ReidSource.
    """
    return _open(_MARKET, rest)


def open_dukemtmc(rest: str) -> ReidSource:
    """Opens `DIR` or `DIR:HEIGHTxWIDTH`, the training images of DukeMTMC-reID; without a size they become 128x64.

    Raises:
        SourceError: see ReidSource.
    """
    return _open(_DUKE, rest)


class ReidSource:
    """Training images; the label is the position of the identity among those that occur, in order of their numbers.

    Attributes:
        image_format: the size asked for, or 128 x 64; 3 channels.
        num_classes: identities, without junk and distractors.
        identities: (num_classes,) int64, the sets' own numbers by label.
    """

    def __init__(self, kind: str, path: Path, size: tuple[int, int], *, resizes: bool) -> None:
        """Lists the folder.

        Args:
            kind: "market1501" or "dukemtmc", for errors and describe().
            path: the folder with bounding_box_train.
            size: (height, width) of all images.
            resizes: stretch images of another size; else they are refused when they are read.

        Raises:
            SourceError: no images there, a name that does not parse, or no identity.
        """
        self.kind, self.path, self._resizes = kind, path / TRAIN, resizes
        if not self.path.is_dir():
            raise SourceError(f"{kind}: {path} holds no {TRAIN}: unpack the whole archive there")
        names = sorted(entry.name for entry in os.scandir(self.path) if entry.name.lower().endswith(".jpg"))
        if not names:
            raise SourceError(f"{self.path}: no .jpg in it")
        numbers = np.array([parse_reid_name(name)[0] for name in names], dtype=np.int64)
        wanted = numbers > DISTRACTOR_IDENTITY
        self.identities, labels = np.unique(numbers[wanted], return_inverse=True)
        if not len(self.identities):
            raise SourceError(f"{self.path}: all {len(names)} images are junk or distractors (identities -1 and 0)")
        self._labels = labels.astype(np.int64)
        self._ignored = int((~wanted).sum())
        # One array instead of a list of texts: forked workers share it without copying.
        self._files = np.array([os.fsencode(name) for name in names])[wanted]
        self.num_classes = len(self.identities)
        self.image_format = ImageFormat(*size, 3)

    def __len__(self) -> int:
        return len(self._files)

    def read(self, index: int) -> tuple[np.ndarray, int]:
        """Image and label.

        Raises:
            ImageError: damage, or another size where images are not resized; names the file.
            SourceError: the file has gone.
        """
        path = self.path / os.fsdecode(self._files[index].item())
        image = read_image_file(path, None if self._resizes else self.image_format)
        return stretched(image, self.image_format.shape[:2]), int(self._labels[index])

    def class_counts(self) -> np.ndarray:
        """Images per class, (num_classes,) int64."""
        return np.bincount(self._labels, minlength=self.num_classes).astype(np.int64)

    def class_index(self) -> ClassIndex:
        """Which images belong to each class."""
        return ClassIndex.from_labels(self._labels, self.num_classes)

    def describe(self) -> dict[str, object]:
        """Kind, path, images, classes, images that are not read, and the SHA-256 of all file names."""
        listing = hashlib.sha256(b"".join(name + b"\n" for name in self._files.tolist()))
        return {
            "kind": self.kind,
            "path": str(self.path),
            "images": len(self),
            "classes": self.num_classes,
            "ignored": self._ignored,
            "names_sha256": listing.hexdigest(),
        }


def _open(kind: _Kind, rest: str) -> ReidSource:
    text, separator, tail = rest.rpartition(":")
    size = _SIZE.fullmatch(tail) if separator else None
    folder = Path(text if size else rest).expanduser()
    if not rest:
        raise SourceError(f"{kind.name}: names no folder; give {kind.name}:DIR or {kind.name}:DIR:HEIGHTxWIDTH")
    home = find_reid_folder(kind.name, folder)
    if size is None:
        return ReidSource(kind.name, home, NATIVE_SIZE, resizes=kind.resizes)
    height, width = int(size[1]), int(size[2])
    if min(height, width) < 1:
        raise SourceError(f"{kind.name}:{rest}: images of {height}x{width} pixels have no pixels")
    return ReidSource(kind.name, home, (height, width), resizes=True)
