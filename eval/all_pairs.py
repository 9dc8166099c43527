"""Scores of all pairs of a labelled set, counted block by block in flat memory: for FARs far below a list's reach."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eval.pair_metrics import VerificationError

NUM_BINS = 1_000_000  # cosines are told apart to 2e-6
_BLOCK = 2048

Counts = NDArray[np.int64]
Floats = NDArray[np.float32]
Labels = NDArray[np.int64]


@dataclass(frozen=True)
class ScoreCounts:
    """How many pairs lie in each of NUM_BINS equal bins of the cosine from -1 to 1.

    Attributes:
        same: (NUM_BINS,) pairs of one identity.
        different: (NUM_BINS,) pairs of two identities.
        num_identities: identities with at least one embedding.
    """

    same: Counts
    different: Counts
    num_identities: int

    @property
    def num_same(self) -> int:
        """All pairs of one identity."""
        return int(self.same.sum())

    @property
    def num_different(self) -> int:
        """All pairs of two identities."""
        return int(self.different.sum())

    def threshold(self, allowed: int) -> tuple[float, int, int]:
        """The lowest edge of a bin above which at most `allowed` different pairs lie.

        Returns:
            The cosine of the edge (a pair counts as same at or above it), different and same pairs there. Where too
            many different pairs lie in the topmost bin, which holds cosines of 1, it is an edge above 1 that no pair
            reaches.
        """
        above = np.concatenate([self.different[::-1].cumsum()[::-1], [0]])
        edge = int(np.argmax(above <= allowed))
        # rounding puts the cosine of equal embeddings on either side of 1
        cosine = edge * 2 / NUM_BINS - 1 if edge < NUM_BINS else 1 + 2 / NUM_BINS
        return cosine, int(above[edge]), int(self.same[edge:].sum())


def count_scores(embeddings: NDArray[Any], labels: NDArray[Any]) -> ScoreCounts:
    """Counts the cosines of all pairs.

    Work grows with the square of the embeddings, memory does not: one block of 2,048 x 2,048 scores is held.

    Args:
        embeddings: (N, D) float, any length, finite.
        labels: (N,) whole numbers, 0 or more.

    Raises:
        VerificationError: fewer than two identities, an unknown identity, an embedding that is not finite.
    """
    unit = _checked(embeddings, labels)
    same = np.zeros(NUM_BINS, dtype=np.int64)
    everything = np.zeros(NUM_BINS, dtype=np.int64)
    for rows, columns, scores in _blocks(unit):
        bins = np.clip(((scores.astype(np.float64) + 1) * (NUM_BINS / 2)).astype(np.int64), 0, NUM_BINS - 1)
        is_pair = np.ones(scores.shape, dtype=bool) if rows.start != columns.start else _above_diagonal(len(scores))
        is_same = is_pair & (labels[rows, None] == labels[None, columns])
        everything += np.bincount(bins[is_pair], minlength=NUM_BINS)
        same += np.bincount(bins[is_same], minlength=NUM_BINS)
    return ScoreCounts(same, everything - same, len(np.unique(labels)))


def accepted_impostors(embeddings: NDArray[Any], labels: NDArray[Any], threshold: float) -> Labels:
    """The identities of every pair of two identities that reaches a threshold, (pairs, 2); a second pass."""
    unit = _checked(embeddings, labels)
    lowest_bin = round((threshold + 1) * (NUM_BINS / 2))
    found = [np.empty((0, 2), dtype=np.int64)]
    for rows, columns, scores in _blocks(unit):
        bins = ((scores.astype(np.float64) + 1) * (NUM_BINS / 2)).astype(np.int64)
        first, second = np.nonzero(np.clip(bins, 0, NUM_BINS - 1) >= lowest_bin)
        first, second = first + rows.start, second + columns.start
        chosen = (first < second) & (labels[first] != labels[second])
        found.append(np.column_stack([labels[first[chosen]], labels[second[chosen]]]))
    return np.concatenate(found)


def _checked(embeddings: NDArray[Any], labels: NDArray[Any]) -> Floats:
    if embeddings.ndim != 2 or labels.shape != (len(embeddings),):
        raise VerificationError(
            f"all pairs: needs embeddings (N, D) and labels (N,); got {embeddings.shape} and {labels.shape}"
        )
    if (labels < 0).any():
        raise VerificationError(f"all pairs: {int((labels < 0).sum())} of {len(labels)} embeddings have no identity")
    if len(np.unique(labels)) < 2:
        raise VerificationError("all pairs: at least two identities are needed, or no pair is different")
    num_bad = int((~np.isfinite(embeddings).all(axis=1)).sum())
    if num_bad:
        raise VerificationError(f"all pairs: {num_bad} of {len(embeddings)} embeddings hold NaN or infinity")
    norms = np.linalg.norm(embeddings.astype(np.float64), axis=1)
    unit: Floats = (embeddings / np.where(norms > 0, norms, 1.0)[:, None]).astype(np.float32)
    return unit


def _blocks(unit: Floats) -> Iterator[tuple[slice, slice, Floats]]:
    """Blocks on and above the diagonal."""
    starts = range(0, len(unit), _BLOCK)
    for first in starts:
        rows = slice(first, min(first + _BLOCK, len(unit)))
        for second in range(first, len(unit), _BLOCK):
            columns = slice(second, min(second + _BLOCK, len(unit)))
            yield rows, columns, unit[rows] @ unit[columns].T


def _above_diagonal(size: int) -> NDArray[np.bool_]:
    return np.triu(np.ones((size, size), dtype=bool), k=1)
