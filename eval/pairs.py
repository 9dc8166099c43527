"""Sets of image pairs by name or file: which benchmark is where, and what it becomes. Formats are next door."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from eval.bin_files import read_bin, write_bin
from eval.pair_formats import layouts
from eval.pair_formats.cfp import parse_cfp
from eval.pair_formats.pair_list import MAX_FOLDS, PairList
from eval.pair_formats.reading import read_pair_list
from eval.pair_images import BinImages, ListedImages, Numbered, first_indices, identity_labels
from eval.safe_pickle import PairError

__all__ = [
    "PairError",
    "PairSet",
    "list_targets",
    "load_bin",
    "load_pair_list",
    "load_pair_sets",
    "load_pairs",
    "write_bin",
]

RFW = "rfw"


@dataclass(frozen=True)
class PairSet:
    """N pairs of faces; images 2i and 2i + 1 are pair i.

    Attributes:
        name: for tables and file names.
        images: 2N items, uint8 (112, 112, 3) RGB each, decoded when asked for.
        is_same: (N,) bool.
        num_folds: 10, or N where there are fewer pairs, or what the list says.
        data_sha256: of the `.bin` file, or of the lists followed by the images' files in the pairs' order.
        first_index: (2N,) int64, for each image the index of the first equal one, so that each is embedded once:
            LFW's 12,000 images are 7,701 files. Empty: none repeats.
        names: 2N texts, what people call each image: its file below the folder of images, or `image 17` (counted from
            0) in a `.bin`. Empty: nothing is known.
        folds: (N,) int64, the fold of each pair. Empty: contiguous blocks.
        identities: (2N,) int64, a number for each image's identity, -1 where it is unknown. Empty: all are.
        development: pairs on which the threshold is chosen, which are not scored themselves (LFW's View 1).
    """

    name: str
    images: Sequence[NDArray[np.uint8]]
    is_same: NDArray[np.bool_]
    num_folds: int
    data_sha256: str
    first_index: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    names: Sequence[str] = ()
    folds: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    identities: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    development: PairSet | None = None

    def __post_init__(self) -> None:
        if len(self.images) != 2 * len(self.is_same):
            raise PairError(f"{self.name}: {len(self.is_same)} pairs need twice as many images; got {len(self.images)}")
        for what, found, wanted in (
            ("names", len(self.names), len(self.images)),
            ("identities", len(self.identities), len(self.images)),
            ("folds", len(self.folds), len(self.is_same)),
        ):
            if found not in (0, wanted):
                raise PairError(f"{self.name}: {wanted} {what} are needed, or none; got {found}")


def load_pair_sets(target: str, data_dir: str | Path) -> list[PairSet]:
    """What a target names: the four groups of `rfw` (a fifth name for each alone: `rfw_african`, ...), else one set.

    Raises:
        PairError: see load_pairs.
    """
    if target != RFW or (Path(data_dir) / f"{RFW}.bin").is_file() or (Path(data_dir) / RFW / "pairs.txt").is_file():
        return [load_pairs(target, data_dir)]
    groups = layouts.RFW_GROUPS
    missing = [group for group in groups if layouts.find_rfw(Path(data_dir), group) is None]
    if missing:
        raise PairError(
            f"{_not_found(target, Path(data_dir))}. {RFW} is four groups; not there: {', '.join(missing)}. Looked for "
            f"{RFW}/{missing[0]}_test.bin, {RFW}/txts/{missing[0]}/{missing[0]}_pairs.txt with {RFW}/data/{missing[0]}/"
        )
    return [load_pairs(layouts.rfw_name(group), data_dir) for group in groups]


def load_pairs(target: str, data_dir: str | Path) -> PairSet:
    """Open a set of pairs by name or by file.

    Args:
        target: `NAME` for `data_dir/NAME.bin`, or for the folder `data_dir/NAME` as that benchmark is distributed
            (docs/verification.md has the layouts), or with `images/` and `pairs.txt` or `pairs.csv`; `FILE.bin`; or
            `IMAGES_DIR:PAIRS.txt`. Files may be absolute, relative to `data_dir`, or relative to the working directory.
        data_dir: where named sets lie.

    Raises:
        PairError: nothing of that name (the text lists what there is), several lists, or a damaged set.
    """
    folder = Path(data_dir)
    if ":" in target:
        images, pair_list = target.split(":", 1)
        return load_pair_list(_resolve(images, folder, target), _resolve(pair_list, folder, target))
    if target.endswith(".bin"):
        return load_bin(_resolve(target, folder, target))
    if (folder / f"{target}.bin").is_file():
        return load_bin(folder / f"{target}.bin")
    if path := layouts.find_list(folder, target):
        pairs = read_pair_list(path)
        return _listed(target, layouts.find_images(path.parent, target, pairs.images[0]), pairs)
    if root := layouts.find_cfp(folder, target):
        return _listed(target, root, parse_cfp(root, layouts.CFP_KINDS[target]))
    if home_of_views := layouts.find_view1(folder, target):
        return _load_view1(target, home_of_views)
    for group in layouts.RFW_GROUPS:
        if target == layouts.rfw_name(group) and (found := layouts.find_rfw(folder, group)):
            path, images_dir = found
            return replace(load_bin(path), name=target) if images_dir is None else _load(target, images_dir, path)
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
    first_index = first_indices(digests[id(data)] for data in encoded)
    names, num_folds = Numbered(len(encoded)), min(MAX_FOLDS, len(is_same))
    return PairSet(path.stem, BinImages(path, encoded), is_same, num_folds, digest, first_index, names)


def load_pair_list(images_dir: str | Path, list_path: str | Path, *, name: str | None = None) -> PairSet:
    """Open a list of pairs over a folder of images; the format is told by the list (see `read_pair_list`).

    Raises:
        PairError: a line that does not parse, a wrong number of lines, a missing image, a name that leads out of the
            folder (links in the folder are followed: data sets are often linked); each with the list's line.
    """
    images_dir, list_path = Path(images_dir), Path(list_path)
    # absolute, since `images:pairs.txt` in the working directory has a parent without a name
    label = name or (images_dir.absolute().parent.name if list_path.stem == "pairs" else list_path.stem) or "pairs"
    return _load(label, images_dir, list_path)


def list_targets(data_dir: str | Path) -> list[str]:
    """What `load_pair_sets` finds in a folder, as it would be typed."""
    return layouts.list_targets(Path(data_dir))


def _load(name: str, images_dir: Path, list_path: Path) -> PairSet:
    return _listed(name, images_dir, read_pair_list(list_path))


def _listed(name: str, images_dir: Path, pairs: PairList) -> PairSet:
    images = ListedImages(images_dir, pairs)
    files = [image.file for image in pairs.images]
    return PairSet(
        name,
        images,
        pairs.is_same,
        pairs.num_folds,
        images.sha256(),
        first_indices(files),
        files,
        pairs.folds,
        identity_labels(pairs.images),
    )


def _load_view1(name: str, home: Path) -> PairSet:
    """Scored on DevTest, with the threshold that is best on DevTrain; the hash is over both sets' hashes."""
    test, train = (read_pair_list(home / file) for file in layouts.VIEW1_LISTS)
    images_dir = layouts.find_images(home, home.name, test.images[0])
    scored, development = _listed(name, images_dir, test), _listed(f"{name}_development", images_dir, train)
    digest = hashlib.sha256(f"{scored.data_sha256}\n{development.data_sha256}\n".encode()).hexdigest()
    return replace(scored, data_sha256=digest, development=development)


def _not_found(target: str, folder: Path) -> str:
    if not folder.is_dir():
        return f"{target}: there is no folder {folder}; name the one that holds your sets (val_dir=, or here --data)"
    there = list_targets(folder)
    return (
        f"{target}: neither {target}.bin nor {target}/pairs.txt is in {folder}. "
        f"There: {', '.join(there) if there else 'no verification set at all'}. "
        "A file can be named as FILE.bin, an image folder and a list as IMAGES_DIR:PAIRS.txt; which layouts of known "
        "benchmarks are read: docs/verification.md"
    )


def _resolve(name: str, folder: Path, target: str) -> Path:
    for candidate in (folder / name, Path(name)):  # an absolute name replaces the folder
        if candidate.exists():
            return candidate
    raise PairError(f"{name} does not exist, nor in {folder}. {_not_found(target, folder)}")
