"""SLLFW's list: two lines per pair, each an image; the folder says who it is."""

from __future__ import annotations

from pathlib import Path

from eval.pair_formats.pair_list import Lines, ListedImage, PairList, blocks, finish
from eval.safe_pickle import PairError


def parse_sllfw(path: Path, lines: Lines) -> PairList:
    """Two lines per pair, `Name/Name_0001.jpg`; same where both name one folder; ten folds, contiguous blocks.

    Raises:
        PairError: a line that is no such name, or an odd number of lines.
    """
    for number, words in lines:
        if len(words) != 1 or "/" not in words[0]:
            raise PairError(
                f"{path}: line {number}: expected `Name/Name_0001.jpg` (two lines per pair), as on the lines before; "
                f"got {' '.join(words)[:80]!r}"
            )
    if len(lines) % 2:
        raise PairError(f"{path}: line {lines[-1][0]}: {len(lines)} lines do not make pairs of two lines each")
    images = [ListedImage(file, path, number, file.rsplit("/", 1)[0]) for number, (file,) in lines]
    flags = [first.identity == second.identity for first, second in zip(images[::2], images[1::2], strict=True)]
    return finish(images, flags, blocks(len(flags)), (path,))
