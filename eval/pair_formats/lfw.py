"""LFW's pairs.txt, with a header (also XQLFW and View 1), and RFW's, which is the same without one."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from eval.pair_formats.pair_list import Lines, ListedImage, PairList, blocks, finish, is_number, lfw_file
from eval.safe_pickle import PairError

SAME, DIFFERENT = "`name i j` (same identity)", "`name i other j` (different identities)"


def parse_lfw(path: Path, lines: Lines) -> PairList:
    """A header `folds pairs` (`10 300`) or `pairs` (`500`), then per fold so many same and so many different pairs.

    Source: the README of LFW, section 3c, which gives header, lines and their order.

    Raises:
        PairError: another number of lines than the header says, or a line of the other kind.
    """
    header = [int(word) for word in lines[0][1]]
    num_folds, per_kind = (header[0], header[1]) if len(header) == 2 else (1, header[0])
    num_pairs = 2 * num_folds * per_kind
    if len(header) > 2 or num_pairs == 0 or len(lines) - 1 != num_pairs:
        raise PairError(
            f"{path}: line {lines[0][0]}: the header {' '.join(lines[0][1])!r} announces {num_pairs} pairs "
            f"(folds x same and as many different ones), the list holds {len(lines) - 1}"
        )
    images: list[ListedImage] = []
    flags = [index % (2 * per_kind) < per_kind for index in range(num_pairs)]
    for same, (number, words) in zip(flags, lines[1:], strict=True):
        if len(words) != (3 if same else 4) or not _is_pair(words):
            raise PairError(f"{path}: line {number}: expected {SAME if same else DIFFERENT}, got {_short(words)}")
        images += _images(path, number, words)
    return finish(images, flags, np.repeat(np.arange(num_folds), 2 * per_kind), (path,))


def parse_rfw(path: Path, lines: Lines) -> PairList:
    """Lines as LFW's without a header, in any order; ten folds, contiguous blocks.

    Raises:
        PairError: a line that is neither `name i j` nor `name i other j`.
    """
    images: list[ListedImage] = []
    for number, words in lines:
        if len(words) not in (3, 4) or not _is_pair(words):
            raise PairError(f"{path}: line {number}: expected {SAME} or {DIFFERENT}, got {_short(words)}")
        images += _images(path, number, words)
    return finish(images, [len(words) == 3 for _, words in lines], blocks(len(lines)), (path,))


def _is_pair(words: list[str]) -> bool:
    return is_number(words[1]) and is_number(words[-1])


def _images(path: Path, number: int, words: list[str]) -> list[ListedImage]:
    people = (words[0], words[0] if len(words) == 3 else words[2])
    return [
        ListedImage(lfw_file(person, index), path, number, person)
        for person, index in zip(people, (words[1], words[-1]), strict=True)
    ]


def _short(words: list[str]) -> str:
    return repr(" ".join(words)[:80])
