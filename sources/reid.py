"""Pedestrian sets for re-identification, Market-1501 and DukeMTMC-reID: file names, training images. No scores."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sources.base import SourceError
from sources.folder import read_image_file
from sources.listed_files import ListedFiles, split_size
from utils.images import ImageFormat, stretched

TRAIN, QUERY, GALLERY = "bounding_box_train", "query", "bounding_box_test"
JUNK_IDENTITY, DISTRACTOR_IDENTITY = -1, 0
NATIVE_SIZE = (128, 64)
_NAME = re.compile(r"(-1|\d{1,9})_c(\d{1,3})(?!\d)")


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


class ReidSource(ListedFiles):
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
        folder = path / TRAIN
        if not folder.is_dir():
            raise SourceError(f"{kind}: {path} holds no {TRAIN}: unpack the whole archive there")
        names = sorted(entry.name for entry in os.scandir(folder) if entry.name.lower().endswith(".jpg"))
        if not names:
            raise SourceError(f"{folder}: no .jpg in it")
        numbers = np.array([parse_reid_name(name)[0] for name in names], dtype=np.int64)
        wanted = numbers > DISTRACTOR_IDENTITY
        self.identities, labels = np.unique(numbers[wanted], return_inverse=True)
        if not len(self.identities):
            raise SourceError(f"{folder}: all {len(names)} images are junk or distractors (identities -1 and 0)")
        files = [name for name, is_wanted in zip(names, wanted, strict=True) if is_wanted]
        image_format = ImageFormat(*size, 3)
        super().__init__(kind, folder, files, labels.astype(np.int64), len(self.identities), image_format)
        self._ignored, self._resizes = len(names) - len(files), resizes

    def read(self, index: int) -> tuple[np.ndarray, int]:
        """Image and label.

        Raises:
            ImageError: damage, or another size where images are not resized; names the file.
            SourceError: the file has gone.
        """
        path, label = self.path_and_label(index)
        image = read_image_file(path, None if self._resizes else self.image_format)
        return stretched(image, self.image_format.shape[:2]), label

    def describe(self) -> dict[str, object]:
        """Kind, path, images, classes, images that are not read, and the SHA-256 of all file names."""
        return {**super().describe(), "ignored": self._ignored}


def _open(kind: _Kind, rest: str) -> ReidSource:
    if not rest:
        raise SourceError(f"{kind.name}: names no folder; give {kind.name}:DIR or {kind.name}:DIR:HEIGHTxWIDTH")
    text, size = split_size(kind.name, rest)
    home = find_reid_folder(kind.name, Path(text).expanduser())
    return ReidSource(kind.name, home, size or NATIVE_SIZE, resizes=kind.resizes or size is not None)
