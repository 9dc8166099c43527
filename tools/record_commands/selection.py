"""Which images of a set `subset` keeps: pure functions on keys and labels. No set is opened here."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from utils.permutation import derive_keys, keyed_hash


@dataclass(frozen=True)
class Selection:
    """What to keep, applied in the order of the attributes; None keeps everything.

    Attributes:
        keys: int64, records to keep.
        without: int64, records to leave out.
        identities: int64, labels to keep.
        min_images: leave out identities with fewer images (of those that are left so far).
        num_identities: draw so many identities.
        identity_share: draw this part of the identities, in 0 .. 1.
        max_images: draw so many images of an identity that has more.
        num_images: draw so many images.
        image_share: draw this part of the images, in 0 .. 1.
        seed: of the draws.
    """

    keys: np.ndarray | None = None
    without: np.ndarray | None = None
    identities: np.ndarray | None = None
    min_images: int = 1
    num_identities: int | None = None
    identity_share: float | None = None
    max_images: int | None = None
    num_images: int | None = None
    image_share: float | None = None
    seed: int = 0


def select(keys: np.ndarray, labels: np.ndarray, selection: Selection) -> np.ndarray:
    """Which images are kept.

    A draw takes those with the smallest hashes of (seed, key or label): it depends on nothing else, so a smaller draw
    with the same seed is a part of a larger one, and leaving an image out elsewhere does not change the others.

    Args:
        keys: int64 (N,).
        labels: int (N,), each at least 0.
        selection: see Selection.

    Returns:
        bool (N,).
    """
    kept = np.ones(len(keys), dtype=bool)
    if selection.keys is not None:
        kept &= np.isin(keys, selection.keys)
    if selection.without is not None:
        kept &= ~np.isin(keys, selection.without)
    if selection.identities is not None:
        kept &= np.isin(labels, selection.identities)
    counts = np.bincount(labels[kept], minlength=int(labels.max(initial=0)) + 1)
    present = np.flatnonzero(counts >= max(1, selection.min_images))
    draws = derive_keys(2, selection.seed)
    wanted = _number(len(present), selection.num_identities, selection.identity_share)
    if wanted < len(present):
        present = present[np.argsort(keyed_hash(present.astype(np.uint64), draws[0]), kind="stable")[:wanted]]
    kept &= np.isin(labels, present)
    ranks = keyed_hash(keys.astype(np.uint64), draws[1])
    if selection.max_images is not None:
        rows = np.flatnonzero(kept)
        rows = rows[np.lexsort((ranks[rows], labels[rows]))]
        starts = np.searchsorted(labels[rows], labels[rows])  # where each row's identity begins
        kept[rows[np.arange(len(rows)) - starts >= selection.max_images]] = False
    rows = np.flatnonzero(kept)
    wanted = _number(len(rows), selection.num_images, selection.image_share)
    if wanted < len(rows):
        kept[rows[np.argsort(ranks[rows], kind="stable")[wanted:]]] = False
    return kept


def _number(there: int, wanted: int | None, share: float | None) -> int:
    """How many of those there are to be drawn; a share of something is at least one."""
    number = there if wanted is None else min(there, wanted)
    return number if share is None else min(number, max(1, round(share * there)))
