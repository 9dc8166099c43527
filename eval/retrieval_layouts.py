"""How re-identification sets and TinyFace lie on disk, and what their file names say; no embedding, no score."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from eval.embedding_set import EmbeddingSet
from eval.gallery_split import common_labels
from eval.retrieval_metrics import DISTRACTOR, JUNK
from eval.similarity_blocks import GalleryError, Indices
from sources.mat_file import read_mat
from sources.reid import DISTRACTOR_IDENTITY, GALLERY, JUNK_IDENTITY, QUERY, find_reid_folder, parse_reid_name

LAYOUTS = ("plain", "market1501", "dukemtmc", "tinyface")
_TINYFACE = {"query": "Probe", "gallery": "Gallery_Match", "distractors": "Gallery_Distractor"}
_MAX_DIGITS = 9


def find_parts(layout: str, folder: Path) -> dict[str, Path]:
    """The folders of a published set by what they are: query, gallery, and for TinyFace distractors.

    Raises:
        GalleryError, SourceError: a layout without a folder of its own, or a part that is missing.
    """
    if layout == "plain":
        raise GalleryError("--layout plain has no folder of its own: give --query and --gallery instead of --data")
    if layout == "tinyface":
        home = folder / "Testing_Set" if (folder / "Testing_Set").is_dir() else folder
        parts = {part: home / name for part, name in _TINYFACE.items()}
    else:
        home = find_reid_folder(layout, folder)
        parts = {"query": home / QUERY, "gallery": home / GALLERY}
    missing = [path.name for path in parts.values() if not path.is_dir()]
    if missing:
        raise GalleryError(f"{home}: holds no {' and no '.join(missing)}; {layout} needs {', '.join(parts)}")
    return parts


def labels_and_cameras(
    layout: str, query: EmbeddingSet, gallery: EmbeddingSet, distractors: EmbeddingSet | None
) -> tuple[Indices, Indices, Indices | None, Indices | None]:
    """Labels of queries and gallery (distractors at its end), and their cameras where the layout has any.

    plain: identities as the sets name them; a gallery image without one is a distractor. market1501, dukemtmc: by file
    name, identity -1 junk and 0 a distractor. tinyface: by file name, `IDENTITY_...`.

    Raises:
        GalleryError, SourceError: a query without identity, or a name that does not parse.
    """
    extra = np.full(0 if distractors is None else len(distractors), DISTRACTOR, dtype=np.int64)
    if layout == "plain":
        labels, gallery_labels = common_labels(query.labels, query.identities, gallery.labels, gallery.identities)
        gallery_labels = np.where(gallery_labels < 0, DISTRACTOR, gallery_labels)
        return labels, np.concatenate([gallery_labels, extra]), None, None
    if layout == "tinyface":
        labels, gallery_labels = tinyface_labels(query.names.tolist()), tinyface_labels(gallery.names.tolist())
        return labels, np.concatenate([gallery_labels, extra]), None, None
    labels, cameras = _reid(query.names.tolist())
    gallery_labels, gallery_cameras = _reid(gallery.names.tolist())
    no_cameras = np.full(len(extra), -1, dtype=np.int64)
    return (
        labels,
        np.concatenate([gallery_labels, extra]),
        cameras,
        np.concatenate([gallery_cameras, no_cameras]),
    )


def tinyface_labels(names: Sequence[str]) -> Indices:
    """Identities from TinyFace's file names, `IDENTITY_IMAGE.jpg`.

    Raises:
        GalleryError: another name.
    """
    numbers = [name.rsplit("/", 1)[-1].split("_", 1)[0] for name in names]
    for name, number in zip(names, numbers, strict=True):
        if not (number.isascii() and number.isdigit() and len(number) <= _MAX_DIGITS):
            raise GalleryError(
                f"{name[:200]!r} does not begin with an identity's number and `_`, as TinyFace's names do"
            )
    return np.array([int(number) for number in numbers], dtype=np.int64)


def check_tinyface_lists(folder: Path, query_names: Sequence[str], gallery_names: Sequence[str]) -> None:
    """Compares the identities in file names with those in the official .mat lists, where these lie beside the folders.

    Raises:
        GalleryError: they differ. SourceError: a list that cannot be read.
    """
    home = folder / "Testing_Set" if (folder / "Testing_Set").is_dir() else folder
    for stem, names in (("probe", query_names), ("gallery", gallery_names)):
        path = home / f"{'gallery_match' if stem == 'gallery' else stem}_img_ID_pairs.mat"
        if not path.is_file():
            continue
        listed = np.sort(read_mat(path, (f"{stem}_ids",))[f"{stem}_ids"].reshape(-1).astype(np.int64))
        found = np.sort(tinyface_labels(names))
        if not np.array_equal(listed, found):
            raise GalleryError(
                f"{path}: lists {len(listed)} images of {len(np.unique(listed))} identities, the folder holds "
                f"{len(found)} of {len(np.unique(found))} by their names: images are missing, or were renamed"
            )


def _reid(names: Sequence[str]) -> tuple[Indices, Indices]:
    """Labels and cameras from file names."""
    parsed = np.array([parse_reid_name(name) for name in names], dtype=np.int64).reshape(-1, 2)
    labels = np.where(parsed[:, 0] == JUNK_IDENTITY, JUNK, parsed[:, 0])
    return np.where(labels == DISTRACTOR_IDENTITY, DISTRACTOR, labels), parsed[:, 1]
