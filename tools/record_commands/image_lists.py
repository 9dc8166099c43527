"""What `pack` packs: images by identity, from a folder of folders or from a list. No image is read here."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from eval.image_set import UNKNOWN, open_image_set
from sources.base import SourceError
from sources.folder import list_identities

_MAX_CLASSES = 1 << 24  # labels are float32 in a record
_GAPS_PER_IMAGE = 10


@dataclass(frozen=True)
class ImageList:
    """Images in label order.

    Attributes:
        root: the folder that their names are below.
        counts: images of each identity, int64 (C,).
        ignored: entries of the folder that are no images.
    """

    root: Path
    counts: np.ndarray
    ignored: list[str] = field(default_factory=list)
    _folders: list[str] = field(default_factory=list)
    _files: list[list[str]] = field(default_factory=list)

    def __len__(self) -> int:
        return int(self.counts.sum())

    def names(self, first: int = 0) -> Iterator[tuple[int, str]]:
        """(label, path below the root) of each image from the `first` on."""
        for label, files in enumerate(self._files):
            if first >= len(files):
                first -= len(files)
                continue
            prefix = f"{self._folders[label]}/" if self._folders else ""
            for file in files[first:]:
                yield label, prefix + file
            first = 0


def list_images(location: Path, root: Path | None) -> ImageList:
    """The images of a folder with a sub-folder per identity, or of a list.

    In a .lst the labels are numbers and stay as they are; in a .txt the identities are names, and their positions in
    sorted order become the labels. Within an identity a folder's files are sorted, a list's keep their order.

    Args:
        location: the folder, or the list.
        root: the folder that a list's paths are below; None is the list's own.

    Raises:
        SourceError: nothing there, an image without identity, or a label that is none.
        ImageSetError: a list that does not parse.
    """
    if location.is_dir():
        if root is not None:
            raise SourceError(f"--root {root}: it belongs to a list, and {location} is a folder")
        folders, files, ignored = list_identities(location)
        counts = np.array([len(inside) for inside in files], dtype=np.int64)
        return _checked(ImageList(location, counts, ignored, folders, files))
    if not location.is_file():
        raise SourceError(
            f"{location}: no such folder; give the folder that holds one sub-folder of images per identity, or a list "
            "(.lst: `key<TAB>label<TAB>path`, .txt: `path<TAB>identity`)"
        )
    if location.suffix not in (".lst", ".txt"):
        raise SourceError(f"{location}: a list ends in .lst (key, label, path) or .txt (path, identity)")
    return _checked(_from_list(location, root))


def _from_list(location: Path, root: Path | None) -> ImageList:
    listed = open_image_set(location, image_format=None)
    unknown = np.flatnonzero(listed.labels == UNKNOWN)
    if len(unknown):
        raise SourceError(
            f"{location}: nothing says who is on {listed.names[unknown[0]]} ({len(unknown)} such images); write "
            "`path<TAB>identity` in each line"
        )
    labels = listed.labels
    if location.suffix == ".lst":
        numbers = np.array([float(text) for text in listed.identities], dtype=np.float64)
        if numbers.max() >= _MAX_CLASSES:
            raise SourceError(f"{location}: label {numbers.max():.0f}; labels are below {_MAX_CLASSES}, being float32")
        allowed = _GAPS_PER_IMAGE * len(labels) + 1000
        if numbers.max() > allowed:
            raise SourceError(
                f"{location}: label {numbers.max():.0f} with {len(labels)} images: nearly all would be empty. "
                f"Up to {allowed} is taken; number the labels from 0, or write names into a .txt (path, identity)"
            )
        labels = numbers.astype(np.int64)[labels]
    files: list[list[str]] = [[] for _ in range(int(labels.max()) + 1)]
    for label, name in zip(labels.tolist(), listed.names, strict=True):
        files[label].append(name)
    return ImageList(root or location.parent, np.array([len(inside) for inside in files], dtype=np.int64), _files=files)


def _checked(found: ImageList) -> ImageList:
    for _, name in found.names():
        if "\n" in name or "\t" in name or "\r" in name:
            raise SourceError(f"{found.root}: {name!r} has a line break or a tab in its name; a .lst cannot hold it")
    return found
