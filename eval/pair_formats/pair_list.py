"""What every list of pairs becomes, and what reading one shares: lines, counts, folds, names that stay inside."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from eval.safe_pickle import PairError

MAX_FOLDS = 10

Lines = list[tuple[int, list[str]]]  # number of the line, its words


class ListedImage(NamedTuple):
    """An image as a list names it."""

    file: str  # below the folder of images
    source: Path  # the list
    place: int | str  # its line there; in a list without lines, the place in words
    identity: str  # "" where the list does not tell

    @property
    def where(self) -> str:
        """The list and the place in it, for errors."""
        return f"{self.source}: {f'line {self.place}' if isinstance(self.place, int) else self.place}"


@dataclass(frozen=True)
class PairList:
    """N pairs as their lists name them.

    Attributes:
        images: 2N images; 2i and 2i + 1 are pair i.
        is_same: (N,) bool.
        folds: (N,) int64, 0 .. num_folds - 1, every fold with a pair in it.
        lists: the files that were read, in the order in which they are hashed.
    """

    images: Sequence[ListedImage]
    is_same: NDArray[np.bool_]
    folds: NDArray[np.int64]
    lists: Sequence[Path]

    @property
    def num_folds(self) -> int:
        """Folds; 1 means that the threshold is chosen on the pairs it is scored on."""
        return int(self.folds.max()) + 1


def read_lines(path: Path) -> Lines:
    """The lines of a list that are not blank.

    Raises:
        PairError: no UTF-8 text, or nothing in it.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise PairError(f"{path}: the pair list cannot be read: {error}") from error
    lines = [(number, line.split()) for number, line in enumerate(text.splitlines(), start=1) if line.strip()]
    if not lines:
        raise PairError(f"{path}: the pair list is empty")
    return lines


def is_number(word: str) -> bool:
    """Whether int() takes it and it is small; of text, isdigit alone also accepts superscripts."""
    return word.isascii() and word.isdigit() and len(word) <= 9


def lfw_file(name: str, index: str) -> str:
    """`Name/Name_0001.jpg`, as LFW, XQLFW and RFW name their images."""
    return f"{name}/{name}_{int(index):04d}.jpg"


def blocks(count: int, num_folds: int = MAX_FOLDS) -> NDArray[np.int64]:
    """Folds of pairs in contiguous blocks, the longer ones first; of fewer pairs than folds, one each."""
    parts = np.array_split(np.arange(count), min(num_folds, count))
    return np.repeat(np.arange(len(parts)), [len(part) for part in parts])


def folds_of_one_kind(is_same: NDArray[np.bool_], folds: NDArray[np.int64]) -> int:
    """How many folds hold only same or only different pairs; their accuracy is that of one kind of error."""
    num_folds = int(folds.max(initial=-1)) + 1
    num_pairs = np.bincount(folds, minlength=num_folds)
    num_same = np.bincount(folds[is_same], minlength=num_folds)
    return int(((num_same == 0) | (num_same == num_pairs)).sum())


def one_kind_warning(folds: int, num_folds: int | None = None) -> str:
    """What to know of a set with so many folds of one kind, of `num_folds` where they are known."""
    of_all = "" if num_folds is None else f" of {num_folds}"
    return (
        f"warning: {folds}{of_all} folds hold pairs of one kind only: their accuracy is that of one kind of error at a "
        "threshold chosen on another mixture, and the mean can lie below chance. AUC, EER and TAR are of all pairs and "
        "stand. For an accuracy give a list whose folds hold both kinds"
    )


def order_for_blocks(is_same: NDArray[np.bool_], folds: NDArray[np.int64]) -> NDArray[np.int64]:
    """The order of pairs in which contiguous blocks (see `blocks`) are the folds, or else hold both kinds of pairs.

    Fold after fold where that makes the folds blocks, or blocks that all hold both kinds. Otherwise both kinds are
    dealt, each fold after fold, so that block k has the k-th tenth of each; of fewer than ten pairs of a kind, one goes
    to each of the first blocks.
    """
    order = np.argsort(folds, kind="stable")
    wanted = blocks(len(folds))
    missing = folds_of_one_kind(is_same[order], wanted)
    if not missing or np.array_equal(folds[order], wanted):
        return order
    same, different = order[is_same[order]], order[~is_same[order]]
    rarer, other = sorted((same, different), key=len)
    rarer_blocks = blocks(len(rarer), int(wanted.max()) + 1) if len(rarer) else np.empty(0, np.int64)
    room = np.bincount(wanted) - np.bincount(rarer_blocks, minlength=int(wanted.max()) + 1)
    place = np.empty(len(folds), dtype=np.int64)
    place[rarer] = rarer_blocks
    place[other] = np.repeat(np.arange(len(room)), room)
    mixed = np.concatenate([same, different])
    mixed = mixed[np.argsort(place[mixed], kind="stable")]
    return mixed if folds_of_one_kind(is_same[mixed], wanted) < missing else order


def finish(
    images: Sequence[ListedImage], is_same: Sequence[bool], folds: NDArray[np.int64], lists: Sequence[Path]
) -> PairList:
    """A PairList whose names lead nowhere but into the folder of images.

    Raises:
        PairError: a name that is absolute or has `..` in it; no pair at all.
    """
    for image in images:
        if image.file.startswith("/") or "\0" in image.file or ".." in image.file.split("/"):
            raise PairError(f"{image.where}: {image.file[:80]!r} leads out of the folder of images")
    if not is_same:
        raise PairError(f"{lists[0]}: the list holds no pair")
    return PairList(images, np.array(is_same, dtype=bool), folds.astype(np.int64), lists)


def require_agreement(images: Sequence[ListedImage], is_same: Sequence[bool]) -> None:
    """Refuses lists whose flags and names of identities contradict each other, with the line.

    Raises:
        PairError: a pair that is called same with two identities, or different with one.
    """
    for first, second, same in zip(images[::2], images[1::2], is_same, strict=True):
        if (first.identity == second.identity) != same:
            called = "the same identity" if same else "different identities"
            raise PairError(
                f"{first.where}: the list says {called}, the images' names say otherwise: "
                f"{first.file[:80]!r}, {second.file[:80]!r}"
            )
