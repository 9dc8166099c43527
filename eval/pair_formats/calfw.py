"""The lists of CALFW and CPLFW: two lines per pair, each an image and a flag."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from eval.pair_formats.pair_list import (
    MAX_FOLDS,
    Lines,
    ListedImage,
    PairList,
    blocks,
    finish,
    is_number,
    require_agreement,
)
from eval.safe_pickle import PairError


def parse_calfw(path: Path, lines: Lines) -> PairList:
    """Two lines per pair, `Name_0001.jpg FLAG`; 0 is a different pair, anything else a same one.

    CALFW gives the number of the fold (1 .. 10) as the flag of same pairs, CPLFW always 1. Neither says to which fold
    a different pair belongs, and both write all same pairs before all different ones: contiguous blocks of the list
    would be folds of one kind. So fold k is the k-th tenth of the same pairs (CALFW: those with flag k) and the k-th
    tenth of the different ones. In CPLFW's list these are folds without a common identity.

    Raises:
        PairError: a line of another form, two flags in a pair, a flag that contradicts the names (`Name_` is the
            identity), folds that do not count up from 1.
    """
    images: list[ListedImage] = []
    flags: list[int] = []
    for number, words in lines:
        if len(words) != 2 or not is_number(words[1]):
            raise PairError(
                f"{path}: line {number}: expected `Name_0001.jpg FLAG` (two lines per pair; 0 is a different pair), "
                f"got {' '.join(words)[:80]!r}"
            )
        images.append(ListedImage(words[0], path, number, words[0].rsplit("_", 1)[0]))
        flags.append(int(words[1]))
    if len(lines) % 2:
        raise PairError(f"{path}: line {lines[-1][0]}: {len(lines)} lines do not make pairs of two lines each")
    for (number, words), first, second in zip(lines[1::2], flags[::2], flags[1::2], strict=True):
        if first != second:
            raise PairError(f"{path}: line {number}: the flag {words[1]} differs from {first} on the pair's other line")
    pair_flags = np.array(flags[::2], dtype=np.int64)
    is_same = pair_flags > 0
    require_agreement(images, is_same.tolist())
    return finish(images, is_same.tolist(), _folds(path, lines, pair_flags), (path,))


def _folds(path: Path, lines: Lines, flags: NDArray[np.int64]) -> NDArray[np.int64]:
    same = flags > 0
    counts = [int(kind.sum()) for kind in (same, ~same) if kind.any()]
    num_folds = min([MAX_FOLDS, *counts])  # a list with fewer of a kind than folds has fewer folds
    folds = np.empty(len(flags), dtype=np.int64)
    if flags.max() > 1:
        num_folds = int(flags.max())
        numbers = flags[same]
        steps = np.diff(numbers, prepend=0)
        wrong = np.flatnonzero((steps < 0) | (steps > 1))
        if len(wrong) or num_folds > min(counts):
            pair = int(np.flatnonzero(same)[wrong[0]]) if len(wrong) else 0
            raise PairError(
                f"{path}: line {lines[2 * pair][0]}: folds must count up from 1 along the same pairs, and be no more "
                f"than the {min(counts)} pairs of a kind; got fold {flags[pair]} of {num_folds}. Give such a list as a "
                ".csv with a column of folds"
            )
        folds[same] = numbers - 1
    for kind in (same, ~same) if flags.max() <= 1 else (~same,):
        if kind.any():
            folds[kind] = blocks(int(kind.sum()), num_folds)
    return folds
